# %% [markdown]
# # 00 · The problem
#
# Two photographs: do they show the same person? A program that answers this has to answer it for people it has never seen.
# In ten minutes you will see what that demands. You will align a face, train a small network in three ways on the same
# faces, throw a part of it away, and measure what is left on strangers. The words that the whole course uses are
# defined on the way.
#
# | | |
# |---|---|
# | you will see | open set and closed set, embedding and head, three losses side by side, what FAR, TAR and rank mean |
# | you need | basic PyTorch: a module, a loss, an optimizer; nothing is downloaded |
# | takes | 1.7 minutes on two cores |
# | after | [01 · A network that can be deep](01_resnet.ipynb) |

# %%
from arcface_edu.course.notebook import as_jpeg, begin

begin()

# %% [markdown]
# ## Who is this?
#
# The package draws faces of people who do not exist. Here are 64 people to learn from, with twelve photographs each, and 30
# *other* people for later.

# %%
from arcface_edu.course.eight_people import draw_people
from arcface_edu.figures.faces import contact_sheet

photos, who = draw_people(photos=12, people=range(200, 264))  # uint8 (768, 3, 112, 112), and 0 to 63
strangers, stranger = draw_people(photos=8, people=range(1_000_000, 1_000_030))  # (240, ...), and 0 to 29
as_jpeg(contact_sheet([photos[12 * person : 12 * person + 8] for person in range(3)]))

# %% [markdown]
# Each row is one person. Light, expression, glasses, age of the print: photographs of one person differ a lot, sometimes
# more than photographs of two.
#
# **Closed set.** If only these 64 could ever appear, this would be classification: 64 classes, and the largest of 64 scores
# wins.
#
# **Open set.** A phone, a border, an album meet people who were in no training data. There is no class for them, and no
# network can be trained again for each new face. Two questions remain, and both are about *pairs* of photographs:
#
# - *verification*: do these two show one person?
# - *identification*: which of the people in my list is it, if any?
#
# ## Embedding and head
#
# The way out: let a network turn a photograph into a list of numbers, an **embedding**, so that two photographs of one
# person give embeddings that point the same way. Then any two photographs can be compared, of anybody: by the angle
# between their embeddings,
#
# $$\theta = \arccos \frac{x \cdot y}{\lVert x \rVert\, \lVert y \rVert}$$
#
# How do you train such a network? With people whose names are known. A **head** stands behind the network in training: it
# holds one vector for each person of the training data, the *class centre*, and scores an embedding against all of them.
# Afterwards it is thrown away, because nobody whom the network will meet has a centre in it.

# %%
from arcface_edu.course.figures.problem import plot_train_and_test

plot_train_and_test([photos[0]], [strangers[0], strangers[1]])

# %% [markdown]
# ## First of all: the same place for every eye
#
# A network learns faster if it need not also learn where the eyes are. So every face is **detected** and **aligned** first:
# five points are found and moved onto fixed positions, the *template*, by a rotation, one scale and a shift. To try it,
# put a drawn face askew into a larger picture:

# %%
import numpy as np
from arcface_edu.course.eight_people import portraits
from arcface_edu.data.alignment.align import TEMPLATE, align, warp

turn = np.radians(18)
turned = 1.25 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
askew = np.column_stack([turned, [130, 110] - turned @ [56, 56]])  # (2, 3)
photograph = warp(portraits([1_000_001])[0], askew, 240)

# %% [markdown]
# The detector is a network of its own. It returns boxes, and five points in each. The rest is a least-squares problem: find
# $a, b, s, t$ so that
#
# $$\begin{pmatrix} a & -b \\ b & a \end{pmatrix} \begin{pmatrix} x \\ y \end{pmatrix} + \begin{pmatrix} s \\ t \end{pmatrix}$$
#
# brings the five points as near to the template as possible.
#
# **Predict**: how many points are needed at least to find $a, b, s, t$?

# %%
from arcface_edu.data.alignment.detector import Mtcnn

boxes, points = Mtcnn()(photograph)
found = points[0].double().numpy()  # (5, 2): eyes, nose, corners of the mouth
rows = [[(x, -y, 1, 0), (y, x, 0, 1)] for x, y in found]
a, b, s, t = np.linalg.lstsq(np.reshape(rows, (10, 4)), TEMPLATE.flatten(), rcond=None)[0]
by_hand = warp(photograph, np.array([[a, -b, s], [b, a, t]]), 112)
print(f"scaled by {np.hypot(a, b):.2f}, turned by {np.degrees(np.arctan2(b, a)):.0f}°")
print("the package's align gives the same pixels:", bool((by_hand == align(photograph, found)).all()))

# %%
from arcface_edu.course.figures.problem import plot_alignment

as_jpeg(plot_alignment(photograph, found, by_hand, TEMPLATE))

# %% tags=["test"]
assert (by_hand.int() - align(photograph, found).int()).abs().max() <= 1
assert abs(np.hypot(a, b) * 1.25 - 1) < 0.25 and abs(np.degrees(np.arctan2(b, a)) + 18) < 6

# %% [markdown]
# <details><summary>Answer</summary>
#
# Two: each gives two equations. Five points give ten equations for the four unknowns, so that an error in one of them counts
# little.
#
# </details>
#
# The face had been turned by 18° and enlarged by 1.25, and both are undone, within the accuracy of five detected points. All
# other photographs of this course are drawn in place.
#
# ## A small network
#
# Four convolutions, each halving the picture, and a linear layer: 32 numbers come out.

# %%
import torch
from torch import nn
from torch.nn import functional as F


def network():
    layers, channels = [], 3
    for width in (16, 32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * 128, 32))


def prepare(images):  # (N, 3, 112, 112) uint8 -> (N, 3, 56, 56) in [-1, 1]
    return F.avg_pool2d((images.float() - 127.5) / 127.5, 2)


faces, new_faces = prepare(photos), prepare(strangers)

# %% [markdown]
# ## Three losses
#
# The oldest idea needs no head. Take **pairs**: pull the embeddings of one person together, and push those of two people
# apart until they are $m$ away from each other. With $d$ the distance of two embeddings of length 1,
#
# $$L_{\text{contrastive}} = \begin{cases} d^2 & \text{one person} \\ \max(0,\, m - d)^2 & \text{two people} \end{cases}$$


# %%
def distances(x):
    x = F.normalize(x)
    return (2 - 2 * x @ x.T).clamp(min=1e-6).sqrt()  # (B, B)


def contrastive(x, person, m=1.0):
    d, same = distances(x), person[:, None] == person
    pull = d[same & ~torch.eye(len(x), dtype=torch.bool)] ** 2
    push = (m - d[~same]).clamp(min=0) ** 2
    return pull.mean() + push.mean()


# %% [markdown]
# A **triplet** compares instead of measuring: an anchor $a$ should be nearer to a photograph $p$ of the same person than to
# any photograph $n$ of another, by a margin.
#
# $$L_{\text{triplet}} = \max(0,\, d_{ap}^2 - d_{an}^2 + m)$$
#
# Most triplets are easy and teach nothing. So all triplets of the batch are formed, and the mean is taken over those that
# still cost something.


# %%
def triplet(x, person, m=0.2):
    d, same = distances(x) ** 2, person[:, None] == person
    positive = same & ~torch.eye(len(x), dtype=torch.bool)
    loss = (d[:, :, None] - d[:, None, :] + m).clamp(min=0)  # (B, B, B): anchor, positive, negative
    loss = loss * (positive[:, :, None] & ~same[:, None, :])
    return loss.sum() / (loss > 0).sum().clamp(min=1)


# %% [markdown]
# And **classification**: a head with one centre $W_j$ for each of the 64 people. The scores are cosines, times a scale $s$, and
# the loss is the ordinary cross-entropy.
#
# $$L = -\ln \frac{e^{s \cos\theta_{\text{own}}}}{\sum_j e^{s \cos\theta_j}}, \qquad \cos\theta_j = \frac{W_j \cdot x}{\lVert W_j \rVert\, \lVert x \rVert}$$


# %%
class Head(nn.Module):
    def __init__(self, people=64, size=32, s=16.0):
        super().__init__()
        self.W, self.s = nn.Parameter(0.1 * torch.randn(people, size)), s

    def forward(self, x, person):
        cosines = F.normalize(x) @ F.normalize(self.W).T  # (B, 64)
        return F.cross_entropy(self.s * cosines, person)


# %% [markdown]
# The same network, the same first weights, the same 200 batches: 16 people with four photographs each. Only the learning rate
# is each loss's own.


# %%
def train(loss, lr, steps=200, seed=0):
    torch.manual_seed(seed)
    model = network()
    parameters = [*model.parameters(), *(loss.parameters() if isinstance(loss, nn.Module) else [])]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        people = torch.randperm(64, generator=order)[:16]
        batch = (12 * people[:, None] + torch.rand(16, 12, generator=order).argsort(1)[:, :4]).flatten()  # (64,)
        value = loss(model(faces[batch]), who[batch])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


models = {
    "contrastive": train(contrastive, lr=0.2),
    "triplet": train(triplet, lr=0.2),
    "classification": train(Head(), lr=0.1),
}

# %% [markdown]
# The head of the third has been dropped already: `train` returns the network alone.
#
# ## Measured on strangers
#
# Take the 30 people whom no network has seen. 240 photographs make 28,680 pairs: 840 of one person, the others of two.


# %%
@torch.inference_mode()
def angles_of_pairs(model):
    """Angles in degrees of all pairs of strangers' photographs: those of one person, those of two."""
    x = F.normalize(model(new_faces))
    first, second = torch.triu_indices(len(x), len(x), 1)
    angles = (x[first] * x[second]).sum(1).clamp(-1, 1).acos().rad2deg()
    same = stranger[first] == stranger[second]
    return angles[same], angles[~same]


angles = {name: angles_of_pairs(model) for name, model in models.items()}

# %%
import matplotlib.pyplot as plt
from arcface_edu.figures.style import SAME, DIFFERENT

same, different = angles["classification"]
plt.figure(figsize=(7, 3))
for values, color, name in ((different, DIFFERENT, "two people"), (same, SAME, "one person")):
    plt.hist(values, 60, range=(0, 180), density=True, color=color, alpha=0.6, label=name)
plt.xlabel("angle between two photographs (degrees)")
plt.yticks([])
plt.legend(frameon=False)
plt.title("Most pairs of one person are closer, but the two hills overlap", loc="left")
plt.show()
# %% [markdown]
# A **threshold** decides: closer than that counts as one person. Wherever it stands, it makes two kinds of mistakes, so two
# numbers are needed:
#
# - **FAR**, the *false accept rate*: the share of pairs of two people that are accepted (the same as the false positive rate);
# - **TAR**, the *true accept rate*: the share of pairs of one person that are accepted.
#
# Move the threshold from 0° to 180°, and both go from 0 to 1. The curve of TAR against FAR is the **ROC**. FAR comes first:
# a lock that opens to one stranger in ten is no lock, so results are read at a FAR of 1 in 100, or in a million.
#
# **Predict**: which of the three losses will recognise strangers best, after the same 200 steps?

# %%
plt.figure(figsize=(6, 4))
for name, color in zip(angles, ("#882255", "#44AA99", "#222222"), strict=True):
    same, different = angles[name]
    thresholds = different.sort().values
    far = torch.arange(1, len(thresholds) + 1) / len(thresholds)
    tar = torch.searchsorted(same.sort().values, thresholds) / len(same)
    plt.plot(far, tar, label=name, color=color)
plt.xscale("log"), plt.xlim(1e-3, 1), plt.grid(color="#E6E6E6")
plt.xlabel("FAR: pairs of two people accepted"), plt.ylabel("TAR: pairs of one person accepted")
plt.legend(frameon=False)
plt.show()


# %%
def tar_at(same, different, far):
    threshold = different.kthvalue(round(far * len(different)) + 1).values
    return (same < threshold).float().mean().item()


for name, pair in angles.items():
    print(f"{name:15s} TAR {tar_at(*pair, 0.1):.0%} at FAR 0.1, {tar_at(*pair, 0.01):.0%} at FAR 0.01")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Triplets, at both FARs. At FAR 0.01, the one that matters more, classification comes second and pairs come last.
#
# </details>
#
# So why is nearly every face recogniser trained by classification, and this course about nothing else? For two reasons.
#
# **Counting.** Here a batch shows 16 of 64 people, a quarter of everybody, and holds $64 \cdot 3 \cdot 60 = 11{,}520$
# triplets. With a million people the same batch shows one in 60,000, and the few people who are hard to tell from you are
# almost never in it. Triplets then need huge batches and a search for hard examples
# ([FaceNet](https://arxiv.org/abs/1503.03832) used 1,800 photographs a batch). A head holds a centre of *everybody*: each
# photograph is compared with all people in every step, for the price of one matrix product.
#
# **The question.** This loss is near zero as soon as the right centre is the nearest by enough, and then it stops pulling. The
# triplet loss has a margin, and the head has none. Give it one:


# %%
class MarginHead(Head):
    def forward(self, x, person, m=0.2):
        theta = (F.normalize(x) @ F.normalize(self.W).T).clamp(-0.9999, 0.9999).acos()  # (B, 64)
        return F.cross_entropy(self.s * torch.cos(theta + m * F.one_hot(person, 64)), person)


pair = angles_of_pairs(train(MarginHead(), lr=0.1))
print(f"with a margin   TAR {tar_at(*pair, 0.1):.0%} at FAR 0.1, {tar_at(*pair, 0.01):.0%} at FAR 0.01")

# %% [markdown]
# One line has changed, and it is ArcFace: every photograph is scored as if it were 0.2 rad, 11°, further from its own centre than
# it is. What that does, and why a margin must not be too large for the room there is, is the subject of notebooks 02 and 03.
#
# ## Rank
#
# For identification put one photograph of each of the 30 strangers into a list, the *gallery*, and look for the others in
# it. Sort the gallery by the angle. The position of the right person is the **rank** of the answer, and *rank-1 accuracy* is
# the share of photographs for which the right person comes first. (Notebook 04 uses the same word for something else: there a rank is
# the number of a process.)
#
# **Predict**: guessing gets 1 in 30. What does the network get that was trained by classification?

# %%
with torch.inference_mode():
    x = F.normalize(models["classification"](new_faces)).view(30, 8, 32)  # person, photograph, numbers
gallery, probes = x[:, 0], x[:, 1:]  # (30, 32), (30, 7, 32)
closeness = probes @ gallery.T  # (30, 7, 30)
own = closeness[torch.arange(30), :, torch.arange(30)]  # (30, 7)
rank = 1 + (closeness > own[:, :, None]).sum(2)
for k in (1, 5):
    print(f"among the first {k}: {(rank <= k).float().mean():.0%}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The right person comes first many times more often than by guessing, and most often among the first five. After a minute of
# training that is far from chance, and far from useful.
#
# </details>
#
# ## Exercise: choose a threshold
#
# Somebody asks for a lock that opens to one stranger in a hundred. Write the function that chooses its threshold from
# angles of pairs of strangers.

# %%
from arcface_edu.course.checks.problem import check_threshold


def my_threshold(different, far):
    """different: angles of N pairs of two people.   returns: an angle below which lie exactly far * N of them."""
    return None  # yours


check_threshold(my_threshold)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sort the angles. If the $k$ smallest are to be accepted and no more, the threshold is the next one.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def my_threshold(different, far):
#     return different.sort().values[round(far * len(different))]
# ```
#
# Now the experiment: choose the threshold on half of the strangers and look at the FAR on the other half,
# `half = len(different) // 2`. With 14,000 pairs a FAR of 1 in 10,000 rests on one or two pairs. Notebook 07 says what
# follows from that.
#
# </details>

# %% [markdown]
# ## Where this goes
#
# A real recogniser does what this notebook did, with more of everything: 93,431 people, 5 million photographs, 512 numbers, a
# network of 100 layers. Each of these raises a question, and each question is a notebook.
#
# | notebook | the question |
# |---|---|
# | [01](01_resnet.ipynb) | How can a network of 100 layers be trained? |
# | [02](02_angular_margin.ipynb) | The head asks only that the right centre be the nearest. What if it asked for more: a *margin*? |
# | [03](03_softmax_vs_arcface.ipynb) | What does the margin do to the embeddings? Two numbers instead of 512, so that you can see it |
# | [04](04_dataparallel_vs_ddp.ipynb) | How do eight GPUs train one network? |
# | [05](05_partial_fc.ipynb) | A head for a million people is larger than the network. How is it divided? |
# | [06](06_training_run.ipynb) | A whole training, from data to verification |
# | [07](07_benchmark.ipynb) | How good is it, and how sure can you be of that? |
#
# ## Recap
#
# 1. Why can a classifier with 64 outputs not recognise a 65th person?
# 2. What is a head for, and why is it thrown away?
# 3. What is moved onto what when a face is aligned?
# 4. A lock has a FAR of 1 in 1,000: of which pairs is that a share?
# 5. Triplets win with 64 people. Why do they get harder to use with a million?
#
# <details><summary>Answers</summary>
#
# 1. It has no output for that person. Embeddings can be compared without one.
# 2. It holds a centre for each person of the training data, and the loss is computed from it. People met later have no centre.
# 3. Five detected points, onto five fixed positions, by rotation, scale and shift.
# 4. Of the pairs of two *different* people.
# 5. A batch holds only few people, and the hard ones are hardly ever among them. A head holds a centre of everybody.
#
# </details>
#
# ## Further
#
# - [data/alignment/align.py](../arcface_edu/data/alignment/align.py) and [detector.py](../arcface_edu/data/alignment/detector.py): alignment, and the detector (MTCNN, [arXiv 1604.02878](https://arxiv.org/abs/1604.02878))
# - [evaluation/roc.py](../arcface_edu/evaluation/roc.py): FAR and TAR as every command computes them
# - Contrastive loss: Hadsell et al. 2006; triplets: FaceNet, [arXiv 1503.03832](https://arxiv.org/abs/1503.03832), and
#   In Defense of the Triplet Loss, [arXiv 1703.07737](https://arxiv.org/abs/1703.07737)
# - Sampling Matters in Deep Embedding Learning, [arXiv 1706.07567](https://arxiv.org/abs/1706.07567); classification as
#   metric learning, [arXiv 1811.12649](https://arxiv.org/abs/1811.12649)
#
# Next: [01 · A network that can be deep](01_resnet.ipynb)
