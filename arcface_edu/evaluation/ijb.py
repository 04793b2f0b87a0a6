"""IJB-B and IJB-C: templates, sets of photographs and video frames of one person, compared with one another.

On numpy arrays alone:
    pooled, ids = pool_templates(features, templates, media)
    print(tar_at_far(score_pairs(pooled, ids, first, second), is_same))

Three switches shift the result by half a percent, so they belong beside every number. N1: an image's embedding keeps
its length (N0: unit length). D1: it counts by the face detector's score. F1: image and mirror are added. The files of
the protocol: ijb_files.py.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.errors import DataError
from arcface_edu.io import has_direction

ROWS = 512  # templates whose cosines with all others are computed at once
DENSE = 64  # a matrix product makes so many cosines in the time that one pair, fetched by itself, takes


def pool_templates(
    features: ArrayLike | Tensor, templates: ArrayLike, media: ArrayLike, weights: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return one embedding per template: the mean over the images of each medium, summed over media, at unit length.

    Args:
        features: (N, D) embeddings of images.
        templates, media: (N,) ints; a medium belongs to its template, so that one number may stand for two media in two
            templates.
        weights: (N,), a factor on each image's feature.

    Returns:
        (T, D) float64 unit rows, and their template ids (T,), rising.

    Raises:
        DataError: Lengths differ, a feature is not finite, or a template sums up to zero.
    """
    features = torch.as_tensor(features).detach().cpu()
    templates, media = np.asarray(templates), np.asarray(media)
    if features.ndim != 2 or not len(features) or not templates.shape == media.shape == (len(features),):
        raise DataError(
            f"features of shape {tuple(features.shape)}, templates {templates.shape} and media {media.shape}: "
            f"wanted are (N, D), (N,) and (N,), N above 0"
        )
    features = features.float() if not features.is_floating_point() or features.itemsize < 4 else features
    # All is one sum with weights: an image counts by 1 / (images of its medium in its template).
    order = np.lexsort((media, templates))
    template, medium = templates[order], media[order]
    new_template = np.append(True, template[1:] != template[:-1])
    new_medium = np.append(True, medium[1:] != medium[:-1]) | new_template
    images_of_medium = np.diff(np.append(np.flatnonzero(new_medium), len(order)))
    share = np.repeat(1 / images_of_medium, images_of_medium)
    if weights is not None:
        share = share * np.asarray(weights)[order]
    sums = F.embedding_bag(
        torch.from_numpy(order),
        features,
        torch.from_numpy(np.flatnonzero(new_template)),
        mode="sum",
        per_sample_weights=torch.from_numpy(share).to(features.dtype),
    )
    pooled, ids = sums.double().numpy(), template[new_template]
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    wrong = np.flatnonzero(~has_direction(norms))
    if len(wrong):
        what = "has no length" if norms[wrong[0], 0] == 0 else "is not finite (NaN or inf)"
        rows = np.flatnonzero(templates == ids[wrong[0]])
        raise DataError(
            f"template {ids[wrong[0]]}, of {len(rows)} images from row {rows[0]} on, {what}: look at these images and "
            f"the network ({len(wrong)} of {len(ids)} templates are so)"
        )
    return pooled / norms, ids


def score_pairs(pooled: ArrayLike, ids: ArrayLike, first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return the cosine (P,) of each pair of templates.

    Args:
        pooled: (T, D) unit rows.
        ids: (T,) template ids of the rows.
        first, second: (P,) template ids.

    Raises:
        DataError: An id stands twice, a template has no row, or lengths differ.
    """
    pooled, first, second = np.asarray(pooled), np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(f"{first.shape} first and {second.shape} second templates: pairs need one of each, (P,)")
    find = row_finder(ids, len(pooled))
    one, other = find(first), find(second)
    rows, columns = (np.flatnonzero(np.bincount(side, minlength=len(pooled))) for side in (one, other))
    scores = np.empty(len(one), pooled.dtype)
    if len(rows) * len(columns) > DENSE * len(one):  # few of the possible pairs: each by itself
        for start in range(0, len(one), 8192):
            part = slice(start, start + 8192)
            np.einsum("pd,pd->p", pooled[one[part]], pooled[other[part]], out=scores[part])
        return scores
    # Most templates meet many others: all cosines of a block of them, of which the pairs at hand are picked.
    row, column = np.zeros((2, len(pooled)), np.int64)
    row[rows], column[columns] = np.arange(len(rows)), np.arange(len(columns))
    one, other = row[one], column[other]
    columns_t = pooled[columns].T
    blocks = -(-len(rows) // ROWS)
    block = (one // ROWS).astype(np.uint8 if blocks < 256 else np.int32)  # bytes are sorted in one pass
    by_block = np.argsort(block, kind="stable")
    ends = np.cumsum(np.bincount(block, minlength=blocks))
    for number, (begin, end) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
        pairs = by_block[begin:end]
        cosines = pooled[rows[number * ROWS : (number + 1) * ROWS]] @ columns_t
        scores[pairs] = cosines[one[pairs] - number * ROWS, other[pairs]]
    return scores


def row_finder(ids: ArrayLike, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from template ids (P,) to their rows (P,) in `ids` (T,); either may raise DataError."""
    ids = np.asarray(ids)
    if ids.shape != (count,):
        raise DataError(f"{count} pooled templates have ids of shape {ids.shape}; wanted is one each")
    order = np.argsort(ids, kind="stable")
    rising = ids[order]
    twice = rising[1:][rising[1:] == rising[:-1]]
    if len(twice):
        raise DataError(f"template {twice[0]} stands twice among the ids ({len(twice)} ids do): pool each once")

    smallest, span = rising[0], int(rising[-1]) - int(rising[0]) + 1
    table: np.ndarray | None = None
    if span <= 2**24:  # looked up in a table, which for millions of pairs is ten times as fast as searching
        table = np.zeros(span, np.int64)
        table[rising - smallest] = np.arange(count)

    def find(wanted: np.ndarray) -> np.ndarray:
        if table is None:
            position = np.searchsorted(rising, wanted).clip(max=count - 1)
        else:
            position = table[np.clip(wanted, smallest, rising[-1]) - smallest]
        missing = np.flatnonzero(rising[position] != wanted)
        if len(missing):
            raise DataError(
                f"pair {missing[0]} names template {wanted[missing[0]]}, which has no image ({len(missing)} of "
                f"{len(wanted)} pairs name such): the list of pairs and that of images are not of one set"
            )
        return order[position]

    return find


def image_weights(features: np.ndarray, detector: np.ndarray, switches: str = "N1D1F1") -> np.ndarray:
    """Return the factor (N,) on each image's feature (N, D) that the N and D switches mean.

    N0 divides by its length; D1 multiplies by the detector's score (N,).
    """
    weights = np.ones(len(features))
    if "N0" in switches:
        lengths = np.linalg.norm(features, axis=1)
        weights /= np.where(lengths > 0, lengths, 1)
    return weights * detector if "D1" in switches else weights


def subjects_of(
    ids: np.ndarray, first: np.ndarray, second: np.ndarray, is_same: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the first and second person (P,) of each pair, as far as the pairs tell.

    Templates (T,) `ids` that same-person pairs join are one person.
    """
    find = row_finder(ids, len(ids))
    one, other = find(first), find(second)
    person, joined = np.arange(len(ids)), np.flatnonzero(is_same)
    while True:  # the smallest number spreads along the pairs until nothing changes
        smallest = np.minimum(person[one[joined]], person[other[joined]])
        after = person.copy()
        np.minimum.at(after, one[joined], smallest)
        np.minimum.at(after, other[joined], smallest)
        after = after[after]
        if (after == person).all():
            break
        person = after
    person = np.unique(person, return_inverse=True)[1]
    return person[one], person[other]
