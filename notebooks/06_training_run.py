# %% [markdown]
# # 06 · A training run from start to end
#
# You write a training of 25 lines, from the data set to the verification. Then you start the package's run and see, point
# by point, what it adds. You learn what every line of a config does and what half of the bits cost, stop a run and
# continue it, and tell healthy runs from sick ones by three curves.
#
# | | |
# |---|---|
# | you will see | a loop by hand, a run from its config to its verification, fp16 overflowing, six runs and their diagnoses |
# | you need | notebooks 02 and 04, or the ArcFace head and PyTorch; nothing is downloaded |
# | takes | 4.0 minutes on two cores |
# | before | [05 · A million people](05_partial_fc.ipynb) |
# | after | [07 · How good is it?](07_benchmark.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## The whole training in 25 lines
#
# The data: 10,000 photographs of 500 people, drawn by this package, and 3,000 pairs of 100 other people.

# %%
from arcface_edu import load_config, open_faces, read_pairs
from arcface_edu.training.prepare import drawn_faces

folder = drawn_faces(load_config("drawn_faces"))  # drawn now, if they are not there yet
faces, pairs = open_faces(folder), read_pairs(f"{folder}/drawn.bin")
image, label = faces[0]
print(f"{len(faces):,} photographs {tuple(image.shape)} of {faces.num_classes} people, {len(pairs.is_same):,} pairs")

# %% [markdown]
# And the training. The network turns an image into an embedding, the head turns the embedding into a loss. After each
# step the learning rate sinks a little, down to zero at the end. At last the network meets people it has never seen.

# %%
import torch
from torch.utils.data import DataLoader

from arcface_edu import MarginSoftmax, build_model, embed_images, verify_pairs

EPOCHS = 2
torch.manual_seed(0)
network, head = build_model("r10", 128), MarginSoftmax(128, faces.num_classes, margin=(1.0, 0.5, 0.0), scale=32.0)
loader = DataLoader(faces, batch_size=64, shuffle=True, drop_last=True)
parameters = [*network.parameters(), *head.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
steps = EPOCHS * len(loader)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 78) * (1 - step / steps))
losses = []
network.train()
for _ in range(EPOCHS):
    for images, labels in loader:  # uint8 (64, 3, 112, 112), (64,)
        images = (images.float() - 127.5) / 127.5  # to [-1, 1]
        mirrored = torch.rand(len(images)) < 0.5
        images[mirrored] = images[mirrored].flip(3)
        loss = head(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)  # the first gradients are long
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
accuracy = verify_pairs(embed_images(network, pairs.images), pairs.is_same)["accuracy"]

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
ax.plot(losses)
ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
ax.set_title(f"Two epochs by hand: {accuracy:.1%} of the pairs are right", loc="left")
ax.grid(alpha=0.3)

# %% [markdown]
# This is a face recognition training; nothing essential is missing. **Predict**: which of these would you miss first in
# a run of three days on eight GPUs? The package's run adds them:
#
# | | by hand | the run |
# |---|---|---|
# | settings | in the code | a config: every key with its type, bounds and a sentence if it is wrong |
# | data | whatever the folder holds | counts and labels are checked against the config before the first step |
# | images | decoded by the loop's own process | decoded by workers while the network computes |
# | arithmetic | 32 bits | matrix work in 16 bits where the device has them, weights in 32 |
# | weight decay | on everything | not on BN, PReLU and biases |
# | gradient | clipped | clipped at `max_norm`, and its norm is logged |
# | a loss that is not a number | trains on, all night | stops with a sentence, and keeps batch and weights |
# | SIGTERM, power failure | everything is lost | a checkpoint; `resume=True` continues to the same bits |
# | several GPUs | no | DDP of notebook 04, the sharded head of 05 |
# | what happened | a list of losses | `metrics.jsonl` with loss, angles, speed; pictures; verification on the way |
#
# ## The run
#
# Start the default run as a terminal would: `python -m arcface_edu.train`. It trains on the same 500 people, for seven epochs.
# A model that you have trained before is not overwritten: the run moves it aside and says where. You may interrupt the
# kernel: the run saves and stops.
#
# **Predict**: the first loss. Random embeddings stand at 90° to all centres. So the target logit is $s\cos(90° + m)$ and
# the others are random numbers with a spread of $s/\sqrt{d}$. With $C = 500$, $s = 32$, $m = 0.5$ and $d = 128$: is the loss
# $\ln C = 6.2$, or more?

# %%
import numpy as np

print(f"ln C = {np.log(500):.1f},  margin s sin m = {32 * np.sin(0.5):.1f},  spread s^2 / 2d = {32**2 / 128 / 2:.1f}")
print(f"together {np.log(500) + 32 * np.sin(0.5) + 32**2 / 128 / 2:.1f}, and by hand it was {losses[0]:.1f}")

# %%
from arcface_edu.course.figures.training_run import plot_run
from arcface_edu.course.running import Run

run = Run("drawn_faces")
run.watch(plot_run)

# %%
print(run.said())

# %% tags=["test"]
from arcface_edu.heads import build_head

lines = run.lines()
expected = build_head(load_config("drawn_faces"), 500).expected_first_loss()
assert abs(expected - (np.log(500) + 32 * np.sin(0.5) + 4)) < 0.5
assert abs(lines[0]["loss"] - expected) < 0.25 * expected and lines[-1]["loss"] < 0.5 * expected
assert abs(losses[0] - expected) < 0.25 * expected and accuracy > 0.75

# %% [markdown]
# The folder `runs/drawn_faces` holds what you need to use the model, to judge it and to continue: `config.json`,
# `metrics.jsonl`, `checkpoints/`, `model.pt` and `figures/`. [07](07_benchmark.ipynb) asks how good it is.
#
# ## The config
#
# A run is data, code and a config. The config below is InsightFace's recipe of 2021 for r50 on 93,431 people, in
# InsightFace's own form. It runs here as it is. The cell saves it as a file.

# %%
import shutil
from pathlib import Path

HERE = Path("runs/course_06")  # the short runs of this notebook; the default run is in runs/drawn_faces
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
# | `momentum`, `weight_decay` | of SGD: how long a gradient keeps its effect; how fast weights shrink by themselves | ✓ |
# | `batch_size` | images per process and backward pass; GPUs and `gradient_acc` multiply it | ✓ |
# | `lr` | learning rate; with `decay_epoch` it is meant for 512 images a step and goes with them | ✓ |
# | `num_epoch`, `warmup_epoch`, `decay_epoch` | length; epochs of slow start, −1 for none; where the rate falls to a tenth | ✓ |
# | `rec`, `num_classes`, `num_image` | the data; the counts are compared with what is there | ✓ |
# | `val_targets` | verification sets, `lfw` is `lfw.bin` beside the data | ✓ |
# | `output`, `resume` | the run's folder (None: `runs/` and the config's name); whether to continue what is in it | ✓ |

# %%
from arcface_edu import load_config
from arcface_edu.config import read_config_file

block = read_config_file(HERE / "ms1m.py")
written = load_config("runs/course_06/ms1m.py")
shipped = load_config("ms1mv3_r50")
different = {key for key in shipped if written[key] != shipped[key]}
print(f"{len(shipped)} keys, the block names {len(block)} of them; against ms1mv3_r50 only {sorted(different)} differ")

# %% [markdown]
# `margin_gradient` differs because the block dates from 2021. arcface_torch computed the exact gradient of the margin until
# December 2022, and `ms1mv3_r50` asks for it by this key. A block without the key gets the straight-through gradient of
# today.
#
# A misspelt key is an error, and a missing file is reported before anything is computed:

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
# `rec` is the data, and the data hold their own counts. Here are a hundred of the default run's people, for a config that expects 93,431:

# %%
from arcface_edu.course.running import take_people
from arcface_edu.training.prepare import prepare_data

crowd = take_people(folder, HERE / "crowd", people=100)
try:
    prepare_data(load_config("drawn_faces", [f"rec={crowd}", "num_classes=93431"]))
except ArcfaceError as error:
    print(error)

# %% [markdown]
# `loss`, `network` and `sample_rate` decide what is built. (On PyTorch's `meta` device weights have shapes and take no
# memory.)

# %%
from arcface_edu.heads import build_head

with torch.device("meta"):
    for word in ("loss=cosface", "network=r100", "embedding_size=256", "sample_rate=0.1"):
        config = load_config("ms1mv3_r50", [word])
        planned, model = build_head(config, config.num_classes), build_model(config.network, config.embedding_size)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        used = round(planned.sample_rate * planned.num_classes)
        print(f"{word:20s} margin {planned.margin}, {millions:5.1f} M parameters, {used:,} centres a step")

# %% [markdown]
# ### momentum and weight_decay
#
# With momentum each step is the new gradient plus $\mu$ times the last step:
#
# $$v_{t+1} = \mu\, v_t + g_t, \qquad w_{t+1} = w_t - \text{lr} \cdot v_{t+1}.$$
#
# Under a steady gradient $g$ the steps grow to $\text{lr} \cdot g \,/\, (1 - \mu)$. **A rate of 0.1 with momentum 0.9 moves
# the weights like a rate of 1.**

# %%
from arcface_edu.training.optim import build_optimizer

line = torch.nn.Linear(1, 1)
optimizer = build_optimizer(load_config("ms1mv3_r50", ["weight_decay=0"]), line)
positions = []
for _ in range(60):
    line.weight.grad, line.bias.grad = torch.ones(1, 1), torch.zeros(1)
    optimizer.step()
    positions.append(line.weight.item())
lengths = -np.diff(positions)
print(" ".join(f"{length:.3f}" for length in lengths[::8]))

# %% [markdown]
# **Predict**: every convolution here has a batch normalisation behind it. If you halve all its weights, what happens to
# the output, and what to the gradient?

# %%
layer = torch.nn.Conv2d(3, 8, 3, bias=False)
norm = torch.nn.BatchNorm2d(8, eps=1e-12)
images, direction = torch.randn(4, 3, 16, 16), torch.randn(4, 8, 14, 14)


def output_and_gradient():
    layer.weight.grad = None
    out = norm(layer(images))
    (out * direction).sum().backward()
    return out.detach(), layer.weight.grad.norm()


(before, slope), _ = output_and_gradient(), layer.weight.data.mul_(0.5)
after, steeper = output_and_gradient()
print(f"output changed by {(after - before).abs().max():.0e}, the gradient is {steeper / slope:.3f} times as long")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The output is the same, and the gradient is twice as long. So weight decay cannot make such a network simpler. It keeps
# the weights short, and with them the *steps long*: relative to the weight, a step is $\text{lr}/\lVert w \rVert^2$.
# Without decay the weights grow, and training slows down by itself. Remember this for the sick runs below.
#
# </details>
#
# BN's own gain and bias, PReLU's slopes and biases have no normalisation behind them. The package leaves them out:

# %%
model = build_model("r10", 128)
decayed, kept = build_optimizer(load_config("drawn_faces"), model).param_groups
for group in (decayed, kept):
    print(f"weight_decay {group['weight_decay']:g}: {sum(p.numel() for p in group['params']):,} numbers")

# %% [markdown]
# ### The rate and the steps
#
# The linear rule ([1706.02677](https://arxiv.org/abs/1706.02677)): the gradient of a batch $k$ times as large is less noisy, and
# there are $k$ times fewer steps, so make each step $k$ times as long. The comment `batch size is 512` in the block is
# this rule. If a config states the recipe's batch, the run compares and warns:

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
# **Predict**: the block lowers its rate in steps. InsightFace's recipe of today is a straight line to 0 in 20 epochs. Which
# of them spends more epochs at a hundredth of its peak or less?

# %%
recipes = {"the block, 8 GPUs": rates("ms1mv3_r50", 8), "today's recipe": rates("ms1mv3_r50_8gpus", 8)}
recipes["the default run"] = rates("drawn_faces", 1)
recipes["the block, warmup_epoch=2"] = rates("ms1mv3_r50", 8, "warmup_epoch=2")
plot_schedules(recipes)

# %%
small = {name: np.mean(np.array(values) < max(values) / 99) * epochs[-1] for name, (epochs, values) in recipes.items()}
for name, epochs in small.items():
    print(f"{name:26s} {epochs:.1f} epochs at a hundredth or less")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The block: nine epochs. A straight line is nearly all large steps; only its last fifth of an epoch is that small.
#
# </details>
#
# ## Sixteen bits
#
# `fp16 = True` runs convolutions and matrix products in 16 bits: many times faster on tensor cores, in half of the memory.
# There are two ways to spend 16 bits:

# %%
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    info = torch.finfo(dtype)
    print(
        f"{dtype!s:15s} largest {info.max:8.2e}, smallest {info.smallest_normal:8.2e}, next after 1: 1 + {info.eps:.1e}"
    )
print("bf16: 1 + 0.003 =", (torch.tensor(1.0, dtype=torch.bfloat16) + 0.003).item())
print("fp16: 300 ** 2 =", (torch.tensor(300.0, dtype=torch.float16) ** 2).item())
print("both: 1 - 0.0001 =", *[(torch.tensor(1.0, dtype=t) - 0.0001).item() for t in (torch.bfloat16, torch.float16)])

# %% [markdown]
# bf16 is fp32 with 16 bits cut off: the same range, but three binary digits fewer than fp16. fp16 has the digits and not the
# range. In both a weight near 1 cannot take a step of 0.0001. Therefore weights and optimizer stay in fp32.
#
# Is the range needed? Here are real gradients: those of all convolutions' outputs, at the default run's first step.

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
# Few vanish at the first step, but many lie where fp16 has few digits, and gradients shrink as the network learns: once a face is
# recognised, its gradient is nearly 0. So fp16 training multiplies the loss by a *scale* and divides the gradients by it
# before the step. The best scale is the largest one that overflows nowhere. It is smaller than the picture suggests,
# because gradients of *weights* are sums over all pixels of all images. The scaler finds it by trial: after an overflow,
# skip the step and halve the scale; after 2,000 good steps, double it. Here it is in the package's own step:

# %%
state = build_state(load_config("drawn_faces"), 500, torch.device("cpu"), torch.float16)
batch = torch.rand(8, 3, 112, 112) * 2 - 1, torch.arange(8)
updates = []
for _ in range(6):
    scale, first = state.scaler.get_scale(), next(state.model.parameters()).detach().clone()
    updates.append(state.step([batch]).updated)
    moved = not torch.equal(first, next(state.model.parameters()))
    print(f"scale {scale:8,.0f}: {'stepped' if updates[-1] else 'overflow, step skipped'}, weights moved: {moved}")

# %% [markdown]
# A skipped step does not count in the schedule. bf16 needs no scaler, and a run uses bf16 where the device has it.
#
# Scaling cures overflow of *gradients*. If activations overflow, or the weights themselves run away, the loss is not a
# number and no scaler helps. Let us make that happen: rate 1,000,000, no clipping, no warm-up.

# %%
from arcface_edu.course.running import short_run

SHORT = [f"rec={crowd}", "batch_size=32", "num_epoch=2", "warmup_epoch=0.25"]
broken = short_run("drawn_faces", *SHORT, f"output={HERE}/nan", "lr=1e6", "max_norm=0", "warmup_epoch=-1")
print(broken.error)

# %% [markdown]
# The run ends with a sentence instead of computing NaN for a night. It keeps the batch and the weights:

# %%
caught = torch.load(next(HERE.glob("nan/non_finite_step_*.pt")), weights_only=True)
weights = torch.cat([value.flatten().float() for value in caught["model"].values()])
print(f"images {tuple(caught['images'].shape)}, weights finite: {bool(weights.isfinite().all())}, "
      f"the largest {weights[weights.isfinite()].abs().max():.0e}")  # fmt: skip

# %% [markdown]
# The batch is normal, the weights are absurd: two steps at this rate were enough. The sentence names the remedies in the
# order in which to try them.
#
# ## Stop and continue
#
# Days of training rarely run in one piece. A checkpoint therefore holds the weights, the momentum, the scaler, the random
# generators and the position in the shuffled data. Two runs: one is left alone; the other gets SIGTERM, as from a
# cluster that wants its machine back, and is resumed.
#
# **Predict**: how far apart are the two networks at the end: 1e-2, 1e-6, or 0?

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
equal = sum(torch.equal(first[name], second[name]) for name in first)
same_lines = sum(a["loss"] == b["loss"] for a, b in zip(alone.lines(), resumed.lines(), strict=True))
print(f"equal to the last bit: {equal} of {len(first)} tensors, {same_lines} of {len(alone.lines())} lines of the log")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 0. This is more than a convenience: if a resumed run differed at all, you could never tell a lost momentum from bad luck.
#
# </details>
#
# ## The clinic
#
# Six runs of 124 steps on the first 100 people. One is healthy. Four of the others differ in one key. In the fifth the
# photographs were dealt out to the people at random, so its data differ.
#
# Each run's `metrics.jsonl` has what a diagnosis needs: `loss`, `target_angle`, and `gradient_norm`, the norm of the network's
# gradient before clipping. To read a loss you must know what **ignorance** costs. A network that cannot tell people apart
# gives equal cosines to all centres. With $C$ people its loss is then
#
# $$L = \ln(C - 1) + s\,\big(\cos\theta - \cos(\theta + m)\big),$$
#
# which depends on the angle $\theta$ that all of them have.

# %%
PEOPLE, SCALE, MARGIN = 100, 32, 0.5


def knows_nothing(degrees):
    theta = np.radians(degrees)
    return np.log(PEOPLE - 1) + SCALE * (np.cos(theta) - np.cos(theta + MARGIN))


print(f"at 90 degrees {knows_nothing(90):.1f}, at 15 degrees {knows_nothing(15):.1f}")

# %% tags=["test"]
head = MarginSoftmax(2, PEOPLE, scale=SCALE)
torch.nn.init.ones_(head.weight)  # all centres in one place: nobody is told apart
face = torch.tensor([[np.cos(np.radians(45 + 15)), np.sin(np.radians(45 + 15))]], dtype=torch.float32)
assert abs(head(face, torch.tensor([0])).item() - knows_nothing(15)) < 0.01

# %%
dealt_out = take_people(folder, HERE / "dealt_out", people=PEOPLE, shuffled=True)
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
# A loss on the dashed line means that people are not told apart, whatever the angle: there are two such runs. One loss is far above its
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
# - **A, far too high** (lr 30). The most dangerous picture: the target angle falls far below that of health. But the loss
#   lies on the dashed line. All faces and all centres have moved into one place; being near your own centre means nothing
#   if you are as near to all others. *An angle alone proves nothing.*
# - **B, margin 1.5.** The loss looks terrible, and the angle is as in health: this run is not sick. While the network still
#   gets no one right, a larger margin only adds a constant to the loss, and the straight-through gradient is the same.
#   *Losses under two margins cannot be compared.*
# - **C, labels shuffled.** The angle stays at 90°, the loss comes down to the dashed line and stays there, at chance.
#   There is nothing to learn. (Given many epochs the network would memorise it.)
# - **D, rate too low.** All is well, only slow. The sign is the gradient: it stays as long as it was at the start.
# - **E, rate too high.** The gradient is *short*: the first steps made the weights long, and in front of a normalisation
#   long weights have short gradients. It hardly learns.
#
# </details>

# %%
end = {name: [np.mean(values[-20:]) for values in course[:3]] for name, course in courses.items()}
for name, (loss, angle, norm) in end.items():
    above = loss - knows_nothing(angle)
    print(f"{name:16s} loss {loss:5.1f}, {above:+5.1f} against ignorance, {angle:3.0f} degrees, gradient {norm:.2g}")

# %% tags=["test"]
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
# | on the line of ignorance | at 90° | small | wrong labels or wrong data |
# | on the line of ignorance | falls to nearly 0 | tiny | collapse: the rate is far too high; start with warm-up |
# | falls slowly | falls slowly | stays large | the rate is too low |
# | falls slowly | hardly falls | tiny | the rate is too high: weights have grown |
# | first value far from the expected | | | labels, scale or margin; the run warns at step 1 |
# | not a number | | | the run stops with a sentence |
#
# ## Exercise: a diagnosis in code
#
# Write the table as a function of the last values of a run: how far its loss lies above ignorance (negative: below), the
# target angle in degrees, and the gradient's norm. Your function returns `"healthy"` or a name as in `PATIENTS`. The check
# calls it with the six runs and with a few in between.

# %%
from arcface_edu.course.checks.training import check_doctor


def doctor(above, angle, gradient):
    """above: loss minus ignorance; angle: degrees; gradient: norm.  returns: a name of PATIENTS."""


check_doctor(doctor)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Print `end` again and look for the number that singles a run out: first the loss far above its line, then the loss on its line,
# then the gradient.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def doctor(above, angle, gradient):
#     if above > 5:
#         return "margin 1.5"
#     if above > -0.5:
#         return "far too high" if angle < 45 else "labels shuffled"
#     if gradient > 15:
#         return "rate too low"
#     if gradient < 1:
#         return "rate too high"
#     return "healthy"
# ```
#
# </details>
#
# **Make your own sick run.** Change a key that no patient has changed, predict the three curves, and look whether your
# function finds the disease. Two suggestions: `scale=4`, and `momentum=0.99`.

# %%
mine = short_run("drawn_faces", *SHORT, f"output={HERE}/mine", "momentum=0.99")
loss, angle, norm = (np.mean(values[-20:]) for values in mine[:3])
print(
    f"loss {loss:.1f}, {loss - knows_nothing(angle):+.1f} against ignorance, {angle:.0f} degrees, gradient {norm:.2g}"
)
print("your diagnosis:", doctor(loss - knows_nothing(angle), angle, norm) or "none yet, write `doctor` first")

# %% [markdown]
# <details><summary>What to expect</summary>
#
# Momentum 0.99 makes steps ten times as long as momentum 0.9 ($1/(1-\mu)$, above): the disease is a rate that is too high.
# With `scale=4` the loss is small from the start and nothing looks wrong; only the ignorance line, computed with
# $s = 4$, shows that little is learnt. Remember to change `SCALE` in `knows_nothing`.
#
# </details>
#
# ## The same at full size
#
# From here to a published model only the command changes:
# `torchrun --nproc_per_node=8 -m arcface_edu.train ms1mv3_r100 rec=/data/ms1m`. What would it need? The planner runs a step of
# one rank on fake tensors, which have shapes and no numbers. (InsightFace published 3,867 images/s for r100 with its MXNet recipe;
# the plan models today's PyTorch code.)

# %%
import subprocess
import sys

words = f"-m arcface_edu.plan ms1mv3_r100 --gpus 8 --gpu v100 --output {HERE}/plan.png".split()
page = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
print("\n".join(page.splitlines()[:18]))

# %% [markdown]
# ## Exercise: the learning rate of a step
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
# 5. A run has a target angle of 12° after a few steps: what do you look at before you believe it?
#
# ## Further
#
# - [train.py](../arcface_edu/train.py), the loop in full, to be read from top to bottom; [configs/base.py](../arcface_edu/configs/base.py),
#   every key
# - [training/optim.py](../arcface_edu/training/optim.py), [training/precision.py](../arcface_edu/training/precision.py),
#   [training/state.py](../arcface_edu/training/state.py), [training/checkpoint.py](../arcface_edu/training/checkpoint.py)
# - [docs/plan.md](../docs/plan.md), the plan held against published runs
# - Mixed precision: [1710.03740](https://arxiv.org/abs/1710.03740); the linear rule: [1706.02677](https://arxiv.org/abs/1706.02677);
#   decay under normalisation: [1706.05350](https://arxiv.org/abs/1706.05350)
