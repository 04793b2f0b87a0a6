# %% [markdown]
# # 01 · A network that can be deep
#
# A face goes in, 112 × 112 pixels. 512 numbers come out, the *embedding*, and the angle between two embeddings says whether
# they show one person. Between the two stands a residual network of 50 or 100 layers. Here you will see why so many layers
# can be trained at all, and what is still not understood about it. You will write by hand the block that ArcFace's network
# repeats. Then you can say of any such network, with pencil and paper, what it sees, how large it is and what a face costs.
#
# | | |
# |---|---|
# | you will see | where a gradient dies and three ways to keep it alive, how far one cell can look, what the published sizes are made of |
# | you need | basic PyTorch and [00 · The problem](00_the_problem.ipynb); nothing is downloaded |
# | takes | 1.7 minutes on two cores |
# | before | [00 · The problem](00_the_problem.ipynb) |
# | after | [02 · The angle and the margin](02_angular_margin.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Eight people
#
# The package draws faces of people who do not exist, aligned like the faces of every data set of the field. Eight of them
# are enough for this notebook.

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
# More layers can express more. Yet for years a network of much more than twenty layers could not be trained. To see what
# goes wrong, take a small block (two convolutions and a PReLU) and stack 49 of them, as many as r100 has. Leave two
# switches in the block: batch normalisation (BN) around the convolutions, and a `+ x` around the whole, the *skip*.

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
# **Predict**: the loss is computed after block 49. From there the gradient travels back through 98 convolutions. When it
# reaches block 1, is it about as large as in block 49, much smaller or much larger? Decide for each of the four towers.


# %%
def gradient_norms(network):
    F.cross_entropy(network(small), labels).backward()
    return [block.body[1].weight.grad.double().norm().item() for block in network[1:50]]


towers = {
    "skip, BN": lambda: tower(True, True),
    "skip, no BN": lambda: tower(True, False),
    "no skip, BN": lambda: tower(False, True),
    "no skip, no BN": lambda: tower(False, False),
}
norms = {name: gradient_norms(build()) for name, build in towers.items()}

# %%
from arcface_edu.course.figures.resnet import plot_gradient_norms

plot_gradient_norms(norms)

# %% [markdown]
# <details><summary>Answer</summary>
#
# With the skip it keeps its size within a factor of about twenty, with BN or without. With BN alone it *grows* a
# hundredfold on its way back. With neither, nothing arrives: the norm is about $10^{-31}$.
#
# </details>
#
# The last tower is the textbook case of the *vanishing gradient*. PyTorch's initial weights make each convolution's output
# smaller than its input, and a product of 98 factors below one is as good as zero, for the images on their way up as for
# the gradient on its way down.
#
# BN is often called the cure. The picture says something else: BN keeps the images alive, since it sets their size anew
# after every layer, but the gradient now **explodes**. For wide networks at their random start this is proven
# ([arXiv 1902.08129](https://arxiv.org/abs/1902.08129)).
#
# The skip changes the arithmetic. Let $J_k$ be the Jacobian of block $k$'s body. Without skips the gradient is multiplied by
# $J_{49} \cdots J_2 J_1$. With skips it is multiplied by
#
# $$(1 + J_{49}) \cdots (1 + J_2)(1 + J_1) = 1 + \sum_k J_k + \sum_{k > l} J_k J_l + \dots$$
#
# The first term is the gradient that comes straight from the loss, through no convolution at all. The others are paths
# through one block, through two, through any choice of blocks: $2^{49}$ in all
# ([arXiv 1605.06431](https://arxiv.org/abs/1605.06431)).
#
# ## Is it only the size of the weights?
#
# If shrinking is the trouble, larger weights should end it. He et al. computed how large they must be: for a layer with $n$
# inputs to each output, behind a PReLU of slope $a$, a variance of
#
# $$\sigma^2 = \frac{2}{(1 + a^2)\, n}$$
#
# keeps the mean square of the signal ([arXiv 1502.01852](https://arxiv.org/abs/1502.01852)). A block's first convolution
# follows no PReLU: there $a = 1$.


# %%
def he_tower():
    network = tower(skip=False, norm=False)
    for block in network[1:50]:
        for convolution, slope in ((block.body[1], 1.0), (block.body[4], 0.25)):
            nn.init.kaiming_normal_(convolution.weight, a=slope)
    return network


towers["no skip, no BN, He"] = he_tower
norms["no skip, no BN, He"] = gradient_norms(he_tower())
print({name: f"{values[0] / values[-1]:.1f}" for name, values in norms.items()})

# %% [markdown]
# The first block's gradient is now about $10^{-2}$, a few dozen times the last block's, which is no worse than with skip and BN.
# (A ratio alone says little: the dead tower has one of 26, between two numbers that are both nothing.) So the vanishing
# gradient is a matter of *initialisation*, and He's weights end it.
#
# **Predict**: eight faces, one of each person. Even a poor network should learn eight pictures by heart. Which of the
# five towers can, in 30 steps? Which in 100?


# %%
def learn_by_heart(network, steps=100, lr=0.005):
    losses, optimizer = [], torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
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

losses = {name: learn_by_heart(build()) for name, build in towers.items()}
plot_losses(losses, chance=math.log(8))

# %%
for name, values in losses.items():
    print(f"{name:20s} loss after 30 steps {values[29]:.3f}, after 100 {values[99]:.3f}   guessing: {math.log(8):.3f}")

# %% tags=["test"]
ratio = {name: values[0] / values[-1] for name, values in norms.items() if max(values) > 1e-20}
assert set(norms) - set(ratio) == {"no skip, no BN"}
assert (
    ratio["skip, BN"] < 50 and ratio["skip, no BN"] < 5 and 5 < ratio["no skip, no BN, He"] < 60 < ratio["no skip, BN"]
)
assert max(losses[name][29] for name in ("skip, BN", "skip, no BN")) < 0.1
assert min(losses[name][29] for name in ("no skip, BN", "no skip, no BN", "no skip, no BN, He")) > 1.5
assert losses["no skip, BN"][99] < 1
assert min(losses[name][99] for name in ("no skip, no BN", "no skip, no BN, He")) > 2.0  # they still guess

# %% [markdown]
# <details><summary>Answer</summary>
#
# In 30 steps the two with a skip, with BN or without. In 100 steps the plain tower with BN gets there, too: it is slow, not
# unable. He's tower, whose gradient has a healthy size, still guesses.
#
# </details>
#
# So a gradient of the right size is not enough. Here is a second thing to measure: how alike the eight faces have become
# when they reach the last layer. A cosine of 1 means that it cannot tell them apart.


# %%
@torch.no_grad()
def likeness(network):
    """Mean cosine between the features of two of the eight faces, in front of the last layer."""
    directions = F.normalize(network[:-1](small).double())  # (8, 1568)
    return ((directions @ directions.T).sum() - 8).item() / 56


for name in ("skip, BN", "skip, no BN", "no skip, BN", "no skip, no BN, He"):
    print(f"{name:20s} {likeness(towers[name]()):.2f}")
print(f"{'the faces themselves':20s} {likeness(nn.Sequential(nn.Flatten(), nn.Identity())):.2f}")

# %% [markdown]
# He's rule keeps the signal's size *on average*. But a random matrix stretches some directions and shrinks others, and a
# product of 98 of them stretches very few and shrinks all the rest. The eight faces are pushed towards those few
# directions, and the gradient that should part them is squeezed through the same few.
#
# **What is known.**
#
# - A plain tower can learn if every layer keeps *all* directions, not only their average. Convolutions that begin as
#   rotations have trained plain networks of 10,000 layers ([arXiv 1806.05393](https://arxiv.org/abs/1806.05393)); the
#   exercise below does it with our 49 blocks. The skip does the same without care: $1 + J$ is near a rotation
#   whenever $J$ is small.
# - BN's plain networks do not suffer from vanishing gradients. He et al. said so themselves about their plain network of 34
#   layers: "this optimization difficulty is *unlikely* to be caused by vanishing gradients", since with BN the signals
#   going forward keep their variance and the gradients "exhibit healthy norms"
#   ([arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.1). They trained, to a higher error.
#
# **What is not.** He et al. went on to guess that such networks "have exponentially low convergence rates", and left the
# reason to future work. For a trained network of real width there is no complete theory of it to this day: the explosion
# under BN is a statement about the random start. That skips help is measured everywhere. Why they help as much as they
# do, all through a training, is understood in part.
#
# ### Exercise: a plain tower that learns
#
# Give the tower without skip and without BN other initial weights, so that it learns the eight faces by heart. `network` is
# a tower as above: blocks 1 to 49 are `network[1:50]`, a block's convolutions are `block.body[1]` and `block.body[4]`, its
# PReLU is `block.body[3]`. Change weights only. The check trains it for 30 steps and says how far it came.

# %%
from arcface_edu.course.checks.resnet import check_plain_tower


def start(network):
    return None  # set the weights in place and return the network


check_plain_tower(start)
# %% [markdown]
# <details><summary>Hint</summary>
#
# A convolution is a rotation of the channels if its 3 × 3 kernel is 0 everywhere but in the middle, and the middle, an
# 8 × 8 matrix, is orthogonal (`nn.init.orthogonal_`). A PReLU with slope 1 changes nothing; it can learn another slope.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from torch import nn
#
# def start(network):
#     for block in network[1:50]:
#         for convolution in (block.body[1], block.body[4]):
#             nn.init.zeros_(convolution.weight)
#             nn.init.orthogonal_(convolution.weight.data[:, :, 1, 1])
#         nn.init.ones_(block.body[3].weight)
#     return network
# ```
#
# The first block's gradient is now as large as the last one's, within half a per cent. So neither skip nor BN is *necessary*.
# They make depth work without such care, with any width and any activation.
#
# </details>

# %% [markdown]
# ## The block
#
# ResNet was made for ImageNet. ArcFace's authors tried several variants on faces and kept the one on the right, from
# [arXiv 1610.02915](https://arxiv.org/abs/1610.02915). BN comes first, and there are three of them. PReLU learns for each
# channel a slope for negative numbers. The *second* convolution carries the stride. After the sum comes nothing.

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
# The names are those of the package, which are those of the published checkpoints, so the weights of one fit the other. Do
# both give the same numbers, with stride and without?

# %%
from arcface_edu.models.iresnet import IBasicBlock

for c_in, c_out, stride in ((64, 64, 1), (64, 128, 2)):
    package, ours = IBasicBlock(c_in, c_out, stride), ByHand(c_in, c_out, stride)
    ours.load_state_dict(package.state_dict())
    x = torch.randn(4, c_in, 28, 28)
    difference = (ours(x) - package(x)).abs().max().item()
    print(f"{tuple(x.shape)} -> {tuple(ours(x).shape)}: largest difference {difference:.0e}")
    torch.testing.assert_close(ours(x), package(x), rtol=1e-4, atol=1e-4)

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
# Begin with what goes over the skip: `x` itself, or `block.downsample(x)`. There are two ReLUs, `F.relu`, and one of them is
# the last thing that happens.
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
# If nothing follows the sum, a stage is a running total:
#
# $$x_{14} = x_1 + \sum_{k=2}^{14} f_k(x_{k-1})$$
#
# Its last block puts out what its first block put out, plus what each of the others adds. Nothing in between is cut off or
# rescaled. Check it in r50's third stage, which has 14 blocks:

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
print(f"largest difference {(outputs[13] - total).abs().max():.0e}, of numbers up to {total.abs().max():.0f}")

# %% tags=["test"]
torch.testing.assert_close(outputs[13], total, rtol=1e-4, atol=1e-3)

# %% [markdown]
# ## From 112 × 112 pixels to 7 × 7 cells
#
# The first layer, called the *stem*, is one convolution of stride 1. It keeps all 112 × 112 positions, because a face crop
# is small: ImageNet's stem divides by four at once and would leave 28 × 28. Then every stage begins with a block of stride 2.
#
# **Predict**: the shape after each of the four stages. The widths are 64, 128, 256 and 512 channels.
#
# A hook on a module is called when the *module* is called. `IResNet.forward` walks over the blocks of a stage itself, so a
# hook on `model.layer1`, the container, would never fire. Put it on the last block of each stage.

# %%
stages = {}
for stage in range(1, 5):
    last_block = getattr(model, f"layer{stage}")[-1]
    last_block.register_forward_hook(lambda module, given, made, stage=stage: stages.update({stage: made}))

with torch.no_grad():
    embeddings = model(faces[:2])
{stage: tuple(made.shape) for stage, made in stages.items()} | {"embedding": tuple(embeddings.shape)}

# %% tags=["test"]
assert [made.shape[1:] for made in stages.values()] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]

# %%
from arcface_edu.course.figures.resnet import plot_stages

strength = {f"{m.shape[2]} × {m.shape[3]}, {m.shape[1]} channels": m[0].abs().mean(0) for m in stages.values()}
plot_stages(people[0], strength)

# %% [markdown]
# <details><summary>Answer</summary>
#
# 56 × 56, 28 × 28, 14 × 14 and 7 × 7: each stage halves the side and, after the first, doubles the channels.
#
# </details>
#
# Bright is where features are strong. The weights are still random, and yet the face can be made out down to 28 × 28
# cells. *Where* is given by the form of the network; *what* has to be learnt.
#
# ## What one cell sees
#
# A cell after the stem depends on 3 × 3 pixels. Each 3 × 3 convolution adds one cell on every side. Neighbouring cells lie
# one, two, four ... pixels apart, twice as far after every stride. If $d$ is that distance, a convolution adds $2d$ to the side of
# the square of pixels that a cell depends on, its *receptive field*:


# %%
def receptive_fields(blocks):
    """Side of the receptive field after each stage, in pixels."""
    side, d, sides = 3, 1, []
    for count in blocks:
        for number in range(count):
            side += 2 * d + 2 * d  # two convolutions
            d *= 2 if number == 0 else 1  # the second one of the first block strides
        sides.append(side)
    return sides


sides = receptive_fields((3, 4, 14, 3))  # r50
sides

# %% [markdown]
# **Predict**: the eyes of these faces are 35 pixels apart. After which stage can one cell compare the two?
#
# The gradient shows whether the paper is right: take the cell in the middle of a map and go back to the pixels. A pixel
# whose gradient is 0 can be changed at will without changing the cell.


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
    print(f"stage {stage}: {side} pixels on paper, {columns} by the gradient")
    assert columns == min(side, 112)

# %%
from arcface_edu.course.figures.resnet import plot_reach

plot_reach(people[0], {f"stage {stage}, one cell": gradient[0] for stage, gradient in seen.items()}, sides)

# %% [markdown]
# <details><summary>Answer</summary>
#
# After the second. A cell of the first stage sees one corner of an eye, a cell of the second reaches both eyes, and from the
# third stage on it reaches the whole face.
#
# </details>
#
# But look where the light is. Few paths lead to the rim, so it counts for little
# ([arXiv 1701.04128](https://arxiv.org/abs/1701.04128)). What a cell *can* see is a square. What it mostly depends on is a
# spot in the middle. If the gradient were even, the middle quarter of stage 2's square would have a quarter of it:

# %%
share = seen[2][0, 36:76, 36:76].sum() / seen[2].sum()
print(f"the middle quarter has {share:.0%}")

# %% tags=["test"]
assert share > 0.6

# %% [markdown]
# So even the last 7 × 7 cells are not alike: each stands for its part of the face. IResNet ends in a linear layer over
# all of them, which can tell left from right and mouth from brow. ResNet ends in their mean, which cannot.
#
# `model.eval()` was needed for this picture. In training, BN takes mean and variance over the batch, so every cell depends
# on every pixel, including those of the *other* photographs:

# %%
model.train()
together = reach(1, faces[:2])
print(f"{together[1].sum() / together.sum():.2%} of the gradient goes to somebody else's face")

# %% tags=["test"]
assert (together > 0).all()

# %% [markdown]
# ## Sizes on paper
#
# A 3 × 3 convolution from $a$ to $b$ channels has $9ab$ weights and uses each once for every position of its output map:
# on a map of side $n$ it does $9ab\,n^2$ multiply-adds. BN has two numbers a channel, PReLU one. With that the whole network
# can be written down.
#
# **Predict**: r100 has about twice the blocks of r50. Does it have twice the parameters? Does it do twice the work? And
# which part of r50 has the most parameters?


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
# Now count in the package's own networks: parameters by their number of elements, multiply-adds by PyTorch's counter,
# which counts two operations for each.

# %%
from torch.utils.flop_counter import FlopCounterMode


def counted(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(faces[:1])
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


# %%
from arcface_edu.models.iresnet import NETWORKS

networks = {name: build_model(name).eval() for name in ("r18", "r34", "r50", "r100", "r200")}
sizes = {name: counted(network) for name, network in networks.items()}
for name, (parameters, work) in sizes.items():
    parts = network_on_paper(NETWORKS[name]["blocks"]).values()
    match = (parameters, work) == tuple(sum(part[kind] for part in parts) for kind in (0, 1))
    print(f"{name:5s} {parameters:11,} parameters {work / 1e9:7.3f} G multiply-adds   match: {match}")
    assert match

# %% [markdown]
# InsightFace publishes 43,590,848 and 65,156,160 parameters for r50 and r100, and 6.309 and 12.090 G multiply-adds. It calls
# them FLOPs, as many do, though there are two floating-point operations to each.

# %% tags=["test"]
assert [sizes[name][0] for name in ("r50", "r100")] == [43_590_848, 65_156_160]
assert [round(sizes[name][1] / 1e9, 3) for name in ("r50", "r100")] == [6.309, 12.090]

# %% [markdown]
# So r100 does 1.9 times the work with only 1.5 times the parameters. The reason is where the two are:

# %%
from arcface_edu.course.figures.resnet import plot_budget

parts = network_on_paper(NETWORKS["r50"]["blocks"])
budgets = {"parameters": {part: costs[0] for part, costs in parts.items()}}
budgets["multiply-adds"] = {part: costs[1] for part, costs in parts.items()}
plot_budget(budgets, "last layer")

# %% tags=["test"]
assert parts["last layer"][0] / sizes["r50"][0] > 0.29
assert parts["last layer"][1] / sizes["r50"][1] < 0.0025

# %% [markdown]
# <details><summary>Answer</summary>
#
# No; nearly; and the third stage has the most. The surprise is the runner-up: one matrix of 25,088 × 512 at the end, used once
# for a face, holds 29 % of r50's parameters and does almost none of its work.
#
# </details>
#
# The first stages are the other way round: few weights, each used at thousands of positions. Parameters are what you store
# and send over the network. Multiply-adds are what you wait for.
#
# ## What depth buys
#
# These results are published in
# [arcface_torch](https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch), for one recipe on one
# data set (WebFace42M). They say how many pairs of one person are *missed* at a given false accept rate
# (FAR, [notebook 00](00_the_problem.ipynb)): one pair of strangers accepted in a million, or in a hundred thousand.

# %%
from arcface_edu.course.figures.resnet import plot_depth

published = {"MFR-ALL, at FAR 1e-6": [79.13, 94.03, 96.69, 97.70], "IJB-C, at FAR 1e-5": [93.36, 95.94, 96.45, 96.93]}
names = ["r18", "r50", "r100", "r200"]
work = [sizes[name][1] / 1e9 for name in names]
plot_depth(names, work, {test: [100 - tar for tar in tars] for test, tars in published.items()})

# %% [markdown]
# r50 makes less than a third of r18's misses on MFR-ALL. r100 still makes more than half of r50's, and r200 more than two thirds of
# r100's. Each doubling of the work buys less.
#
# Does time grow with the multiply-adds? A single measurement says little: the first call of a network allocates memory, and
# any other program on the machine steals time. So run each network once to warm up, then let all of them take turns, compare
# each with r18 *in the same round*, and take the median.

# %%
import time
import statistics


def seconds(network):
    began = time.perf_counter()
    with torch.inference_mode():
        network(faces[:1])
    return time.perf_counter() - began


warm_up = [seconds(network) for network in networks.values()]
rounds = [{name: seconds(network) for name, network in networks.items()} for _ in range(7)]

# %%
times = {name: statistics.median(taken[name] / taken["r18"] for taken in rounds) for name in networks}
for name in networks:
    print(
        f"{name:5s} {sizes[name][1] / sizes['r18'][1]:4.1f} x the multiply-adds of r18, {times[name]:4.1f} x its time here"
    )

# %% tags=["test"]
assert list(times.values()) == sorted(times.values())  # more work takes more time

# %% [markdown]
# Time grows with the multiply-adds, though not in exact proportion: small maps keep the machine less busy than large ones, and every
# layer has a cost of its own. Count to plan, and measure before you promise.
#
# The network is half of the story. It gives 512 numbers. The loss makes them *mean* a person, and that is the subject of the
# next notebook.
#
# ## Recap
#
# 1. With He's weights the gradient reaches the first block of a plain tower. Why does the tower still not learn?
# 2. What does the 1 in $1 + J$ stand for, in terms of paths?
# 3. In what five ways does IResNet's block differ from ResNet's?
# 4. Why has the picture of a receptive field to be taken in `eval` mode?
# 5. Which part of r50 would you shrink to send it over a slow line, and which to make it faster?
#
# <details><summary>Answers</summary>
#
# 1. The sizes are right on average, but a product of many random matrices keeps only few directions: the faces become alike.
# 2. For the path over all the skips, through no block at all.
# 3. BN comes first; there are three; PReLU instead of ReLU; the second convolution has the stride; nothing follows the sum.
# 4. In training, BN mixes the whole batch: every cell depends on every pixel of every photograph.
# 5. The last layer, 29 % of the parameters; the early stages, where the multiply-adds are.
#
# </details>
#
# ## Further
#
# - [models/iresnet.py](../arcface_edu/models/iresnet.py): the network of this notebook, with gradient checkpointing
# - [models/prelu.py](../arcface_edu/models/prelu.py): why PReLU has a backward pass of its own here
# - [course/figures/resnet.py](../arcface_edu/course/figures/resnet.py): the pictures
# - He et al., Deep Residual Learning, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385); Identity Mappings, [arXiv 1603.05027](https://arxiv.org/abs/1603.05027); Delving Deep into Rectifiers (the initialisation), [arXiv 1502.01852](https://arxiv.org/abs/1502.01852)
# - Xiao et al., How to Train 10,000-Layer Vanilla CNNs, [arXiv 1806.05393](https://arxiv.org/abs/1806.05393); Yang et al., A Mean Field Theory of Batch Normalization, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129)
# - Veit et al., Residual Networks Behave Like Ensembles, [arXiv 1605.06431](https://arxiv.org/abs/1605.06431)
# - Han et al., Deep Pyramidal Residual Networks, [arXiv 1610.02915](https://arxiv.org/abs/1610.02915): where the block comes from
# - Deng et al., ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698), section 3.1
# - Luo et al., Understanding the Effective Receptive Field, [arXiv 1701.04128](https://arxiv.org/abs/1701.04128)
#
# Next: [02 · The angle and the margin](02_angular_margin.ipynb)
