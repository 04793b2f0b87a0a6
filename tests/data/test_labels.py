"""Labels are read without the images, by the records of any layout, and once: the file beside the set is held to it."""

import os

import numpy as np
import pytest
from data.test_datasets import jpeg

from arcface_edu.data import datasets, labels
from arcface_edu.data.datasets import SyntheticFaces, open_faces
from arcface_edu.data.labels import UNREADABLE, labels_of, read_labels
from arcface_edu.data.recordio import RecordReader, RecordWriter, pack_image
from arcface_edu.errors import DataError

PEOPLE = [0, 1, 1, 2, 4, 3] * 20


@pytest.fixture
def im2rec(tmp_path, monkeypatch):
    """A set without record 0 and property, large enough for its labels to be kept, in pieces of seven records."""
    write(tmp_path / "set", PEOPLE)
    monkeypatch.setattr(labels, "WORTH_KEEPING", 50)
    monkeypatch.setattr(labels, "CHUNK", 7)
    monkeypatch.setattr(datasets, "FEW_IMAGES", 50)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "set"


def write(folder, people):
    folder.mkdir(exist_ok=True)
    with RecordWriter(folder / "train.rec") as writer:
        for key, label in enumerate(people):
            writer.write(key, pack_image([label, 7.0] if key % 3 else label, jpeg(key % 200) + bytes(key), key))


def forbid_reading(monkeypatch):
    monkeypatch.setattr(labels, "read_labels", lambda *_: pytest.fail("the labels are read again"))


def test_labels_are_read_once(im2rec, monkeypatch):
    assert open_faces(im2rec).labels.tolist() == PEOPLE
    forbid_reading(monkeypatch)
    faces = open_faces(im2rec)
    assert (faces.labels.tolist(), faces.num_classes, faces.labels.dtype) == (PEOPLE, 5, np.int64)


def test_those_of_another_file_are_not_taken(im2rec, monkeypatch):
    open_faces(im2rec)
    write(im2rec, PEOPLE[::-1])
    assert open_faces(im2rec).labels.tolist() == PEOPLE[::-1]
    date = os.stat(im2rec / "train.rec").st_mtime_ns
    os.utime(im2rec / "train.rec", ns=(date, date + 1))
    with monkeypatch.context() as patches:
        forbid_reading(patches)
        with pytest.raises(pytest.fail.Exception):
            open_faces(im2rec)
    (im2rec / "train.idx").write_text("".join((im2rec / "train.idx").read_text().splitlines(keepends=True)[1:]))
    assert open_faces(im2rec).labels.tolist() == PEOPLE[-2::-1]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{", b"PK\x03\x04", os.urandom(500)], ids=len)
def test_a_damaged_file_is_written_anew(im2rec, content):
    (im2rec / "labels.npy").write_bytes(content)
    assert open_faces(im2rec).labels.tolist() == PEOPLE
    assert (im2rec / "labels.npy").read_bytes() != content


def test_where_the_folder_cannot_be_written_they_go_to_the_cache(im2rec, tmp_path, monkeypatch, caplog):
    (im2rec / ".labels.npy").mkdir()  # root may write anywhere, but not in the place of a folder
    open_faces(im2rec)
    assert not (im2rec / "labels.npy").exists()
    assert len(list((tmp_path / "cache" / "arcface_edu").iterdir())) == 1
    with monkeypatch.context() as patches:
        forbid_reading(patches)
        assert open_faces(im2rec).labels.tolist() == PEOPLE
    monkeypatch.setenv("XDG_CACHE_HOME", str(im2rec / "train.idx"))  # no folder
    assert open_faces(im2rec).labels.tolist() == PEOPLE
    assert "every start reads the labels again" in caplog.text


def test_small_sets_leave_no_file(tmp_path):
    write(tmp_path / "set", PEOPLE)
    assert open_faces(tmp_path / "set").labels.tolist() == PEOPLE
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["train.idx", "train.rec"]


def test_what_is_no_label_is_unreadable(tmp_path):
    write(tmp_path / "set", [3, 1, 2])
    path = tmp_path / "set" / "train.rec"
    reader = RecordReader(path)
    offsets = reader.offsets_of(reader.keys)
    wild = np.array([*offsets, offsets[1] + 4, offsets[1] + 2, path.stat().st_size - 8, 10**12])
    assert read_labels(path, wild).tolist() == [3, 1, 2] + [UNREADABLE] * 4
    assert reader.offsets_of(np.array([2, 0])).tolist() == offsets[[2, 0]].tolist()
    path.write_bytes(path.read_bytes()[:20])
    assert read_labels(path, offsets).tolist() == [UNREADABLE] * 3
    assert labels_of(reader, reader.keys).tolist() == [UNREADABLE] * 3


def test_a_wrong_label_in_a_large_set_is_named(im2rec):
    write(im2rec, [*PEOPLE[:77], 0.5, *PEOPLE[77:]])
    with pytest.raises(DataError, match=r"record 77 has label 0\.5"):
        open_faces(im2rec)


def test_made_up_faces_are_as_many_as_asked_for():
    faces = SyntheticFaces(1000, 5000)
    assert len(faces) == 5000 and faces.num_classes == len(faces.names) == 1000
    image, label = faces[4321]
    assert (tuple(image.shape), label, faces.encoded(4321)[1]) == ((3, 112, 112), faces.labels[4321], label)
    assert image.float().std() > 50
    counts = np.bincount(faces.labels, minlength=1000)
    assert counts.min() > 0 and counts.max() < 20
    assert faces[-1][1] == faces.labels[-1]
    with pytest.raises(IndexError):
        faces[5000]
