"""Angles of embeddings in numbers: how close one person's photographs lie, and how far apart people are.

    statistics = angle_statistics(embeddings, labels, centres)
    print(statistics_table({"ArcFace": statistics}))

Everything here takes arrays of embeddings as they are and normalises them itself; all angles are in degrees.
"""

import math
import zipfile
from pathlib import Path

import numpy as np
import torch

from arcface_edu.errors import DataError

CHUNK = 1024  # rows at a time: their cosines with 100,000 others take 0.4 GB

STATISTICS = {
    "w_ec": "W-EC: class centre to the mean embedding of its class",
    "w_inter": "W-Inter: class centre to the nearest other centre",
    "intra": "Intra: embedding to the mean of its class",
    "inter": "Inter: mean of a class to the nearest other mean",
}
# ArcFace (arXiv 1801.07698), Table 3: CASIA-WebFace, ResNet50. Quoted from memory.
PAPER = {
    "norm-softmax": dict(w_ec=44.26, w_inter=69.66, intra=50.50, inter=59.23),
    "ArcFace": dict(w_ec=14.29, w_inter=71.61, intra=38.45, inter=65.83),
}


def angle_statistics(embeddings, labels, centres=None):
    """The four mean angles of ArcFace's Table 3, in degrees.

    embeddings: (N, D) array or tensor.   labels: (N,) ints; with centres, label j belongs to row j of them.
    centres: (C, D), the weight of a head, or None.
    returns: dict
      w_ec     mean over classes of the angle between the centre and the mean embedding of its class (with centres)
      w_inter  mean over all C centres of the angle to the nearest other one (with centres)
      intra    mean over embeddings of the angle to the mean embedding of their class
      inter    mean over classes of the angle between their mean embedding and the nearest other class's
    A mean embedding is that of the normalised embeddings. Classes without an embedding count in w_inter only.
    raises: DataError (shapes, labels out of range, one class only, a vector that is not finite or has no length).
    """
    embeddings, labels = as_vectors(embeddings, "embedding"), as_labels(labels, len(embeddings))
    classes, means, members = class_means(embeddings, labels)
    statistics = {}
    if centres is not None:
        centres = as_vectors(centres, "class centre")
        check_belong(classes, embeddings, centres)
        statistics["w_ec"] = float(angles_between(centres[classes], means).mean())
        statistics["w_inter"] = float(nearest_angles(centres)[0].mean())
    statistics["intra"] = float(angles_to_rows(embeddings, means, members).mean())
    statistics["inter"] = float(nearest_angles(means)[0].mean())
    return statistics


def class_means(embeddings, labels):
    """(classes (K,), their mean normalised embeddings (K, D) float64, row (N,) of each embedding's class among them).

    embeddings: (N, D) tensor; labels: (N,).   raises: DataError (fewer than two classes, a mean of no length).
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


def angles_to_rows(embeddings, vectors, rows):
    """(N,) degrees between each embedding and the vector in its row of `vectors` (K, D).   rows: (N,) ints."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(embeddings), CHUNK)]
    return np.concatenate([angles_between(embeddings[part], vectors[rows[part]]) for part in parts])


def nearest_angles(vectors):
    """(degrees (C,) to the nearest other vector, its row (C,)); the C x C cosines are walked over in chunks.

    vectors: (C, D) tensor.   The nearest is sought in float32, which cannot tell vectors within 0.03 degrees of each
    other apart; the angle to it is exact.
    """
    directions = unit(vectors).float()
    nearest = torch.empty(len(vectors), dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        cosines = directions[start : start + CHUNK] @ directions.T  # (chunk, C)
        cosines.diagonal(start).fill_(-2)  # not itself
        nearest[start : start + CHUNK] = cosines.argmax(1)
    return angles_to_rows(vectors, vectors, nearest.numpy()), nearest.numpy()


def angles_to_nearest_other(embeddings, centres, own):
    """(N,) degrees between each embedding and the nearest centre that is not its own.   own: (N,) rows of centres."""
    directions, degrees = unit(centres).float(), []
    for start in range(0, len(embeddings), CHUNK):
        part = embeddings[start : start + CHUNK]
        cosines = unit(part).float() @ directions.T
        cosines[torch.arange(len(part)), torch.as_tensor(own[start : start + CHUNK])] = -2
        degrees.append(angles_between(part, centres[cosines.argmax(1)]))
    return np.concatenate(degrees)


def angle_matrix(vectors):
    """(K, K) degrees between all vectors (K, D): for a handful of them."""
    count = len(vectors)
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    return angles_between(vectors[first.flatten()], vectors[second.flatten()]).reshape(count, count)


def angles_between(first, second):
    """(N,) degrees between rows of two tensors (N, D), in float64.

    By Kahan's formula 2 atan2(|u - v|, |u + v|): near 0 and 180 degrees an arccos would lose half of the digits.
    """
    u, v = unit(first), unit(second)
    return torch.rad2deg(2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))).numpy()


def unit(vectors):
    """Rows of length 1 in float64."""
    return torch.nn.functional.normalize(vectors.double())


def closest_group(nearest, degrees, size):
    """Rows of the vectors that lie closest to another one, each followed by that other, at most `size` of them.

    nearest, degrees: (C,), of `nearest_angles`.
    """
    chosen = {}  # a set that keeps its order
    for row in np.argsort(degrees, kind="stable"):
        pair = [int(row), int(nearest[row])]
        if len(chosen.keys() | set(pair)) <= size:
            chosen.update(dict.fromkeys(pair))
    return list(chosen)


def random_angle_density(degrees, dimension):
    """Density per degree of the angle between two random directions in R^d: sin^(d-2)(theta), normalised.

    degrees: (T,) in [0, 180].   dimension: d >= 2.   returns: (T,). In 2-D all angles are alike; the more dimensions,
    the more crowd at 90 degrees, within about 57 / sqrt(d) of it.
    """
    theta = np.radians(np.asarray(degrees, dtype=float))
    log_area = math.lgamma(dimension / 2) - math.lgamma((dimension - 1) / 2) - math.log(math.pi) / 2
    return np.radians(math.exp(log_area) * np.sin(theta) ** (dimension - 2))


def nearest_random_density(degrees, dimension, count):
    """Density per degree of the angle between a random direction and the nearest of `count - 1` other random ones.

    degrees: (T,), equally spaced over [0, 180].   With F the share of random angles below theta and f their density it
    is (count - 1) (1 - F)^(count - 2) f.
    """
    density = random_angle_density(degrees, dimension)
    step = degrees[1] - degrees[0]
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * step)])
    return (count - 1) * np.clip(1 - below, 0, 1) ** (count - 2) * density


def statistics_table(columns, heading="degrees"):
    """A Markdown table of `angle_statistics`, one column each.   columns: dict name -> statistics.

    What one of them lacks is –; a row that all lack is left out.
    """
    lines = [f"| {heading} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for key, meaning in STATISTICS.items():
        if not any(key in column for column in columns.values()):
            continue
        values = [f"{column[key]:.2f}" if key in column else "–" for column in columns.values()]
        lines.append(f"| {meaning} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def as_vectors(vectors, what):
    """`vectors` as a tensor (N, D) on the CPU, checked; `what` names a row in the DataError."""
    vectors = torch.as_tensor(vectors).detach().cpu()
    if vectors.ndim != 2 or 0 in vectors.shape or not vectors.dtype.is_floating_point:
        raise DataError(f"each {what} is a row of floats, (N, D); given is {vectors.dtype} {tuple(vectors.shape)}")
    for start in range(0, len(vectors), CHUNK):
        lengths = vectors[start : start + CHUNK].double().norm(dim=1)
        wrong = torch.nonzero(~(torch.isfinite(lengths) & (lengths > 0))).flatten()
        if len(wrong):
            row = int(wrong[0])
            fault = "has no length (all zeros)" if lengths[row] == 0 else "is not finite (NaN or inf)"
            raise DataError(f"the {what} in row {start + row} {fault}: look at that image and the network")
    return vectors


def as_labels(labels, count):
    """`labels` as an int64 array (count,), checked."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype} {labels.shape} for {count:,} embeddings; one integer each is meant")
    return labels.astype(np.int64)


def check_belong(classes, embeddings, centres):
    """Raise DataError unless the centres (C, D) are those of the classes (K,) and of the embeddings' size."""
    if centres.shape[1] != embeddings.shape[1]:
        raise DataError(
            f"embeddings have {embeddings.shape[1]} dimensions and class centres {centres.shape[1]}: "
            f"they are of two networks"
        )
    if classes[0] < 0 or classes[-1] >= len(centres):
        wrong = classes[0] if classes[0] < 0 else classes[-1]
        raise DataError(f"label {wrong} has no centre: there are {len(centres):,}, numbered from 0")


def read_embeddings(path, labels=None):
    """(embeddings (N, D) tensor, labels (N,)) of a .npz with the arrays `embeddings` and `labels`, or of two .npy.

    labels: path of the .npy of labels that goes with a .npy.   raises: DataError (missing, pickled, broken).
    """
    path = Path(path)
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        if labels is None:
            raise DataError(f"{path} has no labels: name a .npy of one integer per row with --labels, or use a .npz.")
        arrays = dict(embeddings=arrays, labels=_load(labels))
    lacking = [name for name in ("embeddings", "labels") if name not in arrays]
    if lacking:
        held = ", ".join(arrays) or "nothing"
        raise DataError(f"{path} holds {held}, but no `{lacking[0]}`: write it with np.savez(embeddings=, labels=).")
    try:
        embeddings = as_vectors(arrays["embeddings"], "embedding")
        return embeddings, as_labels(arrays["labels"], len(embeddings))
    except (DataError, TypeError) as error:
        raise DataError(f"{path}: {error}") from None


def _load(path):
    """An array, or a dict of arrays. A pickle inside would run code: it is refused."""
    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: name a .npy or .npz of embeddings.") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"{path} is not readable as plain arrays ({' '.join(str(error).split())[:120]}): write it with np.savez; "
            f"arrays of objects are pickles and are never opened."
        ) from None
