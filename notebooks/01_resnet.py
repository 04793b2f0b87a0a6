# %% [markdown]
# # 01 · A network that can be deep
#
# A face goes in, 112 × 112 pixels; 512 numbers come out, and the angle between two such rows of numbers says whether
# they show one person. What stands between is a residual network of 50 or 100 layers. Here you will see why so many
# layers can be trained at all, build the block by hand that ArcFace's network repeats, and be able to say of any such
# network, with pencil and paper, what it sees, how large it is and what a face costs it.
#
# | | |
# |---|---|
# | you will see | where a gradient dies, how far one cell of a map can look, what the published sizes are made of |
# | you need | basic PyTorch; nothing is downloaded |
# | takes | 0.2 minutes on two cores |
# | after | [02 · The angle and the margin](02_angular_margin.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Eight people
#
# The package draws faces of people who do not exist, in the same alignment as every data set of the field: eyes on one
# line, the mouth at its place. Eight of them are enough for this notebook.

# %%
import torch
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.data.images import decode, to_input
from arcface_edu.figures.faces import contact_sheet

people = torch.stack([decode(draw_person(seed=0, person=number, photos=1)[0]) for number in range(200, 208)])
contact_sheet([people])

# %%
faces, labels = to_input(people), torch.arange(8)  # (8, 3, 112, 112) in [-1, 1], and who it is
tuple(faces.shape), faces.min().item(), faces.max().item()

# %% [markdown]
# ## Deep, and unable to learn
#
# More layers can express more. Yet for years a network of much more than twenty could not be trained. To see what went wrong, take a
# small block (two convolutions and a PReLU), stack 49 of them, as many as r100 has, and leave two switches in: batch
# normalisation around the convolutions, and a `+ x` around the whole.

# %%
from torch import nn
from torch.nn import functional as F


def conv(channels_in, channels_out=8):
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


class Block(nn.Module):
    def __init__(self, skip, norm):
        super().__init__()
        BN = nn.BatchNorm2d if norm else nn.Identity
        self.skip = skip
        self.body = nn.Sequential(BN(8), conv(8), BN(8), nn.PReLU(8), conv(8), BN(8))

    def forward(self, x):
        return self.body(x) + x if self.skip else self.body(x)


# %%
def tower(skip, norm, depth=49):
    torch.manual_seed(1)
    blocks = [Block(skip, norm) for _ in range(depth)]
    return nn.Sequential(conv(3), *blocks, nn.Flatten(), nn.Linear(8 * 14 * 14, 8))


small = F.avg_pool2d(faces, 8)  # (8, 3, 14, 14): the blocks are what counts here, not the pixels
tower(skip=True, norm=True)(small).shape

# %% [markdown]
# **Predict**: the loss is computed after block 49, and the gradient travels back from there through 98 convolutions.
# How large is it when it comes to block 1, compared with block 49: about the same, much smaller, much larger? For each
# of the four towers?


# %%
def gradient_norms(network):
    F.cross_entropy(network(small), labels).backward()
    return [block.body[1].weight.grad.double().norm().item() for block in network[1:50]]


names = {
    (True, True): "skip, BN",
    (True, False): "skip, no BN",
    (False, True): "no skip, BN",
    (False, False): "no skip, no BN",
}
norms = {name: gradient_norms(tower(*way)) for way, name in names.items()}

# %%
from arcface_edu.course.figures.resnet import plot_gradient_norms

plot_gradient_norms(norms)

# %%
ratio = {name: values[0] / values[-1] for name, values in norms.items()}
assert ratio["skip, BN"] < 50 < ratio["no skip, BN"]
assert max(norms["no skip, no BN"]) < 1e-20
print({name: f"{value:.1f}" for name, value in ratio.items()}, f"{max(norms['no skip, no BN']):.0e}")

# %% [markdown]
# Without either, nothing arrives. Each convolution, with PyTorch's initial weights, hands on a signal smaller than it got,
# and a product of 98 factors below one is as good as zero: for the images on their way up as for the gradient on its way
# down. Many people know this as *the vanishing gradient* and BN as its cure. The picture says otherwise: BN keeps the
# images alive, but the gradient now **explodes** on its way back, a hundredfold over this stack
# ([arXiv 1902.08129](https://arxiv.org/abs/1902.08129) proves it for wide networks).
#
# The skip changes the arithmetic. Backwards, a block without it multiplies the gradient by its Jacobian J; with it, by
# 1 + J. Multiply 49 of these out: one term is 1, the gradient that comes straight from the loss, through no
# convolution at all. The others are paths through one block, two blocks, any choice of them, 2⁴⁹ in all
# ([arXiv 1605.06431](https://arxiv.org/abs/1605.06431)).
#
# **Predict**: eight faces, one of each person. Even a poor network should learn eight pictures by heart. Which of
# the towers can, in 30 steps?


# %%
def learn_by_heart(network, steps=30):
    losses, optimizer = [], torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    for _ in range(steps):
        loss = F.cross_entropy(network(small), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
import math
from arcface_edu.course.figures.resnet import plot_losses

towers = {names[way]: tower(*way) for way in ((True, True), (False, True), (False, False))}
losses = {name: learn_by_heart(network) for name, network in towers.items()}
plot_losses(losses, chance=math.log(8))

# %%
assert losses["skip, BN"][-1] < 0.1
assert losses["no skip, BN"][-1] > 1
assert abs(losses["no skip, no BN"][-1] - math.log(8)) < 0.01  # it still guesses
{name: round(values[-1], 3) for name, values in losses.items()}

# %% [markdown]
# ## The block
#
# ResNet was made for ImageNet. ArcFace's authors tried several variants on faces and kept the one on the right, from
# [arXiv 1610.02915](https://arxiv.org/abs/1610.02915): BN comes first, there are three of them, PReLU learns its slope for
# negative numbers per channel, the *second* convolution carries the stride, and after the sum comes nothing.

# %%
from arcface_edu.course.figures.resnet import plot_blocks

plot_blocks()

# %% [markdown]
# Read from top to bottom, that is the whole class:


# %%
class ByHand(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), conv(c_in, c_out)
        self.bn2, self.prelu = nn.BatchNorm2d(c_out), nn.PReLU(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, stride, padding=1, bias=False)
        self.bn3, self.downsample = nn.BatchNorm2d(c_out), None
        if (c_in, stride) != (c_out, 1):
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


# %% [markdown]
# The names are those of the package, which are those of the published checkpoints; so one's weights fit the other. Are
# the two the same, with stride and without?

# %%
from arcface_edu.models.iresnet import IBasicBlock

for c_in, c_out, stride in ((64, 64, 1), (64, 128, 2)):
    package, ours = IBasicBlock(c_in, c_out, stride), ByHand(c_in, c_out, stride)
    ours.load_state_dict(package.state_dict())
    x = torch.randn(4, c_in, 28, 28)
    torch.testing.assert_close(ours(x), package(x), rtol=1e-4, atol=1e-4)
    print(f"{tuple(x.shape)} -> {tuple(ours(x).shape)}: the same numbers")

# %% [markdown]
# ### Exercise: the block on the left
#
# Write what *ResNet's* block does. `block` holds its layers: `conv1`, `bn1`, `conv2`, `bn2`, and `downsample`, which is
# `None` where the shape stays. The check compares your answer with torchvision's, number for number.

# %%
from arcface_edu.course.checks.resnet import check_resnet_block


def resnet_block(block, x):
    """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)"""
    return None  # yours


check_resnet_block(resnet_block)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Begin with what goes over the skip: `x` itself, or `block.downsample(x)`. There are two ReLUs, `F.relu`; one is the last
# thing that happens.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from torch.nn import functional as F
#
# def resnet_block(block, x):
#     skip = x if block.downsample is None else block.downsample(x)
#     x = F.relu(block.bn1(block.conv1(x)))
#     x = block.bn2(block.conv2(x))
#     return F.relu(x + skip)
# ```
#
# </details>

# %% [markdown]
# ### What the missing ReLU is good for
#
# If nothing follows the sum, a stage is a running total. Its last block puts out what its first block put out, plus
# what each of the others had to add; nothing in between is cut off or rescaled. That can be checked in r50's third
# stage, 14 blocks long:

# %%
from arcface_edu import build_model

torch.manual_seed(0)
model = build_model("r50")
outputs, added = {}, {}
for number, block in enumerate(model.layer3):
    block.register_forward_hook(lambda module, given, made, number=number: outputs.update({number: made}))
    block.bn3.register_forward_hook(lambda module, given, made, number=number: added.update({number: made}))

with torch.no_grad():
    embeddings = model(faces[:2])

# %%
total = outputs[0] + sum(added[number] for number in range(1, 14))
torch.testing.assert_close(outputs[13], total, rtol=1e-4, atol=1e-3)
print(f"largest difference {(outputs[13] - total).abs().max():.0e}, of numbers up to {total.abs().max():.0f}")

# %% [markdown]
# ## From 112 × 112 pixels to 7 × 7 cells
#
# The stem, one convolution of stride 1, keeps all 112 × 112 places: a face crop is small, and ImageNet's stem, which
# divides by four at once, would leave 28 × 28. Then every stage begins with a block of stride 2.
#
# **Predict**: the shape after each of the four stages. The widths are 64, 128, 256 and 512 channels.
#
# A hook on a module is called when the *module* is. `IResNet.forward` walks over the blocks of a stage itself, so a hook on
# `model.layer1`, the container, would never fire; the last block of each is the right place.

# %%
stages = {}
for stage in range(1, 5):
    last_block = getattr(model, f"layer{stage}")[-1]
    last_block.register_forward_hook(lambda module, given, made, stage=stage: stages.update({stage: made}))

with torch.no_grad():
    embeddings = model(faces[:2])
{stage: tuple(made.shape) for stage, made in stages.items()} | {"embedding": tuple(embeddings.shape)}

# %%
assert [made.shape[1:] for made in stages.values()] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]

# %%
from arcface_edu.course.figures.resnet import plot_stages

strength = {f"{m.shape[2]} × {m.shape[3]}, {m.shape[1]} channels": m[0].abs().mean(0) for m in stages.values()}
plot_stages(people[0], strength)

# %% [markdown]
# Bright is where features are strong. The weights are still random, and yet one can make out the face down to 28 × 28
# cells: the network begins with knowing *where*, and has to learn *what*.
#
# ## What one cell sees
#
# A cell after the stem looks at 3 × 3 pixels. Each 3 × 3 convolution adds one cell on every side, and cells lie one, two,
# four ... pixels apart, twice as far after every stride. That is all one needs:


# %%
def receptive_fields(blocks):
    """Side of the square of pixels that a cell depends on, after each stage."""
    side, apart, sides = 3, 1, []
    for count in blocks:
        for number in range(count):
            side += 2 * apart + 2 * apart  # two convolutions
            apart *= 2 if number == 0 else 1  # the second of the first block strides
        sides.append(side)
    return sides


sides = receptive_fields((3, 4, 14, 3))  # r50
sides

# %% [markdown]
# **Predict**: the eyes of these faces are 35 pixels apart. After which stage can one cell compare the two?
#
# The gradient tells whether that is true: of the cell in the middle of a map, backwards to the pixels. A pixel with
# gradient 0 could be changed at will, and the cell would not notice.


# %%
def reach(stage, images):
    """How much the middle cell of the first image's map depends on each pixel of all images: (B, 112, 112)"""
    images = images.clone().requires_grad_()
    model(images)
    middle = stages[stage].shape[-1] // 2
    (gradient,) = torch.autograd.grad(stages[stage][0, :, middle, middle].sum(), images)
    return gradient.abs().sum(1)


model.eval()
seen = {stage: reach(stage, faces[:1]) for stage in range(1, 5)}

# %%
for stage, side in enumerate(sides, start=1):
    columns = (seen[stage][0] > 0).any(0).sum().item()
    assert columns == min(side, 112)
    print(f"stage {stage}: {side} pixels on paper, {columns} by the gradient")

# %%
from arcface_edu.course.figures.resnet import plot_reach

plot_reach(people[0], {f"stage {stage}, one cell": gradient[0] for stage, gradient in seen.items()}, sides)

# %% [markdown]
# After the first stage a cell knows an eye's corner. After the second it reaches both eyes; from the third on, the whole
# face. But look where the light is: the rim counts for little, since only few of the paths lead there
# ([arXiv 1701.04128](https://arxiv.org/abs/1701.04128)). What a cell *can* see is a square, what it *does* look at is a
# blot in its middle. Were the gradient even, the middle quarter of stage 2's square would have a quarter of it:

# %%
share = seen[2][0, 36:76, 36:76].sum() / seen[2].sum()
assert share > 0.6
print(f"the middle quarter has {share:.0%}")

# %% [markdown]
# So even the last 7 × 7 cells are not all alike: each stands for its part of the face. IResNet ends in a linear layer
# over all of them, which can tell left from right and mouth from brow; ResNet ends in their mean, which cannot.
#
# `model.eval()` was needed for this picture. In training BN takes mean and deviation over the batch, so that every cell
# depends on every pixel, also of the *other* people's photographs:

# %%
model.train()
together = reach(1, faces[:2])
assert (together > 0).all()
print(f"{together[1].sum() / together.sum():.2%} of the gradient goes to somebody else's face")

# %% [markdown]
# ## Sizes on paper
#
# A 3 × 3 convolution from a to b channels has 9·a·b weights, and uses each once for every place of its output map. BN has
# two numbers a channel, PReLU one. With that the whole network can be written down.
#
# **Predict**: r100 has about twice the blocks of r50. Does it have twice the parameters? Does it do twice the work? And which
# part of r50 has the most parameters?


# %%
def block_on_paper(a, b, side, stride):
    """(parameters, multiply-adds) of a block from a to b channels on a map of side × side cells."""
    after = side // stride
    first, second, shortcut = 9 * a * b, 9 * b * b, a * b if stride == 2 else 0
    norms = 2 * a + 2 * b + b + 2 * b + (2 * b if stride == 2 else 0)
    return first + second + shortcut + norms, first * side**2 + (second + shortcut) * after**2


block_on_paper(256, 256, side=14, stride=1)


# %%
def network_on_paper(blocks):
    parts, a, side = {"stem": (27 * 64 + 2 * 64 + 64, 27 * 64 * 112**2)}, 64, 112
    for stage, (count, b) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        strided, plain = block_on_paper(a, b, side, 2), block_on_paper(b, b, side // 2, 1)
        parts[f"stage {stage}"] = tuple(strided[kind] + (count - 1) * plain[kind] for kind in (0, 1))
        a, side = b, side // 2
    last = 7 * 7 * 512 * 512
    parts["last layer"] = last + 512 + 2 * 512 + 2 * 512, last  # its bias, the BN before it and the BN after it
    return parts


# %% [markdown]
# Now count, in the package's own networks: parameters by their number of elements, multiply-adds by PyTorch's counter,
# which takes two operations for each.

# %%
import time
from torch.utils.flop_counter import FlopCounterMode


def counted(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(faces[:1])
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def timed(network):
    """Seconds for an image, of two tries the quicker one; for the last section."""
    tries = []
    for _ in range(2):
        began = time.perf_counter()
        with torch.inference_mode():
            network(faces[:1])
        tries.append(time.perf_counter() - began)
    return min(tries)


# %%
from arcface_edu.models.iresnet import NETWORKS

sizes, seconds = {}, {}
for name in ("r18", "r34", "r50", "r100", "r200"):
    network = build_model(name)
    parameters, work = sizes[name] = counted(network)
    parts = network_on_paper(NETWORKS[name]["blocks"]).values()
    match = (parameters, work) == tuple(sum(part[kind] for part in parts) for kind in (0, 1))
    print(f"{name:5s} {parameters:11,} parameters {work / 1e9:7.3f} G multiply-adds   match: {match}")
    assert match
    seconds[name] = timed(network)

# %% [markdown]
# The numbers that InsightFace publishes are 43,590,848 and 65,156,160 parameters, and 6.309 and 12.090 G multiply-adds
# (where they are often called FLOPs, of which there are two to each).

# %%
assert [sizes[name][0] for name in ("r50", "r100")] == [43_590_848, 65_156_160]
assert [round(sizes[name][1] / 1e9, 3) for name in ("r50", "r100")] == [6.309, 12.090]

# %% [markdown]
# So r100 does 1.9 times the work with only 1.5 times the parameters. The reason is in where the two sit:

# %%
from arcface_edu.course.figures.resnet import plot_budget

parts = network_on_paper(NETWORKS["r50"]["blocks"])
budgets = {"parameters": {part: costs[0] for part, costs in parts.items()}}
budgets["multiply-adds"] = {part: costs[1] for part, costs in parts.items()}
plot_budget(budgets, "last layer")

# %%
assert parts["last layer"][0] / sizes["r50"][0] > 0.29
assert parts["last layer"][1] / sizes["r50"][1] < 0.0025

# %% [markdown]
# One matrix of 25,088 × 512, used once per face, is 29 % of r50 and next to none of its work. The first stages are the
# other way round: few weights, used at thousands of places each. Parameters are what you store and send over the
# network; multiply-adds are what you wait for.
#
# ## What depth buys
#
# The same recipe on the same data (WebFace42M), published in
# [arcface_torch](https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch): how many pairs of one
# person are *missed* if one stranger in a million, or in a hundred thousand, is let in.

# %%
from arcface_edu.course.figures.resnet import plot_depth

published = {"MFR-ALL, at FAR 1e-6": [79.13, 94.03, 96.69, 97.70], "IJB-C, at FAR 1e-5": [93.36, 95.94, 96.45, 96.93]}
names = ["r18", "r50", "r100", "r200"]
work = [sizes[name][1] / 1e9 for name in names]
plot_depth(names, work, {test: [100 - tar for tar in tars] for test, tars in published.items()})

# %%
for name in names:
    times = [sizes[name][1] / sizes["r18"][1], seconds[name] / seconds["r18"]]
    print(f"{name:5s} {times[0]:4.1f} x the multiply-adds of r18, {times[1]:4.1f} x its time here")

# %% [markdown]
# From r18 to r50, of the misses of MFR-ALL less than a third are left; from r50 to r100 more than half, and from r100 to
# r200 more than two thirds: each doubling of the work buys less. Time grows with the multiply-adds,
# though not in step with them: count them to plan, and measure before you promise.
#
# The network is only half of the story. It gives 512 numbers; what makes them *mean* a person is the loss they are trained with,
# and that is what the next notebook is about.
#
# ## Recap
#
# 1. Why does batch normalisation alone not make 49 blocks trainable?
# 2. What does the 1 in 1 + J stand for, in terms of paths?
# 3. In what five ways does IResNet's block differ from ResNet's?
# 4. Why has the picture of a receptive field to be taken in `eval` mode?
# 5. Which part of r50 would you shrink to send it over a slow line, and which to make it faster?
#
# ## Further
#
# - [models/iresnet.py](../arcface_edu/models/iresnet.py): the network of this notebook, with gradient checkpointing
# - [models/prelu.py](../arcface_edu/models/prelu.py): why PReLU has a backward pass of its own here
# - [course/figures/resnet.py](../arcface_edu/course/figures/resnet.py): the pictures
# - He et al., Deep Residual Learning, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385); Identity Mappings, [arXiv 1603.05027](https://arxiv.org/abs/1603.05027)
# - Han et al., Deep Pyramidal Residual Networks, [arXiv 1610.02915](https://arxiv.org/abs/1610.02915): where the block comes from
# - Deng et al., ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698), section 3.1
# - Veit et al., Residual Networks Behave Like Ensembles, [arXiv 1605.06431](https://arxiv.org/abs/1605.06431); Yang et al., A Mean Field Theory of Batch Normalization, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129)
# - Luo et al., Understanding the Effective Receptive Field, [arXiv 1701.04128](https://arxiv.org/abs/1701.04128)
#
# Next: [02 · The angle and the margin](02_angular_margin.ipynb)
