"""Searching a gallery: by hand, and against a loop over probes and thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_edu import identify
from arcface_edu.errors import DataError


def at(degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)


def test_by_hand():
    # People 1 (two images), 2 and 3 stand at 0 and 10, 40 and 90 degrees.
    gallery, labels = at([0, 10, 40, 90]), [1, 1, 2, 3]
    probes, truth = at([12, 30, 60, 52, 200, 93]), [1, 1, 2, 3, 8, 9]
    # nearest: 1 (2 degrees away); 2 (10), 1 second; 2 (20); 2 (12), 3 second (38), 1 third; strangers: 3 (110), 3 (3)
    result = identify(3 * gallery, labels, probes, truth, fars=(0.0, 0.5, 1.0))
    assert (result["people"], result["known"], result["strangers"]) == (3, 4, 2)
    assert result["rank1"] == 0.5
    np.testing.assert_allclose(result["cmc"], [0.5, 1.0, 1.0])
    # The stranger at 93 degrees is 3 degrees from somebody: kept out, only the probe 2 degrees away is found.
    assert result["dir_at_far"] == {0.0: 0.25, 0.5: 0.5, 1.0: 0.5}
    assert result["thresholds"][0.0] == pytest.approx(np.cos(np.radians(3)))
    assert result["thresholds"][0.5] == pytest.approx(np.cos(np.radians(110)))
    assert result["thresholds"][1.0] == -1
    np.testing.assert_allclose(result["far"], [0, 0.5, 1])
    np.testing.assert_allclose(result["dir"], [0.25, 0.5, 0.5])


def slow_identify(gallery, labels, probes, truth, far):
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (gallery, probes)]
    cosines = unit[1] @ unit[0].T
    ranks, own, strangers = [], [], []
    for row, label in zip(cosines, truth, strict=True):
        score = {person: max(row[labels == person]) for person in set(labels.tolist())}
        if label not in score:
            strangers.append(max(score.values()))
            continue
        ranks.append(1 + sum(score[other] >= score[label] for other in score if other != label))
        own.append(score[label])
    let_in = int(far * len(strangers) + 1e-9)
    threshold = sorted(strangers, reverse=True)[let_in] if let_in < len(strangers) else -np.inf
    found = np.mean([rank == 1 and score > threshold for rank, score in zip(ranks, own, strict=True)])
    return ranks, found if strangers else None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25), st.sampled_from([0.0, 0.1, 0.34, 1.0]))
def test_it_equals_its_loop(seed, images, searches, far):
    rng = np.random.default_rng(seed)
    gallery, labels = rng.normal(size=(images, 3)), rng.integers(0, 6, images)
    probes, truth = rng.normal(size=(searches, 3)), rng.integers(0, 9, searches)
    truth[0] = labels[0]
    result = identify(gallery, labels, probes, truth, fars=(far,), ranks=4)
    ranks, found = slow_identify(gallery, labels, probes, truth, far)
    assert result["rank1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    np.testing.assert_allclose(result["cmc"], [np.mean(np.array(ranks) <= k) for k in range(1, len(result["cmc"]) + 1)])
    assert len(result["cmc"]) == min(4, len(set(labels.tolist())))
    assert result["dir_at_far"] == ({} if found is None else {far: pytest.approx(found)})


def test_a_draw_is_no_hit_and_chunks_do_not_matter():
    same = np.ones((2, 2))
    assert identify(same, [1, 2], same[:1], [1])["rank1"] == 0
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(30, 5)), rng.integers(0, 9, 30), rng.normal(size=(41, 5)), rng.integers(0, 12, 41)
    one, other = identify(*arrays), identify(*arrays, chunk=7)
    np.testing.assert_array_equal(one["cmc"], other["cmc"])
    np.testing.assert_array_equal(one["dir"], other["dir"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(gallery=np.array([[1.0, np.nan]])), "gallery embedding in row 0 is not finite"),
        (dict(probes=np.zeros((1, 2))), "probe embedding in row 0 has no length"),
        (dict(probes=np.ones((0, 2))), r"probe embeddings have the shape \(0, 2\)"),
        (dict(probes=np.ones((1, 3))), "have 2 numbers and probes 3"),
        (dict(probe_labels=[1, 2]), r"1 probe embeddings have labels of shape \(2,\)"),
        (dict(probe_labels=[5]), "no probe shows a person of the gallery"),
    ],
)
def test_bad_input_is_named(change, says):
    arrays = dict(gallery=np.ones((1, 2)), gallery_labels=[1], probes=np.ones((1, 2)), probe_labels=[1])
    with pytest.raises(DataError, match=says):
        identify(**{**arrays, **change})


def test_a_known_face_that_scores_no_better_than_the_stranger_kept_out_is_not_found():
    probes = at([5, 5, 1])  # of person 1, of a stranger who looks the same, and of person 1 again
    result = identify(at([0, 90]), [1, 2], probes, [1, 7, 1], fars=(0.0, 1.0))
    assert result["dir_at_far"] == {0.0: 0.5, 1.0: 1.0}
