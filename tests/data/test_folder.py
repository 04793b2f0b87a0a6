"""A folder of photographs per person, with all that real folders hold."""

import functools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from arcface_edu.data.folder import FolderFaces, held_out_pairs, list_people, split_people
from arcface_edu.data.images import decode, encode_jpeg, encode_png
from arcface_edu.errors import CorruptRecord, DataError


def face(colour, size=112):
    return torch.full((3, size, size), colour, dtype=torch.uint8)


@functools.cache
def jpeg(colour):
    return encode_jpeg(face(colour))


@pytest.fixture
def photos(tmp_path):
    """Twelve people s1 ... s12 of three or four photos; the colour is 10 times the person plus the photo."""
    for person in range(1, 13):
        folder = tmp_path / "photos" / f"s{person}"
        folder.mkdir(parents=True)
        for photo in range(3 + person % 2):
            (folder / f"{photo}.jpg").write_bytes(jpeg(10 * person + photo))
    return tmp_path / "photos"


def people_seen(images):
    return {round(decode(image).numpy().mean()) // 10 for image in images}


def test_what_it_yields(photos):
    faces = FolderFaces(photos)
    assert (len(faces), faces.num_classes) == (42, 12)
    assert faces.names == [f"s{person}" for person in range(1, 13)]
    assert faces.labels.dtype == np.int64
    image, label = faces[0]
    assert (image.shape, image.dtype, label) == ((3, 112, 112), torch.uint8, 0)
    assert [label for _, label in (faces[i] for i in range(42))] == faces.labels.tolist()
    for i in range(42):
        assert round(faces[i][0].numpy().mean()) // 10 == faces.labels[i] + 1


def test_indices(photos):
    faces = FolderFaces(photos)
    assert faces[-1][1] == 11
    assert torch.equal(faces[-1][0], faces[41][0])
    for index in (42, -43):
        with pytest.raises(IndexError):
            faces[index]


def test_real_folders(tmp_path, caplog):
    for name, files in {
        "Zoë Ångström": ["x.JPG", ".hidden.jpg", "notes.txt", "Thumbs.db"],
        "李明": ["1.png", "10.png", "2.png"],
        "7 (left the firm)": ["notes.txt"],
        ".cache": ["1.jpg"],
        "900": ["a.bmp"],
    }.items():
        (tmp_path / name / "a folder.jpg").mkdir(parents=True) if name == "900" else (tmp_path / name).mkdir()
        for number, file in enumerate(files):
            (tmp_path / name / file).write_bytes(encode_png(face(50 + number, size=30 + number)))
    (tmp_path / "group.jpg").write_bytes(b"not a person")
    faces = FolderFaces(tmp_path)
    assert faces.names == ["900", "Zoë Ångström", "李明"]
    assert [Path(path).name for path in faces.paths] == ["a.bmp", "x.JPG", "1.png", "2.png", "10.png"]
    assert faces.labels.tolist() == [0, 1, 2, 2, 2]
    assert all(image.shape == (3, 112, 112) for image, _ in (faces[i] for i in range(5)))
    not_used, left_out = caplog.messages
    assert not_used == (
        f"{tmp_path}: 6 files are not used: 3 not images, by their names (7 (left the firm)/notes.txt, ...); 2 with a "
        f"dot before the name (.cache/1.jpg, ...); 1 beside the folders of people (group.jpg)."
    )
    assert left_out == f"{tmp_path}: left out, having no photo: 7 (left the firm)."


def test_held_out_people_are_in_no_training(photos):
    train, held = split_people(photos, 4)
    assert list(train) == [f"s{person}" for person in range(1, 9)]
    assert list(held) == ["s9", "s10", "s11", "s12"]
    assert train | held == list_people(photos)
    faces = FolderFaces(photos, hold_out=4)
    images, is_same = held_out_pairs(photos, 4)
    assert people_seen([faces.encoded(i)[0] for i in range(len(faces))]) == set(range(1, 9))
    assert people_seen(images) == {9, 10, 11, 12}
    assert len(is_same) == 20  # 18 pairs of one person exist: ten folds of one and one
    assert len(images) == 40
    for first, second, same in zip(images[::2], images[1::2], is_same, strict=True):
        assert (len(people_seen([first, second])) == 1) == same
    everybody, _ = held_out_pairs(photos, 0)
    assert people_seen(everybody) == set(range(1, 13))


def test_pairs_are_limited_and_seeded(photos):
    assert len(held_out_pairs(photos, 0)[1]) == 100  # 54 of one person exist
    assert len(held_out_pairs(photos, 0, pairs=55)[1]) == 40
    assert held_out_pairs(photos, 0, 40, seed=1)[0] == held_out_pairs(photos, 0, 40, seed=1)[0]
    assert held_out_pairs(photos, 0, 40, seed=1)[0] != held_out_pairs(photos, 0, 40, seed=2)[0]


def test_pairs_leave_out_what_is_broken(photos, caplog):
    for photo in (photos / "s12").iterdir():
        photo.write_bytes(b"broken")
    images, _ = held_out_pairs(photos, 5)
    assert people_seen(images) == {8, 9, 10, 11}
    said = caplog.text
    assert f"{photos}/s12/0.jpg: not an image" in said
    assert "s12: none of the photos can be read" in said
    with pytest.raises(DataError, match=r"2 held-out people do not make ten pairs .* hold out more people"):
        held_out_pairs(photos, 3)


@pytest.mark.parametrize("hold_out", [12, 13, -1])
def test_too_many_held_out(photos, hold_out):
    with pytest.raises(DataError, match=f"holds 12 people: {hold_out} of them cannot be held out"):
        FolderFaces(photos, hold_out)


def test_folders_that_will_not_do(photos, tmp_path):
    with pytest.raises(DataError, match=r"one identity beside the 11 held out \(s1\): training needs at least two"):
        FolderFaces(photos, hold_out=11)
    with pytest.raises(DataError, match="no/such is not a folder"):
        FolderFaces("no/such")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is not a folder"):
        FolderFaces(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no photo: give each person a folder"):
        FolderFaces(tmp_path / "empty")
    (tmp_path / "empty" / "photo.jpg").write_bytes(encode_jpeg(face(1)))
    with pytest.raises(DataError, match="empty holds no photo: give each person a folder"):
        FolderFaces(tmp_path / "empty")


def test_a_broken_photo_is_named(photos):
    faces = FolderFaces(photos)
    (photos / "s1" / "1.jpg").write_bytes(b"\xff\xd8\xff broken")
    (photos / "s1" / "2.jpg").unlink()
    for index in (1, 2):
        with pytest.raises(CorruptRecord, match=rf"s1/{index}\.jpg: .*; replace or remove it"):
            faces[index]


def test_travels_to_workers(photos):
    faces = pickle.loads(pickle.dumps(FolderFaces(photos)))
    labels = [label for _, batch in DataLoader(faces, batch_size=8, num_workers=2) for label in batch.tolist()]
    assert labels == faces.labels.tolist()
