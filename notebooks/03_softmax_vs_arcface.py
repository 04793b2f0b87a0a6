# %% [markdown]
# # 03 · Eight people in a plane
#
# A face becomes 512 numbers, and nobody can see 512 numbers. Here it becomes two. Eight people then live on a circle,
# where you can watch them part while the network learns: under plain softmax, under SphereFace, CosFace and ArcFace. It is
# the best-known picture of the ArcFace paper, trained for real in a minute or two, and it holds three surprises: where
# softmax hides people, who deserves most of the credit, and what happens to people the network has never seen.
#
# | | |
# |---|---|
# | you will see | a circle and a sphere filling with people; a scale too small, a margin too large; strangers among friends |
# | you need | basic PyTorch; nothing is downloaded |
# | takes | 0.9 minutes on two cores |
# | before | [02 · The angle and the margin](02_angular_margin.ipynb) |
# | after | [04 · One training on many processes](04_dataparallel_vs_ddp.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Eight people, two numbers
#
# The eight are drawn, sixty photographs of each: forty to learn from, twenty kept back. A network of four convolutions
# turns a photograph into two numbers, and a head compares these with eight class centres.

# %%
import torch
from arcface_edu.course.eight_people import draw_people, portraits, train_small
from arcface_edu.heads import MarginSoftmax, Softmax

photos, who = draw_people(photos=60)
kept_back = torch.arange(len(who)) % 60 >= 40
images, labels, faces = photos[~kept_back], who[~kept_back], portraits()
print(f"{len(images)} photographs to learn from, {kept_back.sum()} kept back")

# %% [markdown]
# Five heads, from the same random weights and with the same batches. CosFace gets 0.2 in place of its usual 0.35; you will
# soon be able to say why. The scale is 8, not 64: eight classes do not need more.

# %%
MARGIN = {
    "softmax": None,
    "norm-softmax": (1, 0, 0),
    "SphereFace": (1.35, 0, 0),
    "CosFace": (1, 0, 0.2),
    "ArcFace": (1, 0.5, 0),
}


def train(margin, size, scale=8, **options):
    head = MarginSoftmax(size, 8, margin=margin, scale=scale) if margin else Softmax(size, 8)
    return head, train_small(images, labels, head, epochs=40, **options)


plane = {name: train(margin, 2) for name, margin in MARGIN.items()}

# %% [markdown]
# **Predict**: eight people share 360°. If all goes well, how many degrees lie between neighbours?
#
# Every dot below is a photograph, at the angle its two numbers make; every spoke is a class centre. Only the direction
# means anything, the dots are spread out across the circle so as not to hide each other.

# %%
from arcface_edu.course.figures.eight_people import plot_planes


def at(trained, frame=-1):
    return {name: (h.embeddings[frame], h.centres[frame]) for name, (_, h) in trained.items()}


plot_planes(at(plane), labels, faces)

# %% [markdown]
# 45° would be perfect. Four heads come near it. Under softmax two people stand nearly on top of each other, while whole
# sectors of the circle are empty. Two claims, then, to hold these pictures to:

# %%
from arcface_edu.course.figures.eight_people import closest_people

closest = {name: closest_people(h.embeddings[-1], labels) for name, (_, h) in plane.items()}
print("  ".join(f"{name} {degrees:.0f}°" for name, degrees in closest.items()))
assert closest["softmax"] < 26
assert all(22 < degrees < 45 for name, degrees in closest.items() if name != "softmax")

# %% [markdown]
# Move the slider to see how they got there. The frames lie closer in the beginning, where most happens.

# %%
from ipywidgets import IntSlider
from arcface_edu.course.widgets import Panel

two = {name: plane[name] for name in ("softmax", "ArcFace")}
steps = plane["ArcFace"][1].steps


def plot_frame(frame):
    return plot_planes(at(two, frame), labels, note=f"step {steps[frame]} of {steps[-1]}")


Panel(plot_frame, frame=IntSlider(len(steps) - 1, max=len(steps) - 1))

# %% [markdown]
# ## Where softmax hides people
#
# **Predict**: two of the eight point the same way under softmax. What share of the 320 photographs does that network get
# right, by its own rule (the largest logit)?

# %%
from torch.nn import functional as F

head, history = plane["softmax"]
embeddings, centres = history.embeddings[-1], history.centres[-1]  # (320, 2), (8, 2)
by_logit = (embeddings @ centres.T + head.bias.detach()).argmax(1)
by_angle = (F.normalize(embeddings) @ F.normalize(centres).T).argmax(1)
own_rule, angle = [(rule == labels).float().mean().item() for rule in (by_logit, by_angle)]
print(f"by its own rule {own_rule:.1%}, by the angle alone {angle:.1%}")
assert own_rule > 0.93 and own_rule - angle > 0.04

# %% [markdown]
# Nearly all of them. Softmax is not bad at its task; its task is another one. A logit is W·x + b = ‖W‖ ‖x‖ cos θ + b, and
# the *length* of an embedding is as good a place to keep a person as its direction. On the left are the two numbers as
# they are:

# %%
from arcface_edu.course.figures.eight_people import plot_lengths

titles = f"with length: {own_rule:.0%} right", f"by direction alone: {angle:.0%} right"
plot_lengths(embeddings, labels, centres, titles)

# %% [markdown]
# Eight tidy groups, but some of them stand *in front of* others, nearer to the middle: same direction, shorter
# vectors. The training set never objects. Recognition does: it compares two embeddings by their angle, because length also
# changes with blur, light and pose. The usual picture of softmax, a fan of touching sectors, shows the symptom; the length
# is the cause.
#
# ## Who deserves the credit
#
# Norm-softmax has no margin at all. It only puts embeddings and centres on the circle, so that there is nowhere else to
# hide.
#
# **Predict**: of the way from softmax to ArcFace, how much does normalisation go alone?

# %%
from IPython.display import Markdown
from arcface_edu.evaluation.angle_stats import angle_statistics, statistics_table


def statistics(trained):
    return {name: angle_statistics(h.embeddings[-1], labels, h.centres[-1]) for name, (_, h) in trained.items()}


in_plane = statistics(plane)
Markdown(statistics_table(in_plane))

# %%
inter = {name: values["inter"] for name, values in in_plane.items()}
intra = {name: values["intra"] for name, values in in_plane.items()}
assert inter["norm-softmax"] - inter["softmax"] > 3
assert abs(inter["ArcFace"] - inter["norm-softmax"]) < 4
assert max(intra["ArcFace"], intra["CosFace"], intra["softmax"]) < intra["norm-softmax"]
assert max(in_plane, key=lambda name: in_plane[name]["w_ec"]) == "softmax"

# %% [markdown]
# Between people (Inter) normalisation does nearly everything: on a circle with eight places a margin cannot push them any
# further. What it changes is *within* a person (Intra): norm-softmax lets go of a photograph once the right logit is the
# largest by enough; CosFace and ArcFace go on pulling. SphereFace multiplies the angle, so that it asks nearly nothing of a
# face that is already close. The paper's picture shows softmax against ArcFace, two changes at once, so it is easily read
# as the work of the margin.
#
# Softmax's people are as narrow as any. What it lacks is not tidiness but distance, and its centres point furthest past
# the people they stand for (W-EC), since they answer for lengths as well.

# %% [markdown]
# How a margin pulls: the angle between each photograph and its own centre, at three moments.

# %%
import numpy as np
from arcface_edu.evaluation.angle_stats import angles_to_rows
from arcface_edu.figures.angles import plot_target_angles

history = plane["ArcFace"][1]
own = {f"step {steps[f]}": angles_to_rows(history.embeddings[f], history.centres[f], labels) for f in (0, 12, -1)}
first, middle, last = (angles.mean() for angles in own.values())
assert first > 60 and last < middle < first and last < 12
plot_target_angles({name: np.histogram(angles, 90, (0, 180))[0] for name, angles in own.items()})

# %% [markdown]
# ## Exercise: how much room is there?
#
# Two centres stand `gap` degrees apart. A face lies between them, θ degrees from its own centre. With ArcFace's margin on,
# it counts as right while θ + m is smaller than its angle to the other centre. How far from its own centre may it
# lie, at most? All in degrees; where even a face exactly on its centre loses, the answer is below 0.

# %%
from arcface_edu.course.checks.eight_people import check_room


def my_room(gap, m):
    return None  # the largest angle θ, in degrees


check_room(my_room)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The face lies between the two, so its angle to the other centre is gap − θ. At the edge of the room both sides are equal.
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
# The package solves the same equation for every margin, cos(m₁θ + m₂) − m₃ = cos(gap − θ). Eight people in the plane are
# 45° apart, and this is the room that each head would leave them:

# %%
from arcface_edu.course.eight_people import room

for name, margin in {**MARGIN, "CosFace at 0.35": (1, 0, 0.35), "ArcFace at 1.0": (1, 1.0, 0)}.items():
    if margin:
        print(f"{name:16} {room(45, margin):6.1f}°")
assert room(45, (1, 0.5, 0)) > 8 > 0 > room(45, (1, 0, 0.35)) > room(45, (1, 1.0, 0))

# %% [markdown]
# That is why CosFace got 0.2 here. Its usual 0.35 does not fit: between centres 45° apart it asks more of a face than
# lying exactly on its own centre. In 512 dimensions, with neighbours some 70° apart, it fits easily. **A margin is a
# demand for room, and how much room there is depends on how many people share how many dimensions.**
#
# ## A scale too small, a margin too large
#
# Let us break it, twice. First the scale: with s = 1 the logits lie between −1 and 1, and softmax can never be sure. Suppose
# everything were perfect, a regular octagon with every face on its centre:

# %%
octagon = torch.deg2rad(45.0 * torch.arange(8)).cos().double()  # cosines of a perfect face to all eight centres
for s in (1, 8, 64):
    p = torch.softmax(s * octagon, 0)
    print(f"s = {s:2}: {p[0]:.1%} sure; a neighbour pushes {p[1] / p[4]:,.3g} times as hard as somebody opposite")

# %% [markdown]
# With s = 1 even a perfect face is only a quarter sure, so it goes on being pulled as if it were wrong. And a neighbour 45°
# away pushes only five times as hard as somebody on the far side of the circle, of whom there are more: nobody tells two
# neighbours to part.
#
# **Predict**: and m = 1.0, which is 57.3°, more than the 45° there are? Will all eight keep their places and the loss stay
# high, or will something give way?

# %%
broken = {
    "s = 1": train((1, 0.5, 0), 2, scale=1),
    "s = 8, m = 0.5": plane["ArcFace"],
    "s = 32, m = 1.0": train((1, 1.0, 0), 2, scale=32),
}
plot_planes(at(broken), labels)

# %%
from arcface_edu.evaluation.angle_stats import class_means, nearest_angles

h = broken["s = 32, m = 1.0"][1]
apart = nearest_angles(class_means(h.embeddings[-1], labels.numpy())[1])[0]  # each person to the nearest other
print(f"{np.sum(apart < 15)} of 8 people share a place; 360° / 57.3° = {360 / 57.3:.1f}")
assert np.sum(apart < 15) >= 2
assert statistics(broken)["s = 1"]["inter"] < inter["ArcFace"] - 5

# %% [markdown]
# Somebody gives way. A circle has places for six people who insist on 57° each, and so six places there are, more or less:
# those left over pile up on others, are lost for good, and the rest are content. Your exercise said so beforehand: the
# room is −6°. No schedule, no rate and no patience cures a margin that does not fit.
#
# ## The sphere
#
# One more dimension, and there is room. Eight points on a sphere can be as far as 74.86° apart (the corners of a square
# antiprism: cos φ = (√8 − 1)/7, nobody can do better), where the plane had 45°.

# %%
ball = {name: train(margin, 3) for name, margin in MARGIN.items()}
in_space = statistics(ball)
Markdown(statistics_table(in_space))

# %% [markdown]
# Drag the spheres to turn them.

# %%
from arcface_edu.course.figures.eight_people import plot_spheres, turn_sphere

azimuth, elevation = IntSlider(20, min=-180, max=180), IntSlider(20, min=-90, max=90)
pair = at({name: ball[name] for name in ("softmax", "ArcFace")})


def turn(figure, x, y, dx, dy):
    around, up = turn_sphere(figure, dx, dy, azimuth.value, elevation.value)
    return dict(azimuth=around, elevation=up)


Panel(lambda **eye: plot_spheres(pair, labels, **eye), drag=turn, azimuth=azimuth, elevation=elevation)

# %%
best = np.degrees(np.arccos((8**0.5 - 1) / 7))
for _, h in ball.values():
    right = F.normalize(h.embeddings[-1]) @ F.normalize(h.centres[-1]).T
    assert (right.argmax(1) == labels).float().mean() > 0.95  # by the angle alone, softmax too
    assert closest_people(h.embeddings[-1], labels) < best
assert in_space["ArcFace"]["intra"] < in_space["norm-softmax"]["intra"]
assert in_space["ArcFace"]["w_ec"] < in_space["softmax"]["w_ec"]

# %% [markdown]
# Here the famous difference is nearly gone. With three numbers softmax, too, gets its people apart, and needs no length to
# hide them in. Eight people are a crowd in the plane and none on the sphere, and it is in a crowd that heads differ: with
# the 500 people of the default run, in 128 dimensions, the nearest other centre is 68° away under ArcFace and 53° under
# plain softmax ([README](../README.md)).
#
# ## A margin that fits, too early
#
# On the sphere 1.3 (74.5°) just fits. Yet a fresh network, with everyone strewn about at random, meets the full
# demand in its very first step: nearly every photograph is wrong, all pull with full force, and some people
# are dragged through one another. The cure is to raise the demand slowly.
#
# ## Exercise: a warm-up
#
# Write ArcFace's margin (m₁, m₂, m₃) as a function of the share of the training that is done, from 0 to 1: m₂ grows evenly
# from 0 to 1.3 at half time, and stays there.

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
plot_spheres(at(steep), labels)

# %%
at_once, warmed = (head(h.embeddings[-1], labels).item() for head, h in steep.values())
print(f"loss with the full margin: {at_once:.1f} at once, {warmed:.1f} warmed up")
Markdown(statistics_table(statistics(steep)))

# %%
assert warmed < 0.85 * at_once
assert statistics(steep)["1.3, warmed up"]["inter"] > 64

# %% [markdown]
# The slow one arrives first. This is the mild case: the other run is only late. In shorter runs, of 24 epochs instead of
# 40, two people ended on top of each other for two seeds of three without the warm-up, and for one of three with it: a
# margin as large as that stays a gamble. Hence its usual size, 0.5, and hence the other ways to begin gently: a warm-up of
# the rate, or a few epochs of norm-softmax.
#
# ## Strangers
#
# First the photographs that were kept back, new pictures of people the network knows:

# %%
from arcface_edu.course.eight_people import embed_small

for size, (_, h) in ((2, plane["ArcFace"]), (3, ball["ArcFace"])):
    seen = F.normalize(embed_small(h.model, photos[kept_back])) @ F.normalize(h.centres[-1]).T
    right = (seen.argmax(1) == who[kept_back]).float().mean().item()
    print(f"{size} dimensions: {right:.0%} of the new photographs right")
    assert right > 0.7

# %% [markdown]
# But a recogniser is hardly ever used on the people it was trained on. So here are eight others, forty photographs each.
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

# %% [markdown]
# There is no "nobody" on a circle. Every direction belongs to someone, and strangers land where the people are whom the
# network thinks them like, as if each had a double among the known.

# %%
nearest = (F.normalize(fell) @ F.normalize(history.centres[-1]).T).argmax(1)
double = np.mean([torch.bincount(nearest[stranger == k]).max().item() / 40 for k in range(8)])
print(f"{double:.0%} of a stranger's photographs fall to one and the same known person")
assert double > 0.4

# %% [markdown]
# Could two strangers be told apart by these two numbers? That is the question of verification, and more
# dimensions are the answer to it, not a better margin. The same training in 16:

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


pairs["norm-softmax"] = pairs_of(embed_small(plane["norm-softmax"][1].model, new_photos), stranger)
score = {name: told_apart(*pair) for name, pair in pairs.items()}
print("  ".join(f"{name}: {share:.1%}" for name, share in score.items()))
assert score["16 dimensions"] > score["2 dimensions"] + 0.06
assert abs(score["norm-softmax"] - score["2 dimensions"]) < 0.07

# %% [markdown]
# And the last surprise: for strangers the margin does next to nothing *here*; norm-softmax does as well in the same plane.
# Eight people teach a network to tell eight people apart, with or without a margin. Telling everybody apart takes a crowd:
# with 500 drawn people in 128 dimensions the margin is worth a lot, also to strangers (the table at the top of the
# [README](../README.md)). That is why the next notebooks are about many processes, and a million people.

# %% [markdown]
# ## Recap
#
# 1. Softmax gets nearly all photographs right and still puts two people in one direction: how can that be?
# 2. Which part of the famous picture is the work of normalisation, and which of the margin?
# 3. Why does CosFace's 0.35 fit in 512 dimensions but not for eight people in the plane?
# 4. Which too large margin does a warm-up cure, and which not?
# 5. Why does a stranger always look like somebody, and what helps?
#
# ## Further
#
# - [course/eight_people.py](../arcface_edu/course/eight_people.py): the network, the training and `room`;
#   [course/figures/eight_people.py](../arcface_edu/course/figures/eight_people.py): the circle and the sphere.
# - [heads/margin_softmax.py](../arcface_edu/heads/margin_softmax.py) and [heads/margins.py](../arcface_edu/heads/margins.py): the heads, as
#   every run of the package uses them.
# - Try it: `train((1, 0, 0.35), 2)`, the CosFace that does not fit. Its room is −4.7°, hardly below 0: who gives way?
# - ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698), figure 3; CosFace,
#   [arXiv 1801.09414](https://arxiv.org/abs/1801.09414); SphereFace, [arXiv 1704.08063](https://arxiv.org/abs/1704.08063);
#   NormFace, [arXiv 1704.06369](https://arxiv.org/abs/1704.06369), on scale and length.
