# %% [markdown]
# # 05 · A million people
#
# The backbone stays the same for a hundred people or a million. The head does not: it has one centre for each person. Here
# the head grows until it no longer fits. You take it apart with three ideas, by hand: compute the softmax in chunks, share the
# classes among processes, and use a sample of them in each step. Each is proven equal to the package's head. At the end you
# know what each idea saves, what it costs, and why the third one also helps against wrong labels.
#
# | | |
# |---|---|
# | you will see | a softmax that never holds its logits, two processes that share one, a sample that changes with each step, and training with 40 % wrong labels |
# | you need | basic PyTorch, and [04](04_dataparallel_vs_ddp.ipynb) for processes and messages; nothing is downloaded |
# | takes | 0.8 minutes on two cores |
# | before | [04 · One training on many processes](04_dataparallel_vs_ddp.ipynb) |
# | after | [06 · A training run from start to end](06_training_run.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## What a head weighs
#
# $C$ people, each with a centre of $D = 512$ numbers of 4 bytes. Training keeps the centre, its gradient and its momentum. And each
# step computes one logit for every image and every person.
#
# **Predict**: one GPU, a batch of 128 images, a million people. Which is larger, the centres or the logits? Then take 8 GPUs and
# give each of them an eighth of the people. Which part shrinks?


# %%
def head_gib(C, gpus, batch=128, D=512, shared=True):
    """GiB on each of several GPUs; batch: images of one GPU."""
    held = C / gpus if shared else C  # people whose centre is on this GPU
    images = batch * gpus if shared else batch  # images that they are compared with
    table = 4 * held * D / 2**30
    return dict(centres=table, momentum=table, gradient=table, logits=4 * images * held / 2**30)


for gpus, shared in ((1, False), (8, False), (8, True), (64, True)):
    parts = ", ".join(f"{name} {size:.2f}" for name, size in head_gib(1_000_000, gpus, shared=shared).items())
    print(f"{gpus:>2} GPUs, {'shared' if shared else 'a copy on each'}: {parts} GiB")

# %% tags=["test"]
from arcface_edu.course.figures.sharded_head import head_memory  # what the pictures below count with

for gpus, shared in ((1, False), (8, False), (8, True), (64, True)):
    drawn = head_memory(1_000_000, gpus, copies=not shared)
    assert abs(sum(drawn.values()) / 2**30 - sum(head_gib(1_000_000, gpus, shared=shared).values())) < 1e-9

# %% [markdown]
# <details><summary>Answer</summary>
#
# The centres, with their gradient and momentum. Shared among 8 GPUs they shrink to an eighth, but **the logits do not shrink
# at all**: the GPU that holds an eighth of the people compares them with the images of all eight,
# $(8 \cdot 128) \cdot (C / 8) = 128 \cdot C$.
# </details>
#
# This counts the logits once. A softmax under autograd holds several such matrices: cosines, logits, probabilities and
# their gradient. So the logits come first.
#
# ## A softmax in chunks
#
# The loss of one image is $-z_y + \ln \sum_j e^{z_j}$, over all $C$ classes. A sum can be taken in parts: compute the
# logits of a thousand people, add their exponentials, and free them.
#
# **Predict**: with $s = 64$ no logit exceeds 64. Is $e^{64}$ a number in fp32? $e^{89}$? And in fp16?

# %%
import math
import torch
from torch import nn
from torch.nn import functional as F

for dtype in (torch.float32, torch.float16):
    values = {at: torch.tensor(float(at)).exp().to(dtype).item() for at in (11, 12, 64, 88, 89)}
    print(f"{dtype!s:14}", *(f"exp({at}) = {value:.2g}" for at, value in values.items()), sep="   ")

# %% [markdown]
# <details><summary>Answer</summary>
#
# $e^{64}$ fits fp32: $6 \cdot 10^{27}$, of $3 \cdot 10^{38}$. That is luck. fp16 ends at 11, fp32 at 88, and the scale is only a
# setting.
# </details>
#
# So the largest logit is subtracted first and added again after the logarithm:
#
# $$\ln \sum_j e^{z_j} = M + \ln \sum_j e^{z_j - M}, \qquad M = \max_j z_j$$
#
# No exponent is then above 0. In chunks, however, the maximum is not known yet: a later chunk may hold a larger one. Then the
# sum so far was taken from the old maximum, and one factor corrects it: $e^{M_\text{old} - M_\text{new}}$.


# %%
def in_chunks(x, centres, chunk):
    """(B, D) embeddings, (C, D) centres: after each chunk the running maximum and sum, (B,) both."""
    top, total = torch.full((len(x),), -torch.inf), torch.zeros(len(x))
    for part in centres.split(chunk):
        logits = 64 * x @ part.T  # (B, chunk): no more exist at any time
        higher = torch.maximum(top, logits.amax(1))
        total = total * (top - higher).exp() + (logits - higher[:, None]).exp().sum(1)
        top = higher
        yield top, total


# %%
C, D = 50_000, 512
centres = F.normalize(torch.randn(C, D))
x, labels = F.normalize(torch.randn(128, D)), torch.randint(C, (128,))
tops, totals = zip(*in_chunks(x, centres, chunk=1000), strict=True)
by_chunks, at_once = tops[-1] + totals[-1].log(), torch.logsumexp(64 * x @ centres.T, 1)
print(f"ln Σ exp of the first image: in chunks {by_chunks[0]:.5f}, at once {at_once[0]:.5f}")

# %% tags=["test"]
assert torch.allclose(by_chunks, at_once, atol=1e-5)

# %%
from arcface_edu.course.figures.sharded_head import plot_walk

plot_walk(range(1000, C + 1, 1000), [top[0] for top in tops], [total[0] for total in totals])

# %% [markdown]
# At each step of the orange line the sum so far is scaled down; the blue line does not change. 1,000 logits per image were in memory
# instead of 50,000. The loss still needs the target logit with its margin: take the plain one out of the sum and put the new one in.

# %%
from arcface_edu.heads import MarginSoftmax, target_logit

cosine = (x * centres[labels]).sum(1)
target = 64 * target_logit(cosine, (1.0, 0.5, 0.0))  # cos(θ + m), as in 02
top, total = tops[-1], totals[-1]
total = total - (64 * cosine - top).exp() + (target - top).exp()
loss = (top + total.log() - target).mean()

head = MarginSoftmax(D, C)
head.weight.data.copy_(centres)
print(f"by hand {loss:.5f}, the package {head(x, labels).item():.5f}")

# %% tags=["test"]
assert torch.allclose(loss, head(x, labels), rtol=1e-5)

# %% [markdown]
# The gradient needs a second pass over the chunks: softmax minus one at the target, from the finished sum. The package
# does that too. It takes the target out *before* it sums, because a subtraction afterwards leaves rounding errors where one
# class holds nearly the whole sum.
#
# What does it save? PyTorch can track every tensor that is alive. Here are 512 images against 50,000 people.
#
# **Predict**: their logits are a matrix of 98 MiB. How many times as much does the plain softmax hold at its peak?

# %%
from torch.distributed._tools.mem_tracker import MemTracker

images, names = x.repeat(4, 1), labels.repeat(4)


def plain(x):
    cosine = F.normalize(x) @ F.normalize(head.weight).T
    with_margin = torch.where(F.one_hot(names, C).bool(), target_logit(cosine, (1.0, 0.5, 0.0)), cosine)
    return F.cross_entropy(64 * with_margin, names)


def peak_of(loss_of):
    with MemTracker() as tracker:
        loss = loss_of(images)
    held = tracker.get_tracker_snapshot("peak")[loss.device]
    return loss.item(), held["Total"] - held["Parameter"]  # the centres are there in any case


# %%
(loss, much), (same, little) = peak_of(plain), peak_of(lambda x: head(x, names))
matrix = 4 * len(images) * C  # bytes
print(f"plain {much / 2**20:.0f} MiB, {much / matrix:.1f} matrices; the package {little / 2**20:.0f} MiB")

# %% tags=["test"]
assert abs(loss - same) < 1e-3 and much > 3 * matrix and little < matrix

# %% [markdown]
# "The logits" are several matrices, and a normalised copy of the centres comes on top. In chunks the peak no longer grows with
# the number of people.
#
# Chunks save memory. Do they save time? On a CPU, yes: a chunk stays in the cache, and at 93,431 classes the package's head was
# 2.7 times as fast as the plain one. **On a GPU they cost time.** An H100 took 5.4 ms in chunks and 3.4 ms at once for 93,431
# classes, 41 ms and 32 ms for a million ([docs/performance.md](../docs/performance.md)). It has the memory bandwidth
# for large matrices, and many small launches keep it waiting. (Chunks on GPUs are four times as large since then; the time was not
# measured again.) So on a GPU chunks are for what does not fit otherwise.
#
# ## Exercise: join two chunks
#
# A chunk leaves a pair behind, (maximum, sum of exp(logit − maximum)), two numbers per image. Write the function that joins
# the pairs of two chunks into the pair of both. The rest of this notebook is built on it.

# %%
from arcface_edu.course.checks.partial_fc import check_merge


def merge(a, b):
    """a, b: (maximum, sum) of two chunks, each (N,) -> (maximum, sum) of both."""
    return None


check_merge(merge)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The common maximum is the larger one. Each sum counts from its own maximum. How much smaller is it, counted from the common one?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
# def merge(a, b):
#     top = torch.maximum(a[0], b[0])
#     return top, a[1] * (a[0] - top).exp() + b[1] * (b[0] - top).exp()
# ```
# </details>

# %% [markdown]
# The order of the chunks does not matter, and neither does the place. So the other chunk may as well be on another machine.
#
# ## Two processes share one softmax
#
# Each process holds some of the people, and no other process ever sees their centres. For the loss of a batch they exchange
# three numbers per image: the maximum, the sum, and the target logit, which only one process has. First in one process, with a
# list of shards in the place of the processes:


# %%
def sharded_softmax(x, labels, shards):
    """x: (N, D), the images of all processes; shards: each process's (c, D) centres, class after class."""
    logits = [64 * x @ part.T for part in shards]
    top = torch.stack([z.amax(1) for z in logits]).amax(0)  # message 1, a maximum over processes
    total = sum((z - top[:, None]).exp().sum(1) for z in logits)  # message 2, a sum
    is_target = F.one_hot(labels, sum(map(len, shards))).split([len(part) for part in shards], dim=1)
    target = sum((z * own).sum(1) for z, own in zip(logits, is_target, strict=True))  # message 3, a sum
    return (top + total.log() - target).mean()


shared, whole = sharded_softmax(x, labels, centres.split(20_000)), F.cross_entropy(64 * x @ centres.T, labels)
print(f"three shards {shared:.5f}, the whole softmax {whole:.5f}")

# %% tags=["test"]
assert torch.allclose(shared, whole, rtol=1e-5)

# %% [markdown]
# With real processes a message is an all-reduce. This program is complete, backward pass and margin included. In the
# backward pass each process has all it needs for its own centres. Only the gradient of the embeddings is a sum over
# processes.

# %%
from pathlib import Path

Path("runs/course_05").mkdir(parents=True, exist_ok=True)

# %%
# %%writefile runs/course_05/sharded.py
import torch
import torch.distributed as dist
from torch.nn import functional as F

from arcface_edu import PartialFC
from arcface_edu.heads import target_logit

PEOPLE, DIMENSION, IMAGES = 1001, 128, 8  # so many images for each process


def sharded_loss(x, labels, centres, first):
    """x: (N, D) of all processes; centres: (c, D) of the classes first, first + 1, ... on this process."""
    cosine = F.normalize(x) @ F.normalize(centres).T  # (N, c)
    is_target = labels[:, None] == first + torch.arange(len(centres))
    logits = 64 * torch.where(is_target, target_logit(cosine, (1.0, 0.5, 0.0)), cosine)
    top = logits.detach().amax(1)
    dist.all_reduce(top, dist.ReduceOp.MAX)  # message 1
    exps = (logits.detach() - top[:, None]).exp()
    total, target = exps.sum(1), (logits.detach() * is_target).sum(1)
    dist.all_reduce(total)  # message 2
    dist.all_reduce(target)  # message 3
    error = (exps / total[:, None] - is_target.float()) / len(labels)  # softmax minus one at the target
    logits.backward(error)
    dist.all_reduce(x.grad)  # each process adds what its own classes want of an embedding
    return (top + total.log() - target).mean()


dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)  # every process draws the same, and keeps its own share of the centres
x = torch.randn(IMAGES * world, DIMENSION, requires_grad=True)
labels = torch.randint(PEOPLE, (IMAGES * world,))
table, share = torch.randn(PEOPLE, DIMENSION), -(-PEOPLE // world)
rows = slice(rank * share, (rank + 1) * share)
centres = table[rows].clone().requires_grad_()
loss = sharded_loss(x, labels, centres, rows.start)

# The same in one process, which holds everything ...
whole, images = table.clone().requires_grad_(), x.detach().clone().requires_grad_()
cosine = F.normalize(images) @ F.normalize(whole).T
logits = torch.where(F.one_hot(labels, PEOPLE).bool(), target_logit(cosine, (1.0, 0.5, 0.0)), cosine)
alone = F.cross_entropy(64 * logits, labels)
alone.backward()

# ... and by the package, which receives this process's images alone; DDP would divide its gradient by the world size.
head, mine = PartialFC(DIMENSION, PEOPLE), slice(rank * IMAGES, (rank + 1) * IMAGES)
head.weight.data.copy_(centres.detach())
own = x.detach()[mine].clone().requires_grad_()
package = head(own, labels[mine])
package.backward()

apart = [loss - alone, x.grad - images.grad, centres.grad - whole.grad[rows]]
apart += [loss - package, x.grad[mine] - own.grad / world, centres.grad - head.weight.grad]
apart = torch.stack([one.detach().abs().max() for one in apart])
dist.all_reduce(apart, dist.ReduceOp.MAX)
if rank == 0:
    print(f"{world} processes: loss {loss:.5f}; {3 * len(labels)} numbers sent for the softmax. Differences:")
    for name, three in zip(("one process", "PartialFC"), apart.split(3), strict=True):
        loss, embeddings, others = (f"{one:.0e}" for one in three)
        print(f"  from {name}: loss {loss}, embeddings' gradient {embeddings}, centres' {others}")
dist.destroy_process_group()

# %% [markdown]
# **Predict**: 2 processes, 16 images, 1,001 people of 128 numbers. How many numbers does the softmax send? And with a billion people?

# %%
from arcface_edu.course.notebook import torchrun

print(torchrun("runs/course_05/sharded.py", processes=2))

# %% [markdown]
# <details><summary>Answer</summary>
#
# 48, with 1,001 people or a billion. The gradients of the centres are never sent. Under DDP all of them would travel, 2 GB in each
# step for a million people.
# </details>
#
# What does travel is the batch: each process needs the embeddings of all processes, and the gradient of each embedding comes
# back as a sum. The package's `PartialFC` does this with the same messages.
#
# ## Exercise: the backward pass
#
# Now write that backward pass yourself, for one process and without the margin: logits $z = s\, x\, W^\top$, and the loss is the
# mean over $N$ images of $-z_y + \ln \sum_j e^{z_j}$. You get what the messages have brought: maximum and sum over *all*
# classes. Return the gradient of the loss for the embeddings, as far as these classes contribute, and for these centres.

# %%
from arcface_edu.course.checks.partial_fc import check_backward


def my_backward(x, centres, labels, first, top, total, s):
    """x: (N, D); centres: (c, D) of the classes first, first + 1, ...; labels, top, total: (N,)."""
    return None  # (N, D), (c, D)


check_backward(my_backward)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\partial L / \partial z_{ij} = (p_{ij} - [j = y_i]) / N$, with $p_{ij} = e^{z_{ij} - M_i} / \Sigma_i$. A matrix product of the
# error with the centres gives the one gradient, with the embeddings the other. Where is the column of a label that another process holds?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
# def my_backward(x, centres, labels, first, top, total, s):
#     p = (s * x @ centres.T - top[:, None]).exp() / total[:, None]  # (N, c)
#     is_target = labels[:, None] == first + torch.arange(len(centres))
#     error = s * (p - is_target.to(p)) / len(x)
#     return error @ centres, error.T @ x
# ```
# </details>

# %% [markdown]
# ## A tenth is enough
#
# Nothing is too large now, but every image is still compared with every person. *Partial FC* draws a tenth of the people in
# each step and leaves the others out. The people of the batch are always kept.
#
# **Predict**: why? A batch of 128 people, of 50,000. How many of their own centres would a plain lottery keep?


# %%
def sample(labels, C, rate):
    """The classes to use in this step: those of the batch, and others by lot."""
    positive = labels.unique()
    others = torch.randperm(C)
    others = others[~torch.isin(others, positive)]
    return torch.cat([positive, others[: max(0, round(rate * C) - len(positive))]])


def sampled_loss(x, weight, labels, rows, margin=0.5, s=64):
    """ArcFace over the classes `rows` alone, as in 02."""
    cosine = F.normalize(x) @ F.normalize(weight[rows]).T  # (B, R)
    column = (labels[:, None] == rows).long().argmax(1)  # where each image's class is among them
    target = target_logit(cosine.gather(1, column[:, None]), (1.0, margin, 0.0))
    return F.cross_entropy(s * cosine.scatter(1, column[:, None], target), column)


lottery = torch.randperm(C)[: C // 10]
kept = [torch.isin(labels, chosen).sum().item() for chosen in (lottery, sample(labels, C, 0.1))]
print(f"of the 128 people of the batch the lottery keeps {kept[0]}, our sample {kept[1]}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# About 13. Nine in ten images would lose their own centre and would only be pushed away from others. Other people are plentiful, but a
# person meets its own centre rarely: with ten million people and 1,024 images a step, once in 10,000 steps.
# </details>
#
# Is it the package's head? Both draw at random, so ask `PartialFC` for its sample and use the same rows.

# %%
from arcface_edu.heads import PartialFC

twins = [PartialFC(D, C, sample_rate=0.1, seed=7) for _ in range(2)]  # same centres, same samples
rows = twins[0].sample(labels)
by_hand, package = sampled_loss(x, twins[0].weight, labels, rows).item(), twins[1](x, labels).item()
print(f"{len(rows):,} of {C:,} classes in use: by hand {by_hand:.5f}, PartialFC {package:.5f}")

# %% tags=["test"]
assert math.isclose(by_hand, package, rel_tol=1e-5) and torch.isin(labels, rows).all() and kept[0] < 40

# %% [markdown]
# **Predict**: nine in ten terms are missing from the sum. How much does the loss change? And the direction in which it pulls an
# embedding?


# %%
def loss_and_pull(rate):
    own = x.clone().requires_grad_()
    loss = sampled_loss(own, centres, labels, sample(labels, C, rate))
    return loss.item(), torch.autograd.grad(loss, own)[0]


full, pull = loss_and_pull(1.0)
print(f"all people: loss {full:.2f}")
for rate in (0.5, 0.1, 0.05):
    loss, other = loss_and_pull(rate)
    alike = F.cosine_similarity(pull, other).mean()
    print(
        f"{rate:>4.0%}: {loss - full:+.2f}, and ln({rate}) = {math.log(rate):+.2f}; cosine between the pulls {alike:.3f}"
    )

# %% tags=["test"]
assert abs(loss - full - math.log(rate)) < 0.15 and alike > 0.95

# %% [markdown]
# <details><summary>Answer</summary>
#
# A tenth of the terms gives a tenth of the sum, so the loss falls by $\ln 10 = 2.30$. The model is no better for it: **losses at
# different rates cannot be compared**. The gradient hardly changes, because softmax divides by the sum.
# </details>
#
# This is the beginning of a training, with centres at random. Later the few people that matter are look-alikes, and one sample
# misses most of them. The next step draws others:

# %%
from arcface_edu.course.figures.sharded_head import plot_samples

batches = [torch.randint(300, (12,)) for _ in range(24)]
plot_samples([batch.unique() for batch in batches], [sample(batch, 300, 0.1) for batch in batches], 300)

# %% [markdown]
# A centre that is not in use must not move: no gradient, but no momentum and no weight decay either. `weight[rows]` gives
# a gradient of zeros for all others, and an optimizer with momentum would move them all the same. The package's gradient is sparse, and its
# optimizers ([training/row_optim.py](../arcface_edu/training/row_optim.py)) touch those rows alone. With two processes, each draws from its own people:

# %%
import json

*said, result = torchrun("arcface_edu.course.shards", "sample", processes=2).splitlines()
print("\n".join(said))

# %% tags=["test"]
assert all(one["missing"] == 0 and 0 <= one["moved"] <= one["used"] for one in json.loads(result)["ranks"])

# %% [markdown]
# ## Wrong labels
#
# So far the sample saves time. It has a second effect, after which the second paper is named, "Killing two birds with one
# stone". Large data sets come from the web. Some photographs carry the name of somebody else (*flip*), and some people
# appear under two names (*conflict*). Then a centre that counts as another person is in truth one's own, and the softmax
# pushes an image away from it, hard, because it is the nearest. A sample of a tenth leaves it out nine times in ten.
#
# Try it with vectors in place of photographs, as in 02: 24 numbers are a person, 24 are light and pose, and a camera mixes them.

# %%
torch.manual_seed(0)
MIX, CAMERA, PEOPLE = torch.randn(48, 128) / 3.5, torch.randn(128, 64) / 11, 800


def photograph(people, photos, seed):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(people).repeat_interleave(photos)
    who = torch.randn(people, 24, generator=rng)[labels]
    who = who + 0.2 * torch.randn(who.shape, generator=rng)
    light = torch.randn(len(labels), 24, generator=rng)
    return torch.tanh(torch.cat([who, light], 1) @ MIX) @ CAMERA, labels


# %%
photos, true = photograph(PEOPLE, 8, seed=1)
rng = torch.Generator().manual_seed(5)
wrong = torch.rand(len(true), generator=rng) < 0.4
flipped = torch.where(wrong, torch.randint(PEOPLE, (len(true),), generator=rng), true)
conflict = true + PEOPLE * (torch.rand(len(true), generator=rng) < 0.5)  # each person under two names
datasets = {"clean": true, "40 % flipped": flipped, "two names each": conflict}


# %%
def layer(inputs, outputs):
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()


def train(names, rate, seed, steps=400):
    torch.manual_seed(seed)
    C = int(names.max()) + 1
    net = nn.Sequential(*layer(64, 256), *layer(256, 256), nn.Linear(256, 32), nn.BatchNorm1d(32, affine=False))
    weight = nn.Parameter(0.1 * torch.randn(C, 32))
    groups = [dict(params=net.parameters(), momentum=0.9, weight_decay=5e-4), dict(params=[weight], lr=1.0)]
    optimizer = torch.optim.SGD(groups, lr=0.1)  # the centres without momentum: an unused one stays where it is
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps)
    for _ in range(steps):
        batch = torch.randint(len(names), (64,))
        rows = sample(names[batch], C, rate)
        loss = sampled_loss(net(photos[batch]), weight, names[batch], rows, margin=0.3, s=32)
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return net.eval()


# %%
strangers, who = photograph(100, 6, seed=3)
first, second = torch.triu_indices(len(who), len(who), 1)
same = who[first] == who[second]


@torch.no_grad()
def tar(net, far=0.01):
    """Share of the pairs of one person accepted where 1 % of the pairs of two people are; people never seen."""
    embeddings = F.normalize(net(strangers))
    cosine = (embeddings[first] * embeddings[second]).sum(1)
    return (cosine[same] > cosine[~same].quantile(1 - far)).float().mean().item()


# %% [markdown]
# **Predict**: which of the three data sets gains from a sample, and does any lose?

# %%
rates = (1.0, 0.3, 0.1)
found = {}
for name, given in datasets.items():
    found[name] = [[tar(train(given, rate, seed)) for seed in (0, 1, 2)] for rate in rates]
    for rate, seeds in zip(rates, found[name], strict=True):
        print(f"{name:14} {rate:>4.0%} of the centres:", *(f"{share:.1%}" for share in seeds))

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
for color, (name, by_rate) in zip(("#8A8A8A", "#D55E00", "#0072B2"), found.items(), strict=True):
    means = [sum(seeds) / 3 for seeds in by_rate]
    ax.plot(range(3), [100 * share for share in means], color=color, linewidth=2, label=name)
    for place, seeds in enumerate(by_rate):
        ax.plot([place] * 3, [100 * share for share in seeds], "o", color=color, markersize=5, alpha=0.7)
ax.set_xticks(range(3), [f"{rate:.0%} of the centres" for rate in rates])
ax.set(ylabel="TAR at FAR 1e-2 (%)", ylim=(30, 100), xlim=(-0.3, 2.3))
ax.set_title("With wrong labels a sample recognises more people, three seeds each", loc="left")
ax.grid(color="#E6E6E6"), ax.legend(frameon=False)
plt.show()

# %% tags=["test"]
assert min(found["40 % flipped"][2]) > max(found["40 % flipped"][0])

# %% [markdown]
# <details><summary>Answer</summary>
#
# With 40 % flipped labels a sample helps with every seed: 45 % of one person's pairs with all centres, 57 % with three tenths, 63 %
# with a tenth. With two names for each person it helps a little, 87 %, 90 % and 89 %. With clean labels it costs: 97 %, 96 %
# and 93 %. Is it only a matter of the learning rate, as in 02? No: between 0.025 and 1.6 the best run with all centres of
# the flipped data had 43 %, the best with a tenth 66 % (one seed).
# </details>
#
# At full scale InsightFace has published this, r50 on WebFace12M made noisy on purpose
# ([arcface_torch README](https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch); the sampled runs also filter out
# suspicious negatives, the key `interclass_filtering_threshold`):
#
# | published, % | MFR-ALL | IJB-C at FAR 1e-4 |
# |---|---|---|
# | WF12M-Flip (40 %), all centres | 43.87 | 88.35 |
# | WF12M-Flip (40 %), a tenth, with filter | 80.20 | 96.11 |
# | WF12M-Conflict, all centres | 79.93 | 95.30 |
# | WF12M-Conflict, three tenths, with filter | 91.68 | 97.28 |
#
# ## What a step costs
#
# The arithmetic of the head grows with the number of people in use. On this machine, with 64 images and 128 numbers per centre:

# %%
import time


def step_time(classes, rate, steps=10):
    head, spent = PartialFC(128, classes, sample_rate=rate), []
    own, names = torch.randn(64, 128, requires_grad=True), torch.randint(classes, (64,))
    for _ in range(steps):
        began = time.perf_counter()
        head(own, names).backward()
        spent.append(1000 * (time.perf_counter() - began))
    return min(spent)


# %%
from arcface_edu.course.figures.sharded_head import plot_step_time

people = [10_000, 20_000, 40_000, 80_000]
times = {name: [step_time(C, rate) for C in people] for name, rate in (("all in use", 1.0), ("a tenth", 0.1))}
print(f"at {people[-1]:,} a tenth is {times['all in use'][-1] / times['a tenth'][-1]:.1f} times as fast")
plot_step_time(people, times)

# %% [markdown]
# It is not always ten times as fast: drawing and gathering rows takes time, and a small head fits the cache where a large one
# does not. And the head is only a part of the step. The backbone takes its time whatever $C$ is, so a faster head helps
# only where the head is a large part of the step.
#
# ## All together
#
# Four ways to hold a head, against the memory of one GPU. How many people fit 80 GiB? In a running notebook the sliders move.
# Try a billion people: how many GPUs does each way need, and which is helped by a smaller batch?

# %%
from ipywidgets import FloatLogSlider, FloatSlider, IntSlider
from arcface_edu.course.widgets import Panel
from arcface_edu.course.figures.sharded_head import plot_memory_bars

Panel(
    plot_memory_bars,
    classes=FloatLogSlider(1e8, min=4, max=9, step=0.1, description="people"),
    gpus=IntSlider(8, min=1, max=256, description="GPUs"),
    batch=IntSlider(128, min=16, max=1024, step=16, description="batch"),
    rate=FloatSlider(0.1, min=0.02, max=1, step=0.02, description="rate"),
)

# %% [markdown]
# *Shared, in chunks* uses all people in each step and holds no logits: it fits nearly as many people as a sample does. So
# chunks are for memory, and a sample is for time and for wrong labels.

# %%
from arcface_edu.course.figures.sharded_head import plot_memory_growth

plot_memory_growth([1e5, 1e6, 1e7, 1e8, 1e9], gpus=8, batch=128, rate=0.1)

# %% [markdown]
# ## Recap
#
# 1. Why do the logits of one GPU not shrink when its classes are shared with more GPUs?
# 2. What is a running sum multiplied by when a larger logit comes, and why may the maximum not be left out?
# 3. Which three numbers per image do the processes exchange, and which gradient is never sent?
# 4. Why must the people of the batch be in the sample, and why is a loss at rate 0.1 lower by 2.3?
# 5. Your data has 90,000 people and some wrong labels: what would you expect of `sample_rate=0.1`, and how would you find out?
#
# ## Appendix: when does it pay at full scale?
#
# The package's *plan* answers that without a GPU. It builds one process of a run on tensors without contents, counts its operations
# and its memory, and divides by what a GPU can do. For ResNet-50 on 8 x V100:

# %%
from arcface_edu.config import load_config
from arcface_edu.planning.gpus import GPUS
from arcface_edu.planning.advice import partial_fc_pays_from
from arcface_edu.planning.measure import measure_step
from arcface_edu.training.prepare import complete_without_data

config = complete_without_data(load_config("ms1mv3_r50"), gpus=8)
pays_from = partial_fc_pays_from(config, measure_step(config, 8, torch.float16), GPUS["v100"])
print(f"a tenth takes 5 % off a step from about {pays_from:,} people on; MS1MV3 has {config.num_classes:,}")

# %% tags=["test"]
assert 10_000 < pays_from < 1_000_000

# %% [markdown]
# Can such a plan be believed? InsightFace published what its runs on 8 V100s took. Its head of that time held all
# logits whole, in several copies, so the plan is asked for that head.

# %%
from arcface_edu.planning.gpus import time_on
from arcface_edu.course.published_runs import BY_CLASSES, PUBLISHED, plan_published

counts = (1_000_000, 4_000_000)
runs = [run for run in PUBLISHED if run.source == BY_CLASSES and run.classes in counts]
plans = [plan_published(run) for run in runs]
rows = []
for run, plan in zip(runs, plans, strict=True):
    speed, memory = run.images / time_on(plan, GPUS["v100"]).step, plan.peak / 2**30
    rows.append((run.way, run.classes, run.speed, speed, run.memory / 1024, memory))
    print(f"{run.way:>7} {run.classes:>9,}: {run.speed:,} images/s, plan {speed:,.0f};", end=" ")
    print(f"{run.memory / 1024:.1f} GiB, plan {memory:.1f}")

# %%
from arcface_edu.course.figures.sharded_head import plot_published

plot_published(rows)

# %% tags=["test"]
assert all(abs(predicted / published - 1) < 0.25 for _, _, *of in rows for published, predicted in (of[:2], of[2:]))

# %% [markdown]
# Read it from left to right. At a million people, a copy on each GPU is the slowest and the largest, and four million would not
# fit. Shared by class, four million fit, but memory and time grow with them. With a tenth in use both are nearly flat. And what
# fills the memory of *model* (shared by class) at four million?

# %%
million_4 = plans[[run[1:4] for run in runs].index(("model", "r50", 4_000_000))]
parts = {kind.value: size / million_4.peak for kind, size in million_4.memory.items()}
print({kind: f"{share:.0%}" for kind, share in parts.items() if share > 0.01})

# %% tags=["test"]
assert max(parts, key=parts.get) == "logits"

# %% [markdown]
# The logits, as you computed. In chunks that part goes away, with or without a sample.
#
# ## Further
#
# - [heads/chunked.py](../arcface_edu/heads/chunked.py): both passes over the classes, in bits instead of nats because exp2 is faster
# - [heads/margin_softmax.py](../arcface_edu/heads/margin_softmax.py): `PartialFC`, with its sample and its sharded table
# - [training/row_optim.py](../arcface_edu/training/row_optim.py): optimizers that step only the rows in use
# - [docs/plan.md](../docs/plan.md): the plan beside 29 published runs
# - Partial FC, [arXiv 2010.05222](https://arxiv.org/abs/2010.05222) and [2203.15565](https://arxiv.org/abs/2203.15565);
#   online softmax, [arXiv 1805.02867](https://arxiv.org/abs/1805.02867)
