"""How far a result could have come out otherwise: bootstrap intervals.

The pairs at hand are a sample. Drawing as many again from them, with replacement, many times, and computing the result
each time, shows how it would scatter (Efron 1979). Pairs that share a person move together, so people are drawn where
it is known who is who: a pair then counts the product of how often its two people were drawn. Where only pairs are
known, pairs are drawn, and the interval is then rather too narrow.
"""

import numpy as np

from arcface_edu.evaluation.verification import pair_distances

LEVEL = 0.95


def interval(values):
    """(low, high): the middle 95 % of bootstrap results.   values: (R, ...)."""
    return tuple(np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).tolist())


def accuracy_interval(embeddings, is_same, folds=10, resamples=1000, seed=0):
    """(low, high) of the accuracy of `verify_pairs`; pairs are drawn, each within its fold.

    A pair thus never stands in the fold that is judged and among those that set the threshold, and every resample goes
    through the whole protocol, the choice of thresholds included.
    embeddings: (2N, D).   is_same: (N,) bools.   raises: DataError as `pair_distances`.
    """
    distances, is_same = pair_distances(embeddings), np.asarray(is_same, dtype=bool)
    thresholds, dice = np.arange(0, 4, 0.01), np.random.default_rng(seed)
    correct, sizes = [], []
    for distance, same in zip(np.array_split(distances, folds), np.array_split(is_same, folds), strict=True):
        right = ((distance[:, None] < thresholds) == same[:, None]).astype(np.float32)  # (n, 400)
        drawn = dice.multinomial(len(same), np.full(len(same), 1 / len(same)), size=resamples)  # (R, n)
        correct.append(drawn.astype(np.float32) @ right)  # whole numbers below 2^24: float32 counts exactly
        sizes.append(len(same))
    correct = np.stack(correct)  # (folds, R, 400)
    best = np.argmax(correct.sum(0) - correct, axis=2)[..., None]  # as in verify_pairs
    accuracy = np.take_along_axis(correct, best, axis=2)[..., 0] / np.array(sizes)[:, None]
    return interval(accuracy.mean(0))


def tar_intervals(scores, is_same, fars, subjects=None, resamples=200, seed=0):
    """dict far -> (low, high) of `tar_at_far`.

    scores: (P,).   is_same: (P,) bools.   subjects: (first, second), each (P,) ints 0 ... S - 1, who is in each pair:
    then people are drawn; without them, pairs are.

    Of the impostors only those of high score are looked at, twice as many as the largest FAR lets in; of the others
    only how often they were drawn matters.
    """
    scores, is_same = np.asarray(scores), np.asarray(is_same, dtype=bool)
    dice = np.random.default_rng(seed)
    same, impostor = np.flatnonzero(is_same), np.flatnonzero(~is_same)
    same = same[np.argsort(-scores[same])]
    top = min(len(impostor), int(2 * max(fars) * len(impostor)) + 100)
    high = impostor[np.argpartition(-scores[impostor], top - 1)[:top]]
    high = high[np.argsort(-scores[high])]
    draw = _draw_pairs if subjects is None else _draw_people(subjects, same, high, impostor)
    worst_first = -scores[same]  # rising
    found = np.empty((resamples, len(fars)))
    for row in found:
        same_times, high_times, all_times = draw(dice, len(same), len(high), len(impostor))
        far = np.append(0.0, np.cumsum(high_times) / max(all_times, 1))  # after each of the highest impostors
        above = np.searchsorted(far, fars).clip(1, top)
        nearest = np.where(fars - far[above - 1] < far[above] - fars, above - 1, above)
        last = np.searchsorted(far, far[nearest], side="right") - 1  # past the impostors that were not drawn
        outside = scores[high[np.minimum(last, top - 1)]]  # the best impostor that stays out
        accepted = np.append(0.0, np.cumsum(same_times))
        row[:] = accepted[np.searchsorted(worst_first, -outside)] / max(accepted[-1], 1)
    return dict(zip(fars, zip(*interval(found), strict=True), strict=True))


def _draw_pairs(dice, same, high, impostors):
    """How often each same-person pair, each high impostor, and all impostors together were drawn."""
    high_times = dice.poisson(1, high)  # as many pairs as there are, but for the scatter of their number
    return dice.poisson(1, same), high_times, high_times.sum() + dice.poisson(impostors - high)


def _draw_people(subjects, same, high, impostor):
    first, second = (np.asarray(who) for who in subjects)
    people = int(max(first.max(), second.max())) + 1
    # Impostor pairs between the same two people count alike: they are summed up once.
    meetings, pairs = np.unique(first[impostor] * people + second[impostor], return_counts=True)
    one, other = meetings // people, meetings % people

    def draw(dice, *_):
        times = dice.multinomial(people, np.full(people, 1 / people))
        return times[first[same]], times[first[high]] * times[second[high]], (pairs * times[one] * times[other]).sum()

    return draw
