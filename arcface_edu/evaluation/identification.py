"""Who is this? Searching probes in a gallery: rank-1, CMC, and the open set, where some probes are strangers.

result = identify(gallery, gallery_labels, probes, probe_labels)
result["rank1"], result["cmc"], result["dir_at_far"]
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from arcface_edu.errors import DataError
from arcface_edu.io import check_norms

OPEN_SET_FARS = (1e-3, 1e-2, 1e-1)


class IdentificationResult(TypedDict):
    """What `identify` returns."""

    rank1: float  # share of known probes whose rank is 1
    cmc: np.ndarray  # (ranks,) share whose rank is at most 1, 2 ...
    dir_at_far: dict[float, float]  # detection and identification rate; {} without strangers
    thresholds: dict[float, float]  # FAR -> cosine: a search that ends at or below it answers "nobody I know"
    far: np.ndarray  # (T,) the whole open-set curve, from 0 to 1
    dir: np.ndarray  # (T,)
    people: int
    known: int  # probes
    strangers: int  # probes


def identify(
    gallery: ArrayLike | Tensor,
    gallery_labels: ArrayLike,
    probes: ArrayLike | Tensor,
    probe_labels: ArrayLike,
    fars: Sequence[float] = OPEN_SET_FARS,
    ranks: int = 50,
    chunk: int = 1024,
) -> IdentificationResult:
    """Return closed- and open-set identification rates (Phillips et al., Handbook of Face Recognition, ch. 21).

    A probe's score for a person is its highest cosine with that person's gallery images. Its rank is 1 plus the number
    of others who score at least as high as the right one, so that a draw is no hit. DIR at a FAR is the share of known
    probes that are found at rank 1 above the threshold which lets that share of strangers through.

    Args:
        gallery, probes: (G, D) and (P, D) embeddings; L2-normalised here.
        gallery_labels, probe_labels: (G,) and (P,) ints; a label that is not in the gallery makes the probe a stranger.
        fars: shares of strangers to let through.
        ranks: length of the CMC curve, at most.
        chunk: probes at once.

    Raises:
        DataError: Shapes do not match, an embedding is not finite or all zeros, or no probe is known.
    """
    gallery, probes = unit_rows(gallery, "gallery"), unit_rows(probes, "probe")
    gallery_labels, probe_labels = np.asarray(gallery_labels), np.asarray(probe_labels)
    for kind, rows, labels in (("gallery", gallery, gallery_labels), ("probe", probes, probe_labels)):
        if labels.shape != (len(rows),):
            raise DataError(f"{len(rows)} {kind} embeddings have labels of shape {labels.shape}; wanted is one each")
    if gallery.shape[1] != probes.shape[1]:
        raise DataError(
            f"gallery embeddings have {gallery.shape[1]} numbers and probes {probes.shape[1]}: one network?"
        )
    people, person = np.unique(gallery_labels, return_inverse=True)
    by_person = np.argsort(person, kind="stable")
    gallery, begins = gallery[by_person], np.searchsorted(person[by_person], np.arange(len(people)))
    column = np.searchsorted(people, probe_labels).clip(max=len(people) - 1)
    known = people[column] == probe_labels
    if not known.any():
        raise DataError("no probe shows a person of the gallery: are these the labels of the same people?")

    best, own, rank = np.empty(len(probes)), np.empty(len(probes)), np.empty(len(probes), np.int64)
    for start in range(0, len(probes), chunk):
        part = slice(start, start + chunk)
        scores = np.maximum.reduceat(probes[part] @ gallery.T, begins, axis=1)  # (chunk, people)
        best[part] = scores.max(1)
        own[part] = scores[np.arange(len(scores)), column[part]]
        rank[part] = (scores >= own[part, None]).sum(1)  # the right one is among them

    rank, found = rank[known], np.sort(own[known & (rank == 1)])
    strangers = np.sort(best[~known])[::-1]
    result: IdentificationResult = {
        "rank1": float((rank == 1).mean()),
        "cmc": np.cumsum(np.bincount(rank, minlength=ranks + 1)[1 : ranks + 1])[: len(people)] / len(rank),
        "dir_at_far": {}, "thresholds": {}, "far": np.empty(0), "dir": np.empty(0),
        "people": len(people), "known": len(rank), "strangers": len(strangers),
    }  # fmt: skip
    if len(strangers):
        outside = np.append(strangers, -np.inf)  # the best stranger still kept out, when 0, 1 ... are let in
        result["far"] = np.arange(len(outside)) / len(strangers)
        result["dir"] = (len(found) - np.searchsorted(found, outside, side="right")) / len(rank)
        for far in fars:
            let_in = int(far * len(strangers) + 1e-9)  # never more than asked for
            result["dir_at_far"][far] = float(result["dir"][let_in])
            result["thresholds"][far] = max(float(outside[let_in]), -1.0)
    return result


def unit_rows(embeddings: ArrayLike | Tensor, name: str) -> np.ndarray:
    """Return (N, D) float64 unit vectors; `name` says in the DataError which row cannot be normalised."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2 or not len(embeddings):
        raise DataError(f"the {name} embeddings have the shape {embeddings.shape}; wanted is (N, D), N above 0")
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    check_norms(norms, lambda row: f"the {name} embedding in row {row}")
    return embeddings / norms
