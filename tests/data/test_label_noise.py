"""Wrong labels made on purpose: as many as were asked for, of the kind that was asked for."""

import numpy as np
import pytest

from arcface_edu.data.datasets import open_faces
from arcface_edu.data.label_noise import KINDS, corrupt_labels, write_noisy, write_relabelled
from arcface_edu.errors import ConfigError, DataError

LABELS = np.repeat(np.arange(20), 10)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_so_many_photographs_are_flipped(share):
    wrong = corrupt_labels(LABELS, "flip", share, seed=3)
    assert (wrong != LABELS).sum() == round(share * len(LABELS))
    assert wrong.min() >= 0 and wrong.max() < 20


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_so_many_people_are_split_in_two_halves(share):
    wrong = corrupt_labels(LABELS, "split", share)
    assert len(np.unique(wrong)) == 20 + round(share * 20)
    of_person = [np.unique(wrong[person == LABELS], return_counts=True)[1].tolist() for person in range(20)]
    assert of_person.count([5, 5]) == round(share * 20) and of_person.count([10]) == 20 - round(share * 20)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_so_many_people_share_a_class(share):
    wrong = corrupt_labels(LABELS, "merge", share)
    people = [len(np.unique(LABELS[wrong == label])) for label in np.unique(wrong)]
    assert people.count(2) * 2 == round(share * 20) and people.count(1) == 20 - round(share * 20)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_have_no_gap_and_follow_the_seed(kind):
    wrong = corrupt_labels(LABELS, kind, 0.5, seed=1)
    assert np.array_equal(np.unique(wrong), np.arange(wrong.max() + 1))
    assert np.array_equal(wrong, corrupt_labels(LABELS, kind, 0.5, seed=1))
    assert not np.array_equal(wrong, corrupt_labels(LABELS, kind, 0.5, seed=2))


def test_what_cannot_be_meant():
    with pytest.raises(ConfigError, match=r"is 1\.5; give 0 to 1"):
        corrupt_labels(LABELS, "flip", 1.5)
    with pytest.raises(ConfigError, match="lost is no kind of wrong labels; take flip, split, merge"):
        corrupt_labels(LABELS, "lost", 0.5)
    with pytest.raises(DataError, match="all photographs are of one person"):
        corrupt_labels(np.zeros(4, int), "flip", 0.5)
    with pytest.raises(DataError, match="one photograph and cannot be split"):
        corrupt_labels(np.arange(4), "split", 1.0)


def test_images_go_along_with_their_labels(drawn, tmp_path):
    faces = open_faces(drawn)
    noisy = write_noisy(tmp_path / "noisy", faces, "flip", 0.3, seed=1)
    wrong = open_faces(noisy.folder)
    assert len(wrong) == len(faces)
    images = {faces.encoded(i)[0]: (faces.labels[i], i) for i in range(len(faces))}
    labels = corrupt_labels(faces.labels, "flip", 0.3, seed=1)
    for i in range(len(wrong)):
        person, before = images[wrong.encoded(i)[0]]
        assert noisy.people[i] == person and wrong.labels[i] == labels[before]
    again = write_noisy(tmp_path / "noisy", faces, "flip", 0.3, seed=1)
    assert np.array_equal(again.people, noisy.people)


def test_an_image_can_be_left_out(drawn, tmp_path):
    faces = open_faces(drawn)
    labels = np.where(np.arange(len(faces)) == 1, -1, faces.labels)
    rows = write_relabelled(tmp_path, faces, labels)
    assert len(open_faces(tmp_path)) == len(rows) == len(faces) - 1 and 1 not in rows
