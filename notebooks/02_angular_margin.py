# %% [markdown]
# # 02 · The angle and the margin
#
# A face is recognised by an angle: between its embedding and somebody else's. This notebook follows one line of
# algebra, cos(m₁θ + m₂) − m₃, from the dot product to the loss that trains nearly every face recogniser. You will derive
# its scale, drag its boundary about, write it by hand, prove your version equal to the package's, and find four bugs that
# other people published.
#
# | | |
# |---|---|
# | you will see | the margin as a curve, a boundary, an arc, a probability and a pull |
# | you need | basic PyTorch; nothing is downloaded |
# | takes | 0.1 minutes on two cores |
# | before | [01 · A network that can be deep](01_resnet.ipynb) |
# | after | [03 · Eight people in a plane](03_softmax_vs_arcface.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## From a dot product to an angle
#
# A classifier's last layer compares an embedding x with one weight vector W per person. Each logit is a dot product,
# W·x = ‖W‖ ‖x‖ cos θ: three factors, and only the last says which way the face points.
#
# **Predict**: x lies nearest to its own centre, but only just. Make x ten times as long, and turn nothing. What does the
# softmax loss do?

# %%
import math
import torch
from torch.nn import functional as F

W = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # (C, D), two people
x = torch.tensor([[0.8, 0.6]])  # (B, D), of person 0
own = torch.tensor([0])
losses = [F.cross_entropy(length * x @ W.T, own).item() for length in (1, 10)]
print(f"loss {losses[0]:.2f}, ten times as long {losses[1]:.2f}")

# %% [markdown]
# The loss fell to a fifth and the face is not recognised any better: when two photographs are compared later, length
# is thrown away. Plain softmax can buy a low loss with length. So we take length from it: divide x and every W by their own.

# %%
cosine = F.normalize(x) @ F.normalize(W).T  # (B, C)
theta = cosine.acos().rad2deg()
print(theta)
assert torch.allclose(cosine, F.normalize(10 * x) @ F.normalize(7 * W).T)

# %% [markdown]
# Now embeddings and centres live on a sphere, and only the angle is left to learn from. This is *norm-softmax*.
#
# ## Why there is a scale
#
# Cosines end at 1, and softmax does not like small numbers.
#
# **Predict**: 93,431 people, every embedding exactly on its own centre, all centres as far apart as they can be. The
# logits are the cosines. What probability does softmax give to the right person?

# %%
C = 93_431
best = math.exp(1) / (math.exp(1) + (C - 1) * math.exp(-1 / (C - 1)))
print(f"p = {best:.6f}, loss {-math.log(best):.2f}; blind guessing has {math.log(C):.2f}")
assert best < 3e-5

# %% [markdown]
# Perfect, and marked as hopeless. So the cosines are multiplied by a scale s, the radius of the sphere. How large must it
# be? C centres cannot all be far from each other: 0 ≤ ‖ΣW‖² = C + (sum of all their cosines), so the mean cosine between
# two of them is −1/(C−1) at least. Embeddings on their centres then have logits s and, at best, −s/(C−1):
#
# p = eˢ / (eˢ + (C−1) e^(−s/(C−1)))   gives   **s ≥ (C−1)/C · ln((C−1) p / (1−p))**
#
# The exponential is convex, so any other arrangement with that mean costs more: no set of centres does better than this
# simplex. Do not believe it; let gradient descent try.


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
print(f"s = {s:.3f}: asked for p = {p}, descent finds {math.exp(-loss.item()):.6f}")
assert abs(math.exp(-loss.item()) - p) < 1e-4

# %%
for C in (10, 1_000, 93_431, 2_059_906):
    scales = [f"{least_scale(C, p):.1f} for p = {p}" for p in (0.9, 0.999)]
    print(f"{C:>9,} classes: s ≥ {', '.join(scales)}")

# %% [markdown]
# The need grows with ln C only: even for two million people 22 would do. Why then does everybody train with 64? The bound is
# for embeddings *on* their centre. Real ones stay tens of degrees away from it, strangers are not on a simplex but at
# about 90°, and the margin takes more. Look at p against the angle:

# %%
from arcface_edu.course.figures.geometry import plot_probability

plot_probability(scales=(4, 8, 16, 32, 64), classes=(10, 1_000, 100_000, 10_000_000))

# %% [markdown]
# Left: with s = 8 nobody can be sure, with s = 64 the softmax is content at 75° and asks for nothing more. Right: a
# million times as many strangers move that cliff by 13° only. A large scale makes training possible *and lazy*. What is missing
# is a reason to come closer than 75°.
#
# ## One formula for the margin
#
# The reason: mark the true class as if its angle were worse than it is. Everything published fits one line,
#
# **target logit = s · (cos(m₁θ + m₂) − m₃)**
#
# | | m₁ | m₂ | m₃ | what is made worse |
# |---|---|---|---|---|
# | norm-softmax | 1 | 0 | 0 | nothing |
# | SphereFace | 1.35 | 0 | 0 | the angle, by a factor |
# | CosFace | 1 | 0 | 0.35 | the cosine, by a constant |
# | ArcFace | 1 | 0.5 | 0 | the angle, by a constant (0.5 rad = 28.6°) |
#
# **Predict**: which of the three asks most of a face that is already at 10°, and which asks nearly nothing?

# %%
from arcface_edu.course.figures.geometry import plot_target_logits
from arcface_edu.heads import MARGINS

names = ("norm-softmax", "SphereFace", "CosFace", "ArcFace")
margins = {name: MARGINS[name.lower().replace("-", "_")] for name in names}
plot_target_logits(margins)

# %% [markdown]
# SphereFace's margin is a share of the angle: it fades where the angle does. CosFace and ArcFace keep asking. The dotted
# ends, where worse angles get better marks again, will need a cure further down.
#
# ## Boundaries
#
# Two classes, angles θ₁ and θ₂ to their centres. Without a margin class 1 wins where θ₁ < θ₂. With one, training
# is content only where the target logit of θ₁ beats cos θ₂.
#
# **Predict**: which margin leaves a white band of equal width between the two classes?

# %%
from arcface_edu.course.figures.geometry import plot_boundaries

plot_boundaries(margins)

# %% [markdown]
# ArcFace's condition is θ₁ + m < θ₂: a straight line, parallel to the diagonal, 28.6° from it. Only here is the margin an angle.
#
# ## Arc against chord
#
# What is CosFace's margin, then? The straight line from x to W, the chord, has ‖x − W‖² = 2 − 2 cos θ. A constant
# taken from the cosine is a constant added to the *squared chord*; ArcFace adds one to the *arc*, the way along
# the sphere itself.

# %%
theta = torch.linspace(0, math.pi, 50, dtype=torch.float64)
chord = 2 * (theta / 2).sin()
assert torch.allclose(theta.cos() - 0.35, 1 - (chord**2 + 2 * 0.35) / 2)

from arcface_edu.course.figures.geometry import plot_arc_and_chord

plot_arc_and_chord()

# %% [markdown]
# Right: how many degrees each margin is worth. CosFace's 0.35 is 49° for a face on its centre and 20° at 80°: dear where
# there is nothing left to gain, cheap where faces start. SphereFace has it the other way round.
#
# ## Take it in your hand
#
# Run live, the panel answers to sliders, and the half circle can be dragged: pull the black point. ○ is where the loss
# believes it to be; white is nobody's land. Try: which slider moves p, but no boundary?

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
# It is s: a scale multiplies both logits alike, so it cannot move the place where they are equal. It sets how sharply p
# changes there.
#
# One dimension up: eight people on a sphere, which you can turn by dragging. Colour is where a person wins by the margin.

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
# ## One margin, two gradients
#
# By the chain rule, the derivative of cos(m₁θ + m₂) − m₃ with respect to cos θ is m₁ sin(m₁θ + m₂) / sin θ. At θ = 0.3,
# s = 64 and m = 0.5 the cosine should receive 64 · sin 0.8 / sin 0.3 = 155.4.
#
# The paper's code computes just that, and so did arcface_torch until December 2022. **Predict**: since then arcface_torch
# computes arccos, adds m and takes cos *in place, under `no_grad`*. What gradient does the cosine get there?

# %%
cosine = torch.tensor([math.cos(0.3)], dtype=torch.float64, requires_grad=True)
logits = cosine * 1.0
with torch.no_grad():  # autograd does not look
    logits.arccos_()
    logits += 0.5
    logits.cos_()
(64 * logits).sum().backward()
print(f"value {logits.item():.4f}; gradient {cosine.grad.item():.1f}, not 155.4")
assert cosine.grad.item() == 64 and math.isclose(logits.item(), math.cos(0.8))

# %% [markdown]
# It is 64: the gradient goes *straight through*, as if there had been no margin. The value is ArcFace's, the derivative is
# norm-softmax's. The package has both:

# %%
from arcface_edu.heads import target_logit


def slope(theta, gradient, margin=(1.0, 0.5, 0.0), s=64):
    cosine = torch.tensor(math.cos(theta), dtype=torch.float64, requires_grad=True)
    (s * target_logit(cosine, margin, gradient)).backward()
    return cosine.grad.item()


assert slope(0.3, "straight-through") == 64
assert math.isclose(slope(0.3, "exact"), 64 * math.sin(0.8) / math.sin(0.3))

# %% [markdown]
# Does training survive that? The margin still enters through the value, that is through 1 − p, and the whole pull on an embedding
# is s (1 − p) times the slope. Solid: exact. Dashed: straight-through. 10,000 classes.

# %%
from arcface_edu.course.figures.geometry import plot_gradients

plot_gradients(margins)

# %% [markdown]
# Read the right picture: norm-softmax stops pulling at about 80°, ArcFace goes on to about 50°, **whichever gradient is
# used**. That is the whole work of the margin: not how it pulls, but how long. The two differ mostly where there is
# little to differ about; past 90° straight-through even pulls harder. Only where faces sit on their centre does the exact
# factor grow without bound, and that will be one of the bugs.

# %%
from arcface_edu.course.figures.geometry import ANGLES, logit_at, probability


def pulls_down_to(margin, s=64, classes=10_000):
    wrong = 1 - probability(logit_at(ANGLES, margin), s, classes)
    return ANGLES[wrong > 0.5][0]


reach = {name: pulls_down_to(margin) for name, margin in margins.items()}
print({name: f"{degrees:.0f}°" for name, degrees in reach.items()})
assert reach["norm-softmax"] - reach["ArcFace"] > 25

# %% [markdown]
# ## Past π − m
#
# From θ = π − m = 151.4° on, θ + m exceeds π and the cosine turns back up. There the exact derivative pushes a
# bad face further away. The usual cure continues with the line cos θ − m sin m. Straight-through needs none: its sign
# is always right. One face, starting at 170° (and note how the exact gradient tires just below the turn, where its sine is
# nearly 0):


# %%
def naive(cosine, margin, gradient):
    return torch.cos(torch.acos(cosine) + margin[1])


def descend(logit, gradient, start=170.0, steps=120, lr=0.1):
    theta, way = torch.tensor(math.radians(start), dtype=torch.float64, requires_grad=True), [start]
    for _ in range(steps):
        (pull,) = torch.autograd.grad(logit(theta.cos(), (1.0, 0.5, 0.0), gradient), theta)
        theta.data.add_(lr * pull).clamp_(0.01, math.pi - 0.001)
        way.append(math.degrees(theta.item()))
    return way


# %%
from arcface_edu.course.figures.geometry import plot_turn

ways = {
    "formula": descend(naive, None),
    "line": descend(target_logit, "exact"),
    "straight-through": descend(target_logit, "straight-through"),
}
print({name: f"{way[-1]:.1f}°" for name, way in ways.items()})
assert ways["formula"][-1] > 179 and ways["line"][-1] < 90
plot_turn((1.0, 0.5, 0.0), ways)

# %% [markdown]
# ## Exercise: the margin
#
# Write ArcFace's target logit for cosines of any angle: cos(θ + m) up to θ + m = π, and the line cos θ − m sin m from there on.
# Gradients must flow, and stay finite at cos θ = ±1, where the derivative of arccos is infinite.

# %%
from arcface_edu.course.checks.margin import check_margin


def my_margin(cosine, m):
    return None  # (T,) cosines -> (T,) logits


check_margin(my_margin)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.where(condition, a, b)` chooses elementwise, with gradients. θ + m > π is the same as cos θ < cos(π − m). And
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
# How often does anyone get past 151°? Two random directions in d dimensions are at angle θ with density ∝ sinᵈ⁻²θ.
#
# **Predict**: in the plane, one in six is past 151°. In 512 dimensions?

# %%
from arcface_edu.evaluation.angle_stats import random_angle_density
from arcface_edu.course.figures.random_angles import plot_random_angles

assert random_angle_density([151.4], 512) < 1e-150
plot_random_angles()

# %% [markdown]
# Never: a chance below 10⁻¹⁵⁰ per degree. The famous cure matters in toy pictures of the plane and hardly ever in 512 dimensions. By
# drawing instead of by formula:

# %%
for d in (2, 8, 512):
    u, v = F.normalize(torch.randn(2, 20_000, d), dim=2)
    angles = (u * v).sum(1).clamp(-1, 1).acos().rad2deg()
    past = (angles > 151.4).float().mean()
    print(f"d = {d:>3}: {angles.mean():.1f}° ± {angles.std():.1f}°, past 151.4°: {past:.1%}")
assert abs(angles.std() - math.degrees(1 / math.sqrt(d))) < 0.1

# %% [markdown]
# So at the start of training every face is at 90° from every centre, its own too. Strangers are where they should be by
# themselves: the work is to draw a person's own faces in.
#
# ## By hand, and by the package
#
# The loss in six lines. `scatter` writes the target logit into the place of the true class.


# %%
def margin_softmax(embeddings, weight, labels, margin, s):
    m1, m2, m3 = margin
    cosine = F.normalize(embeddings) @ F.normalize(weight).T  # (B, C)
    theta = cosine.gather(1, labels[:, None]).acos()  # (B, 1), to the own centre
    logits = cosine.scatter(1, labels[:, None], torch.cos(m1 * theta + m2) - m3)
    return F.cross_entropy(s * logits, labels)


# %%
from arcface_edu import MarginSoftmax


def with_gradients(loss, *of):
    return loss, *torch.autograd.grad(loss, of)


embeddings = torch.randn(32, 16, dtype=torch.float64, requires_grad=True)
labels = torch.randint(0, 10, (32,))
for name, margin in margins.items():
    head = MarginSoftmax(16, 10, margin=margin, scale=16, gradient="exact").double()
    loss = margin_softmax(embeddings, head.weight, labels, margin, 16)
    ours = with_gradients(loss, embeddings, head.weight)
    theirs = with_gradients(head(embeddings, labels), embeddings, head.weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    print(f"{name}: loss {loss:.4f}, the same gradients")

# %% [markdown]
# And straight-through is the same function with the margin's own derivative switched off: the value of one, the slope of the other.


# %%
def straight_through(embeddings, weight, labels, m, s):
    cosine = F.normalize(embeddings) @ F.normalize(weight).T
    true = cosine.gather(1, labels[:, None])
    marked = true + (torch.cos(true.acos() + m) - true).detach()
    return F.cross_entropy(s * cosine.scatter(1, labels[:, None], marked), labels)


head = MarginSoftmax(16, 10, scale=16).double()
loss = straight_through(embeddings, head.weight, labels, 0.5, 16)
ours = with_gradients(loss, embeddings, head.weight)
theirs = with_gradients(head(embeddings, labels), embeddings, head.weight)
torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)

# %% [markdown]
# ## Four published bugs
#
# Each stood in code that people could train with; none gives an error message. Written anew and shortened. Look
# for it before you run the cell after it.
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
print(f"'cosines' up to {raw.max():.2f}; {(raw.abs() > 1).float().mean():.0%} are no cosines")
assert not torch.isclose(head_1(embeddings, weight, labels), head_1(embeddings, 3 * weight, labels))

# %% [markdown]
# The weights are never normalised. The clamp hides it, and whatever it clamps has no gradient.
#
# ### Bug 2


# %%
def head_2(embeddings, weight, labels, m=0.5, s=64.0):
    cosine = F.linear(F.normalize(embeddings), F.normalize(weight))
    marked = torch.cos(cosine.clamp(-1, 1).acos() + m)
    logits = cosine.clone()
    logits.scatter(1, labels[:, None], marked.gather(1, labels[:, None]))
    return F.cross_entropy(s * logits, labels)


# %%
without, with_margin = (head_2(embeddings, weight, labels, m=m) for m in (0.0, 0.5))
assert without == with_margin

# %% [markdown]
# `scatter` returns a new tensor and nothing uses it (`scatter_` was meant): the margin is computed, and thrown away. Somebody
# who only watches the loss fall will never know.
#
# ### Bug 3


# %%
def head_3(embeddings, weight, labels, m=0.5, s=64.0):
    cosine = F.linear(F.normalize(embeddings), F.normalize(weight))
    sine = torch.sqrt(1 - cosine**2)
    marked = cosine * math.cos(m) - sine * math.sin(m)  # cos(θ + m), without arccos
    one_hot = F.one_hot(labels, len(weight)).to(cosine)
    return F.cross_entropy(s * (one_hot * marked + (1 - one_hot) * cosine), labels)


# %%
face = torch.tensor([[1.0, 0.0]], requires_grad=True)  # exactly on its centre
head_3(face, torch.eye(2), torch.tensor([0])).backward()
print("gradient on the centre:", face.grad)
assert face.grad.isnan().any()
unit = F.normalize(torch.randn(1000, 16))
with_itself = (unit * unit).sum(1)
print(f"{(with_itself > 1).sum()} of 1,000 cosines of a vector with itself exceed 1")
assert torch.sqrt(1 - with_itself**2).isnan().any()

# %% [markdown]
# At cos θ = 1 the root has an infinite slope, times zero is NaN; and by rounding a cosine may exceed 1. One such face ends a run of days.
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
assert math.isclose(loss, -math.log(1e-30), rel_tol=1e-5)
try:
    MarginSoftmax(16, 10)(embeddings, labels + 10)
except DataError as error:
    print("ours:", error)

# %% [markdown]
# A label without a class finds no place to be right, p is 0, and the loss stands at −ln(10⁻³⁰) = 69.08 for ever. In
# the sharded head of many processes it is worse: the softmax's gradient still pushes the face from every centre. If you ever see
# 69.08 in a log, look at the labels.
#
# ## Exercise: a head without them
#
# Write ArcFace's mean loss, s = 64 and m = 0.5, with none of the four. Either gradient is right.

# %%
from arcface_edu.course.checks.margin import check_head


def my_head(embeddings, weight, labels):
    return None  # (B, D), (C, D), (B,) -> scalar


check_head(my_head)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Look at the labels first and raise a ValueError. Then `straight_through` above is nearly it: what of an arccos whose
# argument exceeds 1?
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
#     true = cosine.gather(1, labels[:, None])
#     marked = true + (torch.cos(true.clamp(-1, 1).acos() + 0.5) - true).detach()
#     return F.cross_entropy(64 * cosine.scatter(1, labels[:, None], marked), labels)
# ```
# </details>

# %% [markdown]
# ## Recap
#
# 1. Which of the three factors of a logit is kept when two photographs are compared, and what did the others allow softmax to do?
# 2. Why does the least scale grow with ln C, and why is 64 used where 14 would be enough?
# 3. Why is ArcFace's decision boundary a straight line in angles, and CosFace's not?
# 4. If the margin has no part in the straight-through gradient, how does it change what is learned?
# 5. What does a loss that stands at 69.08 tell you?
#
# ## Further
#
# - [heads/margins.py](../arcface_edu/heads/margins.py): the formula, both gradients, and the line past π − m
# - [heads/margin_softmax.py](../arcface_edu/heads/margin_softmax.py): `MarginSoftmax`, what every run trains with
# - [course/figures/geometry.py](../arcface_edu/course/figures/geometry.py), [course/figures/margin_toys.py](../arcface_edu/course/figures/margin_toys.py): the pictures
# - ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698); CosFace, [arXiv 1801.09414](https://arxiv.org/abs/1801.09414) (the bound on s); SphereFace, [arXiv 1704.08063](https://arxiv.org/abs/1704.08063); NormFace, [arXiv 1704.06369](https://arxiv.org/abs/1704.06369)
