# %% [markdown]
# # 04 · One training on many processes
#
# InsightFace published 3,867 images a second for r100 on eight V100s. At that speed the 25 epochs of MS1MV3 take 9.3
# hours. One GPU would need more than three days. In this notebook you write the program that turns one GPU into eight:
# first by hand, then with `DistributedDataParallel` (DDP), in a file of some 65 lines that runs as it is on two CPU
# processes or on eight GPUs. Then you break it in five ways and read the symptoms. After that you look underneath: the
# ring, the buckets, and the older `DataParallel`.
#
# | | |
# |---|---|
# | you will see | gradients averaged by hand, a DDP script and five ways to break it, a ring of sends, a measured timeline |
# | you need | notebook 03, or PyTorch and the ArcFace head; no GPU, no download |
# | takes | 2.2 minutes on two cores |
# | before | [03 · Eight people in a plane](03_softmax_vs_arcface.ipynb) |
# | after | [05 · A million people](05_partial_fc.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Why it works
#
# The loss of a batch $B$ is the mean over its images. Cut the batch into $K$ parts $B_1 \ldots B_K$ of equal size. Then
#
# $$\nabla L(B) = \frac{1}{|B|} \sum_{i \in B} \nabla \ell_i = \frac{1}{K} \sum_{k=1}^{K} \nabla L(B_k).$$
#
# **The gradient of the whole batch is the mean of the gradients of its parts.** So each process can compute the
# gradient of its own images, and afterwards all processes average. Data parallelism is nothing more than this.
#
# Here is a network and its ArcFace head in one module: a batch goes in, the mean loss comes out.

# %%
import torch

from arcface_edu import MarginSoftmax, build_model


class Learner(torch.nn.Module):
    def __init__(self, num_classes=20):
        super().__init__()
        torch.manual_seed(0)  # the same weights in every Learner
        self.network, self.head = build_model("r10", 128), MarginSoftmax(128, num_classes)
        self.network.eval()  # batch normalisation at rest; the reason follows

    def forward(self, images, labels):
        return self.head(self.network(images), labels)


# %%
def gradient_of(images, labels):
    learner = Learner()
    learner(images, labels).backward()
    return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])  # one weight is frozen


torch.manual_seed(1)
images, labels = torch.rand(8, 3, 112, 112) * 2 - 1, torch.randint(20, (8,))
whole = gradient_of(images, labels)
print(f"{len(whole):,} numbers")

# %% [markdown]
# **Predict**: you have the gradient of the first 4 images and that of the last 4. How do you get the gradient of all 8?
# And how, if the parts have 6 images and 2?

# %%
halves = [gradient_of(images[:4], labels[:4]), gradient_of(images[4:], labels[4:])]
six, two = gradient_of(images[:6], labels[:6]), gradient_of(images[6:], labels[6:])


def error_of(gradient):
    return ((gradient - whole).norm() / whole.norm()).item()


print(f"mean of 4 images and 4      error {error_of(sum(halves) / 2):.0e}")
print(f"mean of 6 images and 2      error {error_of((six + two) / 2):.0e}")
print(f"(6 x six + 2 x two) / 8     error {error_of((6 * six + 2 * two) / 8):.0e}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Equal parts: the plain mean, exact up to rounding. Unequal parts: each gradient counts as often as its part has images.
# DDP takes the plain mean, so give every process the same number of images.
#
# There is a second condition: no image may influence another. Batch normalisation in training breaks it, because it
# normalises over the images at hand. Therefore `Learner` keeps it in eval mode here, where the proof should hold to seven
# digits. In real trainings the difference is small, but BN has a trap of its own: the third fault below.
#
# </details>

# %% tags=["test"]
assert error_of(sum(halves) / 2) < 1e-5 < 0.1 < error_of((six + two) / 2)
assert error_of((6 * six + 2 * two) / 8) < 1e-5

# %% [markdown]
# ## By hand, on two processes
#
# Now two processes, each with its own copy of the weights and half of the images. `torchrun` starts them. It tells each
# process through environment variables who it is: its `RANK`, out of a `WORLD_SIZE`. `init_process_group` connects them.
# Then one function does the work: `dist.all_reduce(x)` replaces `x` on every rank by the **sum** over all ranks.
#
# The cell writes a program. Each rank runs all of it.

# %%
import shutil
from pathlib import Path

HERE = Path("runs/course_04")
shutil.rmtree(HERE, ignore_errors=True)  # of an earlier visit
HERE.mkdir(parents=True)

# %%
# %%writefile runs/course_04/average.py
import torch
import torch.distributed as dist
from arcface_edu import MarginSoftmax, build_model
from torch.nn.parallel import DistributedDataParallel


class Learner(torch.nn.Module):  # as above
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network, self.head = build_model("r10", 128).eval(), MarginSoftmax(128, 20)

    def forward(self, images, labels):
        return self.head(self.network(images), labels)


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


dist.init_process_group("gloo")  # gloo connects CPUs, nccl GPUs
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(1)
images, labels = torch.rand(8 * world, 3, 112, 112) * 2 - 1, torch.randint(20, (8 * world,))
mine = slice(8 * rank, 8 * (rank + 1))

by_hand, by_ddp, one_process = Learner(), DistributedDataParallel(Learner()), Learner()
by_hand(images[mine], labels[mine]).backward()
alone = gradient(by_hand)
for p in by_hand.parameters():
    if p.grad is not None:  # one weight is frozen
        dist.all_reduce(p.grad)  # the sum over all ranks, on every rank
        p.grad /= world

by_ddp(images[mine], labels[mine]).backward()  # DDP does the same inside backward()
one_process(images, labels).backward()  # all images in one process: what it should be
whole = gradient(one_process)
if rank == 0:
    for name, found in (("rank 0 alone", alone), ("by hand", gradient(by_hand)), ("by DDP", gradient(by_ddp))):
        print(f"{name:12s} {(found - whole).norm() / whole.norm():.0e} from the gradient of one process")
dist.destroy_process_group()

# %% [markdown]
# In a terminal: `torchrun --nproc_per_node=2 runs/course_04/average.py`. From a notebook the helper `torchrun` starts the
# same command.
#
# **Predict**: how far is rank 0 alone from the gradient of all images? And after averaging?

# %%
from arcface_edu.course.notebook import torchrun

averaged = torchrun("runs/course_04/average.py", processes=2)
print(averaged)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Alone, a rank has a noisy estimate; with random images it is hardly related to the whole. After averaging it *is* the
# gradient of one process, up to the order in which floats are added. All optimizers then take the same step from the
# same weights. So the copies stay equal, and weights never have to be sent again.
#
# </details>
#
# DDP makes two promises:
#
# 1. when it is constructed, every rank receives rank 0's weights;
# 2. after `backward()`, every rank has the mean of all gradients.
#
# Everything else is your task: the sampler, BN's statistics, the evaluation, the checkpoint. Most faults come from there.

# %% tags=["test"]
import re

alone, by_hand, by_ddp = (float(number) for number in re.findall(r"(\S+) from the", averaged))
assert alone > 0.1 > 1e-4 > max(by_hand, by_ddp)

# %% [markdown]
# ## The whole program
#
# This is a complete DDP training: data, model, loop, evaluation, checkpoint. Read it once from top to bottom; the table
# below says what each part is for. It is the file to take away. With `torchrun --nproc_per_node=8 ddp.py FOLDER` it
# trains on eight GPUs.

# %%
# %%writefile runs/course_04/ddp.py
"""Train ArcFace on all GPUs of a machine: torchrun --nproc_per_node=8 ddp.py FOLDER"""
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from arcface_edu import MarginSoftmax, build_model, embed_images, open_faces, read_pairs, verify_pairs
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler


class Learner(torch.nn.Module):  # network and head in one module: DDP averages the gradients of both
    def __init__(self, num_classes):
        super().__init__()
        self.network, self.head = build_model("r10", 128), MarginSoftmax(128, num_classes, scale=32.0)

    def forward(self, images, labels):
        return self.head(self.network(images), labels)


def average_statistics(model):  # BN's running mean and variance: each rank has those of its own images
    for statistic in model.buffers():
        if statistic.is_floating_point():
            dist.all_reduce(statistic)
            statistic /= dist.get_world_size()


def gather(thing):  # the things of all ranks in a list, on every rank
    things = [None] * dist.get_world_size()
    dist.all_gather_object(things, thing)
    return things


def evaluate(network, pairs):  # each rank embeds every world-th image, and all have the accuracy
    rank, world = dist.get_rank(), dist.get_world_size()
    embeddings = torch.empty(len(pairs.images), 128)
    for other, part in enumerate(gather(embed_images(network, pairs.images[rank::world]))):
        embeddings[other::world] = part
    return verify_pairs(embeddings, pairs.is_same)["accuracy"]


dist.init_process_group(timeout=timedelta(minutes=10))  # torchrun has set RANK, WORLD_SIZE and where all meet
rank, local_rank = dist.get_rank(), int(os.environ["LOCAL_RANK"])
device = torch.device("cpu")
if torch.accelerator.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):  # a GPU for each process
    torch.accelerator.set_device_index(local_rank)
    device = torch.device(torch.accelerator.current_accelerator().type, local_rank)

faces, pairs = open_faces(sys.argv[1]), read_pairs(f"{sys.argv[1]}/drawn.bin")
torch.manual_seed(0)
learner = Learner(faces.num_classes).to(device)
model = DistributedDataParallel(learner, broadcast_buffers=False)  # now every rank has rank 0's weights
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
sampler = DistributedSampler(faces)  # deals the images out
loader = DataLoader(faces, batch_size=16, sampler=sampler, drop_last=True)
seen = set()
for epoch in range(2):
    sampler.set_epoch(epoch)  # another shuffle
    seen |= set(sampler)
    model.train()
    for images, labels in loader:
        loss = model((images.to(device).float() - 127.5) / 127.5, labels.to(device))
        optimizer.zero_grad()
        loss.backward()  # at its end every rank has the mean of all gradients
        optimizer.step()
    average_statistics(learner)
    accuracy = evaluate(learner.network, pairs)
    if rank == 0:
        torch.save(learner.network.state_dict(), sys.argv[0].replace(".py", ".pt"))
        print(f"epoch {epoch}: {len(loader)} batches a rank, loss {loss.item():.2f}, accuracy {accuracy:.1%}")

new_faces = torch.nn.functional.normalize(embed_images(learner.network, pairs.images[:64]))
weights = torch.cat([p.detach().flatten().cpu() for p in learner.parameters()])
for other, (count, theirs, embeddings) in enumerate(gather((len(seen), weights, new_faces))):
    apart = (embeddings * new_faces).sum(1).clamp(-1, 1).arccos().rad2deg().mean()
    if rank == 0:
        same = "the same weights as" if torch.equal(theirs, weights) else "OTHER WEIGHTS than"
        print(f"rank {other}: saw {count} images, {same} rank 0, embeddings {apart:.1f} degrees from rank 0's")
dist.destroy_process_group()

# %% [markdown]
# | part | what it is for |
# |---|---|
# | `init_process_group` | connects the processes; `nccl` between GPUs, `gloo` between CPUs; a rank that waits longer than the limit gives up |
# | `local_rank` | which GPU of *this machine* is mine; `rank` counts over all machines and says which *images* are mine |
# | `DistributedDataParallel` | promises 1 and 2 |
# | `DistributedSampler`, `set_epoch` | each rank has its own images, in another order each epoch |
# | `average_statistics` | BN's running statistics are no weights: DDP does not average them |
# | `evaluate` | all ranks share the work, all call the same collectives |
# | `if rank == 0` | one process writes the file |
# | the last eight lines | an audit: three numbers that must be as expected. Keep them in your own programs |
#
# Forty drawn people with twenty photographs each are enough to see it run:

# %%
from arcface_edu.data.synthetic.dataset import draw_faces

draw_faces(HERE / "faces", identities=40, photos=20, pairs=300, pair_identities=20)

# %%
SCRIPT = HERE / "ddp.py"
healthy = torchrun(str(SCRIPT), str(HERE / "faces"))
print(healthy)

# %% [markdown]
# Two ranks, 800 images, so 400 for each rank in an epoch: 25 batches of 16. Every step is therefore one of 32 images. Both
# ranks have the same weights to the last bit, although nobody sent weights, and they give the same embeddings.
#
# (Two epochs on 40 people are a demonstration and no training. Notebook 06 does that part.)

# %% tags=["test"]
assert healthy.count("the same weights") == 2 and healthy.count(" 0.0 degrees") == 2
assert "25 batches" in healthy and not re.search(r"saw (400|800) ", healthy)

# %% [markdown]
# ## Five ways to break it
#
# Each of the next five programs differs from `ddp.py` in one line. Four of them train without any error. Look at the audit.

# %%
from arcface_edu.errors import TrainingError


def run_with(old, new, extra=None):
    """Run ddp.py with `old` replaced by `new`.  returns: what it prints, after the line that is new."""
    script = SCRIPT.read_text()
    assert script.count(old) == 1
    changed = script.replace(old, new).replace(*(extra or ("", "")))
    (HERE / "broken.py").write_text(changed)
    line = next(line for line in changed.splitlines() if new in line)
    try:
        printed = torchrun(str(HERE / "broken.py"), str(HERE / "faces"))
    except TrainingError as error:
        printed = "\n".join(re.findall(r"(\[rank\d\]: \w*Error: .*)", str(error)))
    return f"+ {line.strip()}\n\n{printed}"


# %% [markdown]
# ### 1. The sampler does not know the ranks
#
# **Predict**: all ranks draw from the whole data set, by the same shuffle. How many batches has an epoch, and what does
# the second process contribute?

# %%
forgotten = run_with("DistributedSampler(faces)", "DistributedSampler(faces, num_replicas=1, rank=0)")
print(forgotten)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Fifty batches instead of 25. Both ranks compute the same gradient from the same images, and the mean of two equal things
# is the same thing: eight GPUs would train exactly like one, at one GPU's speed. A plain `DataLoader(faces, shuffle=True)`
# does the same under equal seeds. The sign is the number of batches in an epoch.
#
# </details>

# %% [markdown]
# ### 2. The sampler does not know the epoch
#
# **Predict**: without `set_epoch` every epoch uses the same shuffle. How many of the 800 images does rank 0 ever see?

# %%
stuck = run_with("sampler.set_epoch(epoch)", "pass")
print(stuck)

# %% [markdown]
# <details><summary>Answer</summary>
#
# 400, however long you train: each rank keeps its own half, in the same batches and the same order. Together the ranks
# still see everything, so the loss curve looks normal.
#
# </details>

# %% [markdown]
# ### 3. BN's statistics stay at home
#
# The running mean and variance of batch normalisation are buffers. They have no gradient, so there is nothing to average,
# and each rank collects those of its own images. Rank 0 writes the checkpoint.

# %%
statistics = run_with("    average_statistics(learner)", "    pass  # average_statistics(learner)")
print(statistics)

# %% [markdown]
# The weights are equal to the last bit, and still the ranks give the same photograph different embeddings: which rank
# writes the checkpoint decides which model you get. The longer the memory of BN and the smaller the batch, the larger the
# difference.
#
# DDP's own remedy is its default, `broadcast_buffers=True`: before each forward pass rank 0's statistics overwrite those
# of all other ranks. Then all agree, but the checkpoint knows the images of rank 0 alone. (Recent PyTorch calls the option
# `forward_sync_buffers`.) This package does as `ddp.py`: no broadcast, and a mean over ranks before each evaluation and
# checkpoint. `SyncBatchNorm` goes further and normalises over all ranks in every step; it needs GPUs and costs messages.

# %% [markdown]
# ### 4. The head stays outside
#
# Only the network is wrapped. That is easily written, since the head is a module of its own.
#
# **Predict**: the network's gradients are still averaged. What happens to the class centres?

# %%
outside = run_with(
    "model = DistributedDataParallel(learner, broadcast_buffers=False)",
    "learner.network, model = DistributedDataParallel(learner.network, broadcast_buffers=False), learner",
)
print(outside)

# %% [markdown]
# <details><summary>Answer</summary>
#
# They drift apart: each rank steps its centres by its own images. The network is then pulled towards two sets of centres
# at once. Loss and accuracy look like those of a training that is a little worse, and the checkpoint holds one version.
# (Embeddings agree, since the network is averaged.)
#
# </details>

# %% [markdown]
# ### 5. One rank has a batch fewer
#
# A corrupt file was skipped, say, or the data were cut unevenly. Here the last rank leaves out its first batch. So that
# we need not wait for ten minutes, this run has a limit of five seconds.
#
# **Predict**: rank 1 is done with its epoch and goes on to the next line. What does rank 0 see?

# %%
uneven = run_with("in loader:", "in list(loader)[rank:]:", extra=("minutes=10", "seconds=5"))
print(uneven)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Rank 0 waits in an all-reduce that rank 1 never joins. Rank 1 meanwhile calls another collective, that of the next
# program line, and waits as well. Only the time limit ends it, and the error names a network operation and not the cause.
#
# Remember the rule: **every rank must call the same collectives in the same order.** `if rank == 0: evaluate(...)` breaks it just as well.
# Give all ranks the same number of batches: `DistributedSampler` repeats some images for that, and `drop_last` does the
# rest.
#
# </details>
#
# If the ranks must differ, `with model.join():` lets a finished rank contribute zeros until all are done:

# %%
from arcface_edu.course.notebook import workers

joined = workers("uneven")

# %% tags=["test"]
assert "50 batches" in forgotten and "saw 400 images" in stuck and " 0.0 degrees" in stuck
assert statistics.count("the same weights") == 2 and float(re.search(r"rank 1.* (\S+) degrees", statistics)[1]) > 0.5
assert "rank 1: saw" in outside and "OTHER WEIGHTS" in outside
assert "Error" in uneven and "epoch 0" not in uneven
assert joined["plain"] == [3, 3] and joined["joined"] == [4, 3] and joined["same_weights"]

# %% [markdown]
# | symptom | cause |
# |---|---|
# | more batches in an epoch than images / (ranks × batch) | the sampler does not know the ranks |
# | a rank sees the same images every epoch | no `set_epoch` |
# | same weights, different embeddings | BN's statistics |
# | weights differ between ranks | a parameter outside DDP, or a step that not all ranks took |
# | a timeout, no other error | ranks called different collectives |
#
# ## All-reduce with nothing but sends
#
# How do $N$ ranks get the sum of $N$ gradients? The plain way: all send to rank 0, which adds and sends the sum back. Then
# $2(N-1)$ gradients pass through rank 0 while the others wait. A **ring** does better. Each rank cuts its gradient into $N$
# chunks. In each step it sends one chunk to its neighbour on the right and adds what comes from the left.
#
# **Predict**: 4 ranks, 4 MB each. How many MB does each rank send until all have the sum? And with 1,000 ranks?

# %%
# %%writefile runs/course_04/ring.py
import json
import sys

import torch
import torch.distributed as dist


def ring_all_reduce(tensor, rank, world):
    """Sum `tensor` over all ranks in place.  yields: the bytes sent, after each of 2 (world - 1) steps."""
    chunks = tensor.tensor_split(world)  # views: writing to a chunk writes to the tensor
    for step in range(2 * (world - 1)):
        leaving, arriving = chunks[(rank - step) % world], chunks[(rank - step - 1) % world]
        message = torch.empty_like(arriving)
        sending = dist.isend(leaving, (rank + 1) % world)  # does not wait: all ranks send at once
        dist.recv(message, (rank - 1) % world)
        sending.wait()
        if step < world - 1:
            arriving += message  # first half: a chunk goes round and collects its sum
        else:
            arriving.copy_(message)  # second half: the finished sums go round
        yield leaving.nbytes


dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
mine = torch.rand(1_000_000, generator=torch.Generator().manual_seed(rank))
by_ring, expected = mine.clone(), mine.clone()
sent = sum(ring_all_reduce(by_ring, rank, world))
dist.all_reduce(expected)
ones = torch.ones(world)  # a chunk of one number: how many ranks are in it so far
rounds = [ones.tolist()] + [ones.tolist() for _ in ring_all_reduce(ones, rank, world)]
of_all = [None] * world
dist.all_gather_object(of_all, rounds)
if rank == 0:
    print(f"equal to dist.all_reduce: {torch.allclose(by_ring, expected)}")
    print(f"each rank sent {sent:,} bytes for a tensor of {mine.nbytes:,}: {sent / mine.nbytes:.2f} times its size")
    with open(sys.argv[1], "w") as file:
        json.dump(list(zip(*of_all, strict=True)), file)  # (steps + 1, ranks, chunks)
dist.destroy_process_group()

# %%
ring = torchrun("runs/course_04/ring.py", "runs/course_04/ring.json", processes=4)
print(ring)

# %% [markdown]
# The program also ran its ring on a tensor of ones. So each number below says **of how many ranks this chunk holds the
# sum**, as recorded:

# %%
import json

from arcface_edu.course.figures.data_parallel import plot_ring

plot_ring(json.loads((HERE / "ring.json").read_text()))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Each rank sends $2\,\frac{N-1}{N}$ times its gradient: 6 MB for four ranks, and less than 8 MB for any number of ranks.
# All links carry the same amount at the same time. Therefore the number of GPUs hardly shows in the time of an
# all-reduce, and **one slow link slows all of them**. (With many ranks the $2(N-1)$ steps themselves take time. NCCL
# then uses trees.)
#
# </details>

# %% tags=["test"]
assert "all_reduce: True" in ring and "6,000,000 bytes" in ring

# %% [markdown]
# ## Buckets: when gradients travel
#
# The last layer's gradient is ready first, long before the first layer's. DDP therefore does not wait for the end. It
# collects gradients in *buckets* and sends each bucket as soon as it is full, while the backward pass goes on. Now we
# measure that: the same network, once with one bucket for everything and once with buckets of 1 MB, recorded by
# `torch.profiler` in both processes.
#
# **Predict**: in which of the two does an all-reduce begin before the backward pass ends?

# %%
recorded = workers("buckets")

# %%
from arcface_edu.figures.timeline import plot_timeline

plot_timeline(recorded["timelines"]["one bucket"])

# %%
plot_timeline(recorded["timelines"]["buckets of 1 MB"])

# %% [markdown]
# <details><summary>Answer</summary>
#
# With one bucket everything is computed first, and then the message leaves. With several buckets, messages travel during
# the backward pass. The first one has the most bytes: the fully connected layer at the end of the network holds most of its
# weights, and its gradient is ready first. The last bucket, that of the first layers, can never hide.
#
# </details>
#
# On a CPU the messages and the layers compete for the same two cores, so the step hardly gets shorter here. A GPU's links work
# beside its arithmetic. `torchrun --nproc_per_node=2 -m arcface_edu.train profile=True` draws this picture of a real
# training, and `ddp_bucket_mb` sets the size (25 by default, as in PyTorch).

# %% tags=["test"]
one, several = recorded["messages"].values()
assert one == 1 < several

# %% [markdown]
# ### Several backward passes for one step
#
# When the batch does not fit into memory, you add the gradients of several small batches before each step. Each
# `backward()` of a DDP model sends gradients, unless it runs within `model.no_sync()`:
#
# ```python
# for number, (images, labels) in enumerate(small_batches):
#     is_last = number == len(small_batches) - 1
#     with contextlib.nullcontext() if is_last else model.no_sync():
#         (model(images, labels) / len(small_batches)).backward()
# optimizer.step()
# ```

# %%
accumulated = workers("accumulate")

# %% [markdown]
# The same gradient, for a quarter of the traffic. Without `no_sync` the result is right and only slow: no loss curve
# shows it.

# %% tags=["test"]
after_each, after_last = accumulated["megabytes"].values()
assert after_each == 4 * after_last and accumulated["difference"] < 1e-5

# %% [markdown]
# ## The older way: DataParallel, taken apart
#
# `nn.DataParallel(model)(images)` is one process that drives all GPUs of a machine. It takes one changed line, and it
# consists of four functions of `torch.nn.parallel`: `scatter`, `replicate`, `parallel_apply`, `gather`. On two GPUs or
# more, the cells below call these functions. **Elsewhere they are imitated on the CPU** with chunks, copies and threads:
# the same flow of data, without the speed.

# %%
from torch.nn import parallel

device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
gpus = list(range(torch.accelerator.device_count()))
simulated = len(gpus) < 2
count = 4 if simulated else len(gpus)
print(f"{count} {'simulated devices: chunks, copies and threads' if simulated else 'GPUs'}")

# %% [markdown]
# **Scatter** cuts the batch. **Replicate** copies the network in a way that autograd records: a copy's weight is computed
# from the original weight, so its gradient flows back there. This adds the gradients up without any further code.

# %%
import copy

from torch.func import functional_call


def scatter(batch):
    return batch.chunk(count) if simulated else parallel.scatter(batch, gpus)


def copy_of(network):
    weights = {name: weight.clone() for name, weight in network.named_parameters()}
    shell = copy.deepcopy(network)
    return lambda part: functional_call(shell, weights, part)


def replicate(network):
    return [copy_of(network) for _ in range(count)] if simulated else parallel.replicate(network, gpus)


# %% [markdown]
# **Parallel apply** runs one thread for each replica. **Gather** brings the embeddings to GPU 0.

# %%
from concurrent.futures import ThreadPoolExecutor


def parallel_apply(replicas, parts):
    if not simulated:
        return parallel.parallel_apply(replicas, parts)
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda replica, part: replica(part), replicas, parts))


def gather(outputs):
    return torch.cat(outputs) if simulated else parallel.gather(outputs, gpus[0])


# %% [markdown]
# Together they are DataParallel. The head stays on GPU 0, with all labels.

# %%
learner = Learner().to(device)
parts = scatter(images.to(device))
replicas = replicate(learner.network)
embeddings = gather(parallel_apply(replicas, parts))  # (8, 128)
learner.head(embeddings, labels.to(device)).backward()

gradient = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]).cpu()
print(f"{len(parts)} parts of {tuple(parts[0].shape)}, embeddings {tuple(embeddings.shape)}")
print(f"error of the gradient against one device: {error_of(gradient):.0e}")

# %% tags=["test"]
assert error_of(gradient) < 1e-4
by_pytorch = torch.nn.DataParallel(learner.network)(images.to(device))
torch.testing.assert_close(embeddings, by_pytorch, rtol=1e-3, atol=1e-4)

# %% [markdown]
# The same gradient again. What does it cost? Count what passes between the GPUs, for r50 with 128 images on each of 8:

# %%
with torch.device("meta"):  # shapes only
    weights = 4 * sum(weight.numel() for weight in build_model("r50").parameters())
print(f"DataParallel, each step: weights out {weights / 1e6:.0f} MB, gradients back {weights / 1e6:.0f} MB,")
print(f"                         embeddings to GPU 0 {8 * 128 * 512 * 4 / 1e6:.1f} MB")
print(f"DDP, each step:          {2 * 7 / 8 * weights / 1e6:.0f} MB from each rank, by the ring")

# %% [markdown]
# The bytes are nearly the same! DataParallel is slower for other reasons:
#
# - **Nothing overlaps.** The weights must arrive before anything begins; gradients leave when everything is done.
# - **GPU 0 works alone** on the head and the update, and needs the memory for them.
# - **One Python process** drives all GPUs, and only one of its threads runs Python at a time.
# - **One machine** is the limit.
# - A replica lives for one step. Its BN statistics are lost, except those on GPU 0.
#
# One step of both, on one clock. The lengths are **computed, not measured**: they come from the cost model of the appendix.

# %%
from arcface_edu.course import cost
from arcface_edu.course.figures.data_parallel import plot_dp_ddp_timelines

r50 = cost.cost_of("r50")
plot_dp_ddp_timelines(cost.milliseconds(r50, batch=128, bandwidth=12), "r50, 128 images a GPU, V100s linked at 12 GB/s")

# %% [markdown]
# PyTorch's documentation recommends DDP even on one machine. In this package `parallel=dp` trains with DataParallel, for
# comparison.
#
# ## One process asks another: RPC
#
# DDP and collectives suit ranks that all do the same. With *remote procedure calls* the ranks may differ: one process
# asks another to run a function or to keep an object. (PyTorch keeps its RPC in maintenance only: it works and gets no new
# features. The idea is worth a cell; new programs use collectives.) Below, rank 1 keeps a table of class centres, and rank 0 has an
# embedding and wants a logit. It can fetch the table or send the embedding.

# %%
# %%writefile runs/course_04/rpc.py
import os

import torch
from torch.distributed import rpc
from torch.nn.functional import cosine_similarity


def make_centres():
    return torch.randn(20, 128, generator=torch.Generator().manual_seed(2))


def logit(centres, embedding, label):  # runs where the centres are
    return 64 * cosine_similarity(embedding, centres.local_value()[label], dim=0), rpc.get_worker_info().name


rank = int(os.environ["RANK"])
rpc.init_rpc(f"rank{rank}", rank=rank, world_size=2)
if rank == 0:
    centres = rpc.remote("rank1", make_centres)  # made there and kept there; here is a reference
    embedding = torch.linspace(-1, 1, 128)
    answer, where = rpc.rpc_sync("rank1", logit, args=(centres, embedding, 3))
    table = centres.to_here()  # now the whole table travels
    print(f"computed on {where}: {answer:.4f}, {embedding.nbytes:,} bytes sent")
    print(
        f"computed on rank0: {64 * cosine_similarity(embedding, table[3], dim=0):.4f}, {table.nbytes:,} bytes fetched"
    )
rpc.shutdown()  # waits until no rank has a question left

# %%
print(torchrun("runs/course_04/rpc.py"))

# %% [markdown]
# Twenty centres make a factor of twenty, a million centres a factor of a million. *Send the small thing to the large one*:
# notebook 05 builds the sharded ArcFace head on this idea, with collectives.
#
# ## Two machines
#
# Only the command changes. Each machine runs its own `torchrun`, and they meet at an address that all know:
#
# ```bash
# torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=host1:29400 --rdzv_id=run1 ddp.py FOLDER
# ```
#
# We have one machine. So we start two torchruns on it that share nothing but a port of localhost: four processes, and
# `average.py` as it is.

# %%
far = torchrun("runs/course_04/average.py", processes=2, machines=2)
print(far)

# %% [markdown]
# `rank` now counts to 3 while `local_rank` counts to 1 on each machine. Mix them up, and on the second machine every
# process asks for a GPU that does not exist. (The package's tests also give each "machine" a network card of its own and
# pull its cable: [tests/test_hosts.py](../tests/test_hosts.py).)

# %% tags=["test"]
alone, by_hand, by_ddp = (float(number) for number in re.findall(r"(\S+) from the", far))
assert alone > 0.1 > 1e-4 > max(by_hand, by_ddp)

# %% [markdown]
# ## Batch and learning rate
#
# `batch_size` is per process. More processes make a larger batch, fewer steps, and a learning rate that was tuned for
# something else. The linear rule scales the rate with the batch. InsightFace's recipe of 2021 writes `lr = 0.1  # batch
# size is 512` and means $\text{lr} = 0.1 \cdot \text{total batch} / 512$:

# %%
for ranks in (4, 8, 32):
    total = 128 * ranks
    print(
        f"{ranks:2} ranks x 128: {total:,} images a step, {5_179_510 // total:,} steps an epoch, rate {0.1 * total / 512:g}"
    )

# %% tags=["test"]
from arcface_edu import load_config
from arcface_edu.training.schedule import Schedule

config = load_config("ms1mv3_r50")
plan = Schedule.of(config, config.num_image, 32)
assert (plan.steps_per_epoch, plan.peak_lr) == (5_179_510 // 4096, 0.8)

# %% [markdown]
# ## Exercise: fewer messages
#
# `average.py` sends one message for each of some sixty tensors, and each message has a fixed cost. Write the averaging
# with **one** `all_reduce` for all gradients together, as a single bucket of DDP does. The check runs your function on two
# ranks and on three, with a model that has a frozen weight, and counts your messages.

# %%
import torch
import torch.distributed as dist

from arcface_edu.course.checks.parallel import check_one_message


def average_gradients(model):
    """Replace the gradient of each weight by its mean over all ranks, with a single all_reduce."""


check_one_message(average_gradients)
# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.cat` makes one long tensor of many flat ones, and `split` with a list of lengths takes it apart again. A frozen
# weight has `grad` None. `grad.copy_(...)` writes into a gradient.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def average_gradients(model):
#     grads = [p.grad for p in model.parameters() if p.grad is not None]
#     bucket = torch.cat([grad.flatten() for grad in grads])
#     dist.all_reduce(bucket)
#     bucket /= dist.get_world_size()
#     for grad, part in zip(grads, bucket.split([grad.numel() for grad in grads])):
#         grad.copy_(part.view_as(grad))
# ```
#
# </details>
#
# **An experiment to go on with.** Replace `torch.manual_seed(0)` in `ddp.py` by `torch.manual_seed(rank)`, so that every
# rank draws other initial weights: `print(run_with("torch.manual_seed(0)", "torch.manual_seed(rank)"))`. Predict first
# what the audit will say.
#
# <details><summary>What happens</summary>
#
# Nothing. DDP's first promise: when it is constructed, every rank receives rank 0's weights. The order of the images
# depends on the sampler's own seed and not on this one.
#
# </details>

# %% [markdown]
# ## Appendix: what would it take on eight V100s?
#
# `arcface_edu.plan` counts the operations of a training step on fake tensors, which have shapes and no numbers. On these
# counts stands a model of a few lines, [course/cost.py](../arcface_edu/course/cost.py). Under DataParallel the messages,
# the head and the update are waited for. Under DDP the all-reduce, a ring over the slowest link, hides behind the backward
# pass as far as it can. How good is the model? Beside it is what InsightFace published for 8 V100s, 128 images each:

# %%
for row in cost.published_rows():
    computed = cost.rate(cost.cost_of(row.network, row.classes), "DDP", ranks=8, batch=128, bandwidth=150)
    print(
        f"{row.network:4s} {row.classes:>7,} people: published {row.speed:,} images/s ({row.source}), computed {computed:,.0f}"
    )

# %% [markdown]
# The model is off by up to a fifth, in both directions, because the published runs used two frameworks. For r100 on MS1MV3
# the published speed means 9.3 hours for 25 epochs. `arcface_edu.plan`, which models today's PyTorch head, says 11.3
# hours (notebook 06 prints it). [docs/plan.md](../docs/plan.md) compares the planner with all published runs.
#
# **Predict**: 150 GB/s is a V100's NVLink. At which bandwidth does DDP begin to wait: 100, 10 or 1 GB/s? (10-Gbit Ethernet
# is 1.25 GB/s.) What helps then: more ranks, or a larger batch on each? Move the sliders.

# %%
from ipywidgets import FloatLogSlider, IntSlider, SelectionSlider

from arcface_edu.course.figures.data_parallel import plot_scaling
from arcface_edu.course.widgets import Panel

costs = {"r50": r50, "r100": cost.cost_of("r100")}

Panel(
    lambda ranks, bandwidth, batch, network: plot_scaling(*cost.speeds(costs[network], ranks, batch, bandwidth), ranks),
    ranks=IntSlider(8, min=1, max=64, description="ranks"),
    bandwidth=FloatLogSlider(2, min=-1, max=2.5, step=0.1, readout_format=".2g", description="GB/s a link"),
    batch=IntSlider(128, min=8, max=512, step=8, description="batch"),
    network=SelectionSlider(options=["r50", "r100"], description="network"),
)

# %%
for network, found in costs.items():
    for batch in (32, 128):
        seconds = batch * found.backward
        least = 2 * 7 / 8 * found.gradient / seconds / cost.LINK_SHARE / 1e9
        print(
            f"{network:4s} batch {batch:3}: a backward pass of {1000 * seconds:3.0f} ms hides the messages above {least:.1f} GB/s"
        )

# %% [markdown]
# <details><summary>Answer</summary>
#
# A message hides if it is shorter than the backward pass. Its length depends on the link and on the network; the pass
# grows with the batch; neither depends much on the number of ranks. So a larger batch helps, and more ranks do not.
#
# </details>

# %% tags=["test"]
for found in costs.values():
    assert (
        cost.step_of(
            found, "DDP", 8, 128, 1.01 * 2 * 7 / 8 * found.gradient / (128 * found.backward) / cost.LINK_SHARE / 1e9
        ).waiting
        == 0
    )
assert all(
    abs(cost.rate(cost.cost_of(row.network, row.classes), "DDP", 8, 128, 150) / row.speed - 1) < 0.2
    for row in cost.published_rows()
)

# %% [markdown]
# ## Recap
#
# 1. Why is the mean of the ranks' gradients the gradient of the whole batch, and when is it not?
# 2. What does DDP promise, and which five things must you do yourself?
# 3. Two ranks have the same weights and give different embeddings: where do you look?
# 4. How many bytes does each of N ranks send in a ring all-reduce, and why does N hardly matter?
# 5. DataParallel and DDP send about the same number of bytes; why is DDP faster?
#
# ## Further
#
# - [training/parallel.py](../arcface_edu/training/parallel.py): wrapping, `no_sync` and BN's statistics in the package;
#   [training/launch.py](../arcface_edu/training/launch.py): how the trainer joins, and ends when a rank fails
# - [course/traffic.py](../arcface_edu/course/traffic.py) and [course/faults.py](../arcface_edu/course/faults.py): the runs with a profiler,
#   with counted messages, and with `join`
# - [docs/distributed.md](../docs/distributed.md): torchrun, Slurm, Kubernetes
# - PyTorch Distributed: Experiences on Accelerating Data Parallel Training, [arXiv 2006.15704](https://arxiv.org/abs/2006.15704)
# - Horovod, which brought the ring to deep learning, [arXiv 1802.05799](https://arxiv.org/abs/1802.05799)
# - Large minibatches and the linear rule for the rate, [arXiv 1706.02677](https://arxiv.org/abs/1706.02677)
