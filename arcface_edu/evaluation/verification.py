"""Are these two photographs of one person? The LFW-type ten-fold protocol and what it yields.

In three lines, image 2i and image 2i + 1 being pair i:
    embeddings = embed_images(model, images)
    result = verify_pairs(embeddings, is_same)
    print(summary(result))
"""

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arcface_edu.errors import DataError
from arcface_edu.evaluation.roc import Threshold, check_both_kinds, in_three_units, tar_at_far, too_few
from arcface_edu.io import check_norms

THRESHOLDS = np.arange(0, 4, 0.01)  # (400,) squared L2 distances that the protocol tries
REPORTED_FARS = (1e-2, 1e-3)
VAL_FAR = 1e-3


class VerificationResult(TypedDict):
    """What `verify_pairs` returns."""

    accuracy: float  # mean over the folds
    accuracy_std: float  # population standard deviation over the folds
    thresholds: np.ndarray  # (folds,) squared L2 distance in [0, 4)
    val: float  # TAR in the held-out folds, at thresholds set for FAR 1e-3 in the others
    val_std: float
    far: float  # FAR in the held-out folds, at those thresholds
    fpr: np.ndarray  # (400,) mean over folds at THRESHOLDS; a fold without pairs of the kind counts as 0
    tpr: np.ndarray  # (400,)
    tar_at_far: dict[float, float]  # at FAR 1e-2 and 1e-3 over all pairs at once
    cosines: np.ndarray  # (N,) cosine of each pair
    threshold: Threshold  # to work with, `suggested_threshold`
    pairs: int
    same_pairs: int
    different_pairs: int
    one_kind_folds: int  # folds that hold only pairs of one kind


def verify_pairs(embeddings: ArrayLike | Tensor, is_same: ArrayLike, folds: int = 10) -> VerificationResult:
    """Return how well distances tell same-identity pairs from others: the protocol of LFW, CFP-FP and AgeDB-30.

    The pairs are cut into `folds` contiguous runs (their sizes differ by one at most). For each run, the threshold
    0, 0.01 ... 3.99 on the squared distance that decides most pairs of all *other* runs rightly (the first such) is
    applied to the run; a pair counts as the same person when its distance is strictly smaller.

    Source: Huang et al., LFW (2007); VAL: Schroff et al., FaceNet (arXiv 1503.03832), sec. 4.

    Args:
        embeddings: (2N, D); rows 2i and 2i + 1 are pair i; L2-normalised here.
        is_same: (N,) bools.
        folds: 2 to N.

    Raises:
        DataError: Counts do not match, all pairs are of one kind, there are fewer pairs than folds, or an embedding is
            not finite or all zeros.
    """
    is_same = np.asarray(is_same, dtype=bool)
    distances = pair_distances(embeddings)
    if is_same.shape != distances.shape:
        raise DataError(
            f"{2 * len(distances)} embeddings make {len(distances)} pairs, but is_same has shape {is_same.shape}"
        )
    check_both_kinds(is_same)
    if not 2 <= folds <= len(is_same):
        raise DataError(f"{len(is_same)} pairs cannot be cut into {folds} folds; take 2 to {len(is_same)} folds")

    fold_same, fold_different = [], []  # per fold: the sorted distances of its pairs of either kind
    for distance, same in zip(np.array_split(distances, folds), np.array_split(is_same, folds), strict=True):
        fold_same.append(np.sort(distance[same]))
        fold_different.append(np.sort(distance[~same]))
    n_same = np.array([len(fold) for fold in fold_same])
    n_different = np.array([len(fold) for fold in fold_different])

    true_accepts = _accepted(fold_same, THRESHOLDS)  # (folds, 400) counts
    false_accepts = _accepted(fold_different, THRESHOLDS)
    correct = true_accepts + n_different[:, None] - false_accepts
    best = np.argmax(correct.sum(0) - correct, axis=1)  # on the other folds; argmax returns the first maximum
    accuracy = correct[np.arange(folds), best] / (n_same + n_different)

    val_thresholds = _thresholds_at_far(fold_different, VAL_FAR)
    val_true = [np.searchsorted(fold, t) for fold, t in zip(fold_same, val_thresholds, strict=True)]
    val_false = [np.searchsorted(fold, t) for fold, t in zip(fold_different, val_thresholds, strict=True)]
    val = _rate(np.array(val_true), n_same)

    cosines = 1 - distances / 2
    return {
        "accuracy": float(accuracy.mean()),
        "accuracy_std": float(accuracy.std()),
        "thresholds": THRESHOLDS[best],
        "val": float(val.mean()),
        "val_std": float(val.std()),
        "far": float(_rate(np.array(val_false), n_different).mean()),
        "fpr": _rate(false_accepts, n_different[:, None]).mean(0),
        "tpr": _rate(true_accepts, n_same[:, None]).mean(0),
        "tar_at_far": tar_at_far(cosines, is_same, REPORTED_FARS),
        "cosines": cosines,
        "threshold": suggested_threshold(THRESHOLDS[best]),
        "pairs": len(is_same),
        "same_pairs": int(n_same.sum()),
        "different_pairs": int(n_different.sum()),
        "one_kind_folds": int(((n_same == 0) | (n_different == 0)).sum()),
    }


def _accepted(sorted_folds: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Return (folds, T) counts of distances strictly below each threshold."""
    return np.stack([np.searchsorted(fold, thresholds, side="left") for fold in sorted_folds])


def _rate(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return count / total, and 0 where there is nothing to count, as InsightFace's script does."""
    return count / np.maximum(total, 1)


def _thresholds_at_far(fold_different: Sequence[np.ndarray], target: float) -> np.ndarray:
    """Return (folds,) squared distances at which the *other* folds have the target FAR; 0 where they never reach it.

    FAR is known at 0, 0.001 ... 3.999 and a straight line joins its points. Where FAR stands still over several
    thresholds the line has no unique inverse; it is then left at the last of them: the largest threshold whose FAR is
    at most the target, and from there towards the next one (what np.interp does as well).
    """
    thresholds = np.arange(0, 4, 0.001)
    accepted = _accepted(fold_different, thresholds)
    total = np.array([len(fold) for fold in fold_different])
    fars = _rate(accepted.sum(0) - accepted, (total.sum() - total)[:, None])  # (folds, 4000), rising
    found = np.zeros(len(fold_different))
    for fold, far in enumerate(fars):
        left = np.searchsorted(far, target, side="right") - 1
        if left < len(far) - 1:
            share = (target - far[left]) / (far[left + 1] - far[left])
            found[fold] = thresholds[left] + share * (thresholds[left + 1] - thresholds[left])
        elif far[left] == target:
            found[fold] = thresholds[left]
    return found


def pair_distances(embeddings: ArrayLike | Tensor, chunk: int = 64) -> np.ndarray:
    """Return the squared L2 distance of each pair's normalised embeddings: (2N, D) -> (N,) float64 in [0, 4].

    Raises:
        DataError: The shape is another, or an embedding is not finite or all zeros.
    """
    tensor = torch.as_tensor(embeddings).detach()
    if tensor.ndim != 2 or len(tensor) % 2 or len(tensor) == 0:
        raise DataError(
            f"embeddings have the shape {tuple(tensor.shape)}; pairs need (2N, D): rows 2i and 2i + 1 are pair i"
        )
    # numpy converts on one thread: to wake others for so little, and to wait for them, costs more than it brings.
    array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    distances = np.empty(len(array) // 2)
    # 64 pairs of 512 numbers take half a megabyte and stay in the processor's cache: more at once take thrice as long.
    for start in range(0, len(array), 2 * chunk):
        rows = array[start : start + 2 * chunk].astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        check_norms(norms, partial(_name_row, start))
        first, second = (rows / norms).reshape(-1, 2, rows.shape[1]).transpose(1, 0, 2)
        distances[start // 2 : start // 2 + len(first)] = ((first - second) ** 2).sum(1)
    return distances.clip(0, 4)  # rounding may pass 4 by a hair


def _name_row(start: int, row: int) -> str:
    return f"the embedding in row {start + row} (pair {(start + row) // 2})"


def pair_cosines(embeddings: ArrayLike | Tensor) -> np.ndarray:
    """Return the cosine of each pair: (2N, D) -> (N,), since |x - y|^2 = 2 - 2 cos(x, y) for unit vectors."""
    return 1 - pair_distances(embeddings) / 2


def suggested_threshold(thresholds: ArrayLike) -> Threshold:
    """Return one threshold to work with: the mean of the folds' (folds,) squared L2 distances."""
    return in_three_units(1 - float(np.mean(np.asarray(thresholds))) / 2)


def hardest_pairs(cosines: np.ndarray, is_same: ArrayLike, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `count` indices of the same-identity pairs (N,) of lowest cosine, and of others of the highest."""
    order, is_same = np.argsort(cosines, kind="stable"), np.asarray(is_same, dtype=bool)
    return order[is_same[order]][:count], order[~is_same[order]][::-1][:count]


def summary(result: VerificationResult) -> str:
    """Return the lines to print about a result of `verify_pairs`."""
    threshold, folds = result["threshold"], len(result["thresholds"])
    lines = [
        f"accuracy         {result['accuracy']:8.2%} +- {result['accuracy_std']:.2%}   in {folds} folds of"
        f" {result['pairs']:,} pairs ({result['same_pairs']:,} same, {result['different_pairs']:,} different people)"
    ]
    for far, tar in result["tar_at_far"].items():
        few = too_few(result["different_pairs"], far)
        lines.append(f"TAR at FAR {far:.0e} {tar:8.2%}{f'   {few}' if few else ''}")
    lines.append(
        f"threshold        same person above cosine {threshold['cosine']:.3f}"
        f" = below {threshold['degrees']:.1f} degrees = below squared L2 {threshold['squared_l2']:.3f}"
    )
    if result["one_kind_folds"]:
        lines.append(
            f"note             {result['one_kind_folds']} folds hold one kind of pair only; mix the list's order"
        )
    return "\n".join(lines)
