# %% [markdown]
# # 08 · Three labs
#
# Real data has wrong labels, unequal groups and bad photographs, and nobody knows which are which. Of drawn people
# everything is known. So here you can break a data set on purpose, see what that does to a network, and count how many of
# the faults can be found again.
#
# | | |
# |---|---|
# | you will see | the second hump of wrong labels, sub-centres that make it visible, error rates by group, rejection by quality |
# | you need | notebooks 02 and 07, or margin and FAR; nothing is downloaded |
# | takes | 0.6 minutes on two cores |
# | before | [07 · How good is it?](07_benchmark.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## Lab 1: wrong labels
#
# The data: 20 photographs each of 48 drawn people. A fifth of the labels becomes wrong: those photographs get the number
# of somebody else.

# %%
import numpy as np
import torch

from arcface_edu import load_config
from arcface_edu.training.prepare import prepare_data

_, faces, _ = prepare_data(load_config("drawn_faces"))


def photographs_of(people):
    rows = np.flatnonzero(np.isin(faces.labels, people))
    return torch.stack([faces[int(row)][0] for row in rows]), np.unique(faces.labels[rows], return_inverse=True)[1]


images, person = photographs_of(range(48))

# %%
rng = np.random.default_rng(0)
wrong = rng.random(len(person)) < 0.2
label = np.where(wrong, (person + rng.integers(1, 48, len(person))) % 48, person)
print(f"{wrong.sum()} of {len(label):,} labels are wrong")

# %% [markdown]
# The training is the loop of notebook 06, shortened. `sub_centers=3` gives each class three centres, of which the nearest
# to an image counts (sub-center ArcFace).

# %%
from arcface_edu import MarginSoftmax, build_model
from arcface_edu.data.images import to_input


def train(images, label, sub_centers=1, epochs=12):
    torch.manual_seed(0)
    network = build_model("r10_quick", 128)
    head = MarginSoftmax(128, int(label.max()) + 1, scale=32.0, sub_centers=sub_centers)
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], 0.1, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps, pct_start=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            shown = images[batch].flip(3) if torch.rand(()) < 0.5 else images[batch]  # half of the batches mirrored
            loss = head(network(to_input(shown)), torch.as_tensor(label)[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
            optimizer.step()
            schedule.step()
    return network, head


# %% [markdown]
# **Predict**: the network is told that a photograph of Anna shows Ben. After training, does its embedding lie near Ben's
# centre, near Anna's, or between them?

# %%
from arcface_edu import embed_images
from arcface_edu.evaluation.angle_stats import angles_to_rows, unit

arcface, head = train(images, label)
embeddings = unit(embed_images(arcface, images, flip=False))
own = angles_to_rows(embeddings, head.weight.detach(), label)  # degrees to the centre of the class that the label says
truth = angles_to_rows(embeddings, head.weight.detach(), person)
print(
    f"wrong labels: {np.median(own[wrong]):.0f}° to the label's centre, {np.median(truth[wrong]):.0f}° to the true one"
)
print(f"right labels: {np.median(own[~wrong]):.0f}°")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Most lie between: the other nineteen photographs of Anna pull one way, the label pulls the other way. The longer the
# network trains, the more of them it learns by heart.
#
# </details>
#
# The same with three centres a class. A wrong photograph can now settle at a centre of its own, and no longer pulls on
# the one that the right ones share.

# %%
subcenter, head3 = train(images, label, sub_centers=3)
embeddings3 = unit(embed_images(subcenter, images, flip=False))
of_class = unit(head3.weight.detach())[torch.as_tensor(label)]  # (N, 3, 128)
nearest = torch.einsum("nd,nkd->nk", embeddings3, of_class).argmax(1).numpy()
main = np.array([np.bincount(nearest[label == c], minlength=3).argmax() for c in range(48)])  # most images' centre
print(f"not at the main centre: {np.mean((nearest != main[label])[wrong]):.0%} of the wrong ones,", end=" ")
print(f"{np.mean((nearest != main[label])[~wrong]):.0%} of the right ones")

# %% [markdown]
# Now look for them. Nobody tells us which labels are wrong, so the centre of a class is the mean of its photographs.
# Suspects are those that lie nearer to the mean of another class.
#
# **Exercise.** Write it.

# %%
from arcface_edu.course.checks.labs import check_suspects


def suspects(embeddings, label):
    """embeddings: (N, D), length 1; label: (N,), 0 to C - 1.  returns: (N,) bool."""
    # the mean direction of each class; the cosines of all images to all of them; which is the highest?


check_suspects(suspects)

# %% [markdown]
# <details><summary>Hint</summary>
#
# With the means at length 1, the cosines are one matrix product, (N, C). An image is suspected when the largest number in
# its row does not stand in the column of its label.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import numpy as np
#
# def suspects(embeddings, label):
#     means = np.stack([embeddings[label == c].mean(0) for c in range(label.max() + 1)])
#     means /= np.linalg.norm(means, axis=1, keepdims=True)
#     return (embeddings @ means.T).argmax(1) != label
# ```
# </details>
#
# The package's `inspect_labels` does that three times, each time without the suspects in the means. With sub-centres it
# begins with the photographs at the main centre.
#
# **Predict**: which network finds more of the wrong labels, the one with one centre or the one with three?

# %%
from arcface_edu.evaluation.suspects import inspect_labels, score_suspects

seen = {
    "one centre": inspect_labels(embeddings, label),
    "three centres": inspect_labels(embeddings3, label, trusted=nearest == main[label]),
}
for name, found in seen.items():
    score = score_suspects(found.suspects, wrong)
    print(f"{name}: {score.suspected} suspects, precision {score.precision:.2f}, recall {score.recall:.2f}")

# %%
from arcface_edu.figures.suspects import plot_humps

plot_humps({"flipped 20 %": {name: (found.own, wrong) for name, found in seen.items()}})

# %% [markdown]
# The right panel has a **second hump**: wrong photographs lie where strangers lie. On your own data you see the sum of
# the two colours. `python -m arcface_edu.dataset clean RUN DATA OUT` makes the list and a copy without the suspects.

# %% tags=["test"]
scores = {name: score_suspects(found.suspects, wrong) for name, found in seen.items()}
assert scores["three centres"].recall > scores["one centre"].recall
assert min(score.precision for score in scores.values()) > 0.4  # by chance 0.2
assert np.median(seen["three centres"].own[wrong]) > np.median(seen["three centres"].own[~wrong]) + 10
solved = (embeddings.numpy() @ np.stack([embeddings[label == c].mean(0) for c in range(48)]).T).argmax(1) != label
assert score_suspects(solved, wrong).precision > 0.4

# %% [markdown]
# ## Lab 2: groups
#
# Each drawn person has a number for skin. We train on two crowds of 48: in one, half of the people are dark; in the other,
# five are. The test is 24 people of either group, whom neither network has seen.

# %%
from arcface_edu.data.synthetic.crowds import Mix, choose_people, groups_of
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_person

crowds = {share: choose_people(0, 0, 48, Mix("skin", (1 - share, share))) for share in (0.5, 0.1)}
networks = {share: train(*photographs_of(crowd))[0] for share, crowd in crowds.items()}

# %%
unseen = choose_people(0, UNSEEN, 48, Mix("skin", (0.5, 0.5)))
photos = [photo for number in unseen for photo in draw_person(0, number, 12)]
who = np.repeat(np.arange(48), 12)
dark = np.array([groups_of(0, number)["skin"] == "dark" for number in unseen])[who]

# %% [markdown]
# Every photograph is compared with every other one. One threshold holds for all: the one at which one pair of strangers in
# a hundred is accepted.
#
# **Predict**: with five dark people in the training data, which strangers are confused more often, two light ones or two
# dark ones?


# %%
def rates(network):
    unit = torch.nn.functional.normalize(embed_images(network, photos, flip=False)).numpy()
    a, b = np.triu_indices(len(unit), 1)
    cosine, same = (unit[a] * unit[b]).sum(1), who[a] == who[b]
    threshold = np.quantile(cosine[~same], 0.99)
    kinds = {"light": ~dark[a] & ~dark[b], "dark": dark[a] & dark[b], "light with dark": dark[a] != dark[b]}
    fmr = {name: (cosine > threshold)[kind & ~same].mean() for name, kind in kinds.items()}
    fnmr = {name: (cosine <= threshold)[kind & same].mean() for name, kind in kinds.items() if (kind & same).any()}
    return cosine, same, threshold, fmr, fnmr


found = {share: rates(network) for share, network in networks.items()}
for share, (*_, fmr, fnmr) in found.items():
    print(f"{share:.0%} dark: FMR", ", ".join(f"{name} {rate:.2%}" for name, rate in fmr.items()), end="; ")
    print("FNMR", ", ".join(f"{name} {rate:.1%}" for name, rate in fnmr.items()))

# %% [markdown]
# `group_rates` counts the same and adds intervals, for which it draws people: 24 in a group are few. `evaluate --groups`
# does it for any pairs.

# %%
from arcface_edu.evaluation.groups import group_rates
from arcface_edu.figures.groups import plot_group_rates

cosine, same, threshold, fmr, fnmr = found[0.1]
pairs = np.stack(np.triu_indices(len(photos), 1), axis=1).ravel()
groups = group_rates(cosine, same, np.where(dark, "dark", "light")[pairs], threshold, who[pairs], resamples=100)
plot_group_rates(groups.names, groups.fmr, groups.fnmr, "skin, 10 % dark in training")

# %% [markdown]
# The matrix separates two things that are often mixed up: errors within a group, and errors between groups, which are
# rare because people of different groups look different. A number over all pairs hides both.
#
# What drawings can tell: that a network does worse on a kind of face of which it has seen few, with everything else equal.
# What they cannot tell: how large that is for real people, cameras and light. Measure there.

# %% tags=["test"]
assert np.isclose(groups.fmr.rates[0, 0], fmr["dark"]) and np.isclose(groups.fmr.rates[1, 1], fmr["light"])
assert np.isclose(groups.fnmr.rates[0, 0], fnmr["dark"])
assert fmr["light with dark"] < max(fmr["light"], fmr["dark"])

# %% [markdown]
# ## Lab 3: quality
#
# Each photograph has known numbers, too: how far the head is turned, how blurred it is. Does the length of the embedding,
# which costs nothing, say as much about the errors as the truth does?

# %%
from arcface_edu.data.synthetic.parameters import make_person, make_photographs

taken = [make_photographs(make_person(0, number), 0, number, 12) for number in unseen]
yaw, blur = (torch.cat([getattr(photo, name) for photo in taken]).numpy() for name in ("yaw", "blur"))
length = embed_images(networks[0.5], photos, flip=False).norm(dim=1).numpy()

# %% [markdown]
# A pair is as good as its worse photograph. Reject the worst pairs first, keep the threshold, and count which share of
# the same-person pairs is still lost: the error-versus-reject curve.

# %%
import matplotlib.pyplot as plt

cosine, same, threshold, *_ = found[0.5]
a, b = np.triu_indices(len(photos), 1)
lost = cosine[same] <= threshold
fig, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
curves = {}
for name, quality in {"turn of the head": -abs(yaw), "blur": -blur, "length of the embedding": length}.items():
    worst_first = np.argsort(np.minimum(quality[a], quality[b])[same], kind="stable")
    curves[name] = [lost[worst_first[len(lost) * percent // 100 :]].mean() for percent in range(96)]
    ax.plot(100 * np.array(curves[name]), label=name)
ax.set(xlabel="pairs rejected (%)", ylabel="same-person pairs lost (%)", ylim=(0, None))
ax.set_title("What turning away the worst photographs brings", loc="left")
ax.legend(frameon=False)
ax.grid(alpha=0.3)

# %% [markdown]
# A curve that falls belongs to a measure that knows something. `evaluate --reject` draws it for any weights and pairs; on
# real photographs the truth is missing, and the lengths and the sharpness remain.

# %% tags=["test"]
from arcface_edu.evaluation.quality import error_versus_reject

theirs = error_versus_reject(cosine[same], np.minimum(-abs(yaw)[a], -abs(yaw)[b])[same], threshold)
assert np.allclose(theirs, curves["turn of the head"], atol=0.05)  # ties may go in another order
assert min(curve[50] for curve in curves.values()) < lost.mean()

# %% [markdown]
# ## Recap
#
# 1. Why does a wrongly labelled photograph lie between two centres when each class has one?
# 2. Why do three centres a class make the second hump visible?
# 3. Why does one error rate over all pairs hide what happens to a group?
# 4. Why are intervals drawn over people and not over pairs?
# 5. What does a flat error-versus-reject curve say about a measure of quality?
#
# ## Further
#
# - [docs/labs.md](../docs/labs.md): the labs as commands, with tables; [labs/noise.py](../arcface_edu/labs/noise.py),
#   [labs/groups.py](../arcface_edu/labs/groups.py)
# - [evaluation/suspects.py](../arcface_edu/evaluation/suspects.py), [cleaning.py](../arcface_edu/cleaning.py),
#   [evaluation/groups.py](../arcface_edu/evaluation/groups.py), [quality.py](../arcface_edu/evaluation/quality.py)
# - Deng et al., *Sub-center ArcFace*, ECCV 2020; Grother, Ngan and Hanaoka, *Demographic Effects*, NISTIR 8280, 2019;
#   Grother and Tabassi, *Performance of Biometric Quality Measures*, 2007
