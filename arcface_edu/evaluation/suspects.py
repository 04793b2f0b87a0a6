"""Labels that embeddings contradict: photographs nearer to another class than to their own, classes of one person.

The photographs of a class are mostly right, and so is their mean. Where labels are wrong the angles to it have a second
hump: the wrong ones lie where strangers lie. The mean is taken again without the suspects, a few times.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arcface_edu.evaluation.angle_stats import CHUNK, angles_between, as_labels, as_vectors, nearest_angles, unit

ROUNDS = 3


class Inspection(NamedTuple):
    """What the angles say of the labels of N images in C classes."""

    own: np.ndarray  # (N,) degrees to the centre of the own class
    other: np.ndarray  # (N,) degrees to the nearest other centre
    nearest: np.ndarray  # (N,) label of that
    suspects: np.ndarray  # (N,) bool
    halfway: float  # degrees between the median angles of images that are kept to their own and to another centre
    alike: list[tuple[int, int]]  # classes that look like one person, the nearest first
    alike_degrees: list[float]  # between the centres of each


def inspect_labels(
    embeddings: Tensor, labels: np.ndarray, trusted: np.ndarray | None = None, limit: float | None = None
) -> Inspection:
    """Return which labels the embeddings contradict.

    A photograph is suspected when the centre of another class is nearer than that of its own. Two classes are alike
    when their centres are nearer to each other than halfway between the usual angle of a photograph to its own centre
    and to the nearest other one: training pushes the two halves of a person apart, but not as far as strangers.

    Args:
        embeddings: (N, D).
        labels: (N,) ints.
        trusted: (N,) bools, images of which the first centres are made, as `main_sub_center` says; None = all.
        limit: Degrees: what is further from its own centre is suspected, too.

    Raises:
        DataError: There is one class only, or an embedding has no direction.
    """
    embeddings = as_vectors(embeddings, "embedding")
    classes, rows = np.unique(as_labels(labels, len(embeddings)), return_inverse=True)
    kept = np.ones(len(rows), dtype=bool) if trusted is None else trusted
    for _ in range(ROUNDS):
        centres = _centres(embeddings, rows, len(classes), kept)
        own, other, nearest = _angles(embeddings, rows, centres)
        suspects = other < own if limit is None else (other < own) | (own > limit)
        kept = ~suspects
    degrees, neighbours = nearest_angles(centres)
    halfway = float(np.median(own[kept]) + np.median(other[kept])) / 2 if kept.any() else 0.0
    pairs = {
        (min(one, int(two)), max(one, int(two))): float(degrees[one])
        for one, two in enumerate(neighbours)
        if degrees[one] < halfway
    }
    alike = sorted(pairs, key=pairs.__getitem__)
    named = [(int(classes[one]), int(classes[two])) for one, two in alike]
    return Inspection(own, other, classes[nearest], suspects, halfway, named, [pairs[pair] for pair in alike])


def main_sub_center(embeddings: Tensor, labels: np.ndarray, centres: Tensor) -> np.ndarray:
    """Return whether each image is nearest to the sub-centre that most images of its class are nearest to, (N,) bool.

    Args:
        embeddings: (N, D).
        labels: (N,), rows of `centres`.
        centres: (C, K, D), the weight of a head with sub-centres.
    """
    directions, nearest = unit(centres).float(), []
    for start in range(0, len(labels), CHUNK):
        of_class = directions[torch.as_tensor(labels[start : start + CHUNK])]  # (n, K, D)
        cosines = torch.einsum("nd,nkd->nk", unit(embeddings[start : start + CHUNK]).float(), of_class)
        nearest.append(cosines.argmax(1).numpy())
    of_image = np.concatenate(nearest)
    counts = np.zeros(centres.shape[:2])
    np.add.at(counts, (labels, of_image), 1)
    return of_image == counts.argmax(1)[labels]


def _centres(embeddings: Tensor, rows: np.ndarray, classes: int, kept: np.ndarray) -> Tensor:
    """Return the mean direction of the kept images of each class, (C, D); of all, where none is kept."""
    left = np.bincount(rows[kept], minlength=classes)
    weight = torch.from_numpy((kept | (left == 0)[rows]).astype(np.float64))
    sums = torch.zeros(classes, embeddings.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        sums.index_add_(0, torch.from_numpy(rows[part]), weight[part, None] * unit(embeddings[part]))
    return as_vectors(sums, "class's mean embedding")


def _angles(embeddings: Tensor, rows: np.ndarray, centres: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return degrees to the own centre and to the nearest other one, and the row of that, each (N,)."""
    directions, own, other, nearest = unit(centres).float(), [], [], []
    for start in range(0, len(rows), CHUNK):
        part, of_part = embeddings[start : start + CHUNK], torch.from_numpy(rows[start : start + CHUNK])
        cosines = unit(part).float() @ directions.T  # (n, C)
        cosines[torch.arange(len(part)), of_part] = -2
        found = cosines.argmax(1)
        own.append(angles_between(part, centres[of_part]))
        other.append(angles_between(part, centres[found]))
        nearest.append(found.numpy())
    return np.concatenate(own), np.concatenate(other), np.concatenate(nearest)


class Score(NamedTuple):
    """How right a list of suspects is, held against the truth."""

    precision: float  # of what is suspected, how much is wrong; NaN where nothing is suspected
    recall: float  # of what is wrong, how much is suspected; NaN where nothing is wrong
    suspected: int
    wrong: int


def who_is_wrong(people: np.ndarray, labels: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """Return whether each image shows another person than most images of its class that are not suspected, (N,) bool.

    Of two people in one class it thus does not matter which of them is found to be the stranger.
    """
    wrong = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        kept = of_class[~suspects[of_class]]
        shown, counts = np.unique(people[kept if len(kept) else of_class], return_counts=True)
        wrong[of_class] = people[of_class] != shown[counts.argmax()]
    return wrong


def score_suspects(suspects: np.ndarray, wrong: np.ndarray) -> Score:
    """Return precision and recall of suspected images: suspects, wrong (N,) bools."""
    right, suspected, all_wrong = int((suspects & wrong).sum()), int(suspects.sum()), int(wrong.sum())
    return Score(_share(right, suspected), _share(right, all_wrong), suspected, all_wrong)


def score_alike(alike: list[tuple[int, int]], people: np.ndarray, labels: np.ndarray) -> Score:
    """Return precision and recall of pairs of classes that are said to be of one person.

    Args:
        alike: As `inspect_labels` says.
        people, labels: (N,), who is shown, and the class of each image.
    """
    main = {label: np.bincount(people[labels == label]).argmax() for label in np.unique(labels).tolist()}
    same = {(one, two) for one in main for two in main if one < two and main[one] == main[two]}
    right = len(same & set(alike))
    return Score(_share(right, len(alike)), _share(right, len(same)), len(alike), len(same))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
