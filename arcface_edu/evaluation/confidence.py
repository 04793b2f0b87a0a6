"""How far a result could have come out otherwise: bootstrap intervals.

The pairs at hand are a sample. Drawing as many again from them, with replacement, many times, and computing the result
each time, shows how it would scatter (Efron 1979). Pairs that share a person move together, so people are drawn where
it is known who is who: a pair then counts the product of how often its two people were drawn. Where only pairs are
known, pairs are drawn, and the interval is then rather too narrow.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from arcface_edu.evaluation.verification import THRESHOLDS, pair_distances

Interval = tuple[float, float]  # low, high
Counts = tuple[np.ndarray, np.ndarray, int]  # how often each same-person pair, each high impostor, and all were drawn

LEVEL = 0.95


def middle(values: np.ndarray) -> np.ndarray:
    """Return the ends of the middle 95 % of bootstrap results: (R, ...) -> (2, ...)."""
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def accuracy_interval(
    embeddings: ArrayLike | Tensor, is_same: ArrayLike, folds: int = 10, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the interval of the accuracy of `verify_pairs`; pairs are drawn, each within its fold.

    A pair thus never stands in the fold that is judged and among those that set the threshold, and every resample goes
    through the whole protocol, the choice of thresholds included.

    Args:
        embeddings: (2N, D).
        is_same: (N,) bools.

    Raises:
        DataError: as `pair_distances`.
    """
    distances, is_same = pair_distances(embeddings), np.asarray(is_same, dtype=bool)
    rng = np.random.default_rng(seed)
    correct_in_folds, sizes = [], []
    for distance, same in zip(np.array_split(distances, folds), np.array_split(is_same, folds), strict=True):
        right = ((distance[:, None] < THRESHOLDS) == same[:, None]).astype(np.float32)  # (n, 400)
        drawn = rng.multinomial(len(same), np.full(len(same), 1 / len(same)), size=resamples)  # (R, n)
        correct_in_folds.append(drawn.astype(np.float32) @ right)  # whole numbers below 2^24: float32 counts exactly
        sizes.append(len(same))
    correct = np.stack(correct_in_folds)  # (folds, R, 400)
    best = np.argmax(correct.sum(0) - correct, axis=2)[..., None]  # as in verify_pairs
    accuracy = np.take_along_axis(correct, best, axis=2)[..., 0] / np.array(sizes)[:, None]
    low, high = middle(accuracy.mean(0)).tolist()
    return low, high


def tar_intervals(
    scores: ArrayLike,
    is_same: ArrayLike,
    fars: Sequence[float],
    subjects: tuple[np.ndarray, np.ndarray] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> dict[float, Interval]:
    """Return the interval of `tar_at_far` for each of `fars`.

    Of the impostors only those of high score are compared, twice as many as the largest FAR lets in; of the others
    only how often they were drawn matters.

    Args:
        scores: (P,).
        is_same: (P,) bools.
        subjects: first and second, each (P,) ints 0 ... S - 1, who is in each pair: then people are drawn; None = pairs
            are.
    """
    scores, is_same = np.asarray(scores), np.asarray(is_same, dtype=bool)
    rng = np.random.default_rng(seed)
    same, impostor = np.flatnonzero(is_same), np.flatnonzero(~is_same)
    same = same[np.argsort(-scores[same])]
    top = min(len(impostor), int(2 * max(fars) * len(impostor)) + 100)
    high = impostor[np.argpartition(-scores[impostor], top - 1)[:top]]
    high = high[np.argsort(-scores[high])]
    draw = (
        _pair_drawer(len(same), len(high), len(impostor))
        if subjects is None
        else _people_drawer(subjects, same, high, impostor)
    )
    worst_first = -scores[same]  # rising
    found = np.empty((resamples, len(fars)))
    for row in found:
        same_times, high_times, all_times = draw(rng)
        far = np.append(0.0, np.cumsum(high_times) / max(all_times, 1))  # after each of the highest impostors
        above = np.searchsorted(far, fars).clip(1, top)
        nearest = np.where(fars - far[above - 1] < far[above] - fars, above - 1, above)
        last = np.searchsorted(far, far[nearest], side="right") - 1  # past the impostors that were not drawn
        outside = scores[high[np.minimum(last, top - 1)]]  # the best impostor that stays out
        accepted = np.append(0.0, np.cumsum(same_times))
        row[:] = accepted[np.searchsorted(worst_first, -outside)] / max(accepted[-1], 1)
    return {far: (low, high) for far, low, high in zip(fars, *middle(found).tolist(), strict=True)}


def _pair_drawer(same: int, high: int, impostors: int) -> Callable[[np.random.Generator], Counts]:
    """Return a function that draws pairs, given the counts of each kind."""

    def draw(rng: np.random.Generator) -> Counts:
        high_times = rng.poisson(1, high)  # as many pairs as there are, but for the scatter of their number
        return rng.poisson(1, same), high_times, high_times.sum() + rng.poisson(impostors - high)

    return draw


def _people_drawer(
    subjects: tuple[np.ndarray, np.ndarray], same: np.ndarray, high: np.ndarray, impostor: np.ndarray
) -> Callable[[np.random.Generator], Counts]:
    """Return a function that draws people, given the indices of the pairs of each kind."""
    first, second = (np.asarray(who) for who in subjects)
    people = int(max(first.max(), second.max())) + 1
    # Impostor pairs between the same two people count alike: they are summed up once.
    meetings, pairs = np.unique(first[impostor] * people + second[impostor], return_counts=True)
    one, other = meetings // people, meetings % people

    def draw(rng: np.random.Generator) -> Counts:
        times = rng.multinomial(people, np.full(people, 1 / people))
        return times[first[same]], times[first[high]] * times[second[high]], (pairs * times[one] * times[other]).sum()

    return draw
