# %% [markdown]
# # 06 · A training run from start to end
#
# You start the real training run, watch it, stop one and take it up again, and learn to tell a healthy run from a sick
# one by three curves. On the way every line of a config gets its meaning, and you see what half of the bits cost.
#
# | | |
# |---|---|
# | you will see | a run from its config to its verification; fp16 overflowing; six runs and their diagnoses |
# | you need | basic PyTorch; nothing is downloaded |
# | takes | 3.5 minutes on two cores |
# | before | [05 · A million people](05_partial_fc.ipynb) |
# | after | [07 · How good is it?](07_benchmark.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## The config
#
# A run is data, code and a config. This one is the recipe of an r50 on 93,431 people. It is the form in which InsightFace
# writes configs, and it runs here as it is. The cell saves it as a file, in a folder of this notebook's own.

# %%
import shutil
from pathlib import Path

HERE = Path("runs/course_06")  # all short runs of this notebook; the long one is at home in runs/drawn_faces
shutil.rmtree(HERE, ignore_errors=True)  # of an earlier visit
HERE.mkdir(parents=True)

# %%
# %%writefile runs/course_06/ms1m.py
from easydict import EasyDict as edict

config = edict()
config.loss = "arcface"
config.network = "r50"
config.resume = False
config.output = None
config.embedding_size = 512
config.sample_rate = 1.0
config.fp16 = True
config.momentum = 0.9
config.weight_decay = 5e-4
config.batch_size = 128
config.lr = 0.1  # batch size is 512

config.rec = "/train_tmp/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.num_epoch = 25
config.warmup_epoch = -1
config.decay_epoch = [10, 16, 22]
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

# %% [markdown]
# | key | what it does | seen below |
# |---|---|---|
# | `loss` | the margins (m1, m2, m3) of cos(m1·θ + m2) − m3; `margin_list` sets any others | ✓ |
# | `network`, `embedding_size` | the backbone, and how many numbers describe a face | ✓ |
# | `sample_rate` | share of the class centres that take part in a step ([05](05_partial_fc.ipynb)) | ✓ |
# | `fp16` | mixed precision: matrix work in 16 bits, weights and loss in 32 | ✓ |
# | `momentum`, `weight_decay` | of SGD: how long a gradient goes on working; how fast weights shrink by themselves | ✓ |
# | `batch_size` | images per process and backward pass; GPUs and `gradient_acc` multiply it | ✓ |
# | `lr` | learning rate; with `decay_epoch` it is meant for 512 images a step and goes with them | ✓ |
# | `num_epoch`, `warmup_epoch`, `decay_epoch` | length; epochs of slow start, −1 for none; where the rate falls to a tenth | ✓ |
# | `rec`, `num_classes`, `num_image` | the data; the counts are held against what is really there | ✓ |
# | `val_targets` | verification sets, `lfw` is `lfw.bin` beside the data | ✓ |
# | `output`, `resume` | the run's folder (None: `runs/` and the config's name); whether to go on with what is in it | ✓ |

# %%
from arcface_edu import load_config
from arcface_edu.config import read_config_file

block = read_config_file(HERE / "ms1m.py")
written = load_config("runs/course_06/ms1m.py")
shipped = load_config("ms1mv3_r50")
different = {key for key in shipped if written[key] != shipped[key]}
assert different == {"rec", "output", "margin_gradient"}
print(f"{len(shipped)} keys, the block names {len(block)} of them; against ms1mv3_r50 only {sorted(different)} differ")

# %% [markdown]
# The gradient differs because the block is of 2021. arcface_torch computed the exact gradient of the margin until December
# 2022, and `ms1mv3_r50` says so by a key; a block without that key gets the straight-through gradient of today.
#
# What is misspelt is no new key but an error, and what is not there is said before anything is computed:

# %%
from arcface_edu.errors import ArcfaceError
from arcface_edu.training.prepare import find_pair_files

for attempt in (
    lambda: load_config("ms1mv3_r50", ["weight_decy=0"]),
    lambda: load_config("ms1mv3_r50", ["sample_rate=10"]),
    lambda: find_pair_files(written, Path("data")),
):
    try:
        attempt()
    except ArcfaceError as error:
        print(error)

# %% [markdown]
# `rec` is the data, and knows its own counts. A hundred of the default run's people, for a config that expects 93,431:

# %%
from arcface_edu.course.running import take_people
from arcface_edu.training.prepare import drawn_faces, prepare_data

everyone = drawn_faces(load_config("drawn_faces"))  # drawn now, if they are not there yet
crowd = take_people(everyone, HERE / "crowd", people=100)
try:
    prepare_data(load_config("drawn_faces", [f"rec={crowd}", "num_classes=93431"]))
except ArcfaceError as error:
    print(error)

# %% [markdown]
# `loss`, `network` and `sample_rate` decide what is built. (On PyTorch's `meta` device weights have shapes and take no
# memory.)

# %%
import torch

from arcface_edu import build_model
from arcface_edu.heads import build_head

with torch.device("meta"):
    for word in ("loss=cosface", "network=r100", "embedding_size=256", "sample_rate=0.1"):
        config = load_config("ms1mv3_r50", [word])
        head, model = build_head(config, config.num_classes), build_model(config.network, config.embedding_size)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        used = round(head.sample_rate * head.num_classes)
        print(f"{word:20s} margin {head.margin}, {millions:5.1f} M parameters, {used:,} centres a step")

# %% [markdown]
# ### momentum and weight_decay
#
# With momentum μ each step adds a new gradient to μ times the last step. Under a steady gradient the steps grow until
# what is added equals what fades: 1/(1 − μ) times a plain step. **lr = 0.1 with μ = 0.9 walks like lr = 1.**

# %%
import numpy as np

from arcface_edu.training.optim import build_optimizer

line = torch.nn.Linear(1, 1)
optimizer = build_optimizer(load_config("ms1mv3_r50", ["weight_decay=0"]), line)
places = []
for _ in range(60):
    line.weight.grad, line.bias.grad = torch.ones(1, 1), torch.zeros(1)
    optimizer.step()
    places.append(line.weight.item())
steps = -np.diff(places)
print(" ".join(f"{step:.3f}" for step in steps[::8]))
assert abs(steps[-1] - 0.1 / (1 - 0.9)) < 0.01

# %% [markdown]
# **Predict**: every convolution here has a batch normalisation behind it. If you halve all its weights, what happens to
# the output, and what to the gradient?

# %%
layer = torch.nn.Conv2d(3, 8, 3, bias=False)
norm = torch.nn.BatchNorm2d(8, eps=1e-12)
images, direction = torch.randn(4, 3, 16, 16), torch.randn(4, 8, 14, 14)


def look():
    layer.weight.grad = None
    out = norm(layer(images))
    (out * direction).sum().backward()
    return out.detach(), layer.weight.grad.norm()


(before, slope), _ = look(), layer.weight.data.mul_(0.5)
after, steeper = look()
print(f"output changed by {(after - before).abs().max():.0e}, the gradient is {steeper / slope:.3f} times as long")
assert torch.allclose(before, after, atol=1e-4) and abs(steeper / slope - 2) < 1e-3

# %% [markdown]
# The output is the same and the gradient twice as long. So weight decay cannot make such a network simpler; what it does
# is keep the weights short, and with them the *steps long*: relative to the weight, a step is lr/‖w‖². Without decay
# weights grow and training slows down by itself. Keep this in mind for the patients below. BN's own gain and bias,
# PReLU's slopes and biases have nothing behind them that would undo it, and the package leaves them out:

# %%
model = build_model("r10", 128)
decayed, kept = build_optimizer(load_config("drawn_faces"), model).param_groups
for group in (decayed, kept):
    print(f"weight_decay {group['weight_decay']:g}: {sum(p.numel() for p in group['params']):,} numbers")

# %% [markdown]
# ### The rate and the steps
#
# The linear rule ([1706.02677](https://arxiv.org/abs/1706.02677)): a batch k times as large is a gradient k times as
# trustworthy, so go k times as far. The comment `batch size is 512` in the block is this rule. Where the config states a
# recipe instead, the run compares, and says so.

# %%
from arcface_edu.training.schedule import Schedule, check_linear_rule

for gpus in (1, 4, 8, 16):
    schedule = Schedule.of(shipped, shipped.num_image, gpus)
    print(
        f"{gpus:2d} GPUs: {schedule.total_batch:5,} images a step, rate {schedule.peak_lr}, {schedule.total_steps:9,} steps"
    )
print(check_linear_rule(load_config("ms1mv3_r50_8gpus"), world_size=1))

# %%
from arcface_edu.course.figures.training_run import plot_schedules


def rates(name, gpus, *words):
    config = load_config(name, words)
    schedule = Schedule.of(config, config.num_image or 10_000, gpus)
    steps = np.linspace(0, schedule.total_steps - 1, 600).astype(int)
    return steps / schedule.steps_per_epoch, [schedule.lr(step) for step in steps]


# %% [markdown]
# **Predict**: the block's steps, and InsightFace's recipe of today, a straight line to 0 in 20 epochs. Which of them
# spends more epochs at a hundredth of its peak or less?

# %%
recipes = {"the block, 8 GPUs": rates("ms1mv3_r50", 8), "today's recipe": rates("ms1mv3_r50_8gpus", 8)}
recipes["the default run"] = rates("drawn_faces", 1)
recipes["the block, warmup_epoch=2"] = rates("ms1mv3_r50", 8, "warmup_epoch=2")
plot_schedules(recipes)

# %%
small = {name: np.mean(np.array(values) < max(values) / 99) * epochs[-1] for name, (epochs, values) in recipes.items()}
for name, epochs in small.items():
    print(f"{name:26s} {epochs:.1f} epochs at a hundredth or less")
assert small["today's recipe"] < 0.3 and 8.5 < small["the block, 8 GPUs"] < 9.5

# %% [markdown]
# A straight line looks long and is nearly all large steps: only its last fifth of an epoch is that small. The
# stairs spend nine epochs there.
#
# ## Sixteen bits
#
# `fp16 = True` lets convolutions and matrix products run in 16 bits, which tensor cores do many times faster, in half of
# the memory. There are two ways to spend 16 bits:

# %%
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    info = torch.finfo(dtype)
    print(
        f"{dtype!s:15s} largest {info.max:8.2e}, smallest {info.smallest_normal:8.2e}, next after 1: 1 + {info.eps:.1e}"
    )
assert torch.tensor(1.0, dtype=torch.bfloat16) + 0.003 == 1  # between 1 and 1.0078 bf16 has no number
assert torch.tensor(300.0, dtype=torch.float16) ** 2 == float("inf")  # past 65,504 fp16 has none
assert all(torch.tensor(1.0, dtype=dtype) - 0.0001 == 1 for dtype in (torch.bfloat16, torch.float16))

# %% [markdown]
# bf16 is fp32 with 16 bits cut off: the same reach, three binary digits fewer than fp16 has. fp16 has the digits and not the
# reach. In both a weight near 1 could not take a step of 0.0001, which is why weights and optimizer stay in fp32.
#
# Is the reach needed? Here are real gradients: of all convolutions' outputs, at the default run's first step.

# %%
from arcface_edu.training.state import build_state

state = build_state(load_config("drawn_faces"), 500, torch.device("cpu"), torch.float32)
sizes = []


def note(layer, entering, out):
    out.register_hook(lambda gradient: sizes.append(gradient.abs().flatten()))


for layer in state.model.modules():
    if isinstance(layer, torch.nn.Conv2d):
        layer.register_forward_hook(note)

# %%
state.set_train_mode(64)
state.backward(state.loss(torch.rand(64, 3, 112, 112) * 2 - 1, torch.randint(500, (64,))))
sizes = torch.cat(sizes)
print(f"{len(sizes):,} gradients")
sizes = sizes[torch.randint(len(sizes), (200_000,))].numpy()

# %% [markdown]
# **Predict**: the slider multiplies the loss, and with it every gradient, by a power of two. Where would you put it?

# %%
from ipywidgets import IntSlider

from arcface_edu.course.widgets import Panel
from arcface_edu.course.figures.training_run import plot_number_formats

Panel(lambda power: plot_number_formats(sizes, power), power=IntSlider(0, min=0, max=28, description="loss · 2^"))

# %% [markdown]
# Few vanish at the first step, but many lie where fp16 has few digits, and they shrink as the network learns: once a face
# is recognised, its gradient is nearly 0. So fp16 trains with a *scaled* loss, and divides the gradients again before the
# step. The best scale is the largest that does not overflow anywhere, and it is smaller than the picture suggests: gradients
# of *weights* are sums over all pixels of all images. The scaler finds it by trial: overflow, skip the step,
# halve; after 2,000 good steps, double. Here it is at work in the package's own step:

# %%
state = build_state(load_config("drawn_faces"), 500, torch.device("cpu"), torch.float16)
batch = torch.rand(8, 3, 112, 112) * 2 - 1, torch.arange(8)
taken = []
for _ in range(6):
    scale, first = state.scaler.get_scale(), next(state.model.parameters()).detach().clone()
    taken.append(state.step([batch]).updated)
    moved = not torch.equal(first, next(state.model.parameters()))
    print(f"scale {scale:8,.0f}: {'stepped' if taken[-1] else 'overflow, step left out'}, weights moved: {moved}")
    assert moved == taken[-1]
assert True in taken

# %% [markdown]
# A skipped step does not count in the schedule either. bf16 needs none of this: a run takes it where the device has it.
#
# Scaling cures overflow of *gradients*. If activations overflow, or the weights themselves run away, the loss is not a
# number, and no scaler helps. Let us make that happen: rate 1,000,000, no clipping, no warm-up.

# %%
from arcface_edu.course.running import short_run

SHORT = [f"rec={crowd}", "batch_size=32", "num_epoch=2", "warmup_epoch=0.25"]
broken = short_run("drawn_faces", *SHORT, f"output={HERE}/nan", "lr=1e6", "max_norm=0", "warmup_epoch=-1")
print(broken.error)
assert "the loss is nan" in broken.error

# %% [markdown]
# It ends with a sentence, instead of computing NaN for a night, and keeps what the loss came from:

# %%
caught = torch.load(next(HERE.glob("nan/non_finite_step_*.pt")), weights_only=True)
weights = torch.cat([value.flatten().float() for value in caught["model"].values()])
print(f"images {tuple(caught['images'].shape)}, weights finite: {bool(weights.isfinite().all())}, "
      f"the largest {weights[weights.isfinite()].abs().max():.0e}")  # fmt: skip

# %% [markdown]
# The batch is innocent, the weights are absurd: two steps at this rate were enough. The sentence
# names the cures in the order in which to try them.
#
# ## The run
#
# Now the default run, as a terminal would start it: `python -m arcface_edu.train`. 500 drawn people, 1,092 steps. A model
# that you have trained before is not overwritten: the run moves it aside and says where. You may interrupt the kernel:
# it saves and stops.
#
# **Predict**: the first loss. Random embeddings stand at 90° to their centre, so the target logit is 32·cos(90° + 0.5 rad)
# and the others are random numbers with a spread of 32/√128. Is it ln 500 = 6.2, or more?

# %%
expected = build_head(load_config("drawn_faces"), 500).expected_first_loss()
print(f"about {expected:.1f}: ln 500 = {np.log(500):.1f}, margin {32 * np.sin(0.5):.1f}, spread {32**2 / 128 / 2:.1f}")

# %%
from arcface_edu.course.running import Run
from arcface_edu.course.figures.training_run import plot_run

run = Run("drawn_faces")
run.watch(plot_run)

# %%
print(run.said())

# %%
lines = run.lines()
assert abs(lines[0]["loss"] - expected) < 0.25 * expected and lines[-1]["loss"] < 0.5 * expected
print(f"step {lines[-1]['step']}: loss {lines[-1]['loss']:.2f}, target angle {lines[-1]['target_angle']:.1f} degrees")

# %% [markdown]
# The folder holds what you need to use it, to judge it and to go on: `config.json`, `metrics.jsonl`, `checkpoints/`,
# `model.pt` and `figures/`. [07](07_benchmark.ipynb) asks how good it is.
#
# ## Stop and go on
#
# Days of training are never one piece. A checkpoint therefore holds weights, momentum, scaler, random generators and the
# place in the shuffled data. Two runs: one is left alone, one gets SIGTERM, as from a cluster that wants its machine
# back, and is resumed.
#
# **Predict**: how far apart are the two networks in the end: 1e-2, 1e-6, or 0?

# %%
words = [f"rec={crowd}", "batch_size=32", "num_epoch=1", "frequent=5"]
alone = Run("drawn_faces", *words, f"output={HERE}/alone")
alone.said()
stopped = Run("drawn_faces", *words, f"output={HERE}/stopped")
print("exit status", stopped.stop_after(step=10))
print(stopped.said().splitlines()[-1].split(" after ")[0])

# %%
resumed = Run("drawn_faces", *words, f"output={HERE}/stopped", "resume=True")
assert "resuming" in resumed.said()
first, second = (torch.load(HERE / name / "model.pt", weights_only=True) for name in ("alone", "stopped"))
assert all(torch.equal(first[name], second[name]) for name in first)
assert [line["loss"] for line in alone.lines()] == [line["loss"] for line in resumed.lines()]
print(f"{len(first)} tensors and {len(alone.lines())} lines of the log: equal to the last bit")

# %% [markdown]
# Equal to the last bit, which is more than a convenience: if a resumed run differed at all, you could never tell a lost
# momentum from bad luck.
#
# ## The clinic
#
# Six runs of 124 steps on the first 100 people. One is healthy. The others differ in one key each, except the one whose
# photographs were dealt out to people at random: that takes other data, so `rec` is its key.
#
# Every run's `metrics.jsonl` has what it takes: `loss`, `target_angle`, and `gradient_norm`, that of the network's
# gradient before it is clipped. To read a loss you need to know what ignorance costs. Who sees no difference between people has equal cosines to all
# centres. The loss is then ln(C − 1) + s·(cos θ − cos(θ + m)): it depends on the angle that all of them happen to have.

# %%
PEOPLE, SCALE, MARGIN = 100, 32, 0.5


def knows_nothing(degrees):
    theta = np.radians(degrees)
    return np.log(PEOPLE - 1) + SCALE * (np.cos(theta) - np.cos(theta + MARGIN))


print(f"at 90 degrees {knows_nothing(90):.1f}, at 15 degrees {knows_nothing(15):.1f}")

# %%
from arcface_edu.heads import MarginSoftmax

head = MarginSoftmax(2, PEOPLE, scale=SCALE)
torch.nn.init.ones_(head.weight)  # all centres in one place: nobody is told apart
face = torch.tensor([[np.cos(np.radians(45 + 15)), np.sin(np.radians(45 + 15))]], dtype=torch.float32)
assert abs(head(face, torch.tensor([0])).item() - knows_nothing(15)) < 0.01

# %%
dealt_out = take_people(everyone, HERE / "dealt_out", people=PEOPLE, shuffled=True)
PATIENTS = {
    "healthy": [],
    "rate too high": ["lr=3"],
    "far too high": ["lr=30"],
    "rate too low": ["lr=0.0005"],
    "labels shuffled": [f"rec={dealt_out}"],
    "margin 1.5": ["margin_list=(1, 1.5, 0)"],
}
courses = {}
for name, keys in PATIENTS.items():
    courses[name] = short_run("drawn_faces", *SHORT, f"output={HERE}/{name.replace(' ', '_')}", *keys)

# %% [markdown]
# **Predict**: here they are, in another order. Which is which?

# %%
from arcface_edu.course.checks.training import behind_letters
from arcface_edu.course.running import light
from arcface_edu.course.figures.training_run import plot_clinic

light(plot_clinic(behind_letters(courses), knows_nothing))

# %% [markdown]
# ## Exercise: five diagnoses
#
# Write the name of each, as in `PATIENTS`.

# %%
from arcface_edu.course.checks.training import check_diagnoses

mine = dict(A="", B="", C="", D="", E="")

check_diagnoses(mine)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Whose loss lies on the dashed line knows nobody, wherever the angle is: there are two. One loss alone is far above its
# line while everything else is as in health. The last two differ in the length of their gradient.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# mine = dict(A="far too high", B="margin 1.5", C="labels shuffled", D="rate too low", E="rate too high")
# ```
#
# - **A, far too high** (lr 30). The most dangerous picture: the target angle falls far below that of health. But the loss lies on the dashed line. All faces and all centres have moved into one place; near to your own
#   centre is no merit if you are as near to all others. *An angle alone proves nothing.*
# - **B, margin 1.5.** The loss looks frightful, and the angle is as in health: no patient at all. While the network still
#   gets nobody right, a larger margin is a constant on top of the loss, and the (straight-through) gradient is the same.
#   *Losses under two margins cannot be compared.*
# - **C, labels shuffled.** The angle stays at 90°, the loss comes down to the dashed line and stays: the level of chance.
#   Nothing to learn. (Given many epochs it would learn them by heart.)
# - **D, rate too low.** All is well, only slow. The sign is the gradient: it stays as long as it was at the start.
# - **E, rate too high.** The gradient is *short*, and that is the sign: the first steps threw the weights far out, and in
#   front of a normalisation long weights have short gradients. It learns, hardly.
#
# </details>

# %%
end = {name: [np.mean(values[-20:]) for values in course[:3]] for name, course in courses.items()}
for name, (loss, angle, norm) in end.items():
    above = loss - knows_nothing(angle)
    print(f"{name:16s} loss {loss:5.1f}, {above:+5.1f} to ignorance, {angle:3.0f} degrees, gradient {norm:.2g}")

# %%
assert end["far too high"][1] < end["healthy"][1] - 20
assert end["far too high"][0] > knows_nothing(end["far too high"][1]) - 2
assert abs(end["labels shuffled"][0] - knows_nothing(90)) < 1 and end["labels shuffled"][1] > 85
assert end["rate too low"][2] > 5 * end["healthy"][2] > 5 * 2 * end["rate too high"][2]
assert abs(end["margin 1.5"][1] - end["healthy"][1]) < 3 and end["margin 1.5"][0] > end["healthy"][0] + 10
assert end["healthy"][0] < knows_nothing(end["healthy"][1]) - 2

# %% [markdown]
# | loss | target angle | gradient | it is |
# |---|---|---|---|
# | falls below ignorance | falls | drops, then steady | health |
# | on the line of ignorance | at 90° | small | labels, or data, are wrong |
# | on the line of ignorance | falls to nearly 0 | tiny | collapse: rate far too high; start with warm-up |
# | falls slowly | falls slowly | stays large | rate too low |
# | falls slowly | hardly falls | tiny | rate too high: weights have grown |
# | first value far from the expected | | | labels, scale or margin; the run says so at step 1 |
# | not a number | | | the run stops with a sentence |
#
# ## The same at full size
#
# From here to a published model only words change:
# `torchrun --nproc_per_node=8 -m arcface_edu.train ms1mv3_r100 rec=/data/ms1m`. What would it need? The plan steps one
# rank of that run on fake tensors.

# %%
import subprocess
import sys

words = f"-m arcface_edu.plan ms1mv3_r100 --gpus 8 --gpu v100 --output {HERE}/plan.png".split()
page = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
print("\n".join(page.splitlines()[:18]))

# %% [markdown]
# ## Exercise: the rate of a step
#
# Write the learning rate of the block at the top on 8 GPUs, by hand: `rate(step)` for step 0, 1, 2 ... An epoch's last
# images that fill no batch are left out.

# %%
from arcface_edu.course.checks.training import check_rate


def rate(step):
    """Learning rate of a step: batch_size 128 on 8 GPUs, lr 0.1, decay_epoch [10, 16, 22], 5,179,510 images."""


check_rate(rate)

# %% [markdown]
# <details><summary>Hint</summary>
#
# How many images does a step take, and how many such steps has an epoch? Which rate does the linear rule make of 0.1,
# meant for 512? How many of 10, 16 and 22 are behind you?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def rate(step):
#     images_a_step = 128 * 8
#     epoch = step // (5_179_510 // images_a_step)
#     return 0.1 * images_a_step / 512 * 0.1 ** sum(epoch >= drop for drop in (10, 16, 22))
# ```
#
# </details>
#
# ## Recap
#
# 1. Why does halving the weights of a convolution before a BN double its gradient?
# 2. What does `lr = 0.1` mean in a config with `decay_epoch`, on 8 GPUs with 128 images each?
# 3. Why does fp16 need a scaler and bf16 none?
# 4. What besides the weights must a checkpoint hold, so that a resumed run is the same run?
# 5. A run has a target angle of 12° after a few steps: what do you look at before you rejoice?
#
# ## Further
#
# - [train.py](../arcface_edu/train.py), the loop, to be read from top to bottom; [configs/base.py](../arcface_edu/configs/base.py),
#   every key
# - [training/optim.py](../arcface_edu/training/optim.py), [training/precision.py](../arcface_edu/training/precision.py),
#   [training/state.py](../arcface_edu/training/state.py), [training/checkpoint.py](../arcface_edu/training/checkpoint.py)
# - [docs/plan.md](../docs/plan.md), the plan held against published runs
# - Mixed precision: [1710.03740](https://arxiv.org/abs/1710.03740); the linear rule: [1706.02677](https://arxiv.org/abs/1706.02677);
#   decay under normalisation: [1706.05350](https://arxiv.org/abs/1706.05350)
