"""How many of the right pairs get in (TAR) when so many of the wrong ones do (FAR).

A pair is accepted when its score reaches a threshold. TAR, the true accept rate (TPR, recall), is the share of
same-identity pairs that are accepted; FAR, the false accept rate (FPR), the share of different-identity pairs.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class Threshold(TypedDict):
    """One threshold in three units: a pair is accepted when its cosine is above, its angle or distance below."""

    cosine: float
    degrees: float
    squared_l2: float  # of unit vectors


class OperatingPoint(TypedDict):
    """What to expect at one FAR."""

    tar: float
    far: float  # the nearest to the wanted one that there is
    threshold: Threshold
    few: str  # a sentence where there are fewer than ten false accepts to count, else ""


def roc(scores: ArrayLike, is_same: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the exact ROC curve; pairs of equal score come in together.

    Args:
        scores: (P,), higher = more alike.
        is_same: (P,) bools.

    Returns:
        fpr, tpr, thresholds, each (T,): T - 1 distinct scores from high to low, a pair being accepted at
        score >= threshold; before them the point (0, 0) at threshold +inf.

    Raises:
        DataError: Shapes differ, a score is NaN, or all pairs are of one kind.
    """
    scores, is_same = _scores_and_truth(scores, is_same)
    same, both = np.sort(scores[is_same]), np.sort(scores)  # quicker than one sort that carries the truth along
    first_of_tie = np.flatnonzero(np.append(True, both[1:] != both[:-1]))[::-1]
    thresholds = both[first_of_tie]
    accepted = len(both) - first_of_tie  # pairs of either kind
    accepted_same = len(same) - np.searchsorted(same, thresholds)
    tpr, fpr = accepted_same / len(same), (accepted - accepted_same) / (len(both) - len(same))
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, thresholds)


def thin(fpr: np.ndarray, tpr: np.ndarray, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve of `roc` with at most `points` points, evenly spaced over log FPR: to draw millions of pairs.

    Returns:
        fpr, tpr, each (<= points,), in order, first and last point of the curve included.
    """
    if len(fpr) <= points:
        return fpr, tpr
    wanted = np.geomspace(fpr[fpr > 0].min(), 1, points - 2)
    kept = np.searchsorted(fpr, wanted, side="right") - 1  # of one FPR the last, with the highest TPR
    kept = np.unique(np.concatenate([[0], kept, [len(fpr) - 1]]))
    return fpr[kept], tpr[kept]


def tar_at_far(scores: ArrayLike, is_same: ArrayLike, fars: Sequence[float] = IJB_FARS) -> dict[float, float]:
    """Return TAR in [0, 1] at the FAR nearest to each of `fars`, as IJB results are reported.

    n impostor pairs reach only the FARs 0, 1/n ... 1; of two that are equally near the larger counts, and among the
    points of one FAR the last, with the highest TAR. All corners of the curve take part; the IJB scripts use a thinned
    curve, which can move a result by one same-identity pair or so. Only two sorts: 15 million pairs are fine.

    Args:
        scores: (P,), higher = more alike.
        is_same: (P,) bools.

    Raises:
        DataError: as `roc`.
    """
    return {far: point["tar"] for far, point in operating_points(scores, is_same, fars).items()}


def operating_points(
    scores: ArrayLike, is_same: ArrayLike, fars: Sequence[float] = IJB_FARS
) -> dict[float, OperatingPoint]:
    """Return TAR, the FAR reached and the threshold for each of `fars`.

    Args:
        scores: (P,) cosines.
        is_same: (P,) bools.

    Raises:
        DataError: as `roc`.
    """
    scores, is_same = _scores_and_truth(scores, is_same)
    same, impostors = np.sort(scores[is_same]), np.sort(scores[~is_same])[::-1]
    # So many impostors can be let in: tied ones only together.
    reachable = np.concatenate([[0], np.flatnonzero(impostors[1:] != impostors[:-1]) + 1, [len(impostors)]])
    fprs = reachable / len(impostors)

    def point(far: float) -> OperatingPoint:
        above = min(int(np.searchsorted(fprs, far)), len(fprs) - 1)
        below = max(above - 1, 0)
        nearest = min((above, below), key=lambda i: abs(fprs[i] - far))
        # A same-identity pair is in when it scores above the best impostor still outside.
        outside = impostors[reachable[nearest]] if reachable[nearest] < len(impostors) else -np.inf
        return {
            "tar": float((len(same) - np.searchsorted(same, outside, side="right")) / len(same)),
            "far": float(fprs[nearest]),
            "threshold": in_three_units(max(float(outside), -1.0)),
            "few": too_few(len(impostors), far),
        }

    return {far: point(far) for far in fars}


def too_few(different_pairs: int, far: float) -> str:
    """Return a sentence where that many pairs of different people are too few to measure at that FAR, else "".

    Ten false accepts have a standard deviation of about three: with fewer, the FAR itself is hardly known.
    """
    if far == 0 or different_pairs * far >= 10:
        return ""
    return f"few: {different_pairs:,} pairs of different people; {10 / far:,.0f} make it firm"


def in_three_units(cosine: float) -> Threshold:
    """Return a threshold on the cosine in all units: for unit vectors |x - y|^2 = 2 - 2 cos(x, y)."""
    cosine = float(np.clip(cosine, -1, 1))
    return {"cosine": cosine, "degrees": float(np.degrees(np.arccos(cosine))), "squared_l2": 2 - 2 * cosine}


def _scores_and_truth(scores: ArrayLike, is_same: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores, is_same = np.asarray(scores), np.asarray(is_same, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_same.shape:
        raise DataError(f"scores of shape {scores.shape} and is_same of shape {is_same.shape}; both must be (P,)")
    check_both_kinds(is_same)
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise DataError(f"the score of pair {wrong[0]} is not a number ({len(wrong)} of {len(scores)} are not)")
    return scores, is_same


def check_both_kinds(is_same: np.ndarray) -> None:
    """Raise DataError unless `is_same` (P,) holds pairs of one person and pairs of two."""
    if is_same.all() or not is_same.any():
        kind = "the same person" if len(is_same) and is_same.all() else "different people"
        held = f"all {len(is_same)} pairs are of {kind}" if len(is_same) else "there are no pairs"
        raise DataError(f"{held}: verification needs pairs of the same person and pairs of different people")
