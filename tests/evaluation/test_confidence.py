"""Bootstrap intervals against the spread they claim to know, and against slow resampling."""

import numpy as np
import pytest

from arcface_edu.evaluation.confidence import accuracy_interval, tar_intervals
from arcface_edu.evaluation.roc import tar_at_far
from arcface_edu.evaluation.verification import verify_pairs


def pairs_at(degrees):
    radians = np.radians(degrees)
    first = np.tile([1.0, 0.0], (len(radians), 1))
    return np.stack([first, np.stack([np.cos(radians), np.sin(radians)], 1)], 1).reshape(-1, 2)


def drawn(seed, pairs=600):
    """Angles of pairs, normally distributed at 50 and 80 degrees."""
    rng = np.random.default_rng(seed)
    is_same = np.tile([True, False], pairs // 2)
    return np.where(is_same, 50, 80) + 12 * rng.normal(size=pairs), is_same


def test_accuracy_interval_equals_verifying_resampled_pairs():
    degrees, is_same = drawn(0, 200)
    low, high = accuracy_interval(pairs_at(degrees), is_same, folds=5, resamples=2000)
    rng, slow = np.random.default_rng(1), []
    for _ in range(400):
        rows = np.concatenate([rng.choice(fold, len(fold)) for fold in np.array_split(np.arange(200), 5)])
        slow.append(verify_pairs(pairs_at(degrees[rows]), is_same[rows], folds=5)["accuracy"])
    np.testing.assert_allclose([low, high], np.quantile(slow, [0.025, 0.975]), atol=0.012)


def test_intervals_have_the_width_of_the_sampling_error():
    degrees, is_same = drawn(2, 6000)
    low, high = accuracy_interval(pairs_at(degrees), is_same)
    accuracy = verify_pairs(pairs_at(degrees), is_same)["accuracy"]
    assert low < accuracy < high
    expected = 2 * 1.96 * (accuracy * (1 - accuracy) / 6000) ** 0.5  # of a share
    assert high - low == pytest.approx(expected, rel=0.2)


def test_tar_intervals_hold_what_new_samples_give():
    fars = (0.1, 0.01)
    tars = [tar_at_far(-drawn(seed, 4000)[0], drawn(seed, 4000)[1], fars) for seed in range(100, 220)]
    degrees, is_same = drawn(3, 4000)
    intervals = tar_intervals(-degrees, is_same, fars)
    for far in fars:
        low, high = intervals[far]
        assert low < tar_at_far(-degrees, is_same, fars)[far] < high
        # The same width as that of 120 fresh samples.
        assert high - low == pytest.approx(np.ptp(np.quantile([t[far] for t in tars], [0.025, 0.975])), rel=0.35)


def test_drawing_people_equals_a_loop_over_pairs():
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 12, (2, 400))
    is_same = first == second
    scores = np.round(rng.normal(size=400) + 1.5 * is_same + rng.normal(size=12)[first], 6)
    fars = (0.2, 0.05)
    found = tar_intervals(scores, is_same, fars, (first, second), resamples=300, seed=5)
    rng, slow = np.random.default_rng(5), []
    for _ in range(300):
        times = rng.multinomial(12, np.full(12, 1 / 12))
        count = np.where(is_same, times[first], times[first] * times[second])
        slow.append(list(tar_at_far(np.repeat(scores, count), np.repeat(is_same, count), fars).values()))
    for far, expected in zip(fars, np.quantile(slow, [0.025, 0.975], axis=0).T, strict=True):
        np.testing.assert_allclose(found[far], expected, atol=1e-12)


def test_people_who_come_in_many_pairs_widen_the_interval():
    # 20 people, 50 same-person pairs each, all alike: drawing pairs would be sure of what 20 people cannot tell.
    rng = np.random.default_rng(6)
    who = np.repeat(np.arange(20), 50)
    first = np.concatenate([who, rng.integers(0, 20, 2000)])
    second = np.concatenate([who, (first[1000:] + rng.integers(1, 20, 2000)) % 20])
    is_same = first == second
    scores = np.where(is_same, rng.normal(size=20)[first], rng.normal(size=3000) - 1)
    by_pairs = np.ptp(tar_intervals(scores, is_same, (0.1,))[0.1])
    by_people = np.ptp(tar_intervals(scores, is_same, (0.1,), (first, second))[0.1])
    assert by_people > 2 * by_pairs


def test_the_same_seed_gives_the_same_interval():
    degrees, is_same = drawn(7, 200)
    assert accuracy_interval(pairs_at(degrees), is_same) == accuracy_interval(pairs_at(degrees), is_same)
    assert tar_intervals(-degrees, is_same, (0.1,), seed=1) == tar_intervals(-degrees, is_same, (0.1,), seed=1)
    assert tar_intervals(-degrees, is_same, (0.1,), seed=1) != tar_intervals(-degrees, is_same, (0.1,), seed=2)
