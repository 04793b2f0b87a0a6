# %% [markdown]
# # 04 · One training on many processes
#
# At the published speed eight V100s train r100 on MS1MV3 in under ten hours; one alone would need three days. Here you
# take apart how eight become one: `DataParallel` piece by piece, `DistributedDataParallel` (DDP) on processes that really
# run beside this notebook, the all-reduce beneath it down to its single sends, and five mistakes, most of which nobody
# would notice. Afterwards you can read a multi-GPU training loop, say what travels when, and find the rank that does not
# play along.
#
# | | |
# |---|---|
# | you will see | two ways to train on many GPUs, a gradient on its way round a ring, a measured timeline, five faults |
# | you need | basic PyTorch; no GPU, and nothing is downloaded |
# | takes | 1.3 minutes on two cores |
# | before | [03 · Eight people in a plane](03_softmax_vs_arcface.ipynb) |
# | after | [05 · A million people](05_partial_fc.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Step 1: one device
#
# PyTorch's own guide describes a common way up: train on one device while model and data fit; put `DataParallel` around
# the model to use all GPUs of a machine with one changed line; move to `DistributedDataParallel` for speed, for a little
# more code. We climb the same three steps, and carry one number up with us: **the gradient**. It must be the same on
# each of them.
#
# `Learner` is a small network with an ArcFace head in one module: a batch in, its mean loss out. Every one is alike, since
# its weights follow from a seed.

# %%
import torch

from arcface_edu.course.workers import Learner, draw_batch, gradients

device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
images, labels = (tensor.to(device) for tensor in draw_batch(8))


# %%
def gradient_of(images, labels):
    learner = Learner().to(device)
    learner(images, labels).backward()
    return gradients(learner)  # all of them in one row


whole = gradient_of(images, labels)
print(f"{len(whole):,} numbers")

# %% [markdown]
# **Predict**: compute the gradient of the first 4 images and of the last 4, each by itself. How do you get the gradient
# of all 8 from these two? And if you cut the batch into 6 and 2?

# %%
halves = [gradient_of(images[:4], labels[:4]), gradient_of(images[4:], labels[4:])]
six, two = gradient_of(images[:6], labels[:6]), gradient_of(images[6:], labels[6:])


def off(gradient):
    return ((gradient - whole).norm() / whole.norm()).item()


print(f"mean of two halves           {off(sum(halves) / 2):.0e} away from the whole")
print(f"mean of 6 images and 2       {off((six + two) / 2):.0e}")
print(f"weighted by their images     {off((6 * six + 2 * two) / 8):.0e}")
assert off(sum(halves) / 2) < 1e-5 < off((six + two) / 2)
assert off((6 * six + 2 * two) / 8) < 1e-5

# %% [markdown]
# That is all that data parallelism rests on: **the gradient of a mean over images is the mean of the parts' gradients**,
# if the parts are of equal size. Whoever holds a part can compute alone; afterwards one averages.
#
# It has one more condition: no image may look at another. Batch normalisation does exactly that, as it normalises over the
# batch at hand. `Learner` keeps its BN at rest so that we can prove things to seven digits; what BN does to real
# trainings comes below.
#
# ## Two ways to share the work
#
# Three GPUs, one step, the same images, drawn by the rules of either way (a schematic; measured ones follow).
#
# **Predict**: with DataParallel the model lives on GPU 0. When will the other GPUs have nothing to do?

# %%
from arcface_edu.course.figures.data_parallel import plot_dp_ddp_timelines

plot_dp_ddp_timelines()

# %% [markdown]
# Both compute the same gradient. Above, one process owns all GPUs. Each step it sends the
# weights out anew, collects the embeddings, computes the loss of everybody, and adds the gradients up; only then can it
# update. Below, every GPU has a process and a model of its own. The weights are sent once, at the start. After that only
# gradients travel, in packets that leave while the backward pass still computes the next ones.
#
# ## Step 2: DataParallel, taken apart
#
# `nn.DataParallel(model)(images)` is four functions of `torch.nn.parallel`, called one after the other: `scatter`,
# `replicate`, `parallel_apply`, `gather`. On two GPUs or more, the cells below call these very functions. **Where there are
# none they are simulated on the CPU**, by chunks, copies and threads: the same data flow, without the speed.

# %%
from torch.nn import parallel

gpus = list(range(torch.accelerator.device_count()))
simulated = len(gpus) < 2
count = 4 if simulated else len(gpus)
print(f"{count} {'simulated devices: chunks, copies and threads' if simulated else 'GPUs'}")

# %% [markdown]
# **Scatter** cuts the batch. **Replicate** copies the network so that autograd knows of it: a weight's copy is computed
# from the weight, so its gradient flows back into the original. This is how gradients get added up without anybody
# adding them.

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
# **Parallel apply** runs a thread for each replica. **Gather** brings the embeddings to GPU 0.

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
# And this is DataParallel. The head stays where it is, with all labels, on GPU 0.

# %%
learner = Learner().to(device)
parts = scatter(images)
replicas = replicate(learner.network)
embeddings = gather(parallel_apply(replicas, parts))  # (8, 128)
learner.head(embeddings, labels).backward()

print(f"{len(parts)} parts of {tuple(parts[0].shape)}, embeddings {tuple(embeddings.shape)}")
print(f"the gradient is {off(gradients(learner)):.0e} away from one device's")
assert off(gradients(learner)) < 1e-5
by_pytorch = torch.nn.DataParallel(learner.network)(images)
torch.testing.assert_close(embeddings, by_pytorch, rtol=1e-3, atol=1e-4)

# %% [markdown]
# One changed line, the same gradient. What does it cost? Take r50 with 128 images on each of 8 GPUs, and count what
# passes between them.

# %%
from arcface_edu import build_model

with torch.device("meta"):  # shapes only
    weights = 4 * sum(weight.numel() for weight in build_model("r50").parameters())
print(f"DataParallel, each step: weights out {weights / 1e6:.0f} MB, gradients back {weights / 1e6:.0f} MB,")
print(f"                         embeddings to GPU 0 {8 * 128 * 512 * 4 / 1e6:.1f} MB")
print(f"DDP, each step:          {2 * 7 / 8 * weights / 1e6:.0f} MB from each rank; the ring below shows why")

# %% [markdown]
# Surprisingly, the bytes are nearly the same! DataParallel is not slow because it sends more. Its costs are these:
#
# - **Nothing hides.** Weights must be there before anyone begins, and gradients leave only when everyone is done.
# - **GPU 0 works alone** on head and update, and needs memory for it. With 93,431 classes that is no small thing.
# - **One Python process** drives all GPUs, and only one of its threads runs Python at a time.
# - **One machine** is the limit.
# - A replica lives for one step. BN statistics that it gathers are lost with it, unless it is the one on GPU 0.
#
# In this package `parallel=dp` trains this way, for comparison.
#
# ## Step 3: DDP, on real processes
#
# Now each device gets a process that runs the whole program. `torchrun` starts them and tells each, through environment
# variables, who it is: `RANK` (of `WORLD_SIZE`) and `LOCAL_RANK` (which GPU of this machine). In a terminal:
#
# ```bash
# torchrun --nproc_per_node=2 -m arcface_edu.course.workers all_reduce
# ```
#
# `workers("all_reduce")` does just that from here; on any machine these small processes use CPU cores. Each takes 8
# of 16 images and computes its gradient. Then they average it, once by hand and once by DDP, and rank 0 compares with one
# process that has all 16.
#
# **Predict**: how far is one rank's gradient from that of all images, as a share of its largest number: 1 %, 10 %, 100 %?
# What is left of it after averaging?

# %%
from arcface_edu.course.notebook import workers

averaged = workers("all_reduce")

# %%
assert averaged["equal"]
assert averaged["differences"]["to_one_process"] < 1e-5 < 0.1 < averaged["differences"]["before"]

# %% [markdown]
# Before averaging, the ranks' gradients have little in common: a few images, a noisy estimate. After it, all have the very
# gradient of one process, up to the order in which floats are added. Each optimizer then takes the same step on the same
# weights, so the models stay equal without anybody sending weights again. DDP makes two promises:
#
# 1. at construction, everyone receives rank 0's weights;
# 2. after `backward()`, everyone has the mean of all gradients.
#
# All else is yours: the optimizer, the sampler, the checkpoint. Most faults below come from there.
#
# ## Three ways to talk
#
# `torch.distributed` offers three kinds of conversation, and you have met the first two:
#
# | | idea | here |
# |---|---|---|
# | **DDP** | one program, many data; gradients are averaged for you | `workers("all_reduce")`, by DDP |
# | **c10d** | collectives that all ranks call together: `all_reduce`, `broadcast`, `all_gather` ... and `send`, `recv` | the same, by hand; the ring |
# | **RPC** | one process asks another to run a function or keep an object | next |
#
# RPC is for when the ranks are *not* all alike. Below, the last process keeps a table of class centres. Rank 0 has an
# embedding and wants a logit. It can fetch the table, or send the embedding there.

# %%
asked = workers("rpc")
assert asked["equal"] and asked["computed_on"] == "rank1"
print(f"to ask takes {asked['bytes_asked']:,} bytes, to fetch {asked['bytes_read']:,}")

# %% [markdown]
# Twenty centres make a factor of twenty; a million make a million. *Send the small thing to the large one*: notebook 05
# builds the sharded ArcFace head on this thought, though with collectives.
#
# ## All-reduce with nothing but sends
#
# How do N ranks get the sum of N gradients? The plain way: all send to rank 0, it adds and sends back. Then
# 2 (N − 1) gradients pass through rank 0 while the others wait. A **ring** does better. Everyone cuts its gradient into N
# chunks and, in each step, sends one chunk to its neighbour on the right, who adds it to its own.
#
# **Predict**: 4 ranks, 4 MB each. How many MB must each rank send until all have the sum? And with 1,000 ranks?

# %%
ring = workers("ring", processes=4)
assert ring["equal"]
assert ring["sent"] == [ring["bytes"] * 2 * (4 - 1) // 4] * 4

# %% [markdown]
# The workers also ran their ring on a tensor of ones, so that each number says **of how many ranks this chunk already
# holds the sum**. Recorded, not drawn by hand:

# %%
from arcface_edu.course.figures.data_parallel import plot_ring

plot_ring(ring["contributions"])

# %% [markdown]
# Each rank sends 2 (N − 1) / N times its gradient: 1.5 times for four ranks, never more than twice for any number. Every
# link carries the same, all at once. That is why the number of GPUs hardly shows in the time of an all-reduce, and also
# why **one slow link slows all**. (With many ranks the 2 (N − 1) steps themselves take time; NCCL then uses trees.)
#
# ## Buckets: when gradients travel
#
# The last layer's gradient is ready first, long before the first layer's. DDP collects gradients in *buckets* and sends
# each as soon as it is full. Now we measure it: the same network, once with one bucket for everything and once with
# buckets of 1 MB, recorded by `torch.profiler` in both processes.
#
# **Predict**: in which of the two does an all-reduce begin before the backward pass ends?

# %%
recorded = workers("buckets")
one, several = recorded["messages"].values()
assert one == 1 < several

# %%
from arcface_edu.figures.timeline import plot_timeline

plot_timeline(recorded["timelines"]["one bucket"])

# %%
plot_timeline(recorded["timelines"]["buckets of 1 MB"])

# %% [markdown]
# With one bucket, everything is computed and only then does the message leave. With several, yellow lies under
# indigo. The first message is the longest: the fully connected layer at the end holds most of this network's weights,
# and its gradient is the first to be ready. What cannot hide is the last bucket, that of the first layers.
#
# Whether the step gets shorter is another matter on CPUs, where messages and layers compete for the same two cores; a
# GPU's links work beside its arithmetic. The order of things is the same. `torchrun --nproc_per_node=2 -m arcface_edu.train profile=True` draws this picture of a real training, and
# `ddp_bucket_mb` sets the size (25 by default, as in PyTorch).
#
# ## What goes wrong
#
# None of the next five faults comes with an error message, save one, and that one waits first.
#
# ### 1. A head outside DDP
#
# You wrap the network, but the ArcFace head is a module of its own. Its gradient is then not averaged.
#
# **Predict**: after 30 steps, by how many degrees do the class centres of two ranks differ?

# %%
drift = workers("head")["degrees_apart"]
assert drift["inside DDP"][-1] == 0 < drift["outside DDP"][0] < drift["outside DDP"][-1]

# %% [markdown]
# Each rank's network is pulled towards other centres, and the checkpoint of rank 0 holds only one version of them.
#
# ### 2. A sampler that does not know the epoch
#
# `DistributedSampler` deals the images out by a shuffle that follows from seed and epoch. It learns the epoch only
# from `set_epoch`.

# %%
from torch.utils.data import DistributedSampler


def seen_by_rank_0(epochs, tell):
    sampler, seen = DistributedSampler(range(960), num_replicas=2, rank=0), set()
    for epoch in range(epochs):
        if tell:
            sampler.set_epoch(epoch)
        seen |= set(sampler)
    return len(seen)


with_it, without = seen_by_rank_0(5, True), seen_by_rank_0(5, False)
print(f"of 960 images, rank 0 sees in five epochs: {with_it} with set_epoch, {without} without")
assert without == 480 < 900 < with_it

# %% [markdown]
# Without it, every epoch is the same: the same batches in the same order, and each rank sees its own half for ever. In
# sum no image is missed, which is why nobody notices. (A rank forgotten is worse: then all draw the *same* half. See
# `workers("shuffle")`.) This package's `ShuffledBatches` cannot forget: a batch follows from its number alone.
#
# ### 3. Batch normalisation: one network, two opinions
#
# Running means and variances are buffers, not weights: no gradient, nothing to average. Each rank gathers those of its own
# images, and rank 0 writes the checkpoint. Here both ranks have the same weights, never trained, and photographs of the
# same people, dealt out between them. They go through 30 batches of 8; then both embed the same new face.

# %%
bn = workers("bn")
assert bn["same_weights"]
assert bn["own"] > 1 > 1e-3 > bn["averaged"]

# %% [markdown]
# Same weights, same photograph, and another embedding: which rank writes the checkpoint decides which model you get. DDP's
# default does not help, it copies rank 0's statistics over those of all others before each forward pass: then all
# agree, and what the others have seen is lost. This package averages the statistics before each evaluation and checkpoint;
# `sync_bn=True` normalises over all ranks, on GPUs.
#
# ### 4. Shards of unequal length
#
# Rank 1 has one batch fewer. After its last it leaves the loop; rank 0 goes on, and asks for an all-reduce.
#
# **Predict**: what does rank 0 see?

# %%
uneven = workers("uneven")
assert uneven["plain"] == [3, 3] and uneven["error"]
assert uneven["joined"] == [4, 3] and uneven["same_weights"]

# %% [markdown]
# It waits. Here for 3 seconds, because the worker asks for such a short time limit; by default for 10 or 30 minutes. Had
# rank 1 gone on to some *other* all-reduce, rank 0 would have taken that one's numbers for its gradients. `with
# model.join():` lets a rank that is through answer with zeros until all are. The simpler cure: give all ranks the same
# number of batches, and drop or repeat what is left over. This package's trainer does that.
#
# ### 5. Accumulation that talks too much
#
# Four backward passes for one step, because the big batch does not fit. Each `backward()` of a DDP model sends gradients,
# unless it runs within `model.no_sync()`.

# %%
accumulated = workers("accumulate")
after_each, after_last = accumulated["megabytes"].values()
assert after_each == 4 * after_last
assert accumulated["difference"] < 1e-5

# %% [markdown]
# The same gradient, at four times the traffic. No loss curve will ever tell you.
#
# ## What would it take? A model to play with
#
# `arcface_edu.plan` counts the operations of a step on fake tensors. We let it do so for the two networks of the
# benchmark, on V100s, and build on it a model of a few lines: under DataParallel, messages, head and update are waited for;
# under DDP, the all-reduce (a ring over the slowest link) hides behind the backward pass as far as it can.

# %%
from arcface_edu.course import cost

costs = {network: cost.cost_of(network) for network in ("r50", "r100")}
for network, found in costs.items():
    for speed, classes, way in cost.published_rates(network):
        ours = cost.rate(found, "DDP", ranks=8, batch=128, bandwidth=150)
        run = f"{network:4s} {classes:>7,} classes, head {way:5s} parallel"
        print(f"{run}: published {speed:,} images/s, here {ours:,.0f}")
        assert abs(ours / speed - 1) < 0.2
hours = 25 * 5_179_510 / speed / 3600  # r100, MS1MV3, 25 epochs
assert 9 < hours < 10 and 70 < 8 * hours < 80

# %% [markdown]
# Within 20 % of what InsightFace published for 8 × V100 (crosses below; how they shared out the head is notebook 05's
# subject). [docs/plan.md](../docs/plan.md) holds the planner against all the published runs, also where it is off.
#
# **Predict**: 150 GB/s is a V100's NVLink. Below which bandwidth does DDP start to wait: 100, 10 or 1 GB/s? (An Ethernet
# of 10 Gbit/s is 1.25 GB/s.) What helps then: more ranks, or a larger batch on each? Move the sliders and see.

# %%
from ipywidgets import FloatLogSlider, IntSlider, SelectionSlider

from arcface_edu.course.widgets import Panel
from arcface_edu.course.figures.data_parallel import plot_scaling


def show(ranks, bandwidth, batch, network):
    published = {"published": [(8, speed) for speed, *_ in cost.published_rates(network)]}
    return plot_scaling(*cost.speeds(costs[network], ranks, batch, bandwidth), ranks, published)


Panel(
    show,
    ranks=IntSlider(8, min=1, max=64, description="ranks"),
    bandwidth=FloatLogSlider(2, min=-1, max=2.5, step=0.1, readout_format=".2g", description="GB/s a link"),
    batch=IntSlider(128, min=8, max=512, step=8, description="batch"),
    network=SelectionSlider(options=["r50", "r100"], description="network"),
)

# %% [markdown]
# A message hides if it is shorter than the backward pass. Its length depends on the link and the network; the pass grows
# with the batch; neither depends much on the number of ranks. Solved for the bandwidth:

# %%
for network, found in costs.items():
    for batch in (32, 128):
        seconds = batch * found.backward
        least = 2 * 7 / 8 * found.gradient / seconds / cost.LINK_SHARE / 1e9
        print(f"{network:4s} batch {batch:3}: {1000 * seconds:3.0f} ms hide all from {least:.1f} GB/s on")
        assert cost.step_of(found, "DDP", 8, batch, 1.01 * least).waiting == 0
        assert cost.step_of(found, "DDP", 8, batch, 0.99 * least).waiting > 0

# %% [markdown]
# ## Two machines
#
# Nothing changes but the command. Each machine runs its own `torchrun`, and they meet at an address that all know:
#
# ```bash
# torchrun --nnodes=2 --nproc_per_node=2 --rdzv_backend=c10d --rdzv_endpoint=host1:29400 --rdzv_id=run1 -m ...
# ```
#
# We have one machine, so we start two torchruns on it that know no more of each other than a port of localhost: four
# processes, the program of step 3, unchanged. (The package's tests also give each "machine" a network card of its own,
# and pull its cable: [tests/test_hosts.py](../tests/test_hosts.py).)

# %%
far = workers("all_reduce", processes=2, machines=2)
for rank, machine, local in far["places"]:
    print(f"rank {rank}: machine {machine}, local rank {local}")
assert far["equal"] and [place[1:] for place in far["places"]] == [[0, 0], [0, 1], [1, 0], [1, 1]]

# %% [markdown]
# The rank says which images are mine; the local rank says which GPU of this machine. Mix them up, and on the second machine
# every process asks for a GPU that is not there.
#
# ## The arithmetic of batch and rate
#
# `batch_size` is per process. So more processes are a larger batch, fewer steps, and a rate that was tuned for something
# else. InsightFace's recipe says `lr = 0.1  # batch size is 512`, a rate that grows with the total batch:

# %%
from arcface_edu import load_config
from arcface_edu.training.schedule import Schedule

config = load_config("ms1mv3_r50")
for ranks in (4, 8, 32):
    plan = Schedule.of(config, config.num_image, ranks)
    print(f"{ranks:2} ranks x {config.batch_size}: {plan.total_batch:,} images a step,", end=" ")
    print(f"{plan.steps_per_epoch:,} steps an epoch, rate {plan.peak_lr:g}")
    assert abs(plan.peak_lr - 0.1 * plan.total_batch / 512) < 1e-9

# %% [markdown]
# ## Exercise: be DDP
#
# Each rank has called `backward()`. Write what must happen before `optimizer.step()`, with `dist.all_reduce` (which
# sums) and `dist.get_world_size()`. The check calls your function on two ranks and on three.

# %%
import torch.distributed as dist  # noqa: F401

from arcface_edu.course.checks.parallel import check_average_gradients


def average_gradients(model):
    """Replace the gradient of each weight by its mean over all ranks."""


check_average_gradients(average_gradients)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Walk over `model.parameters()`. `dist.all_reduce(tensor)` replaces the tensor by the sum, on every rank. One of the
# weights is frozen: what is its `grad`?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def average_gradients(model):
#     for weight in model.parameters():
#         if weight.grad is not None:
#             dist.all_reduce(weight.grad)
#             weight.grad /= dist.get_world_size()
# ```
#
# </details>

# %% [markdown]
# ## Recap
#
# 1. Why is the mean of the ranks' gradients the gradient of the whole batch, and when is it not?
# 2. DataParallel and DDP send about the same number of bytes; why is DDP faster?
# 3. How many bytes does each of N ranks send in a ring all-reduce, and why does N hardly matter?
# 4. Which bucket of gradients can never hide behind the backward pass?
# 5. Which of the five faults can you see in the loss curve?
#
# ## Further
#
# - [course/workers.py](../arcface_edu/course/workers.py), [course/traffic.py](../arcface_edu/course/traffic.py) and
#   [course/faults.py](../arcface_edu/course/faults.py): all that ran under torchrun here
# - [training/launch.py](../arcface_edu/training/launch.py): how the trainer joins, averages, and ends when a
#   rank fails; [training/profiling.py](../arcface_edu/training/profiling.py): the timeline of a real run
# - [planning/gpus.py](../arcface_edu/planning/gpus.py): what the cost model rests on
# - PyTorch Distributed: Experiences on Accelerating Data Parallel Training, [arXiv 2006.15704](https://arxiv.org/abs/2006.15704)
# - Horovod, which brought the ring to deep learning, [arXiv 1802.05799](https://arxiv.org/abs/1802.05799)
# - Large minibatches and the linear rule for the rate, [arXiv 1706.02677](https://arxiv.org/abs/1706.02677)
