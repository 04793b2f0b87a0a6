"""Evaluation by sorting and matrix products, against loops over thresholds, templates and batches of pairs.

    python benchmarks/evaluation.py             6,000 pairs both ways, and IJB-C's size both ways (about 4 GiB, minutes)
    python benchmarks/evaluation.py --pairs     the first only

The slow way goes through the steps of the published scripts: for each fold and each threshold a pass over the pairs;
for each template a search through all images and, within, for each medium; pairs in batches of 100,000, each fetching
two rows; one sort that carries the truth along, and the nearest FPR. Both ways get the same numbers, which is checked.
They alternate; medians, the ratio of each round and its range are printed. Features are drawn at random: IJB-C's
469,375 images in 23,124 templates, of which 3,531 are compared with the other 19,593, as its lists have it, D = 512.
Of the slow pooling only a part of the templates is timed, and its time scaled up: it would take many minutes a round.
"""

import argparse
import resource
import statistics
import time

import numpy as np

from arcface_edu.evaluation.ijb import pool_templates, score_pairs
from arcface_edu.evaluation.roc import IJB_FARS, roc, tar_at_far
from arcface_edu.evaluation.verification import verify_pairs

IMAGES, TEMPLATES, ENROLLED, PAIRS, DIMENSIONS = 469_375, 23_124, 3_531, 15_658_489, 512
SAME = 19_557  # pairs of one person
SHARE = 50  # one template in so many goes through the slow pooling


def slow_verify(embeddings, is_same, folds=10):
    """(accuracy, std, TAR at FAR 1e-3, std) by a pass over the pairs for each fold and threshold."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distance = np.sum((unit[0::2] - unit[1::2]) ** 2, 1)
    parts = np.array_split(np.arange(len(is_same)), folds)

    def rates(threshold, pairs):
        accepted, same = distance[pairs] < threshold, is_same[pairs]
        true, false = np.sum(accepted & same), np.sum(accepted & ~same)
        return true / same.sum(), false / (~same).sum(), (true + np.sum(~accepted & ~same)) / len(same)

    coarse, fine = np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)
    accuracy, val = [], []
    for part in parts:
        others = np.setdiff1d(np.arange(len(is_same)), part)
        best = coarse[np.argmax([rates(threshold, others)[2] for threshold in coarse])]
        accuracy.append(rates(best, part)[2])
        _ = [rates(threshold, part) for threshold in coarse]  # the ROC, which is averaged over the folds
        far = np.array([rates(threshold, others)[1] for threshold in fine])
        val.append(rates(np.interp(1e-3, far, fine) if far.max() >= 1e-3 else 0.0, part)[0])
    return np.mean(accuracy), np.std(accuracy), np.mean(val), np.std(val)


def slow_pool(features, templates, media, wanted):
    """Unit rows (len(wanted), D), template by template and medium by medium."""
    pooled = np.zeros((len(wanted), features.shape[1]))
    for row, template in enumerate(wanted):
        (images,) = np.where(templates == template)
        for medium in np.unique(media[images]):
            pooled[row] += features[images[media[images] == medium]].mean(0)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def slow_score(pooled, first, second, batch=100_000):
    scores = np.zeros(len(first))
    for start in range(0, len(first), batch):
        part = slice(start, start + batch)
        scores[part] = np.sum(pooled[first[part]] * pooled[second[part]], -1)
    return scores


def slow_tar(scores, is_same):
    """TAR at the nearest FAR, from a curve of all distinct scores; of two equally near the larger."""
    order = np.argsort(scores, kind="mergesort")[::-1]
    scores, same = scores[order], is_same[order]
    last = np.append(np.where(np.diff(scores))[0], len(scores) - 1)
    tps = np.cumsum(same)[last]
    fps = 1 + last - tps
    fpr, tpr = np.append(0, fps / fps[-1])[::-1], np.append(0, tps / tps[-1])[::-1]
    return {far: tpr[np.argmin(abs(fpr - far))] for far in IJB_FARS}


def timed(function, *arguments):
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def tell(name, slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    print(
        f"{name}: {statistics.median(slow):8.3f} s ({min(slow):.3f} to {max(slow):.3f}) by loops, "
        f"{statistics.median(fast):7.4f} s ({min(fast):.4f} to {max(fast):.4f}) here, "
        f"ratio {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})",
        flush=True,
    )


def compare_pairs(rounds=7):
    dice = np.random.default_rng(0)
    is_same = np.tile(np.repeat([True, False], 300), 10)
    first = dice.standard_normal((6000, 512))
    noise, stranger = dice.standard_normal((2, *first.shape))
    second = np.where(is_same[:, None], first + 6 * noise, stranger)
    embeddings = np.stack([first, second], 1).reshape(-1, 512).astype(np.float32)
    slow, fast = [], []
    for _ in range(rounds):
        seconds, expected = timed(slow_verify, embeddings.astype(np.float64), is_same)
        slow.append(seconds)
        seconds, result = timed(verify_pairs, embeddings, is_same)
        fast.append(seconds)
        found = [result[key] for key in ("accuracy", "accuracy_std", "val", "val_std")]
        assert np.allclose(found, expected, rtol=1e-12, atol=0), (found, expected)
    tell(f"6,000 pairs, accuracy {found[0]:.4f}, VAL {found[2]:.4f}", slow, fast)


def compare_ijb(rounds=3):
    dice = np.random.default_rng(0)
    templates = np.sort(np.append(np.arange(TEMPLATES), dice.integers(0, TEMPLATES, IMAGES - TEMPLATES)))
    media = dice.integers(0, 5, IMAGES)
    people = dice.standard_normal((ENROLLED, DIMENSIONS), dtype=np.float32)
    person = np.append(np.arange(ENROLLED), dice.integers(0, ENROLLED, TEMPLATES - ENROLLED))  # in each template
    features = dice.standard_normal((IMAGES, DIMENSIONS), dtype=np.float32)
    features *= 6
    for start in range(0, IMAGES, 50_000):
        features[start : start + 50_000] += people[person[templates[start : start + 50_000]]]
    second = dice.integers(ENROLLED, TEMPLATES, PAIRS)
    first = np.where(np.arange(PAIRS) < SAME, person[second], dice.integers(0, ENROLLED, PAIRS))
    shuffled = np.argsort(first, kind="stable")  # the lists go through the enrolled templates one after the other
    first, second = first[shuffled], second[shuffled]
    is_same = person[second] == first
    ids, some = np.arange(TEMPLATES), np.arange(0, TEMPLATES, SHARE)
    print(f"before: {peak():.2f} GiB, of which {features.nbytes / 2**30:.2f} are the features", flush=True)

    slow, fast = ([[], [], []] for _ in range(2))
    for step in range(rounds):
        seconds, (pooled, found_ids) = timed(pool_templates, features, templates, media)
        fast[0].append(seconds)
        seconds, scores = timed(score_pairs, pooled, found_ids, first, second)
        fast[1].append(seconds)
        seconds, tar = timed(tar_at_far, scores, is_same)
        fast[2].append(seconds)
        if step == 0:
            print(f"memory at its peak after the fast way: {peak():.2f} GiB", flush=True)
            print(f"the whole curve of {PAIRS:,} pairs: {timed(roc, scores, is_same)[0]:.2f} s", flush=True)
        seconds, slow_pooled = timed(slow_pool, features, templates, media, some)
        slow[0].append(seconds * TEMPLATES / len(some))
        seconds, slow_scores = timed(slow_score, pooled, first, second)
        slow[1].append(seconds)
        seconds, slow_tars = timed(slow_tar, slow_scores, is_same)
        slow[2].append(seconds)
        assert np.array_equal(found_ids, ids) and abs(pooled[some] - slow_pooled).max() < 1e-6
        assert abs(scores - slow_scores).max() < 1e-12
        assert all(tar[far] == slow_tars[far] for far in IJB_FARS), (tar, slow_tars)
    for name, by_loops, here in zip(("pooling (slow: scaled up)", "scoring", "TAR at FAR"), slow, fast, strict=True):
        tell(f"IJB-C size, {name}", by_loops, here)
    tell("IJB-C size, all three", *([sum(times) for times in zip(*way, strict=True)] for way in (slow, fast)))
    print({f"{far:g}": f"{value:.4f}" for far, value in tar.items()})


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", action="store_true", help="leave out IJB-C's size")
    only_pairs = parser.parse_args().pairs
    compare_pairs()
    if not only_pairs:
        compare_ijb()
