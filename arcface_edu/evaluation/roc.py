"""How many of the right pairs get in (TAR) when so many of the wrong ones do (FAR).

A pair is accepted when its score reaches a threshold. TAR, the true accept rate (TPR, recall), is the share of
same-identity pairs that are accepted; FAR, the false accept rate (FPR), the share of different-identity pairs.
"""

import numpy as np

from arcface_edu.errors import DataError

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def roc(scores, is_same):
    """The exact ROC curve, by one sort; pairs of equal score come in together.

    scores: (P,), higher = more alike.   is_same: (P,) bools.
    returns: fpr, tpr, thresholds, each (T,): T - 1 distinct scores from high to low, a pair being accepted at
    score >= threshold; before them the point (0, 0) at threshold +inf.   raises: DataError.
    """
    scores, is_same = _scores_and_truth(scores, is_same)
    order = np.argsort(scores, kind="stable")[::-1]
    scores, is_same = scores[order], is_same[order]
    last_of_tie = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    accepted = last_of_tie + 1
    accepted_same = np.cumsum(is_same)[last_of_tie]
    tpr = accepted_same / is_same.sum()
    fpr = (accepted - accepted_same) / (~is_same).sum()
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, scores[last_of_tie])


def tar_at_far(scores, is_same, fars=IJB_FARS):
    """TAR at the FAR nearest to each wanted one, as IJB results are reported.

    scores: (P,), higher = more alike.   is_same: (P,) bools.   returns: dict far -> TAR in [0, 1].
    raises: DataError.

    n impostor pairs know only the FARs 0, 1/n ... 1; of two that are equally near the larger counts, and among the
    points of one FAR the last, with the highest TAR. All corners of the curve take part; the IJB scripts look at a
    thinned curve, which can move a result by one same-identity pair or so. Only two sorts: 15 million pairs are fine.
    """
    scores, is_same = _scores_and_truth(scores, is_same)
    same, impostors = np.sort(scores[is_same]), np.sort(scores[~is_same])[::-1]
    # So many impostors can be let in: tied ones only together.
    reachable = np.concatenate([[0], np.flatnonzero(impostors[1:] != impostors[:-1]) + 1, [len(impostors)]])
    fprs = reachable / len(impostors)

    def tar(far):
        above = min(np.searchsorted(fprs, far), len(fprs) - 1)
        below = max(above - 1, 0)
        nearest = min((above, below), key=lambda i: abs(fprs[i] - far))
        if reachable[nearest] == len(impostors):
            return 1.0
        # Every same-identity pair that scores above the best impostor still outside is in.
        outside = impostors[reachable[nearest]]
        return float((len(same) - np.searchsorted(same, outside, side="right")) / len(same))

    return {far: tar(far) for far in fars}


def _scores_and_truth(scores, is_same):
    scores, is_same = np.asarray(scores), np.asarray(is_same, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_same.shape:
        raise DataError(f"scores of shape {scores.shape} and is_same of shape {is_same.shape}; both must be (P,)")
    check_both_kinds(is_same)
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise DataError(f"the score of pair {wrong[0]} is not a number ({len(wrong)} of {len(scores)} are not)")
    return scores, is_same


def check_both_kinds(is_same):
    """Raise DataError unless `is_same` (P,) holds pairs of one person and pairs of two."""
    if is_same.all() or not is_same.any():
        kind = "the same person" if len(is_same) and is_same.all() else "different people"
        held = f"all {len(is_same)} pairs are of {kind}" if len(is_same) else "there are no pairs"
        raise DataError(f"{held}: verification needs pairs of the same person and pairs of different people")
