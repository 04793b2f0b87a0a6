# %% [markdown]
# # 05 · A million people
#
# A network does not care how many people it tells apart, but its last layer does: one centre a person. This notebook makes
# that layer grow until it no longer fits, and takes it apart with three ideas: walk over the classes in chunks, spread
# them over processes, and use a tenth of them in a step. You will write each by hand, prove it equal to the package's
# head, and know at the end from how many people on it pays.
#
# | | |
# |---|---|
# | you will see | a softmax that never holds its logits, two processes that share one, and a loss that is wrong by ln 10 on purpose |
# | you need | basic PyTorch; nothing is downloaded |
# | takes | 0.6 minutes on two cores |
# | before | [04 · One training on many processes](04_dataparallel_vs_ddp.ipynb) |
# | after | [06 · A training run from start to end](06_training_run.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## What a head weighs
#
# C people, each with a centre of 512 numbers in fp32. Training keeps the centre, its gradient and its momentum. And a
# step has one logit for every image and every person.
#
# **Predict**: 8 GPUs with 128 images each, a million people. Which is largest on one GPU: the centres, or the logits? Does
# it help to give each GPU an eighth of the people?

# %%
from arcface_edu.course.figures.sharded_head import head_memory

gib = 2**30
for name, options in {"a copy each": dict(copies=True), "an eighth each": {}}.items():
    held = head_memory(1_000_000, gpus=8, batch=128, **options)
    print(f"{name:>14}: " + ", ".join(f"{kind} {size / gib:.2f}" for kind, size in held.items()), "GiB")

# %% [markdown]
# With a copy on each GPU the table is counted three times and leads. Shared, it shrinks to an eighth. But **the
# logits do not shrink at all**: whoever holds an eighth of the people has to compare them with the images of all eight.
# Per GPU it is (8 · 128) · (C / 8) = 128 · C, with any number of GPUs. More machines do not help against logits.

# %%
C, B, D = 1_000_000, 128, 512
for gpus in (1, 8, 64):
    held = head_memory(C, gpus, B)
    assert held["logits"] == 4 * B * C and held["weights"] == 4 * C * D / gpus

# %%
from arcface_edu.course.figures.sharded_head import plot_memory_growth

plot_memory_growth([1e5, 1e6, 1e7, 1e8, 1e9], gpus=8, batch=128, rate=0.1)

# %% [markdown]
# This counts the logits once. A softmax with autograd holds several such matrices: cosines, logits, probabilities, their
# gradient. So the logits come first.
#
# ## A softmax that forgets
#
# The loss of one image is −(its own logit) + ln Σ exp(logit), over all C. A sum can be taken in parts: compute the logits
# of a thousand people, add their exponentials, forget them.
#
# **Predict**: with s = 64 no logit exceeds 64. Is exp(64) a number in fp32? exp(89)? And in fp16?

# %%
import torch

for dtype in (torch.float32, torch.float16):
    values = {at: torch.tensor(float(at)).exp().to(dtype).item() for at in (11, 12, 64, 88, 89)}
    print(f"{dtype!s:14}", *(f"exp({at}) = {value:.2g}" for at, value in values.items()), sep="   ")

# %% [markdown]
# exp(64) is fine: 6 · 10²⁷, of 3 · 10³⁸. That is luck, not design: fp16 ends already at 11, fp32 at 88, and a scale is only a
# setting. So nobody takes exp of a logit. Subtract the greatest logit first, and put it back after the logarithm:
#
# ln Σ exp(z) = top + ln Σ exp(z − top)
#
# exp then sees nothing above 0. But in chunks the greatest is not known yet: a later chunk may hold a greater one. Then what was
# summed so far counts from the wrong maximum, and is put right by one factor, exp(old top − new top).


# %%
def walk(x, centres, chunk):
    """(B, D) embeddings, (C, D) centres: after each chunk the running maximum and sum, (B,) both."""
    top, total = torch.full((len(x),), -torch.inf), torch.zeros(len(x))
    for part in centres.split(chunk):
        logits = 64 * x @ part.T  # (B, chunk), all there ever is
        higher = torch.maximum(top, logits.amax(1))
        total = total * (top - higher).exp() + (logits - higher[:, None]).exp().sum(1)
        top = higher
        yield top, total


# %%
from torch.nn import functional as F

C, D = 50_000, 512
centres = F.normalize(torch.randn(C, D))
x, labels = F.normalize(torch.randn(128, D)), torch.randint(C, (128,))
tops, totals = zip(*walk(x, centres, chunk=1000), strict=True)
by_chunks = tops[-1] + totals[-1].log()
assert torch.allclose(by_chunks, torch.logsumexp(64 * x @ centres.T, 1), atol=1e-5)

# %%
from arcface_edu.course.figures.sharded_head import plot_walk

seen = range(1000, C + 1, 1000)
plot_walk(seen, [top[0] for top in tops], [total[0] for total in totals])

# %% [markdown]
# Each time the orange line steps up, everything before is scaled down, and the blue one does not notice. 1,000 logits an
# image were in memory, instead of 50,000. For the whole loss only the true logit is missing, and its margin: take exp of the
# plain one out of the sum, put the marked one in.

# %%
from arcface_edu.heads import MarginSoftmax, target_logit

true = (x * centres[labels]).sum(1)
marked = 64 * target_logit(true, (1.0, 0.5, 0.0))
top, total = tops[-1], totals[-1]
total = total - (64 * true - top).exp() + (marked - top).exp()
loss = (top + total.log() - marked).mean()

head = MarginSoftmax(D, C)
head.weight.data.copy_(centres)
print(f"by hand {loss:.5f}, the package {head(x, labels).item():.5f}")
assert torch.allclose(loss, head(x, labels), rtol=1e-5)

# %% [markdown]
# The package walks a second time for the gradient, softmax minus one at the true class: chunk by chunk again, from the
# finished sum. It takes the true class out *before* summing, not after: where one class holds nearly the whole sum,
# our subtraction would leave rounding errors. Everything else is as you have just written it.
#
# And what does that save? PyTorch can track every tensor that is alive. Here are 512 images against the 50,000 people.
#
# **Predict**: their logits are a matrix of 98 MiB. How many times as much does the plain softmax hold at its worst moment?

# %%
from torch.distributed._tools.mem_tracker import MemTracker

images, names = x.repeat(4, 1), labels.repeat(4)


def plain(x):
    cosine = F.normalize(x) @ F.normalize(head.weight).T
    marked = torch.where(F.one_hot(names, C).bool(), target_logit(cosine, (1.0, 0.5, 0.0)), cosine)
    return F.cross_entropy(64 * marked, names)


# %%
def peak_of(loss_of):
    with MemTracker() as tracker:
        loss = loss_of(images)
    held = tracker.get_tracker_snapshot("peak")[loss.device]
    return loss.item(), held["Total"] - held["Parameter"]  # the centres are there in any case


(loss, much), (same, little) = peak_of(plain), peak_of(lambda x: head(x, names))
matrix = 4 * len(images) * C  # bytes
print(f"plain {much / 2**20:.0f} MiB, {much / matrix:.1f} matrices; the package {little / 2**20:.0f} MiB")
assert abs(loss - same) < 1e-3 and much > 3 * matrix and little < matrix

# %% [markdown]
# So "the logits" are several matrices, a copy of the centres for the normalisation among them. The package normalises no
# table, and keeps at most 48 MiB of logits, so as not to compute all of them twice: no more of them for a million people.
#
# ## Exercise: join two chunks
#
# What a chunk leaves behind is a pair, (maximum, sum of exp(logit − maximum)), two numbers an image. Write the function that joins
# the pairs of two chunks into the pair of both. It is all that the rest of this notebook needs.

# %%
from arcface_edu.course.checks.partial_fc import check_merge


def merge(a, b):
    """a, b: (maximum, sum) of two chunks, each (N,) -> (maximum, sum) of both."""
    return None


check_merge(merge)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The common maximum is the greater one. Each sum counts from its own: how much smaller does it get when counted from the common?
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
# Joining does not care about order, nor about who did the chunk. So the other chunk may as well be on another machine.
#
# ## Two processes share one softmax
#
# Each of two processes holds half of the people, and no other process ever sees them. What do they have to tell each other
# for the loss of a batch? Per image: the maximum, the sum, and the true logit, which only one of them has. A *max* and a
# *sum* over processes: two all-reduces.

# %%
import inspect
from arcface_edu.course.shards import sharded_softmax

print(inspect.getsource(sharded_softmax))

# %% [markdown]
# **Predict**: two processes, 8 images each, 1,001 people of 128 numbers. How many numbers does the softmax send?

# %%
import json
from arcface_edu.course.notebook import torchrun

*said, result = torchrun("arcface_edu.course.shards", "softmax", processes=2).splitlines()
print("\n".join(said))
result = json.loads(result)
assert result["equal"] and result["numbers_sent"] == 3 * 16

# %% [markdown]
# Equal to one process that holds everything, in the loss, in what the network receives and in what each centre receives.
# 48 numbers, whether 1,001 people or a billion. The gradients of the centres are never sent: each process already has
# all it needs for its own. Under DDP all of them would travel, 2 GB a step for a million people.
#
# What does travel is the batch: everybody needs everybody's embeddings, and the gradient of each comes back as a sum.
#
# ## A tenth is enough
#
# Now nothing is too large, but all is still computed: each image against each person. *Partial FC* draws a tenth of the
# people anew in each step and leaves the others out, but never the people of the batch.
#
# **Predict**: why never those? A batch of 128 people, of 50,000. How many of their centres would an honest lottery keep?

# %%
from arcface_edu.heads import PartialFC

lottery = torch.randperm(C)[: C // 10]
head = PartialFC(D, C, sample_rate=0.1)
kept = torch.isin(labels, lottery).sum().item()
print(f"the lottery keeps {kept} of 128, PartialFC {torch.isin(labels, head.sample(labels)).sum()}")
assert torch.isin(labels, head.sample(labels)).all() and kept < 40

# %% [markdown]
# Nine of ten images would have nothing to come closer to: only strangers to be pushed from. And there are strangers
# enough, but a person meets its own centre rarely: with ten million people and 1,024 images a step, once in 10,000 steps. With
# the lottery it would be once in 100,000.
#
# **Predict**: strangers are left out of the sum in the loss, nine of ten. By how much does the loss change? And the direction
# in which it pulls an embedding?


# %%
def loss_and_pull(rate):
    own = x.clone().requires_grad_()
    loss = PartialFC(D, C, sample_rate=rate)(own, labels)
    return loss.item(), torch.autograd.grad(loss, own)[0]


# %%
import math

full, pull = loss_and_pull(1.0)
print(f"everybody: loss {full:.2f}")
for rate in (0.5, 0.1, 0.05):
    loss, other = loss_and_pull(rate)
    alike = F.cosine_similarity(pull, other).mean()
    print(f"{rate:>4.0%}: {loss - full:+.2f}, where ln({rate}) = {math.log(rate):+.2f}; pulls alike to {alike:.3f}")
    assert abs(loss - full - math.log(rate)) < 0.15 and alike > 0.95

# %% [markdown]
# A tenth of the terms gives a tenth of the sum, and its logarithm is lower by ln 10 = 2.30. That is no better model:
# **losses at different rates cannot be compared**. The gradient hardly notices, because softmax divides by the
# sum: what is left out of numerator and denominator cancels. This is early in training, with centres at random. Later the
# few strangers that matter are look-alikes, and a sample misses most of them in any one step. Next step it draws others.
#
# In two processes each draws from its own people:

# %%
*said, result = torchrun("arcface_edu.course.shards", "sample", processes=2).splitlines()
print("\n".join(said))
ranks = json.loads(result)["ranks"]
assert all(one["missing"] == 0 and 0 <= one["moved"] <= one["used"] for one in ranks)

# %% [markdown]
# What is not in use does not move: no gradient, no momentum, no weight decay. The gradient is a list of rows, and the
# optimizer touches those alone.
#
# ## What a step costs
#
# The head's arithmetic goes in proportion to the people in use. On this machine, 64 images and 128 numbers a centre:

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
# It need not be ten times as fast: drawing and gathering rows takes time, and a small head fits the cache where a large one
# does not. And the head is not the whole step. The network takes its time whatever C is, so a faster head is worth something
# only where the head is a good part of the step.
#
# ## When does it pay?
#
# That is arithmetic on a real GPU, and nobody here needs to own one. The package's *plan* builds one process of a run on
# tensors without contents, counts its operations and its memory, and divides by what the GPU can do. ResNet-50, 8 x V100:

# %%
from arcface_edu.config import load_config
from arcface_edu.planning.gpus import GPUS
from arcface_edu.planning.advice import partial_fc_pays_from
from arcface_edu.planning.measure import measure_step
from arcface_edu.training.prepare import complete_without_data

config = complete_without_data(load_config("ms1mv3_r50"), gpus=8)
pays_from = partial_fc_pays_from(config, measure_step(config, 8, torch.float16), GPUS["v100"])
print(f"a tenth takes 5 % off a step from about {pays_from:,} people on; MS1MV3 has {config.num_classes:,}")
assert 10_000 < pays_from < 1_000_000

# %% [markdown]
# Can such a plan be believed? InsightFace published what its runs on 8 V100s took. Their head of that time held all
# logits whole, in several copies, so the plan is asked for that head.

# %%
from arcface_edu.planning.gpus import time_on
from arcface_edu.course.published_runs import BY_CLASSES, PUBLISHED, plan_published

counts = (1_000_000, 4_000_000)
runs = [run for run in PUBLISHED if run.source == BY_CLASSES and run.classes in counts]
plans = [plan_published(run) for run in runs]
rows = []
for run, plan in zip(runs, plans, strict=True):
    speed, memory = run.images / time_on(plan, GPUS["v100"]).step, plan.peak / gib
    rows.append((run.way, run.classes, run.speed, speed, run.memory / 1024, memory))
    print(f"{run.way:>7} {run.classes:>9,}: {run.speed:,} images/s, plan {speed:,.0f};", end=" ")
    print(f"{run.memory / 1024:.1f} GiB, plan {memory:.1f}")

# %%
from arcface_edu.course.figures.sharded_head import plot_published

assert all(abs(predicted / published - 1) < 0.25 for _, _, *of in rows for published, predicted in (of[:2], of[2:]))
plot_published(rows)

# %% [markdown]
# Read it from left to right. At a million, a copy each is the slowest and the largest; four million would not fit.
# Shared by class, four million fit, but memory and time grow with them: logits, as you computed. A tenth in use is nearly flat in
# both. And where does the memory of *model* at four million go? The plan knows:

# %%
million_4 = plans[[run[1:4] for run in runs].index(("model", "r50", 4_000_000))]
parts = {kind.value: size / million_4.peak for kind, size in million_4.memory.items()}
print({kind: f"{share:.0%}" for kind, share in parts.items() if share > 0.01})
assert max(parts, key=parts.get) == "logits"

# %% [markdown]
# With the chunks of this notebook that part goes away, with or without sampling. So today Partial FC is mostly for *time*; memory
# is saved by forgetting.
#
# ## Take it in your hand
#
# How many people fit a GPU of 80 GiB? Run live, the sliders move. Here are 100 million. Try a billion: how many GPUs does
# each way take, and which of them is helped by a smaller batch?

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
# ## Recap
#
# 1. Why do the logits of one GPU not shrink when its classes are shared with more GPUs?
# 2. What does a running sum have to be multiplied by when a greater logit comes, and why is exp(64) no excuse for leaving the maximum out?
# 3. Which three numbers of each image do the processes share, and which gradient is never sent?
# 4. Why must the people of the batch be among the sample, and why is a loss at rate 0.1 lower by 2.3?
# 5. Your data has 90,000 people and your network is large: would you set `sample_rate=0.1`, and what would you ask first?
#
# ## Further
#
# - [heads/chunked.py](../arcface_edu/heads/chunked.py): both walks over the classes, in bits instead of nats because exp2 is faster
# - [heads/margin_softmax.py](../arcface_edu/heads/margin_softmax.py): `PartialFC`, with its sample and its sharded table
# - [training/row_optim.py](../arcface_edu/training/row_optim.py): optimizers that step only the rows in use
# - [course/shards.py](../arcface_edu/course/shards.py): what the two processes ran
# - [docs/plan.md](../docs/plan.md): the plan beside 29 published runs
# - Partial FC, [arXiv 2010.05222](https://arxiv.org/abs/2010.05222) and [2203.15565](https://arxiv.org/abs/2203.15565);
#   online softmax, [arXiv 1805.02867](https://arxiv.org/abs/1805.02867)
