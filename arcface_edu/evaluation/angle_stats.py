"""Angles of embeddings in numbers: how close one person's photographs lie, and how far apart people are.

    statistics = angle_statistics(embeddings, labels, centres)
    print(statistics_table({"ArcFace": statistics}))

Everything here takes arrays of embeddings as they are and normalises them itself; all angles are in degrees.
"""

import math
import zipfile
from collections.abc import Mapping
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arcface_edu.errors import DataError
from arcface_edu.io import StrPath, check_norms

BARE = ""  # the name of the only array in a .npy
CHUNK = 1024  # rows at a time: their cosines with 100,000 others take 0.4 GB

STATISTICS = {
    "w_ec": "W-EC: class centre to the mean embedding of its class",
    "w_inter": "W-Inter: class centre to the nearest other centre",
    "intra": "Intra: embedding to the mean of its class",
    "inter": "Inter: mean of a class to the nearest other mean",
}
# ArcFace (arXiv 1801.07698), Table 3: CASIA-WebFace, ResNet50. Quoted from memory.
PAPER: dict[str, "AngleStatistics"] = {
    "norm-softmax": dict(w_ec=44.26, w_inter=69.66, intra=50.50, inter=59.23),
    "ArcFace": dict(w_ec=14.29, w_inter=71.61, intra=38.45, inter=65.83),
}


class AngleStatistics(TypedDict, total=False):
    """Mean angles in degrees. A mean embedding is that of the normalised embeddings of a class."""

    w_ec: float  # over classes: the centre to the mean embedding of its class (with centres)
    w_inter: float  # over all C centres: to the nearest other one (with centres)
    intra: float  # over embeddings: to the mean embedding of their class
    inter: float  # over classes: their mean embedding to the nearest other class's


def angle_statistics(
    embeddings: ArrayLike | Tensor, labels: ArrayLike, centres: ArrayLike | Tensor | None = None
) -> AngleStatistics:
    """Return the four mean angles of ArcFace's Table 3 (arXiv 1801.07698).

    Args:
        embeddings: (N, D).
        labels: (N,) ints; with centres, label j belongs to row j of them. Classes without an embedding count in
            `w_inter` only.
        centres: (C, D), the weight of a head; None = without `w_ec` and `w_inter`.

    Raises:
        DataError: Shapes differ, a label has no centre, there is one class only, or a vector has no direction.
    """
    embeddings = as_vectors(embeddings, "embedding")
    classes, means, members = class_means(embeddings, as_labels(labels, len(embeddings)))
    statistics: AngleStatistics = {}
    if centres is not None:
        centres = as_vectors(centres, "class centre")
        check_belong(classes, embeddings, centres)
        statistics["w_ec"] = float(angles_between(centres[classes], means).mean())
        statistics["w_inter"] = float(nearest_angles(centres)[0].mean())
    statistics["intra"] = float(angles_to_rows(embeddings, means, members).mean())
    statistics["inter"] = float(nearest_angles(means)[0].mean())
    return statistics


def class_means(embeddings: Tensor, labels: np.ndarray) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Return classes (K,), their mean normalised embeddings (K, D) float64, and each embedding's row (N,) among them.

    Raises:
        DataError: There are fewer than two classes, or a mean is all zeros.
    """
    classes, members = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"all embeddings are of one class ({classes[0]}): angles between people need at least two")
    sums = torch.zeros(len(classes), embeddings.shape[1], dtype=torch.float64)
    rows = torch.from_numpy(members)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        sums.index_add_(0, rows[part], unit(embeddings[part]))
    means = sums / torch.bincount(rows)[:, None]
    return classes, as_vectors(means, "class's mean embedding"), members


def angles_to_rows(embeddings: Tensor, vectors: Tensor, rows: np.ndarray) -> np.ndarray:
    """Return (N,) degrees between each embedding (N, D) and the vector in its row (N,) of `vectors` (K, D)."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(embeddings), CHUNK)]
    return np.concatenate([angles_between(embeddings[part], vectors[rows[part]]) for part in parts])


def nearest_angles(vectors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return for each vector (C, D) the degrees (C,) to the nearest other one, and the row (C,) of that.

    The C x C cosines are computed in chunks. The nearest is sought in float32, which cannot tell vectors within 0.03
    degrees of each other apart; the angle to it is exact.
    """
    directions = unit(vectors).float()
    nearest = torch.empty(len(vectors), dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        cosines = directions[start : start + CHUNK] @ directions.T  # (chunk, C)
        cosines.diagonal(start).fill_(-2)  # not itself
        nearest[start : start + CHUNK] = cosines.argmax(1)
    return angles_to_rows(vectors, vectors, nearest.numpy()), nearest.numpy()


def used_sub_centers(centres: Tensor, embeddings: Tensor, labels: np.ndarray) -> Tensor:
    """Return one centre a class, (C, D), of (C, K, D) sub-centres: the one nearest to the mean of the class.

    Args:
        centres: (C, K, D), the weight of a head with sub-centres.
        embeddings: (N, D).
        labels: (N,); a class without an image gets its first sub-centre.
    """
    sums = torch.zeros(len(centres), centres.shape[-1]).index_add_(0, torch.as_tensor(labels), unit(embeddings).float())
    nearest = torch.einsum("ckd,cd->ck", unit(centres).float(), sums).argmax(1)
    return centres[torch.arange(len(centres)), nearest]


def angles_to_nearest_other(embeddings: Tensor, centres: Tensor, own: np.ndarray) -> np.ndarray:
    """Return (N,) degrees between each embedding and the nearest centre that is not in its own row (N,)."""
    directions, degrees = unit(centres).float(), []
    for start in range(0, len(embeddings), CHUNK):
        part = embeddings[start : start + CHUNK]
        cosines = unit(part).float() @ directions.T
        cosines[torch.arange(len(part)), torch.as_tensor(own[start : start + CHUNK])] = -2
        degrees.append(angles_between(part, centres[cosines.argmax(1)]))
    return np.concatenate(degrees)


def angle_matrix(vectors: Tensor) -> np.ndarray:
    """Return (K, K) degrees between all vectors (K, D): for a handful of them."""
    count = len(vectors)
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    return angles_between(vectors[first.flatten()], vectors[second.flatten()]).reshape(count, count)


def angles_between(first: Tensor, second: Tensor) -> np.ndarray:
    """Return (N,) degrees between rows of two tensors (N, D), in float64.

    By Kahan's formula 2 atan2(|u - v|, |u + v|): near 0 and 180 degrees an arccos would lose half of the digits.
    """
    u, v = unit(first), unit(second)
    return torch.rad2deg(2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))).numpy()


def unit(vectors: Tensor) -> Tensor:
    """Return the rows at length 1 in float64."""
    return torch.nn.functional.normalize(vectors.double(), dim=-1)


def closest_group(nearest: np.ndarray, degrees: np.ndarray, size: int) -> list[int]:
    """Return at most `size` rows of the vectors closest to another one, each followed by that other.

    nearest and degrees are those of `nearest_angles`, (C,).
    """
    chosen: dict[int, None] = {}  # a set that keeps its order
    for row in np.argsort(degrees, kind="stable"):
        pair = [int(row), int(nearest[row])]
        if len(chosen.keys() | set(pair)) <= size:
            chosen.update(dict.fromkeys(pair))
    return list(chosen)


def random_angle_density(degrees: ArrayLike, dimension: int) -> np.ndarray:
    """Return the density per degree of the angle between two random directions in R^d: sin^(d-2)(theta), normalised.

    (T,) degrees in [0, 180] -> (T,). In 2-D all angles are alike; the more dimensions, the more crowd at 90 degrees,
    within about 57 / sqrt(d) of it.
    """
    theta = np.radians(np.asarray(degrees, dtype=float))
    log_area = math.lgamma(dimension / 2) - math.lgamma((dimension - 1) / 2) - math.log(math.pi) / 2
    return np.radians(math.exp(log_area) * np.sin(theta) ** (dimension - 2))


def nearest_random_density(degrees: np.ndarray, dimension: int, count: int) -> np.ndarray:
    """Return the density per degree of the angle to the nearest of `count - 1` other random directions.

    With F the share of random angles below theta and f their density it is (count - 1) (1 - F)^(count - 2) f.
    (T,) degrees, equally spaced over [0, 180] -> (T,).
    """
    density = random_angle_density(degrees, dimension)
    step = degrees[1] - degrees[0]
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * step)])
    return (count - 1) * np.clip(1 - below, 0, 1) ** (count - 2) * density


def statistics_table(columns: Mapping[str, AngleStatistics], heading: str = "degrees") -> str:
    """Return a Markdown table of `angle_statistics`, one column for each name.

    What one of them lacks is –; a row that all lack is left out.
    """
    lines = [f"| {heading} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for key, meaning in STATISTICS.items():
        found = [column.get(key) for column in columns.values()]
        if all(value is None for value in found):
            continue
        values = ["–" if value is None else f"{value:.2f}" for value in found]
        lines.append(f"| {meaning} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def as_vectors(rows: ArrayLike | Tensor, what: str) -> Tensor:
    """Return rows (N, D) as a tensor on the CPU, checked; `what` names a row in the DataError."""
    vectors = torch.as_tensor(rows).detach().cpu()
    if vectors.ndim != 2 or 0 in vectors.shape or not vectors.dtype.is_floating_point:
        raise DataError(f"each {what} is a row of floats, (N, D); given is {vectors.dtype} {tuple(vectors.shape)}")
    for start in range(0, len(vectors), CHUNK):
        norms = vectors[start : start + CHUNK].double().norm(dim=1)
        check_norms(norms, partial(_name_row, what, start))
    return vectors


def _name_row(what: str, start: int, row: int) -> str:
    return f"the {what} in row {start + row}"


def as_labels(labels: ArrayLike, count: int) -> np.ndarray:
    """Return labels as an int64 array (count,), checked."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype} {labels.shape} for {count:,} embeddings; one integer each is meant")
    return labels.astype(np.int64)


def check_belong(classes: np.ndarray, embeddings: Tensor, centres: Tensor) -> None:
    """Raise DataError unless the centres (C, D) are those of the classes (K,) and of the embeddings' size."""
    if centres.shape[1] != embeddings.shape[1]:
        raise DataError(
            f"embeddings have {embeddings.shape[1]} dimensions and class centres {centres.shape[1]}: "
            f"they are of two networks"
        )
    if classes[0] < 0 or classes[-1] >= len(centres):
        wrong = classes[0] if classes[0] < 0 else classes[-1]
        raise DataError(f"label {wrong} has no centre: there are {len(centres):,}, numbered from 0")


def read_embeddings(path: StrPath, labels: StrPath | None = None) -> tuple[Tensor, np.ndarray]:
    """Return embeddings (N, D) and labels (N,) of a .npz with arrays of these names, or of two .npy.

    Args:
        labels: the .npy of labels that goes with a .npy of embeddings.

    Raises:
        DataError: A file or array is missing, broken or pickled.
    """
    arrays = _load(path)
    if BARE in arrays:
        if labels is None:
            raise DataError(f"{path} has no labels: name a .npy of one integer per row with --labels, or use a .npz.")
        arrays = {"embeddings": arrays[BARE], "labels": _load(labels).get(BARE, np.empty(0))}
    lacking = [name for name in ("embeddings", "labels") if name not in arrays]
    if lacking:
        held = ", ".join(arrays) or "nothing"
        raise DataError(f"{path} holds {held}, but no `{lacking[0]}`: write it with np.savez(embeddings=, labels=).")
    try:
        embeddings = as_vectors(arrays["embeddings"], "embedding")
        return embeddings, as_labels(arrays["labels"], len(embeddings))
    except (DataError, TypeError) as error:
        raise DataError(f"{path}: {error}") from None


def _load(path: StrPath) -> dict[str, np.ndarray]:
    """Return the arrays in a file by their names, that of a .npy as BARE. A pickle would run code: it is refused."""
    try:
        found = np.load(path, allow_pickle=False)
        return {BARE: found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: name a .npy or .npz of embeddings.") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"{path} is not readable as plain arrays ({' '.join(str(error).split())[:120]}): write it with np.savez; "
            f"arrays of objects are pickles and are never opened."
        ) from None
