# %% [markdown]
# # 02 · The angle and the margin
#
# A face is recognised by an angle: the angle between its embedding and another one. This notebook follows one formula,
# $\cos(m_1\theta + m_2) - m_3$, from a dot product to the loss that trains face recognition. You write the loss by hand
# in six lines and prove it equal to the package's. Then you look at it from all sides, train with it, and find four bugs
# that other people published.
#
# | | |
# |---|---|
# | you will see | the margin as a curve, a boundary, an arc, a probability and a pull; five heads compared, unfairly and fairly |
# | you need | basic PyTorch; nothing is downloaded |
# | takes | 0.3 minutes on two cores |
# | before | [01 · A network that can be deep](01_resnet.ipynb) |
# | after | [03 · Eight people in a plane](03_softmax_vs_arcface.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## From a dot product to an angle
#
# The last layer of a classifier, its *head*, compares an embedding $x$ with one weight vector $W_j$ per person. Each logit is
# a dot product of three factors:
#
# $$W_j \cdot x = \|W_j\| \, \|x\| \cos\theta_j$$
#
# Only the last factor says which way the embedding points.
#
# **Predict**: $x$ lies nearest to its own centre, but only just. Make $x$ ten times as long and turn nothing. What happens to
# the softmax loss?

# %%
import math
import torch
from torch import nn
from torch.nn import functional as F

W = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # (C, D), two people
x = torch.tensor([[0.8, 0.6]])  # (B, D), of person 0
own = torch.tensor([0])
losses = [F.cross_entropy(length * x @ W.T, own).item() for length in (1, 10)]
print(f"loss {losses[0]:.2f}, ten times as long {losses[1]:.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# It falls to a fifth, and the face is recognised no better: when two photographs are compared later, length is
# ignored. Plain softmax can buy a low loss with length.
# </details>
#
# So we remove the length: divide $x$ and every $W_j$ by its norm. What is left of the logit is $\cos\theta_j$.

# %%
cosine = F.normalize(x) @ F.normalize(W).T  # (B, C)
longer = F.normalize(10 * x) @ F.normalize(7 * W).T
print("degrees", cosine.acos().rad2deg(), "and for longer vectors", longer.acos().rad2deg())

# %% [markdown]
# Embeddings and centres now lie on a sphere, and the loss depends on angles alone. This is *norm-softmax*.
#
# ## Why there is a scale
#
# A cosine is at most 1, and that is too little for a softmax.
#
# **Predict**: 93,431 people, every embedding exactly on its own centre, all centres as far apart as they can be. The
# logits are the cosines. What probability does the right person get?

# %%
C = 93_431
best = math.exp(1) / (math.exp(1) + (C - 1) * math.exp(-1 / (C - 1)))
print(f"p = {best:.6f}, loss {-math.log(best):.2f}; a blind guess has {math.log(C):.2f}")

# %% [markdown]
# A perfect embedding gets a probability of 3 in 100,000. So the cosines are multiplied by a scale $s$, the radius of the sphere.
# How large must it be? $C$ centres cannot all be far from each other:
#
# $$0 \le \left\|\sum_j W_j\right\|^2 = C + \sum_{i \ne j} \cos(W_i, W_j)$$
#
# so the mean cosine between two centres is at least $-1/(C-1)$. An embedding on its centre then has the logit $s$, and at
# best $-s/(C-1)$ for each other class. Solve that for $s$:
#
# $$p = \frac{e^s}{e^s + (C-1)\,e^{-s/(C-1)}} \quad\Rightarrow\quad s \ge \frac{C-1}{C}\,\ln\frac{(C-1)\,p}{1-p}$$
#
# The exponential is convex, so no other arrangement of centres does better. Gradient descent finds the same:


# %%
def least_scale(C, p):
    return (C - 1) / C * math.log((C - 1) * p / (1 - p))


C, p = 6, 0.9
s = least_scale(C, p)
centres = torch.randn(C, C - 1, dtype=torch.float64, requires_grad=True)
optimizer = torch.optim.Adam([centres], lr=0.05)
for _ in range(600):
    loss = F.cross_entropy(s * F.normalize(centres) @ F.normalize(centres).T, torch.arange(C))
    optimizer.zero_grad(), loss.backward(), optimizer.step()
print(f"s = {s:.3f} is for p = {p}; descent finds p = {math.exp(-loss.item()):.6f}")

# %% tags=["test"]
assert abs(math.exp(-loss.item()) - p) < 1e-4 and best < 3e-5
assert torch.allclose(cosine, longer)

# %%
for C in (10, 1_000, 93_431, 2_059_906):
    scales = [f"{least_scale(C, p):.1f} for p = {p}" for p in (0.9, 0.999)]
    print(f"{C:>9,} classes: s ≥ {', '.join(scales)}")

# %% [markdown]
# The bound grows with $\ln C$ only: 22 is enough for two million people. Why do published recipes use 64? Because the bound
# holds for embeddings *on* their centre. Real ones stay tens of degrees away from it, other centres lie at about 90°,
# and the margin takes more. Here is $p$ against the angle:

# %%
from arcface_edu.course.figures.geometry import plot_probability

plot_probability(scales=(4, 8, 16, 32, 64), classes=(10, 1_000, 100_000, 10_000_000))

# %% [markdown]
# Left: with $s = 8$ no face reaches a high probability; with $s = 64$ the probability is already 1 at 75°, and the loss has
# nothing left to ask for. Right: a million times as many people move that cliff by only 13°. So a large scale makes
# training possible, but it also ends the pull early. The missing part is a reason to come closer than 75°.
#
# ## One formula for the margin
#
# Here is the reason: score the true class as if its angle were larger. With $y$ the true class,
#
# $$L = -\ln \frac{e^{s\,(\cos(m_1\theta_y + m_2) - m_3)}}{e^{s\,(\cos(m_1\theta_y + m_2) - m_3)} + \sum_{j \ne y} e^{s\cos\theta_j}}$$
#
# | | $m_1$ | $m_2$ | $m_3$ | what is made worse |
# |---|---|---|---|---|
# | norm-softmax | 1 | 0 | 0 | nothing |
# | SphereFace, as a factor | 1.35 | 0 | 0 | the angle, by a factor |
# | CosFace | 1 | 0 | 0.35 | the cosine, by a constant |
# | ArcFace | 1 | 0.5 | 0 | the angle, by a constant (0.5 rad = 28.6°) |
#
# Not every published loss fits this formula. The original SphereFace multiplies the angle by 4 and glues pieces of
# $\cos 4\theta$ together, $(-1)^k \cos 4\theta - 2k$, so that it falls all the way to 180°. CurricularFace changes the logits of
# the *other* classes. The package has them as heads of their own, with others ([docs/heads.md](../docs/heads.md)).
#
# Now write it. `gather` takes each face's cosine to its own centre, `scatter` puts the new logit in the same place.


# %%
def margin_softmax(embeddings, weight, labels, margin, s):
    m1, m2, m3 = margin
    cosine = F.normalize(embeddings) @ F.normalize(weight).T  # (B, C)
    theta = cosine.gather(1, labels[:, None]).acos()  # (B, 1), to the own centre
    logits = cosine.scatter(1, labels[:, None], torch.cos(m1 * theta + m2) - m3)
    return F.cross_entropy(s * logits, labels)


# %% [markdown]
# That is the whole of ArcFace. Is it the package's head? Compare the loss and both gradients, in float64.

# %%
from arcface_edu import MarginSoftmax

margins = {"norm-softmax": (1, 0, 0), "SphereFace": (1.35, 0, 0), "CosFace": (1, 0, 0.35), "ArcFace": (1, 0.5, 0)}


def with_gradients(loss, *of):
    return loss, *torch.autograd.grad(loss, of)


embeddings = torch.randn(32, 16, dtype=torch.float64, requires_grad=True)
labels = torch.randint(0, 10, (32,))
for name, margin in margins.items():
    head = MarginSoftmax(16, 10, margin=margin, scale=16, gradient="exact").double()
    loss = margin_softmax(embeddings, head.weight, labels, margin, 16)
    by_hand = with_gradients(loss, embeddings, head.weight)
    package = with_gradients(head(embeddings, labels), embeddings, head.weight)
    apart = max((a - b).abs().max().item() for a, b in zip(by_hand, package, strict=True))
    print(f"{name:12}: loss {by_hand[0]:.4f} and {package[0]:.4f}; largest difference, gradients included: {apart:.0e}")

# %% tags=["test"]
torch.testing.assert_close(by_hand, package, rtol=1e-6, atol=1e-8)

# %% [markdown]
# **Predict**: which of the three margins asks most of a face that is already at 10°, and which asks almost nothing?

# %%
import matplotlib.pyplot as plt
from arcface_edu.figures.style import METHODS  # one colour for each head, everywhere in the course

degrees = torch.linspace(0, 180, 361)
figure, ax = plt.subplots(figsize=(7.2, 3.8))
for name, (m1, m2, m3) in margins.items():
    angle = m1 * degrees.deg2rad() + m2
    past = angle > math.pi  # there the cosine turns back up
    ax.plot(degrees[~past], (angle.cos() - m3)[~past], color=METHODS[name], linewidth=2, label=name)
    ax.plot(degrees[past], (angle.cos() - m3)[past], ":", color=METHODS[name], linewidth=2)
ax.set(xlabel="angle θ to the own centre (degrees)", ylabel="target logit / s", xticks=range(0, 181, 30))
ax.set_title("SphereFace asks least of a face near its centre", loc="left")
ax.grid(color="#E6E6E6"), ax.legend(frameon=False)
plt.show()

# %% [markdown]
# <details><summary>Answer</summary>
#
# At 10° CosFace takes 0.35 from the cosine, ArcFace 0.20 and SphereFace 0.01. SphereFace's margin is a share of the
# angle, so it fades near the centre. CosFace and ArcFace still ask for more.
# </details>
#
# The dotted ends, where a larger angle gets a *higher* logit, need a cure. It comes further down.
#
# ## Boundaries
#
# Take two classes, with the angles $\theta_1$ and $\theta_2$ to their centres. Without a margin class 1 wins where $\theta_1 <
# \theta_2$. With a margin, training is satisfied only where the target logit of $\theta_1$ exceeds $\cos\theta_2$.
#
# **Predict**: which margin leaves a white band of equal width between the two classes?

# %%
from arcface_edu.course.figures.geometry import plot_boundaries

plot_boundaries(margins)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ArcFace. Its condition is $\theta_1 + m < \theta_2$: a straight line, parallel to the diagonal and 28.6° away from it. For the
# others the width changes with the angle.
# </details>
#
# This white band is a *demand* made during training, not a result. How much of it training achieves is measured further down.
#
# ## Arc against chord
#
# What is CosFace's margin, then? The straight line from $x$ to $W$, the chord, has the length $\|x - W\|$ with
#
# $$\|x - W\|^2 = 2 - 2\cos\theta$$
#
# A constant taken from the cosine is a constant added to the *squared chord*. ArcFace adds a constant to the *arc*, the way
# along the sphere.

# %%
theta = torch.linspace(0, math.pi, 50, dtype=torch.float64)
chord = 2 * (theta / 2).sin()
from_cosine, from_chord = theta.cos() - 0.35, 1 - (chord**2 + 2 * 0.35) / 2
print(f"CosFace from the cosine and from the chord differ by at most {(from_cosine - from_chord).abs().max():.0e}")

# %%
from arcface_edu.course.figures.geometry import plot_arc_and_chord

plot_arc_and_chord()

# %% [markdown]
# Right: how many degrees each margin is worth. CosFace's 0.35 is worth 49° for a face on its centre and 20° at 80°: it is
# strictest where least is left to gain. SphereFace is the opposite.
#
# ## Try it
#
# In a running notebook the panel follows the sliders, and you can drag the black point along the half circle. ○ is the angle that
# the loss uses; white belongs to neither class. Which slider changes $p$ but no boundary?

# %%
from ipywidgets import FloatSlider
from arcface_edu.course.widgets import Panel, place_in
from arcface_edu.course.figures.margin_toys import plot_margin_circle


def follow(figure, x, y, dx, dy):
    across, up = place_in(figure.axes[0], x, y)
    return dict(angle=math.degrees(math.atan2(max(up, 0), across)))


ranges = dict(angle=(40, 0, 180, 1), s=(16, 1, 64, 1))
ranges |= dict(m1=(1, 0.5, 2, 0.05), m2=(0.5, 0, 1, 0.05), m3=(0, 0, 0.6, 0.05))
sliders = {
    name: FloatSlider(value, min=low, max=high, step=step, description=name)
    for name, (value, low, high, step) in ranges.items()
}
Panel(plot_margin_circle, drag=follow, **sliders)

# %% [markdown]
# It is $s$: a scale multiplies both logits alike, so the place where they are equal stays the same. It sets how sharply $p$
# changes there.
#
# One dimension more: eight people on a sphere. Drag it to turn it. A colour shows where that person wins by the margin.

# %%
from arcface_edu.course.figures.margin_toys import plot_sphere

turn = dict(
    azimuth=FloatSlider(25, min=-180, max=180, description="azimuth"),
    elevation=FloatSlider(20, min=-90, max=90, description="elevation"),
    m2=FloatSlider(0.5, min=0, max=1, step=0.05, description="m2"),
)


def roll(figure, x, y, dx, dy):
    azimuth = (turn["azimuth"].value - 180 * dx + 180) % 360 - 180
    return dict(azimuth=azimuth, elevation=turn["elevation"].value - 180 * dy)


Panel(plot_sphere, drag=roll, **turn)

# %% [markdown]
# ## How long the loss pulls
#
# Training follows gradients, so look at the pull on an embedding. By the chain rule it has three factors: the scale, the error
# $1 - p$, and the slope of the target logit.
#
# $$\left|\frac{\partial L}{\partial \theta}\right| = s\,(1 - p)\,\left|\frac{d}{d\theta}\cos(m_1\theta + m_2)\right|$$
#
# The error alone decides how long the pull lasts. **Predict**: norm-softmax stops at about 80°, as you saw. Where does
# ArcFace stop, with 10,000 classes?


# %%
def error(degrees, margin, s=64, C=10_000):
    """1 - p, with all other centres at 90 degrees."""
    m1, m2, m3 = margin
    logit = s * (torch.cos(m1 * degrees.deg2rad() + m2) - m3)
    return (C - 1) / (C - 1 + logit.exp())


for name, margin in margins.items():
    half = degrees[:240][error(degrees[:240], margin) > 0.5][0]
    print(f"{name:12}: the pull has halved at {half:.0f}°")

# %% [markdown]
# <details><summary>Answer</summary>
#
# At 54°. Norm-softmax's pull has halved at 82°: the margin keeps the error, and with it the pull, alive for another 28°. That
# is true whatever the last factor is.
# </details>
#
# ## One margin, two gradients
#
# The last factor has a story. With respect to $\cos\theta$, the formula has the derivative
#
# $$\frac{d\,(\cos(m_1\theta + m_2) - m_3)}{d\cos\theta} = \frac{m_1 \sin(m_1\theta + m_2)}{\sin\theta}$$
#
# At $\theta = 0.3$, $s = 64$ and $m_2 = 0.5$ the cosine receives $64 \cdot \sin 0.8 / \sin 0.3 = 155.4$.
#
# **Predict**: today's arcface_torch computes arccos, adds $m$ and takes cos *in place, under `no_grad`*. What gradient does the
# cosine receive there?

# %%
cosine = torch.tensor([math.cos(0.3)], dtype=torch.float64, requires_grad=True)
logits = cosine * 1.0
with torch.no_grad():  # autograd records nothing here
    logits.arccos_()
    logits += 0.5
    logits.cos_()
(64 * logits).sum().backward()
print(f"value {logits.item():.4f}, that is cos 0.8; gradient {cosine.grad.item():.1f} instead of 155.4")

# %% tags=["test"]
assert cosine.grad.item() == 64 and math.isclose(logits.item(), math.cos(0.8))

# %% [markdown]
# It is 64. The gradient passes *straight through*, as if there were no margin: the value is ArcFace's, the derivative is
# norm-softmax's. By hand this is one more line: add the difference, detached.


# %%
def straight_through(embeddings, weight, labels, margin, s):
    m1, m2, m3 = margin
    cosine = F.normalize(embeddings) @ F.normalize(weight).T
    target = cosine.gather(1, labels[:, None])
    with_margin = torch.cos(m1 * target.acos() + m2) - m3
    logits = cosine.scatter(1, labels[:, None], target + (with_margin - target).detach())
    return F.cross_entropy(s * logits, labels)


head = MarginSoftmax(16, 10, scale=16).double()  # the package's default is straight-through, as in arcface_torch today
loss = straight_through(embeddings, head.weight, labels, (1, 0.5, 0), 16)
by_hand = with_gradients(loss, embeddings, head.weight)
package = with_gradients(head(embeddings, labels), embeddings, head.weight)
apart = max((a - b).abs().max().item() for a, b in zip(by_hand, package, strict=True))
print(f"loss {by_hand[0]:.4f} and {package[0]:.4f}; largest difference, gradients included: {apart:.0e}")

# %% tags=["test"]
torch.testing.assert_close(by_hand, package, rtol=1e-6, atol=1e-8)

# %% [markdown]
# ### Three ages
#
# Which gradient did the published models have? It depends on their year. The history of arcface_torch's `losses.py` has
# three ages:
#
# | | commit | ArcFace's logit | gradient |
# |---|---|---|---|
# | from March 2021 | `ede87b4a`, `3d42efa3` | arccos, + m, cos | exact, without a guard |
# | from January 2022 | `2e2e8c97` | $\cos\theta\cos m - \sin\theta\sin m$, a line past $\pi - m$ | exact, with a guard |
# | since December 2022 | `657ae30e` | arccos, + m, cos under `no_grad` | straight-through |
#
# The MXNet code before it and the paper are exact as well. The reason for the change, in a maintainer's words: ArcFace was
# more stable that way when training ViTs ([unicom, issue 11](https://github.com/deepglint/unicom/issues/11)). SphereFace-R had
# proposed it a year earlier, against instability, as "characteristic gradient detachment"
# ([arXiv 2109.05565](https://arxiv.org/abs/2109.05565)). Many of the larger recipes, margin $(1, 0, 0.4)$, are CosFace. There the
# factor is $\sin\theta / \sin\theta = 1$: the two gradients are the same.
#
# The key `margin_gradient` chooses between them. Left, the factor; right, the whole pull. Solid lines are exact, dashed lines
# straight-through.

# %%
from arcface_edu.course.figures.geometry import plot_gradients

plot_gradients(margins)

# %% [markdown]
# Both gradients of ArcFace last down to about 50°; there is the work of the margin. They differ in strength. Up to 76° the exact
# factor exceeds 1, and it grows as a face comes near its centre: at 17° it is 2.4. Beyond 76° straight-through is the
# stronger one. The smaller the scale, the further in the pull reaches, and the more the factor counts. Here is a sphere seen
# from above a centre, with $s = 16$ and 200 classes. Grey faces are no longer pulled.

# %%
from arcface_edu.course.figures.margin_toys import plot_pulls

plot_pulls()

# %% [markdown]
# ## Five heads on equal terms
#
# Does that matter for recognition? Train and see. To keep it short, a "photograph" here is a vector: 12 numbers say who it is,
# 24 numbers are light and pose, and a camera mixes them beyond recognition. A network must learn to undo the mixture.

# %%
torch.manual_seed(0)
MIX, CAMERA = torch.randn(36, 128) / 3, torch.randn(128, 64) / 11


def photograph(people, photos, seed):
    """(people * photos, 64) photographs of people that this seed invents, and their labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(people).repeat_interleave(photos)
    who = torch.randn(people, 12, generator=rng)[labels]
    who = who + 0.15 * torch.randn(who.shape, generator=rng)
    light = torch.randn(len(labels), 24, generator=rng)
    return torch.tanh(torch.cat([who, light], 1) @ MIX) @ CAMERA, labels


photos, names = photograph(200, 10, seed=1)  # the people of the training

# %% [markdown]
# The network, its class centres, and the loop. Only the loss is different from head to head. Afterwards the centres are
# thrown away.


# %%
def layer(inputs, outputs):
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()


def train(loss_of, seed, lr, steps=300):
    torch.manual_seed(seed)
    net = nn.Sequential(*layer(64, 128), *layer(128, 128), nn.Linear(128, 16), nn.BatchNorm1d(16, affine=False))
    centres = nn.Parameter(0.1 * torch.randn(200, 16))
    optimizer = torch.optim.SGD([*net.parameters(), centres], lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps)
    for _ in range(steps):
        batch = torch.randint(len(names), (64,))
        loss = loss_of(net(photos[batch]), centres, names[batch])
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return net.eval()


# %% [markdown]
# The judge: 600 photographs of 100 other people, every two of them a pair. Which threshold on the cosine accepts 1 % of the
# pairs of two people, and what share of the pairs of one person does it accept? (That is the *TAR at FAR 1e-2*.)


# %%
@torch.no_grad()
def pairs_of(net, people):
    embeddings = F.normalize(net(people[0]))
    first, second = torch.triu_indices(len(embeddings), len(embeddings), 1)
    return (embeddings[first] * embeddings[second]).sum(1), people[1][first] == people[1][second]


def tar(net, people, far=0.01):
    cosine, same = pairs_of(net, people)
    return (cosine[same] > cosine[~same].quantile(1 - far)).float().mean().item()


# %% [markdown]
# Five heads, three seeds each. The first column has one learning rate for all, 0.1. For the second, each head chooses its own,
# with another seed and another group of people than those that judge it.
#
# **Predict**: which head is best at the common rate? And which at its own?

# %%
heads = {
    "softmax": lambda e, w, y: F.cross_entropy(e @ w.T, y),
    "norm-softmax": lambda e, w, y: margin_softmax(e, w, y, (1, 0, 0), 16),
    "CosFace": lambda e, w, y: margin_softmax(e, w, y, (1, 0, 0.35), 16),
    "ArcFace, straight-through": lambda e, w, y: straight_through(e, w, y, (1, 0.5, 0), 16),
    "ArcFace, exact": lambda e, w, y: margin_softmax(e, w, y, (1, 0.5, 0), 16),
}
rates = (0.1, 0.4, 1.6, 6.4, 25.6)
chosen_by, judged_by = photograph(100, 6, seed=2), photograph(100, 6, seed=3)
tried, common, fair = {}, {}, {}
for name, loss_of in heads.items():
    tried[name] = [tar(train(loss_of, 9, lr), chosen_by) for lr in rates]
    best = rates[tried[name].index(max(tried[name]))]
    common[name], fair[name] = ([tar(train(loss_of, seed, lr), judged_by) for seed in (0, 1, 2)] for lr in (0.1, best))
    columns = [" ".join(f"{share:.0%}" for share in seeds) for seeds in (common[name], fair[name])]
    print(f"{name:26} at 0.1: {columns[0]}    at {best:>3}: {columns[1]}")

# %% tags=["test"]
mean = {name: (sum(common[name]) / 3, sum(fair[name]) / 3) for name in heads}
assert mean["norm-softmax"][0] + 0.05 < mean["ArcFace, straight-through"][0] < mean["ArcFace, exact"][0] - 0.03
assert abs(mean["ArcFace, straight-through"][1] - mean["ArcFace, exact"][1]) < 0.05

# %%
figure, ax = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
for name, shares in tried.items():
    style = "--" if "through" in name else "-"
    ax.plot(rates, [100 * share for share in shares], style, marker="o", color=METHODS[name.split(",")[0]], label=name)
ax.set(xscale="log", xlabel="learning rate", ylabel="TAR at FAR 1e-2 (%)", xticks=rates, xticklabels=rates)
ax.set_title("The learning rate matters more than the head", loc="left")
ax.minorticks_off(), ax.grid(color="#E6E6E6"), ax.legend(frameon=False)
plt.show()

# %% [markdown]
# <details><summary>Answer</summary>
#
# At the common rate exact ArcFace leads with every seed, 79 % against 66 % to 76 %. At its own rate every head is 9 to 21 points
# better, and the lead is gone: CosFace and straight-through ArcFace 90 %, the other three 86 % to 91 %.
# </details>
#
# What three seeds and fair rates say, for this toy:
#
# - **A margin helps, whatever its form and its gradient.** At a common rate it is worth 7 to 13 points over norm-softmax. At
#   their own rates 2 points are left, for CosFace and straight-through ArcFace with every seed.
# - **The gradients differ in strength, and a learning rate can make up for it.** The exact factor pulls harder near the
#   centre, so at a small rate it gets further in the same 300 steps. Comparing the two at one rate compares the rates.
# - **Plain softmax is a serious rival.** It learns its own scale in the length of its vectors, and needs a rate of its own,
#   because no $s$ multiplies its gradients.
#
# So the margin decides *how long* the loss pulls, and the gradient *how hard*. In this toy both can be had by other means: a
# smaller scale keeps the pull alive as well (the experiment at the end), and a larger rate pulls harder. A toy does not rank
# losses for faces: in the ArcFace paper, with real ones, plain softmax is clearly behind.
#
# What has training done to angles? Pairs of the people that judge, with norm-softmax and with ArcFace, both at the common rate:

# %%
SAME, DIFFERENT = "#0072B2", "#D55E00"
figure, axes = plt.subplots(2, 1, figsize=(7.2, 4.4), sharex=True, layout="constrained")
for ax, name in zip(axes, ("norm-softmax", "ArcFace, exact"), strict=True):
    cosine, same = pairs_of(train(heads[name], 0, 0.1), judged_by)
    angle = cosine.clamp(-1, 1).acos().rad2deg()
    for kind, color, words in ((same, SAME, "one person"), (~same, DIFFERENT, "two people")):
        shares = torch.full((int(kind.sum()),), 100 / int(kind.sum()))
        ax.hist(angle[kind], bins=range(0, 181, 3), weights=shares, color=color, alpha=0.7, label=words)
    threshold = angle[~same].quantile(0.01)
    ax.axvline(threshold, color="#222222", linestyle="--", label="1 % of two people are left of it")
    ax.set_title(f"{name}: {(angle[same] < threshold).float().mean():.0%} of one person's pairs pass", loc="left")
    ax.set_ylabel("share of pairs (%)")
axes[1].set_xlabel("angle between two photographs of people never seen (degrees)")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# Closer to faces is the same comparison with the default network and 500 drawn people, in three seeds at one learning rate
# ([docs/margins.md](../docs/margins.md), which also tries other rates). W-EC is the angle between a centre and the mean of its
# class, Intra between a photograph and the mean of its class, and Inter between the mean of a class and the nearest other
# mean:
#
# | | TAR at FAR 1e-2, unseen people | W-EC | Intra | Inter |
# |---|---|---|---|---|
# | norm-softmax | 79.4 % (78.5 to 81.2) | 44.6° | 32.3° | 38.4° |
# | ArcFace, straight-through | 87.4 % (86.5 to 88.7) | 30.7° | 34.6° | 48.5° |
# | ArcFace, exact | 91.6 % (91.3 to 91.9) | 20.3° | 28.8° | 43.0° |
# | plain softmax | 88.7 % (87.9 to 90.1) | 18.9° | 30.2° | 42.1° |
#
# Is the margin room between people, or a tighter class? W-EC shows it at work: a centre and its faces move together. With the
# straight-through gradient the room between people grows (Inter), and classes do not become tighter (Intra). With the
# exact gradient they do. A larger rate did not close the gap between the two there, as far as it was tried.
#
# ## Past π − m
#
# From $\theta = \pi - m = 151.4°$ on, $\theta + m$ exceeds $\pi$ and the cosine turns back up. There the exact derivative pushes a bad
# face further away. The usual guard goes on with the line $\cos\theta - m\sin m$. It does not meet the curve: at 151.4° it
# steps down by 0.12, from −1 to −1.12. A jump of the value does no harm, because the gradient on either side points the
# right way. Straight-through needs no guard: its sign is always right.
#
# One face starts at 170°. Note how the exact gradient gets small just below the turn, where its sine is nearly 0:


# %%
def bare(cosine, m=0.5):
    return torch.cos(torch.acos(cosine) + m)


def guarded(cosine, m=0.5):
    return torch.where(cosine > math.cos(math.pi - m), bare(cosine, m), cosine - m * math.sin(m))


def through(cosine, m=0.5):
    return cosine + (bare(cosine, m) - cosine).detach()


def descend(logit, start=170.0, steps=120, lr=0.1):
    theta, way = torch.tensor(math.radians(start), dtype=torch.float64, requires_grad=True), [start]
    for _ in range(steps):
        (pull,) = torch.autograd.grad(logit(theta.cos()), theta)
        theta.data.add_(lr * pull).clamp_(0.01, math.pi - 0.001)
        way.append(math.degrees(theta.item()))
    return way


# %%
from arcface_edu.course.figures.geometry import plot_turn

ways = {"formula": descend(bare), "line": descend(guarded), "straight-through": descend(through)}
print("after 120 steps:", {name: f"{way[-1]:.1f}°" for name, way in ways.items()})
plot_turn((1.0, 0.5, 0.0), ways)

# %% tags=["test"]
from arcface_edu.heads import target_logit

some = torch.linspace(-0.99, 0.99, 99, dtype=torch.float64)
assert torch.allclose(guarded(some), target_logit(some, (1.0, 0.5, 0.0), "exact"))
assert ways["formula"][-1] > 179 and ways["line"][-1] < 90

# %% [markdown]
# ## Exercise: the margin
#
# Write ArcFace's target logit for cosines of any angle: $\cos(\theta + m)$ up to $\theta + m = \pi$, and the line from there on.
# Gradients must flow, and stay finite at $\cos\theta = \pm 1$, where the derivative of arccos is infinite. (`guarded` above
# is nearly it.)

# %%
from arcface_edu.course.checks.margin import check_margin


def my_margin(cosine, m):
    return None  # (T,) cosines -> (T,) logits


check_margin(my_margin)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `clamp` keeps the arccos away from ±1; its gradient outside is 0.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import math
# import torch
#
# def my_margin(cosine, m):
#     theta = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
#     line = cosine - m * math.sin(m)
#     return torch.where(cosine > math.cos(math.pi - m), (theta + m).cos(), line)
# ```
# </details>

# %% [markdown]
# ## Where random faces are
#
# How often is a face past 151°? Two random directions in $d$ dimensions have an angle $\theta$ with density
# $\propto \sin^{d-2}\theta$.
#
# **Predict**: in the plane, one in six is past 151°. How many are in 512 dimensions?

# %%
from arcface_edu.course.figures.random_angles import plot_random_angles

plot_random_angles()

# %%
for d in (2, 8, 512):
    u, v = F.normalize(torch.randn(2, 20_000, d), dim=2)
    angles = (u * v).sum(1).clamp(-1, 1).acos().rad2deg()
    past = (angles > 151.4).float().mean()
    print(f"d = {d:>3}: {angles.mean():.1f}° ± {angles.std():.1f}°, past 151.4°: {past:.1%}")

# %% tags=["test"]
from arcface_edu.evaluation.angle_stats import random_angle_density

assert random_angle_density([151.4], 512) < 1e-150
assert abs(angles.std() - math.degrees(1 / math.sqrt(d))) < 0.1

# %% [markdown]
# <details><summary>Answer</summary>
#
# None: the chance is below $10^{-150}$ per degree. The famous guard matters in drawings of the plane and hardly ever in 512
# dimensions.
# </details>
#
# So at the start of training every face is at about 90° from every centre, from its own as well. Different people are apart from the
# beginning. The work is to bring the faces of one person together.
#
# ## Four published bugs
#
# Each of these stood in code that people could train with, and none gives an error message. They are rewritten and
# shortened. Look for the bug before you run the cell that follows.
#
# ### Bug 1


# %%
def head_1(embeddings, weight, labels, m=0.5, s=64.0):
    cosine = F.linear(F.normalize(embeddings), weight)
    theta = cosine.clamp(-1, 1).acos() + m * F.one_hot(labels, len(weight))
    return F.cross_entropy(s * theta.cos(), labels)


# %%
weight = torch.randn(10, 16)
embeddings = torch.randn(32, 16)
raw = F.linear(F.normalize(embeddings), weight)
print(f"'cosines' up to {raw.max():.2f}; {(raw.abs() > 1).float().mean():.0%} are not cosines")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The weights are never normalised. The clamp hides it, and a value that is clamped has no gradient.
# </details>
#
# ### Bug 2


# %%
def head_2(embeddings, weight, labels, m=0.5, s=64.0):
    cosine = F.linear(F.normalize(embeddings), F.normalize(weight))
    with_margin = torch.cos(cosine.clamp(-1, 1).acos() + m)
    logits = cosine.clone()
    logits.scatter(1, labels[:, None], with_margin.gather(1, labels[:, None]))
    return F.cross_entropy(s * logits, labels)


# %%
losses = [head_2(embeddings, weight, labels, m=m).item() for m in (0.0, 0.5)]
print("loss without a margin and with one:", losses)

# %% [markdown]
# <details><summary>Answer</summary>
#
# `scatter` returns a new tensor, and nothing uses it (`scatter_` was meant). The margin is computed and thrown away. The
# loss falls all the same, so a training log does not show it.
# </details>
#
# ### Bug 3


# %%
def head_3(embeddings, weight, labels, m=0.5, s=64.0):
    cosine = F.linear(F.normalize(embeddings), F.normalize(weight))
    sine = torch.sqrt(1 - cosine**2)
    with_margin = cosine * math.cos(m) - sine * math.sin(m)  # cos(θ + m), without arccos
    one_hot = F.one_hot(labels, len(weight)).to(cosine)
    return F.cross_entropy(s * (one_hot * with_margin + (1 - one_hot) * cosine), labels)


# %%
face = torch.tensor([[1.0, 0.0]], requires_grad=True)  # exactly on its centre
head_3(face, torch.eye(2), torch.tensor([0])).backward()
print("gradient on the centre:", face.grad)
unit = F.normalize(torch.randn(1000, 16))
with_itself = (unit * unit).sum(1)
print(f"{(with_itself > 1).sum()} of 1,000 cosines of a vector with itself exceed 1")

# %% [markdown]
# <details><summary>Answer</summary>
#
# At $\cos\theta = 1$ the root has an infinite slope, and infinity times zero is NaN. By rounding a cosine may even exceed 1. One
# such face ends a run of days.
# </details>
#
# ### Bug 4


# %%
def head_4(embeddings, weight, labels, m=0.5, s=64.0):
    cosine = F.linear(F.normalize(embeddings), F.normalize(weight))
    own = labels[:, None] == torch.arange(len(weight))  # (B, C)
    theta = cosine.clamp(-1, 1).acos() + m * own
    p = (own * (s * theta.cos()).softmax(1)).sum(1)
    return -p.clamp(min=1e-30).log().mean()


# %%
from arcface_edu.errors import DataError

loss = head_4(embeddings, weight, labels + 10)
print(f"labels 10 to 19 of 10 classes: loss {loss:.4f}")
try:
    MarginSoftmax(16, 10)(embeddings, labels + 10)
except DataError as error:
    print("the package:", error)

# %% tags=["test"]
assert not torch.isclose(head_1(embeddings, weight, labels), head_1(embeddings, 3 * weight, labels))
assert losses[0] == losses[1]
assert face.grad.isnan().any() and torch.sqrt(1 - with_itself**2).isnan().any()
assert math.isclose(loss, -math.log(1e-30), rel_tol=1e-5)

# %% [markdown]
# <details><summary>Answer</summary>
#
# A label without a class matches no column, $p$ is 0, and the loss stays at $-\ln 10^{-30} = 69.08$ for ever. If you see
# 69.08 in a log, look at the labels.
# </details>
#
# ## Exercise: a head without them
#
# Write ArcFace's mean loss, $s = 64$ and $m = 0.5$, with none of the four bugs. Either gradient is right.

# %%
from arcface_edu.course.checks.margin import check_head


def my_head(embeddings, weight, labels):
    return None  # (B, D), (C, D), (B,) -> scalar


check_head(my_head)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Look at the labels first and raise a ValueError. Then `straight_through` above is nearly it. What happens to an arccos
# whose argument exceeds 1?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import torch
# from torch.nn import functional as F
#
# def my_head(embeddings, weight, labels):
#     if labels.min() < 0 or labels.max() >= len(weight):
#         raise ValueError(f"a label is out of range: there are {len(weight)} classes, from 0")
#     cosine = F.normalize(embeddings) @ F.normalize(weight).T
#     target = cosine.gather(1, labels[:, None])
#     with_margin = target + (torch.cos(target.clamp(-1, 1).acos() + 0.5) - target).detach()
#     return F.cross_entropy(64 * cosine.scatter(1, labels[:, None], with_margin), labels)
# ```
# </details>

# %% [markdown]
# ## Experiment: how much margin, how much scale?
#
# Vary $m$ and $s$ of exact ArcFace on the vectors above. One run of each setting would tell you little: look at the spread of
# the seeds first. Write the study as a function of `judge(m, s, seed)`, which trains once and returns the TAR. Compare at
# least three margins, 0 among them, at two scales or more, each with the same three seeds, and return
# `{(m, s): (mean, lowest, highest)}`. The check runs it with an invented judge, in no time.

# %%
from arcface_edu.course.checks.margin import check_ablation


def my_ablation(judge):
    return None


check_ablation(my_ablation)

# %% [markdown]
# Then run it for real, in about a minute:
#
# ```python
# def judge(m, s, seed):
#     return tar(train(lambda e, w, y: margin_softmax(e, w, y, (1, m, 0), s), seed, lr=6.4), judged_by)
#
# for setting, (mean, lowest, highest) in my_ablation(judge).items():
#     print(setting, f"{mean:.1%} ({lowest:.1%} to {highest:.1%})")
# ```
#
# <details><summary>Hint</summary>
#
# Three loops, or `itertools.product` and one comprehension over the seeds. Two settings differ only if their ranges do not overlap.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import itertools
#
# def my_ablation(judge):
#     study = {}
#     for m, s in itertools.product((0.0, 0.25, 0.5, 0.75), (8, 16, 32)):
#         found = [judge(m, s, seed) for seed in (0, 1, 2)]
#         study[m, s] = sum(found) / 3, min(found), max(found)
#     return study
# ```
# </details>
#
# <details><summary>What came out here</summary>
#
# TAR, mean and range of three seeds. Without a margin the scale matters most, and a large one is bad: the pull ends early.
# At $s = 32$ a margin of 0.25 or 0.5 is worth 5 points or more, at $s = 8$ it brings nothing: margin and scale do part of the same
# work. Most neighbours cannot be told apart, because their ranges overlap. And at $m = 0.75$, $s = 32$ one seed of three
# failed completely at this rate. One run would have shown either 88 % or nothing.
#
# | | $s = 8$ | $s = 16$ | $s = 32$ |
# |---|---|---|---|
# | $m = 0$ | 89.7 % (89.4 to 90.3) | 87.7 % (86.7 to 88.5) | 81.6 % (79.6 to 83.5) |
# | $m = 0.25$ | 89.2 % (88.7 to 89.4) | 89.6 % (88.8 to 90.2) | 86.4 % (84.9 to 88.3) |
# | $m = 0.5$ | 86.6 % (86.4 to 86.7) | 88.0 % (86.2 to 89.3) | 87.9 % (86.7 to 89.5) |
# | $m = 0.75$ | 86.6 % (86.1 to 87.0) | 87.8 % (86.3 to 89.7) | 58.4 % (0.0 to 88.7) |
# </details>

# %% [markdown]
# ## Recap
#
# 1. Which of the three factors of a logit is kept when two photographs are compared, and what did the others allow softmax to do?
# 2. Why does the least scale grow with $\ln C$, and why is 64 used where 14 would be enough?
# 3. Why is ArcFace's decision boundary a straight line in angles, and CosFace's not?
# 4. What do the two gradients of the margin have in common, where do they differ, and which one did a model of 2021 have?
# 5. What does a loss that stays at 69.08 tell you?
#
# ## Further
#
# - [heads/margins.py](../arcface_edu/heads/margins.py): the formula, both gradients, and the line past π − m
# - [heads/margin_softmax.py](../arcface_edu/heads/margin_softmax.py): `MarginSoftmax`, the head of every run
# - [docs/margins.md](../docs/margins.md): the same comparison with the default network and drawn faces
# - ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698); CosFace, [arXiv 1801.09414](https://arxiv.org/abs/1801.09414)
#   (the bound on $s$); SphereFace, [arXiv 1704.08063](https://arxiv.org/abs/1704.08063); NormFace,
#   [arXiv 1704.06369](https://arxiv.org/abs/1704.06369); CurricularFace, [arXiv 2004.00288](https://arxiv.org/abs/2004.00288)
