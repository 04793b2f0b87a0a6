"""Labels that embeddings contradict: planted wrong ones are found again."""

import numpy as np
import pytest
import torch

from arcface_edu.data.label_noise import corrupt_labels
from arcface_edu.evaluation.suspects import (
    inspect_labels,
    main_sub_center,
    score_alike,
    score_suspects,
    who_is_wrong,
)

PEOPLE = np.repeat(np.arange(12), 10)


def embed(people, spread=0.6, seed=0):
    """Embeddings of a network that tells people apart, whatever their labels."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people.max() + 1, 64))
    return torch.tensor(centres[people] + spread * rng.standard_normal((len(people), 64)), dtype=torch.float32)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_flipped_labels_are_found(share):
    labels = corrupt_labels(PEOPLE, "flip", share)
    seen = inspect_labels(embed(PEOPLE), labels)
    wrong = who_is_wrong(PEOPLE, labels, seen.suspects)
    assert np.array_equal(wrong, labels != PEOPLE)
    score = score_suspects(seen.suspects, wrong)
    assert (score.precision, score.recall, score.wrong) == (1.0, 1.0, round(share * 120))
    assert np.array_equal(seen.nearest[wrong], PEOPLE[wrong])  # and whose they are
    assert seen.own[wrong].min() > seen.own[~wrong].max()  # the second hump


def test_right_labels_are_not_suspected():
    seen = inspect_labels(embed(PEOPLE), PEOPLE)
    assert not seen.suspects.any() and not seen.alike
    score = score_suspects(seen.suspects, seen.suspects)
    assert np.isnan(score.precision) and np.isnan(score.recall) and score.suspected == 0


def test_a_person_in_two_classes_is_found():
    labels = corrupt_labels(PEOPLE, "split", 0.25)
    seen = inspect_labels(embed(PEOPLE), labels)
    score = score_alike(seen.alike, PEOPLE, labels)
    assert (score.precision, score.recall, score.wrong) == (1.0, 1.0, 3)
    assert seen.alike_degrees == sorted(seen.alike_degrees)


def test_of_two_people_in_a_class_the_sub_centres_find_one():
    """Means alone lie between the two: each person's images are as near to it as the other's."""
    labels = corrupt_labels(PEOPLE, "merge", 0.5)
    embeddings = embed(PEOPLE)
    centres = torch.zeros(labels.max() + 1, 2, 64)  # sub-centres as training leaves them, one for each person
    for label in range(len(centres)):
        shown = np.unique(PEOPLE[labels == label])
        centres[label, 0] = embeddings[shown[0] == PEOPLE].mean(0)
        centres[label, 1] = embeddings[shown[-1] == PEOPLE].mean(0) if len(shown) > 1 else -centres[label, 0]
    blind = inspect_labels(embeddings, labels)
    assert score_suspects(blind.suspects, who_is_wrong(PEOPLE, labels, blind.suspects)).recall < 1
    trusted = main_sub_center(embeddings, labels, centres)
    seen = inspect_labels(embeddings, labels, trusted, limit=60)
    score = score_suspects(seen.suspects, who_is_wrong(PEOPLE, labels, seen.suspects))
    assert score == (1.0, 1.0, 30, 30)


def test_scores_by_hand():
    score = score_suspects(np.array([True, True, False, False]), np.array([True, False, True, False]))
    assert score == (0.5, 0.5, 2, 2)
    assert score_alike([(0, 1), (1, 2)], np.array([5, 5, 7]), np.array([0, 1, 2])) == (0.5, 1.0, 2, 1)
    assert who_is_wrong(np.array([1, 1, 2, 2, 2]), np.zeros(5, int), np.array([0, 0, 1, 1, 1], bool)).tolist() == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_a_limit_suspects_what_is_far_from_everybody():
    embeddings = embed(PEOPLE)
    embeddings[0] = torch.randn(64, generator=torch.Generator().manual_seed(1))
    far = inspect_labels(embeddings, PEOPLE, limit=70.0)
    assert far.suspects[0] and far.suspects.sum() == 1
