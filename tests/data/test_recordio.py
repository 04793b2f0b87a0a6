"""RecordIO: read what the real MXNet wrote, write the same bytes, survive damage."""

import json
import pickle
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranks import SERVER
from torch.utils.data import DataLoader

from arcface_edu.data import recordio
from arcface_edu.data.recordio import (
    MAGIC_BYTES,
    RecordReader,
    RecordWriter,
    pack_image,
    unpack_image,
    write_face_records,
)
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import write_atomically

MXNET = Path(__file__).parents[1] / "fixtures" / "mxnet"
PAYLOADS = [bytes.fromhex(text) for text in json.loads((MXNET / "payloads.json").read_text())]
# Bytes in which the magic word turns up at every alignment, whole and in pieces
payloads = st.lists(st.one_of(st.just(MAGIC_BYTES), st.just(MAGIC_BYTES[:2]), st.binary(max_size=9))).map(b"".join)


def write(folder, records):
    with RecordWriter(folder / "train.rec") as writer:
        for key, payload in records:
            writer.write(key, payload)
    return folder / "train.rec"


def same_bytes(folder, fixture):
    pairs = [(folder / f"train{end}", fixture.with_suffix(end)) for end in (".rec", ".idx")]
    return all(ours.read_bytes() == theirs.read_bytes() for ours, theirs in pairs)


def test_reads_what_mxnet_wrote():
    reader = RecordReader(MXNET / "payloads.rec")
    assert [reader[key] for key in reader.keys.tolist()] == PAYLOADS
    assert any(payload.count(MAGIC_BYTES) > 1 for payload in PAYLOADS)


def test_writes_the_bytes_that_mxnet_writes(tmp_path):
    write(tmp_path, enumerate(PAYLOADS))
    assert same_bytes(tmp_path, MXNET / "payloads")


def test_labels_as_mxnet_packs_them(tmp_path):
    reader = RecordReader(MXNET / "labels.rec")
    label, image = unpack_image(reader[7])
    assert (label, image) == (3.0, b"one")
    labels, image = unpack_image(reader[9])
    assert labels.dtype == np.float32
    assert (labels.tolist(), image) == ([1.0, -2.5, 4.0], b"three")
    write(tmp_path, [(7, pack_image(3, b"one", 7)), (9, pack_image([1, -2.5, 4], b"three", 9))])
    assert same_bytes(tmp_path, MXNET / "labels")


def test_a_face_set_is_written_as_mxnet_writes_it(tmp_path):
    reader = RecordReader(MXNET / "faces" / "train.rec")
    people = [[], [], []]
    for key in range(1, 7):
        label, image = unpack_image(reader[key])
        people[int(label)].append(image)
    assert [len(photos) for photos in people] == [2, 1, 3]
    assert write_face_records(tmp_path, iter(people)) == (3, 6)
    assert same_bytes(tmp_path, MXNET / "faces" / "train")
    assert (tmp_path / "property").read_text() == (MXNET / "faces" / "property").read_text()


@given(st.dictionaries(st.integers(0, 2**40), payloads))
def test_what_goes_in_comes_out(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("records")
    reader = RecordReader(write(folder, records.items()))
    assert {int(key): reader[key] for key in reader.keys} == records
    assert reader.keys.tolist() == sorted(records)
    for key, payload in records.items():
        assert payload.startswith(reader.head(key, 5))
    (folder / "train.idx").unlink()
    if len(records) > 1 or not records:  # the id in a single record of random bytes may happen to be 0 or 1
        rebuilt = RecordReader(folder / "train.rec")
        assert [rebuilt[key] for key in range(len(records))] == list(records.values())


def test_no_aligned_word_is_left_in_the_file(tmp_path):
    """What the splitting is for: whoever looks for the word at multiples of 4 finds the starts of parts only."""
    path = write(tmp_path, enumerate(PAYLOADS))
    words = np.frombuffer(path.read_bytes(), "<u4")
    starts = np.flatnonzero(words == recordio.MAGIC)
    lengths = words[starts + 1] & recordio.MAX_LENGTH
    np.testing.assert_array_equal(np.append(starts, len(words))[1:], starts + 2 + (lengths + 3) // 4)


def test_a_missing_index_is_rebuilt_with_the_keys_of_the_images(tmp_path, caplog):
    """In the file of a face set the header, record 0, comes after the images."""
    shutil.copy(MXNET / "faces" / "train.rec", tmp_path)
    reader, whole = RecordReader(tmp_path / "train.rec"), RecordReader(MXNET / "faces" / "train.rec")
    assert reader.keys.tolist() == whole.keys.tolist() == list(range(10))
    assert all(reader[key] == whole[key] for key in range(10))
    assert f"{tmp_path / 'train.idx'} is missing" in caplog.text


def test_keys_that_are_not_there():
    reader = RecordReader(MXNET / "labels.rec")
    for key in (-1, 0, 8, 10):
        with pytest.raises(KeyError):
            reader[key]


def read_in_another_process(reader, key, answers):
    answers.put(reader[key])


def test_a_reader_travels_to_other_processes(tmp_path):
    path = write(tmp_path, enumerate(PAYLOADS))
    reader = RecordReader(path)
    assert reader[6] == PAYLOADS[6]  # its map is open now and must stay behind
    assert pickle.loads(pickle.dumps(reader))[6] == PAYLOADS[6]
    answers = SERVER.Queue()
    process = SERVER.Process(target=read_in_another_process, args=(reader, 6, answers))
    process.start()
    assert answers.get(timeout=60) == PAYLOADS[6]
    process.join()


def test_dataloader_workers(tmp_path):
    reader = RecordReader(write(tmp_path, ((key, b"%d" % key * key) for key in range(200))))
    loader = DataLoader(reader, sampler=list(range(200)), batch_size=16, num_workers=2, collate_fn=list)
    assert [payload for batch in loader for payload in batch] == [b"%d" % key * key for key in range(200)]


@pytest.mark.parametrize("cut", [3, 9, 70, 100])
def test_a_truncated_file_names_file_key_and_offset(tmp_path, cut):
    path = write(tmp_path, [(4, b"x" * 40), (5, b"y" * 60)])
    path.write_bytes(path.read_bytes()[:-cut])
    reader = RecordReader(path)
    if cut < 60:
        assert reader[4] == b"x" * 40
    key, offset = (5, 48) if cut < 100 else (4, 0)
    with pytest.raises(CorruptRecord, match=rf"train\.rec, record {key} at byte {offset}: the file ends"):
        reader[key]
    (tmp_path / "train.idx").unlink()
    with pytest.raises(CorruptRecord, match="the file ends"):
        RecordReader(path)


def test_damage_inside_the_file(tmp_path):
    path = write(tmp_path, [(0, b"abcd" + MAGIC_BYTES + b"efgh"), (1, b"whole")])
    healthy = path.read_bytes()
    path.write_bytes(b"?" + healthy[1:])
    with pytest.raises(CorruptRecord, match="record 0 at byte 0: no record begins here"):
        RecordReader(path)[0]
    assert RecordReader(path)[1] == b"whole"
    path.write_bytes(healthy[:12] + healthy[24:])  # the second part of record 0 is lost
    with pytest.raises(CorruptRecord, match="record 0 at byte 0: its last part is missing"):
        RecordReader(path)[0]


def test_a_middle_part_is_no_beginning(tmp_path):
    path = write(tmp_path, [(0, b"abcd" + MAGIC_BYTES + b"efgh")])
    (tmp_path / "train.idx").write_text("0\t12\n")
    with pytest.raises(CorruptRecord, match="no record begins here"):
        RecordReader(path)[0]


@pytest.mark.parametrize("text", ["0\tx\n", "0\n", "0\t0\t0\n", "0\t-8\n", "\0\1\2", "0\t0\n1\n"])
def test_an_index_that_is_none(tmp_path, text):
    path = write(tmp_path, [(0, b"a")])
    (tmp_path / "train.idx").write_text(text)
    with pytest.raises(DataError, match=r"train\.idx is not an index .* delete it"):
        RecordReader(path)


def test_an_empty_file(tmp_path):
    path = write(tmp_path, [])
    assert len(RecordReader(path)) == 0
    (tmp_path / "train.idx").unlink()
    assert len(RecordReader(path)) == 0


def test_no_file():
    with pytest.raises(DataError, match=r"no/such\.rec does not exist"):
        RecordReader("no/such.rec")


def test_records_too_short_for_an_image():
    with pytest.raises(CorruptRecord, match="here: 5 bytes are too few"):
        unpack_image(b"12345", "here")
    with pytest.raises(CorruptRecord, match="here: its header announces 3 labels"):
        unpack_image(pack_image([1, 2, 3], b"", 0)[:-1], "here")


def test_a_writer_that_breaks_off_leaves_the_old_files(tmp_path):
    path = write(tmp_path, [(0, b"old")])

    def broken():
        yield 0, b"new"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write(tmp_path, broken())
    assert RecordReader(path)[0] == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["train.idx", "train.rec"]


def test_too_long_a_payload(tmp_path, monkeypatch):
    monkeypatch.setattr(recordio, "MAX_LENGTH", 8)
    with pytest.raises(DataError, match="record 3: 9 bytes are too many"):
        write(tmp_path, [(3, b"123456789")])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def full_disk():
    """No file may grow beyond 64 KiB: the system's answer to a write is then an error, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, full_disk):
    noise = random.Random(0).randbytes(5000)
    with pytest.raises(DataError, match=r"train\.rec cannot be written \(.*\): free some space"):
        write_face_records(tmp_path, ([noise] * 4 for _ in range(5)))
    with pytest.raises(DataError, match=r"x\.bin cannot be written"), write_atomically(tmp_path / "x.bin") as file:
        file.write(bytes(100_000))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file", [])


def test_an_identity_without_photo_is_refused(tmp_path):
    with pytest.raises(DataError, match="identity 1 has no photograph"):
        write_face_records(tmp_path, [[b"a"], [], [b"b"]])
    assert not list(tmp_path.iterdir())
