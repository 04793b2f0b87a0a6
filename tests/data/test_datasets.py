"""`open_faces` over packed sets: sound ones, old ones, and those that contradict themselves."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from arcface_edu.data import datasets
from arcface_edu.data.datasets import RecordFaces, open_faces
from arcface_edu.data.folder import FolderFaces
from arcface_edu.data.images import encode_jpeg
from arcface_edu.data.recordio import RecordReader, RecordWriter, pack_image, write_face_records
from arcface_edu.errors import CorruptRecord, DataError

MXNET = Path(__file__).parents[1] / "fixtures" / "mxnet" / "faces"
COLOURS = [(250, 10, 10), (200, 30, 30), (10, 250, 10), (10, 10, 250), (40, 40, 200), (90, 90, 90)]


def jpeg(colour, size=112):
    return encode_jpeg(torch.full((3, size, size), colour, dtype=torch.uint8))


@pytest.fixture
def packed(tmp_path):
    """Five people of three photos."""
    write_face_records(tmp_path, [[jpeg(40 * person + photo) for photo in range(3)] for person in range(5)])
    return tmp_path


def write(folder, records):
    with RecordWriter(folder / "train.rec") as writer:
        for key, payload in records:
            writer.write(key, payload)
    return folder


def test_reads_the_set_that_mxnet_wrote():
    faces = open_faces(MXNET)
    assert (len(faces), faces.num_classes, faces.names) == (6, 3, ["0", "1", "2"])
    assert faces.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert faces.labels.dtype == np.int64
    for (image, label), expected, colour in zip((faces[i] for i in range(6)), faces.labels, COLOURS, strict=True):
        assert (image.shape, image.dtype) == ((3, 112, 112), torch.uint8)
        assert label == expected
        assert isinstance(label, int)
        np.testing.assert_allclose(image.float().mean((1, 2)), colour, atol=2)


def test_chooses_by_what_is_there(packed, tmp_path):
    for person in "ab":
        (tmp_path / "photos" / person).mkdir(parents=True)
        (tmp_path / "photos" / person / "1.jpg").write_bytes(jpeg(9))
    assert isinstance(open_faces(packed), RecordFaces)
    assert isinstance(open_faces(str(tmp_path / "photos")), FolderFaces)
    with pytest.raises(DataError, match="no/such is not a folder"):
        open_faces("no/such")
    with pytest.raises(DataError, match="pack it with --hold-out 2"):
        open_faces(packed, hold_out=2)


def test_indices(packed):
    faces = open_faces(packed)
    assert faces[-1][1] == faces[14][1] == 4
    for index in (15, -16):
        with pytest.raises(IndexError):
            faces[index]


def test_travels_to_workers(packed):
    faces = open_faces(packed)
    _ = faces[0]
    assert len(pickle.dumps(faces)) < 5000  # its map stays behind
    loader = DataLoader(pickle.loads(pickle.dumps(faces)), batch_size=4, num_workers=2)
    assert [label for _, labels in loader for label in labels.tolist()] == faces.labels.tolist()


def test_other_sizes_are_fitted(tmp_path):
    write_face_records(tmp_path, [[jpeg(200, size=160)], [jpeg(200, size=50)]])
    for image, _ in (open_faces(tmp_path)[i] for i in range(2)):
        assert image.shape == (3, 112, 112)
        assert image.float().mean() > 195


def test_without_index_or_property(tmp_path):
    shutil.copy(MXNET / "train.rec", tmp_path)
    faces = open_faces(tmp_path)
    assert (len(faces), faces.num_classes) == (6, 3)
    assert faces.labels.tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("first_key", [0, 1])
def test_without_header_record(tmp_path, first_key):
    """As im2rec packs a list of images; labels may also stand in a row of several (flag > 0)."""
    labels = [0, 1, 1, 2]
    write(tmp_path, ((first_key + i, pack_image(label, jpeg(9), i)) for i, label in enumerate(labels)))
    faces = open_faces(tmp_path)
    assert (faces.num_classes, faces.labels.tolist(), faces[3][1]) == (3, labels, 2)
    write(tmp_path, ((first_key + i, pack_image([label, 1], jpeg(9), i)) for i, label in enumerate(labels)))
    faces = open_faces(tmp_path)
    assert (faces.num_classes, faces.labels.tolist(), faces[3][1]) == (3, labels, 2)


def test_names(packed):
    (packed / "identities.txt").write_text("Zoë\nben\nc\nd\ne\n", "utf-8")
    assert open_faces(packed).names == ["Zoë", "ben", "c", "d", "e"]
    (packed / "identities.txt").write_text("too\nfew\n")
    assert open_faces(packed).names == ["0", "1", "2", "3", "4"]


def test_property_against_header(packed):
    (packed / "property").write_text("6,112,112\n")
    with pytest.raises(DataError, match=r"property says 6 identities and .*train\.rec 5"):
        open_faces(packed)
    for text in ("", "many,112,112", "-5,112,112", "0,112,112", "²,112,112", "9" * 5000):
        (packed / "property").write_text(text)
        with pytest.raises(DataError, match=rf'property reads "{text[:40]}" instead of'):
            open_faces(packed)


@pytest.mark.parametrize("label", [3, -1, 0.5, float("nan"), float("inf")])
def test_labels_out_of_range(tmp_path, label):
    write(tmp_path, ((i, pack_image(value, jpeg(9), i)) for i, value in enumerate([0, 1, label, 2])))
    (tmp_path / "property").write_text("3,112,112")
    with pytest.raises(DataError, match=r"train\.rec, record 2 has label .* labels run from 0 to 2"):
        open_faces(tmp_path)


def test_big_sets_are_spot_checked(packed, monkeypatch):
    monkeypatch.setattr(datasets, "FEW_IMAGES", 10)
    faces = open_faces(packed)
    assert faces.labels is None
    assert (len(faces), faces.num_classes, faces[14][1]) == (15, 5, 4)
    reader = RecordReader(packed / "train.rec")
    records = [(key, reader[key]) for key in reader.keys.tolist()]
    records[7] = 7, pack_image(5, jpeg(9), 7)
    write(packed, records)
    with pytest.raises(DataError, match="record 7 has label 5"):
        open_faces(packed)
    monkeypatch.setattr(datasets, "SPOT_CHECKS", 2)  # passes it by; reading it does not
    faces = open_faces(packed)
    with pytest.raises(DataError, match="record 7 has label 5") as error:
        faces[6]
    assert not isinstance(error.value, CorruptRecord)  # nothing to skip: the set itself is wrong


def test_corrupt_records_are_named_and_others_are_read(packed):
    reader = RecordReader(packed / "train.rec")
    records = dict(zip(reader.keys.tolist(), map(reader.__getitem__, reader.keys.tolist()), strict=True))
    records[2] = records[2][:200]
    records[3] = b"short"
    write(packed, records.items())
    offset = int((packed / "train.idx").read_text().split()[9])  # of record 4
    content = bytearray((packed / "train.rec").read_bytes())
    content[offset] ^= 1
    (packed / "train.rec").write_bytes(content)
    faces = open_faces(packed)
    assert faces.labels[:5].tolist() == [0, 0, -1, -1, 1]
    for index, what in ((1, "not an image"), (2, "5 bytes are too few"), (3, "no record begins here")):
        with pytest.raises(CorruptRecord, match=rf"train\.rec, record {index + 1}.*{what}"):
            faces[index]
    assert faces[4][1] == 1


def test_a_truncated_set(packed):
    """The header stands behind the images, and without it nobody knows what is one."""
    content = (packed / "train.rec").read_bytes()
    (packed / "train.rec").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"record 0 at byte .*the file ends.*; copy .* cannot be opened"):
        open_faces(packed)


def test_an_index_that_lost_lines(packed):
    lines = (packed / "train.idx").read_text().splitlines(keepends=True)
    (packed / "train.idx").write_text("".join(lines[:4] + lines[6:]))
    with pytest.raises(DataError, match=r"train\.idx lists 13 of 15 images: copy it again, or delete it"):
        open_faces(packed)
    (packed / "train.idx").unlink()
    assert len(open_faces(packed)) == 15


def test_sets_that_will_not_do(tmp_path):
    write_face_records(tmp_path, [[jpeg(9)] * 3])
    with pytest.raises(DataError, match="holds one identity: training needs at least two"):
        open_faces(tmp_path)
    write_face_records(tmp_path, [])
    with pytest.raises(DataError, match="holds no image"):
        open_faces(tmp_path)
    (tmp_path / "property").unlink()
    write(tmp_path, [])
    with pytest.raises(DataError, match="holds no image"):
        open_faces(tmp_path)


@pytest.mark.parametrize("named", [".", "mydata.rec", "mydata.idx"])
def test_a_set_by_another_name_is_opened(packed, named):
    for ending in ("rec", "idx"):
        (packed / f"train.{ending}").rename(packed / f"mydata.{ending}")
    faces = open_faces(packed / named)
    assert (len(faces), faces.num_classes) == (15, 5)
    assert faces.encoded(3)[2] == f"{packed}/mydata.rec, record 4"


def test_of_several_sets_one_has_to_be_named(packed):
    shutil.copy(packed / "train.rec", packed / "a.rec")
    assert open_faces(packed).encoded(0)[2].endswith("train.rec, record 1")  # the name that InsightFace opens
    (packed / "train.rec").rename(packed / "b.rec")
    with pytest.raises(DataError, match=r"holds a\.rec, b\.rec: name one of them, as rec=.*a\.rec"):
        open_faces(packed)
    assert len(open_faces(packed / "b.rec")) == 15
    with pytest.raises(DataError, match=r"c\.rec does not exist"):
        open_faces(packed / "c.rec")
