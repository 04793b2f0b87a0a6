# %% [markdown]
# # 03 · Eight people in a plane
#
# Nobody can see 512 numbers. Here a face becomes two. Eight people then live on a circle, where you can watch them part
# while the network learns: under plain softmax, under SphereFace, CosFace and ArcFace. It is the best-known picture of the
# ArcFace paper, trained for real, and it holds three surprises: where softmax hides people, which part of the famous
# picture is *not* the margin's work, and what happens to people whom the network has never seen.
#
# | | |
# |---|---|
# | you will see | a circle and a sphere filling with people; what a margin changes, by four statistics; a scale too small, a margin too large; strangers |
# | you need | [00 · The problem](00_the_problem.ipynb) and [02 · The angle and the margin](02_angular_margin.ipynb); nothing is downloaded |
# | takes | 1.0 minutes on two cores |
# | before | [02 · The angle and the margin](02_angular_margin.ipynb) |
# | after | [04 · One training on many processes](04_dataparallel_vs_ddp.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Eight people, two numbers
#
# The eight are drawn, sixty photographs of each: forty to learn from, twenty kept back.

# %%
import torch
from arcface_edu.course.eight_people import draw_people, portraits

photos, who = draw_people(photos=60)
kept_back = torch.arange(len(who)) % 60 >= 40
images, labels, faces = photos[~kept_back], who[~kept_back], portraits()
print(f"{len(images)} photographs to learn from, {kept_back.sum()} kept back")

# %% [markdown]
# The network is that of notebook 00, four convolutions and a linear layer, with one layer more at its end:


# %%
from torch import nn
from torch.nn import functional as F


def network(size, centred=True):
    """(B, 3, 56, 56) -> (B, size)"""
    layers, channels = [], 3
    for width in (16, 32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
        channels = width
    layers += [nn.Flatten(), nn.Linear(4 * 4 * channels, size)]
    if centred:
        layers.append(nn.BatchNorm1d(size, affine=False))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


# %% [markdown]
# That last layer is a batch normalisation without weights. It subtracts from each of the two numbers its mean over the batch
# and divides it by its deviation. So the cloud of all embeddings stays *centred*, and its directions can fill the circle.
# Published networks end the same way, in a BatchNorm1d whose scale is fixed at 1. Further down you can take it away.
#
# The training loop. Nothing in it is special, except that it stops now and then to record where everybody is:

# %%
from arcface_edu.course.eight_people import History, shrink
from arcface_edu.data.loader import seeded
from arcface_edu.heads import MarginSoftmax, Softmax

small = shrink(images)  # (320, 3, 56, 56) in [-1, 1]


def train(margin, size, scale=8.0, epochs=40, margin_at=None, centred=True):
    head = MarginSoftmax(size, 8, margin=margin, scale=scale) if margin else Softmax(size, 8)
    torch.manual_seed(0)
    model = network(size, centred)
    nn.init.normal_(head.weight)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    total = 5 * epochs  # 5 batches of 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total, pct_start=0.1)
    moments = {round(total * (frame / 27) ** 2) for frame in range(28)}  # closer in the beginning
    orders = [torch.randperm(len(small), generator=seeded(0, epoch)) for epoch in range(epochs)]
    frames = [look(model, head, 0)]
    for step, batch in enumerate(torch.cat(orders).view(-1, 64), start=1):
        if margin_at:
            head.margin = margin_at((step - 1) / total)
        mirrored = torch.rand(64, 1, 1, 1, generator=seeded(0, step, 1)) < 0.5
        x = model(torch.where(mirrored, small[batch].flip(3), small[batch]))  # (64, size)
        loss = head(x, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step in moments:
            frames.append(look(model, head, step, loss.item()))
    steps, embeddings, centres, losses = zip(*frames, strict=True)
    return head, History([*steps], torch.stack(embeddings), torch.stack(centres), [*losses], model)


def look(model, head, step, loss=0.0):
    """(step, embeddings of all photographs, class centres, loss)"""
    model.eval()
    with torch.inference_mode():
        embeddings = torch.cat([model(part) for part in small.split(256)])  # (320, size)
    model.train()
    return step, embeddings, head.weight.detach().clone(), loss


# %% [markdown]
# Five heads, from the same first weights and with the same batches. The margins are those of notebook 02. CosFace gets 0.2 in
# place of its usual 0.35; you will soon be able to say why. The scale is 8, not 64: eight classes do not need more.

# %%
MARGIN = {
    "softmax": None,
    "norm-softmax": (1, 0, 0),
    "SphereFace": (1.35, 0, 0),
    "CosFace": (1, 0, 0.2),
    "ArcFace": (1, 0.5, 0),
}
plane = {name: train(margin, 2) for name, margin in MARGIN.items()}

# %% [markdown]
# The package has the same loop, as `train_small`. Are they equal? Four epochs each:

# %%
from arcface_edu.course.eight_people import train_small

by_hand = train((1, 0.5, 0), 2, epochs=4)[1]
package = train_small(images, labels, MarginSoftmax(2, 8, margin=(1, 0.5, 0), scale=8), epochs=4)
print(f"largest difference {(by_hand.embeddings[-1] - package.embeddings[-1]).abs().max():.0e}")

# %% tags=["test"]
torch.testing.assert_close(by_hand.embeddings[-1], package.embeddings[-1], rtol=1e-3, atol=1e-3)

# %% [markdown]
# **Predict**: eight people share 360°. If all goes well, how many degrees lie between neighbours?
#
# Every dot below is a photograph, at the angle that its two numbers make. Every spoke is a class centre. Only the direction
# means anything; the dots are spread out across the circle so as not to hide each other.

# %%
from arcface_edu.course.figures.eight_people import plot_planes


def at(trained, frame=-1):
    return {name: (h.embeddings[frame], h.centres[frame]) for name, (_, h) in trained.items()}


two = {name: plane[name] for name in ("softmax", "ArcFace")}
plot_planes(at(two), labels, faces, columns=2)

# %%
from arcface_edu.course.figures.eight_people import closest_people

closest = {name: closest_people(h.embeddings[-1], labels) for name, (_, h) in plane.items()}
print("the closest two:  " + "  ".join(f"{name} {degrees:.0f}°" for name, degrees in closest.items()))

# %% tags=["test"]
assert closest["softmax"] < 26
assert all(22 < degrees < 45 for name, degrees in closest.items() if name != "softmax")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 45° would be perfect. Four of the five heads come near it. Under softmax two people stand nearly on top of each other, while
# whole sectors of the circle are empty.
#
# </details>
#
# Move the slider to see how they got there. The frames lie closer in the beginning, where most happens.

# %%
from ipywidgets import IntSlider
from arcface_edu.course.widgets import Panel

steps = plane["ArcFace"][1].steps


def plot_frame(frame):
    return plot_planes(at(two, frame), labels, note=f"step {steps[frame]} of {steps[-1]}")


Panel(plot_frame, frame=IntSlider(12, max=len(steps) - 1))

# %% [markdown]
# ## Where softmax hides people
#
# **Predict**: two of the eight point almost the same way under softmax. What share of the 320 photographs does that network
# get right, by its own rule (the largest logit)?

# %%
head, history = plane["softmax"]
embeddings, centres = history.embeddings[-1], history.centres[-1]  # (320, 2), (8, 2)
by_logit = (embeddings @ centres.T + head.bias.detach()).argmax(1)
by_angle = (F.normalize(embeddings) @ F.normalize(centres).T).argmax(1)
own_rule, angle = [(rule == labels).float().mean().item() for rule in (by_logit, by_angle)]
print(f"by its own rule {own_rule:.1%}, by the angle alone {angle:.1%}")

# %% tags=["test"]
assert own_rule > 0.93 and own_rule - angle > 0.04

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nearly all of them. Softmax is not bad at its task; its task is another one.
#
# </details>
#
# A logit of plain softmax is
#
# $$W_j \cdot x + b_j = \lVert W_j \rVert\, \lVert x \rVert \cos\theta_j + b_j$$
#
# so the *length* of an embedding separates people as well as its direction does. On the left are the two numbers as they are:

# %%
from arcface_edu.course.figures.eight_people import plot_lengths

titles = f"with length: {own_rule:.0%} right", f"by direction alone: {angle:.0%} right"
plot_lengths(embeddings, labels, centres, titles)

# %% [markdown]
# Eight tidy groups, but some of them lie *in front of* others, nearer to the middle: the same direction, shorter vectors.
# For training that is fine. For recognition it is not: two embeddings are compared by their angle, because length also changes
# with blur, light and pose. The usual picture of softmax, a fan of touching sectors, shows the symptom. The length is
# the cause.
#
# ## What is the margin's work?
#
# Norm-softmax has no margin at all. It only puts embeddings and centres on the circle, so that length separates nobody.
# Unroll the circle of each head into a line:

# %%
import matplotlib.pyplot as plt
import numpy as np
from arcface_edu.course.figures.animations import PEOPLE

figure, rows = plt.subplots(5, 1, figsize=(8, 5.4), sharex=True, layout="constrained")
for ax, (name, (_, h)) in zip(rows, plane.items(), strict=True):
    x, W = (np.degrees(np.arctan2(v[:, 1], v[:, 0])) for v in (h.embeddings[-1].numpy(), h.centres[-1].numpy()))
    first = W[0]  # turn all circles so that person 0 comes first
    for person, color in enumerate(PEOPLE):
        ax.hist((x[labels == person] - first + 30) % 360 - 30, 180, range=(-30, 330), color=color)
        ax.axvline((W[person] - first + 30) % 360 - 30, color=color, ls=":")
    ax.set_yticks([]), ax.set_ylabel(name, rotation=0, ha="right", va="center"), ax.set_ylim(0, 30)
rows[-1].set_xticks(range(0, 331, 45)), rows[-1].set_xlabel("direction (degrees); dotted: class centres")
plt.show()
# %% [markdown]
# **Predict**: from norm-softmax to ArcFace, what changes: the distance between people, or the width of each one?
#
# Four statistics answer that. The paper uses them, and they are all angles:
#
# | | between | says |
# |---|---|---|
# | **W-EC** | a class centre and the mean of its class | does the centre stand where its people are? |
# | **W-Inter** | a centre and the nearest other centre | how far apart are the centres? |
# | **Intra** | a photograph and the mean of its class | how wide is a person? |
# | **Inter** | the mean of a class and the nearest other mean | how far apart are people? |

# %%
from IPython.display import Markdown
from arcface_edu.evaluation.angle_stats import angle_statistics, statistics_table


def statistics(trained):
    return {name: angle_statistics(h.embeddings[-1], labels, h.centres[-1]) for name, (_, h) in trained.items()}


in_plane = statistics(plane)
Markdown(statistics_table(in_plane))

# %% tags=["test"]
inter = {name: values["inter"] for name, values in in_plane.items()}
intra = {name: values["intra"] for name, values in in_plane.items()}
assert inter["norm-softmax"] - inter["softmax"] > 3
assert abs(inter["ArcFace"] - inter["norm-softmax"]) < 4
assert max(intra["ArcFace"], intra["CosFace"], intra["softmax"]) < intra["norm-softmax"]
assert max(in_plane, key=lambda name: in_plane[name]["w_ec"]) == "softmax"

# %% [markdown]
# <details><summary>Answer</summary>
#
# Here, the width. Between people (Inter) normalisation does nearly everything: on a circle with eight places a margin cannot
# push them any further. Within a person (Intra) the margin shows: norm-softmax stops pulling once the right logit is
# the largest by enough, while CosFace and ArcFace go on. SphereFace multiplies the angle, so it asks little of a face
# that is already close.
#
# </details>
#
# The paper's picture shows softmax against ArcFace, two changes at once, so normalisation's part is easily credited to the
# margin. Softmax's people are among the narrowest. What it lacks is distance, and its centres point furthest past the people
# they stand for (W-EC), since they answer for lengths as well.
#
# The margin's pull, photograph by photograph: the angle to one's own centre, without a margin and with it.

# %%
from arcface_edu.evaluation.angle_stats import angles_to_rows
from arcface_edu.figures.style import METHODS

own = {}
plt.figure(figsize=(7, 3))
for name in ("norm-softmax", "ArcFace"):
    h = plane[name][1]
    own[name] = angles_to_rows(h.embeddings[-1], h.centres[-1], labels)
    plt.hist(
        own[name],
        45,
        range=(0, 45),
        color=METHODS[name],
        alpha=0.65,
        label=f"{name}: median {np.median(own[name]):.1f}°",
    )
plt.xlabel("angle between a photograph and its own class centre (degrees)"), plt.ylabel("photographs")
plt.title("The margin brings in the photographs that lie far out", loc="left"), plt.legend(frameon=False)
plt.show()
# %% tags=["test"]
assert np.median(own["ArcFace"]) < np.median(own["norm-softmax"])

# %% [markdown]
# ## And with 500 people in 128 dimensions?
#
# "A margin makes classes tight." "A margin makes room between people." Both are said, and in the plane the first is true.
# Here are the same statistics for the network of `make train`, with 500 drawn people, three seeds each
# ([docs/margins.md](../docs/margins.md), degrees):
#
# | | softmax | norm-softmax | ArcFace, straight-through | ArcFace, exact gradient |
# |---|---|---|---|---|
# | W-EC, centre to its class | 18.9 | **44.6** | **30.7** | 20.3 |
# | W-Inter, between centres | 47.1 | 65.5 | 65.0 | 56.3 |
# | Intra, width of a person | 30.2 | 32.3 | 34.6 | 28.8 |
# | Inter, between people | 42.1 | 38.4 | 48.5 | 43.0 |
#
# Read it from norm-softmax to ArcFace (straight-through, the gradient that
# [arcface_torch](https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch) has had since December 2022):
#
# - the centres do not move apart: W-Inter stays at 65°;
# - **people move under their centres**: W-EC falls from 44.6° to 30.7°. With no margin, a centre 45° away from its people wins
#   all the same, and nothing pulls them closer;
# - so **people move apart**: their means gain 10° (Inter), because they spread towards centres that were apart already;
# - and a person does *not* become tighter: Intra even rises by 2°.
#
# With the exact gradient (notebook 02) the balance is another one: W-EC falls further, and now people *are* tighter, though
# their means and their centres stand closer together. So "room between people" or "tighter classes" depends on how many people
# share how many dimensions, and on the gradient. Do not believe one statistic: an Intra of 0° with an Inter of 0° is a network that
# cannot tell anybody apart. What counts is the distance between people *compared with* their width, on people never seen.
#
# ## Exercise: how much room is there?
#
# Two centres stand $g$ degrees apart. A face lies between them, $\theta$ degrees from its own centre. With ArcFace's margin
# $m$ it counts as right while $\theta + m$ is smaller than its angle to the other centre. How far from its own centre may
# it lie, at most? All in degrees. Where even a face exactly on its centre loses, the answer is below 0.

# %%
from arcface_edu.course.checks.eight_people import check_room


def my_room(gap, m):
    return None  # the largest angle θ, in degrees


check_room(my_room)
# %% [markdown]
# <details><summary>Hint</summary>
#
# The face lies between the two, so its angle to the other centre is $g - \theta$. At the edge of the room both sides are equal.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def my_room(gap, m):
#     return (gap - m) / 2  # from θ + m = gap − θ
# ```
#
# </details>

# %% [markdown]
# The package solves the same equation for every margin, $\cos(m_1\theta + m_2) - m_3 = \cos(g - \theta)$. Eight people in the
# plane are 45° apart, and this is the room that each head leaves them:

# %%
from arcface_edu.course.eight_people import room

for name, margin in {**MARGIN, "CosFace at 0.35": (1, 0, 0.35), "ArcFace at 1.0": (1, 1.0, 0)}.items():
    if margin:
        print(f"{name:16} {room(45, margin):6.1f}°")

# %% tags=["test"]
assert room(45, (1, 0.5, 0)) > 8 > 0 > room(45, (1, 0, 0.35)) > room(45, (1, 1.0, 0))

# %% [markdown]
# That is why CosFace got 0.2 here. Its usual 0.35 does not fit: between centres 45° apart it asks more of a face than
# lying exactly on its own centre. In 512 dimensions, with neighbours some 70° apart, it fits easily. **A margin is a
# demand for room, and how much room there is depends on how many people share how many dimensions.**
#
# ## A scale too small, a margin too large
#
# Break it, twice. First the scale: with $s = 1$ the logits lie between −1 and 1, and softmax can never be sure. Suppose
# everything were perfect, a regular octagon with every face on its centre:

# %%
octagon = torch.deg2rad(45.0 * torch.arange(8)).cos().double()  # cosines of a perfect face to all eight centres
for s in (1, 8, 64):
    p = torch.softmax(s * octagon, 0)
    print(f"s = {s:2}: {p[0]:.1%} sure; a neighbour pushes {p[1] / p[4]:,.3g} times as hard as the person opposite")

# %% [markdown]
# With $s = 1$ even a perfect face is only a quarter sure, so it is pulled as if it were wrong. And a neighbour 45° away pushes
# only five times as hard as somebody on the far side, of whom there are more: little parts two neighbours.
#
# **Predict**: and $m = 1.0$, which is 57.3°, more than the 45° there are? Will all eight keep their places and the loss stay
# high, or will something give way?

# %%
broken = {"s = 1": train((1, 0.5, 0), 2, scale=1), "s = 32, m = 1.0": train((1, 1.0, 0), 2, scale=32)}
plot_planes(at(broken), labels, columns=2)

# %%
from arcface_edu.evaluation.angle_stats import class_means, nearest_angles

h = broken["s = 32, m = 1.0"][1]
apart = nearest_angles(class_means(h.embeddings[-1], labels.numpy())[1])[0]  # each person to the nearest other
print(f"{np.sum(apart < 15)} of 8 people share a place; 360° / 57.3° = {360 / 57.3:.1f}")

# %% tags=["test"]
assert np.sum(apart < 15) >= 2
assert statistics(broken)["s = 1"]["inter"] < inter["ArcFace"] - 5

# %% [markdown]
# <details><summary>Answer</summary>
#
# Something gives way. A circle has places for six people who take 57° each, and so about six places there are: the
# surplus people collapse onto others and never separate. The exercise said so beforehand: the room is −6°. No schedule,
# no learning rate and no patience cures a margin that does not fit.
#
# </details>
#
# And the layer at the network's end? Without it the cloud of embeddings need not lie around the middle:

# %%
off_centre = train((1, 0.5, 0), 2, centred=False)
for name, (_, h) in (("with the centring BN", plane["ArcFace"]), ("without it", off_centre)):
    lengths = h.embeddings[[0, -1]].norm(dim=2).mean(1)  # (2,): before the first step, and after the last
    middles = h.embeddings[[0, -1]].mean(1).norm(dim=1)
    print(
        f"{name:21s} middle of the cloud, in lengths of an embedding: {middles[0] / lengths[0]:.2f} at first, "
        f"{middles[1] / lengths[1]:.2f} at the end; closest two {closest_people(h.embeddings[-1], labels):.0f}°"
    )

# %% [markdown]
# So the layer is a convenience here and not the cause of the picture: the loss centres the cloud by itself within these 200 steps,
# and people stand as far apart. (The first number with BN is that of the network as it would be used: the layer's running
# mean has seen no batch yet. In training it centres from the first batch on.)
#
# ## The sphere
#
# One more dimension, and there is room. Eight points on a sphere can be as far as 74.86° apart (the corners of a square
# antiprism, $\cos\varphi = (\sqrt 8 - 1)/7$; no arrangement is better), where the plane had 45°.

# %%
ball = {name: train(margin, 3) for name, margin in MARGIN.items()}
in_space = statistics(ball)
Markdown(statistics_table(in_space))

# %% [markdown]
# Drag the spheres to turn them.

# %%
from arcface_edu.course.figures.eight_people import plot_spheres, turn_sphere

azimuth, elevation = IntSlider(20, min=-180, max=180), IntSlider(20, min=-90, max=90)
pair = at({name: ball[name] for name in ("norm-softmax", "ArcFace")})


def turn(figure, x, y, dx, dy):
    around, up = turn_sphere(figure, dx, dy, azimuth.value, elevation.value)
    return dict(azimuth=around, elevation=up)


Panel(lambda **eye: plot_spheres(pair, labels, **eye), drag=turn, azimuth=azimuth, elevation=elevation)

# %% tags=["test"]
best = np.degrees(np.arccos((8**0.5 - 1) / 7))
for _, h in ball.values():
    right = F.normalize(h.embeddings[-1]) @ F.normalize(h.centres[-1]).T
    assert (right.argmax(1) == labels).float().mean() > 0.95  # by the angle alone, softmax too
    assert closest_people(h.embeddings[-1], labels) < best
assert in_space["ArcFace"]["intra"] < in_space["norm-softmax"]["intra"]
assert in_space["ArcFace"]["w_ec"] < in_space["softmax"]["w_ec"]

# %% [markdown]
# Here the famous difference is nearly gone. With three numbers softmax, too, gets its people apart and needs no length for
# it. Eight people are a crowd in the plane and none on the sphere, and heads differ in a crowd: 500 people in 128
# dimensions are one, as the table above shows.
#
# ## A margin that fits, too early
#
# On the sphere 1.3 (74.5°) just fits. But a fresh network, with everyone at random, meets the full demand in its
# first step: nearly every photograph is wrong, all are pulled with full force, and some people are dragged through
# others. The cure is to raise the margin slowly.
#
# ## Exercise: a warm-up
#
# Write ArcFace's margin $(m_1, m_2, m_3)$ as a function of the share of the training that is done, from 0 to 1: $m_2$ grows
# evenly from 0 to 1.3 at half time, and stays there.

# %%
from arcface_edu.course.checks.eight_people import check_warm_up


def my_margin(done):
    return None  # (m1, m2, m3)


check_warm_up(my_margin)
# %% [markdown]
# <details><summary>Hint</summary>
#
# At half time `2 * done` is 1. `min` keeps a number from growing past another.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def my_margin(done):
#     return 1.0, 1.3 * min(1.0, 2 * done), 0.0
# ```
#
# Try it in the training: `train((1, 1.3, 0), 3, scale=64, margin_at=my_margin)`.
#
# </details>

# %% [markdown]
# **Predict**: both runs take 200 steps, and the second one spends half of them on an easier task. Which ends with the lower
# loss, measured with the full margin?

# %%
from arcface_edu.course.eight_people import warm_up

steep = {
    "1.3 at once": train((1, 1.3, 0), 3, scale=64),
    "1.3, warmed up": train((1, 1.3, 0), 3, scale=64, margin_at=warm_up(1.3)),
}
at_once, warmed = (head(h.embeddings[-1], labels).item() for head, h in steep.values())
print(f"loss with the full margin: {at_once:.1f} at once, {warmed:.1f} warmed up")
Markdown(statistics_table(statistics(steep)))

# %% tags=["test"]
assert warmed < 0.85 * at_once
assert statistics(steep)["1.3, warmed up"]["inter"] > 64

# %% [markdown]
# <details><summary>Answer</summary>
#
# The warmed-up one. This is the mild case: the other run is only late. In shorter runs, of 24 epochs instead of 40, two
# people ended on top of each other for two seeds of three without the warm-up, and for one of three with it: a margin
# as large as that stays a gamble. Hence its usual size, 0.5, and hence the other ways to begin gently: a warm-up of the
# learning rate, or a few epochs of norm-softmax.
#
# </details>
#
# ## Strangers
#
# First the photographs that were kept back, new pictures of people the network was trained with:

# %%
from arcface_edu.course.eight_people import embed_small

for size, (_, h) in ((2, plane["ArcFace"]), (3, ball["ArcFace"])):
    seen = F.normalize(embed_small(h.model, photos[kept_back])) @ F.normalize(h.centres[-1]).T
    right = (seen.argmax(1) == who[kept_back]).float().mean().item()
    print(f"{size} dimensions: {right:.0%} of the new photographs right")
    assert right > 0.7

# %% [markdown]
# But a recogniser is hardly ever used on the people it was trained with. So here are eight others, forty photographs each.
#
# **Predict**: the network has learnt eight directions. Where will it put somebody who is none of the eight? Between them? In
# the middle? All in one place?

# %%
from arcface_edu.course.figures.eight_people import plot_strangers

NEW = range(1_000_000, 1_000_008)  # people whom no training of this package ever draws
new_photos, stranger = draw_people(photos=40, people=NEW)
history = plane["ArcFace"][1]
fell = embed_small(history.model, new_photos)  # (320, 2)
title = "Every photograph of a stranger lands on somebody's arc, and often on the same one"
plot_strangers(fell, stranger, history.centres[-1], faces, portraits(NEW), title)

# %%
nearest = (F.normalize(fell) @ F.normalize(history.centres[-1]).T).argmax(1)
double = np.mean([torch.bincount(nearest[stranger == k]).max().item() / 40 for k in range(8)])
print(f"{double:.0%} of a stranger's photographs fall to one and the same person of the eight")

# %% tags=["test"]
assert double > 0.4

# %% [markdown]
# <details><summary>Answer</summary>
#
# There is no "nobody" on a circle: every direction belongs to someone. Strangers land where the most similar of the eight
# are, as if each had a double among them.
#
# </details>
#
# Could two strangers be told apart by these two numbers? That is verification, and more dimensions are the answer to it,
# not a better margin. The same training in 16:

# %%
from arcface_edu.course.eight_people import pairs_of
from arcface_edu.figures.angles import plot_pairs_by_run

wide = train(MARGIN["ArcFace"], 16)
nets = {"2 dimensions": plane["ArcFace"], "16 dimensions": wide}
pairs = {name: pairs_of(embed_small(h.model, new_photos), stranger) for name, (_, h) in nets.items()}
plot_pairs_by_run({name: (*pair, None) for name, pair in pairs.items()})


# %%
def told_apart(cosines, same):  # how often a pair of one person is closer than a pair of two
    return np.mean(cosines[same][:, None] > cosines[~same][::20])


pairs["norm-softmax, 2 dimensions"] = pairs_of(embed_small(plane["norm-softmax"][1].model, new_photos), stranger)
score = {name: told_apart(*pair) for name, pair in pairs.items()}
print("  ".join(f"{name}: {share:.1%}" for name, share in score.items()))

# %% tags=["test"]
assert score["16 dimensions"] > score["2 dimensions"] + 0.06
assert abs(score["norm-softmax, 2 dimensions"] - score["2 dimensions"]) < 0.07

# %% [markdown]
# And the last surprise: for strangers the margin does next to nothing *here*; norm-softmax does as well in the same plane.
# Eight people teach a network to tell eight people apart, with or without a margin. To tell everybody apart takes a crowd.
# With 500 drawn people in 128 dimensions the margin shows on strangers, too: from norm-softmax to ArcFace, TAR at FAR 1e-3
# rises from 48 % to 72 %, with plain softmax between them at 65 % ([docs/margins.md](../docs/margins.md), three seeds; rough
# figures, each rests on three false accepts). That is why the next notebooks are about many processes, and a million people.

# %% [markdown]
# ## Recap
#
# 1. Softmax gets nearly all photographs right and still puts two people in one direction: how can that be?
# 2. Which part of the famous picture is the work of normalisation, and which of the margin?
# 3. With 500 people, W-EC falls by 14° from norm-softmax to ArcFace, and Intra rises. What has happened?
# 4. Which too large margin does a warm-up cure, and which not?
# 5. Why does a stranger always look like somebody, and what helps?
#
# <details><summary>Answers</summary>
#
# 1. It separates them by length, which recognition ignores.
# 2. Normalisation takes the length away, so people must part by direction. The margin then pulls each photograph nearer to
#    its centre.
# 3. People have moved under their centres, and so apart from each other, without becoming narrower themselves.
# 4. One that fits but comes too early. One that is larger than the room there is stays wrong for ever.
# 5. Every direction is nearest to some centre. More dimensions and more people in training help.
#
# </details>
#
# ## Further
#
# - [course/eight_people.py](../arcface_edu/course/eight_people.py): the network, the training and `room`;
#   [course/figures/eight_people.py](../arcface_edu/course/figures/eight_people.py): the circle and the sphere.
# - [heads/margin_softmax.py](../arcface_edu/heads/margin_softmax.py) and [heads/margins.py](../arcface_edu/heads/margins.py): the heads, as
#   every run of the package uses them.
# - Try it: `train((1, 0, 0.35), 2)`, the CosFace that does not fit. Its room is −4.7°, hardly below 0: who gives way?
# - ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698), figure 3 and table 3; CosFace,
#   [arXiv 1801.09414](https://arxiv.org/abs/1801.09414); SphereFace, [arXiv 1704.08063](https://arxiv.org/abs/1704.08063);
#   NormFace, [arXiv 1704.06369](https://arxiv.org/abs/1704.06369), on scale and length.
