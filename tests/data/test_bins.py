"""Files of verification pairs: every way they were ever written, and nothing else."""

import os
import pickle
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arcface_edu.data.bins import SUBSTITUTES, check_sizes, choose_pairs, count_pairs, read_pairs, write_pairs
from arcface_edu.data.images import decode, encode_png
from arcface_edu.errors import DataError

MXNET = Path(__file__).parents[1] / "fixtures" / "mxnet"
IMAGES = [bytes([i]) * 3 + bytes(range(256)) for i in range(4)]


def python2_pickle(images, is_same, protocol):
    """What `pickle.dump((images, is_same), file, protocol)` of Python 2 writes, where images are of the type str."""
    if protocol == 0:
        text = b"((lp0\n"
        for number, image in enumerate(images):
            text += b"S" + repr(image)[1:].encode() + b"\np%d\na" % (number + 1)
        return text + b"(lp98\n" + b"".join(b"I%02d\na" % same for same in is_same) + b"tp99\n."
    short = [b"U" + struct.pack("<B", len(image)) + image for image in images if len(image) < 256]
    long = [b"T" + struct.pack("<i", len(image)) + image for image in images if len(image) >= 256]
    bools = [b"\x88" if same else b"\x89" for same in is_same]
    return b"\x80\x02](" + b"".join(short + long) + b"e](" + b"".join(bools) + b"e\x86."


@pytest.mark.parametrize("protocol", [0, 2])
def test_python_2(tmp_path, protocol):
    images = [b"short\x00\xff'\"\n", b"\x80", *IMAGES[2:]]
    (tmp_path / "lfw.bin").write_bytes(python2_pickle(images, [True, False], protocol))
    read, is_same = read_pairs(tmp_path / "lfw.bin")
    assert read == images
    assert is_same.tolist() == [True, False]


@pytest.mark.parametrize("path", sorted(MXNET.glob("*.bin")), ids=lambda path: path.stem)
def test_files_written_beside_mxnet_and_numpy_1(path):
    images, is_same = read_pairs(path)
    assert is_same.dtype == bool
    assert is_same.tolist() == [True, False]
    if path.stem.startswith(("decoded", "fortran")):
        for i, image in enumerate(images):
            expected = np.arange(24 * 20 * 3).reshape(24, 20, 3).astype(np.uint8) + np.uint8(9 * i)
            np.testing.assert_array_equal(decode(image).permute(1, 2, 0), expected)
    else:
        colours = [(250, 10, 10), (200, 30, 30), (10, 10, 250), (40, 40, 200)]
        for image, colour in zip(images, colours, strict=True):
            assert abs(decode(image).float().mean((1, 2)).numpy() - colour).max() < 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("read_only", [False, True])  # protocol 5 writes these in two ways
def test_arrays_of_the_numpy_here(tmp_path, protocol, read_only):
    arrays = [np.frombuffer(image, np.uint8) if read_only else np.array(bytearray(image)) for image in IMAGES]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((arrays, list(np.array([False, True]))), protocol))
    images, is_same = read_pairs(tmp_path / "x.bin")
    assert images == IMAGES
    assert is_same.tolist() == [False, True]


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), min_size=1))
def test_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("bin") / "x.bin"
    images = [image for pair in [*pairs, (b"", b"x")] for image in pair]
    is_same = [True] * len(pairs) + [False]
    write_pairs(path, images, is_same)
    assert pickle.loads(path.read_bytes()) == (images, is_same)  # as the reference reads it
    read, same = read_pairs(path)
    assert read == images
    assert same.tolist() == is_same


KINDS = ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float32", "float64", ">i8"]
LABELS = {
    **{f"array of {kind}": lambda same, kind=kind: np.array(same, kind) for kind in KINDS},
    **{f"list of {kind}": lambda same, kind=kind: list(np.array(same, kind)) for kind in KINDS},
    "array of objects": lambda same: np.array(same, object),
    "ints": lambda same: [int(one) for one in same],
    "texts": lambda same: [str(int(one)) for one in same],
    "lines of a file": lambda same: [f"{int(one)}\n" for one in same],
    "bytes": lambda same: [b"%d" % one for one in same],
    "tuple": tuple,
}
PICTURES = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)


@given(
    st.lists(st.booleans(), min_size=2, max_size=6).filter(lambda same: any(same) and not all(same)),
    st.sampled_from(sorted(LABELS)),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
    st.sampled_from(["bytes", "one array", "arrays", "Fortran", "array of bytes"]),
)
def test_labels_and_images_of_every_form(tmp_path_factory, same, labels, protocol, form):
    path, pictures = tmp_path_factory.mktemp("bin") / "x.bin", PICTURES[: 2 * len(same)]
    encoded = [encode_png(torch.from_numpy(picture).permute(2, 0, 1)) for picture in pictures]
    images = {"bytes": encoded, "one array": pictures, "arrays": list(pictures), "Fortran": np.asfortranarray(pictures)}
    images["array of bytes"] = np.array(encoded, object)
    path.write_bytes(pickle.dumps((images[form], LABELS[labels](same)), protocol))
    read, is_same = read_pairs(path)
    assert is_same.tolist() == same and is_same.dtype == bool
    for image, picture in zip(read, pictures, strict=True):
        np.testing.assert_array_equal(decode(image).permute(1, 2, 0), picture)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ((IMAGES, ["same", "different"]), "holds 'same' where the label of a pair is meant"),
        ((IMAGES, [1, 2]), "holds 2 where the label of a pair is meant"),
        ((IMAGES, [1, -1]), "holds -1 where the label of a pair is meant"),
        ((IMAGES, [True, None]), "holds None where the label of a pair is meant"),
        ((IMAGES, np.array([0.5, 1.0])), r"holds .*0\.5.* where the label of a pair is meant"),
        ((IMAGES, np.array(["0", "1"])), "holds an array of type U1 where b1 is meant"),
        ((PICTURES[:4] / 255.0, [True, False]), "holds an array of type f8 where u1 is meant"),
        ((np.array([b"a", b"b", b"c", b"d"]), [True, False]), "holds an array of type S1 where u1 is meant"),
        ((PICTURES[:4, :, :, 0], [True, False]), r"holds an array of shape \(5, 4\) where \(H, W, 3\) is meant"),
    ],
)
def test_what_was_found_instead_is_said(tmp_path, content, sentence):
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=rf"x\.bin {sentence}"):
        read_pairs(tmp_path / "x.bin")


@pytest.mark.parametrize("text", ["10\t300\nAnna\t1\t4\n", "carl\t1\t4\nben 1 2\n", "2 1\ncarl 1 ben 2\nx 1 2\n"])
def test_a_list_of_pairs_is_not_taken_for_a_bin(tmp_path, text):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(
        DataError, match=r"pairs\.txt is a list of pairs .* pairs FOLDER pairs\.bin --list .*pairs\.txt`"
    ):
        read_pairs(tmp_path / "pairs.txt")


class Harm:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (Harm(os.system, "touch harmed"), f"{os.system.__module__}.system"),
        (Harm(exec, "open('harmed', 'w')"), "builtins.exec"),
        (Harm(getattr, "", "join"), "builtins.getattr"),
        (Harm(Path, "harmed"), "Path"),
        (np.load, "numpy.load"),
        (np.zeros(1).tolist, "builtins.getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_file_is_named_and_not_run(tmp_path, monkeypatch, harm, name, protocol):
    monkeypatch.chdir(tmp_path)
    for content in (harm, (IMAGES, [True, harm]), ([harm, *IMAGES[1:]], [True, False])):
        Path("x.bin").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match=rf"^x\.bin asks for \S*{name.split('.')[-1]}, .* do not use it"):
            read_pairs("x.bin")
    assert not Path("harmed").exists()


def test_these_names_are_admitted_and_no_other():
    of_numpy = {"multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer"}
    admitted = {f"numpy.{core}.{name}" for core in ("core", "_core") for name in of_numpy}
    admitted |= {"numpy.dtype", "numpy.ndarray", "_codecs.encode", "__builtin__.bytes", "builtins.bytes"}
    assert set(SUBSTITUTES) == admitted


@pytest.mark.parametrize("opcode", [b"i", b"c"])
def test_old_opcodes_are_refused_too(tmp_path, opcode):
    call = b"(S'touch harmed'\nios\nsystem\n." if opcode == b"i" else b"cos\nsystem\n(S'touch harmed'\ntR."
    (tmp_path / "x.bin").write_bytes(call)
    with pytest.raises(DataError, match=r"os\.system"):
        read_pairs(tmp_path / "x.bin")


def test_stand_ins_cannot_be_changed_by_a_file(tmp_path):
    """BUILD sets attributes on whatever stands below it on the stack, here on a stand-in."""
    (tmp_path / "x.bin").write_bytes(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x08__call__K\x01s\x86b.")
    with pytest.raises(DataError):
        read_pairs(tmp_path / "x.bin")
    test_arrays_of_the_numpy_here(tmp_path, 2, False)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (([*IMAGES, b"odd"], [True, False]), "5 images for 2 pairs"),
        ((IMAGES, [True, False, True]), "4 images for 3 pairs"),
        ((IMAGES, [True, True]), "only same-person pairs"),
        ((IMAGES, [False, False]), "only different-person pairs"),
        (([], []), "holds no pairs"),
        (([*IMAGES[:3], "text"], [True, False]), "holds a str where an image"),
        (([*IMAGES[:3], np.zeros(3)], [True, False]), "array of type f8"),
        (([*IMAGES[:3], np.zeros((2, 2), np.uint8)], [True, False]), r"shape \(2, 2\)"),
        (([*IMAGES[:3], np.array([b"x"], object)], [True, False]), "array of type O8"),
        (IMAGES, "not a readable file"),
        (7, "not a readable file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, sentence):
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=rf"x\.bin .*{sentence}"):
        read_pairs(tmp_path / "x.bin")


def test_broken_files(tmp_path):
    write_pairs(tmp_path / "x.bin", IMAGES, [True, False])
    whole = (tmp_path / "x.bin").read_bytes()
    for broken in (b"", b"nonsense", b"\xff" * 100, *(whole[:cut] for cut in range(0, len(whole), 97))):
        (tmp_path / "x.bin").write_bytes(broken)
        with pytest.raises(DataError, match=r"x\.bin is not a readable file of verification pairs"):
            read_pairs(tmp_path / "x.bin")
    with pytest.raises(DataError, match=r"no\.bin does not exist"):
        read_pairs("no.bin")


def test_writing_refuses_what_reading_would(tmp_path):
    with pytest.raises(DataError, match="3 images"):
        write_pairs(tmp_path / "x.bin", IMAGES[:3], [True, False])
    assert not list(tmp_path.iterdir())


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.integers(0, 2**32), st.floats(0.01, 1))
def test_chosen_pairs_keep_the_protocol(photos, seed, share):
    exist = count_pairs(photos)
    pairs = max(20, int(exist * share) // 20 * 20)
    if exist < 20:
        with pytest.raises(DataError, match=rf"and {exist} exist"):
            choose_pairs(photos, pairs, seed)
        return
    chosen, is_same = choose_pairs(photos, pairs, seed)
    assert len(chosen) == len(is_same) == pairs
    assert len({frozenset(pair) for pair in chosen}) == pairs
    for ((person, photo), (other, other_photo)), same in zip(chosen, is_same, strict=True):
        assert (person == other) == same
        assert photo < photos[person]
        assert other_photo < photos[other]
    for fold in is_same.reshape(10, -1):
        half = len(fold) // 2
        assert fold[:half].all()
        assert not fold[half:].any()
    assert choose_pairs(photos, pairs, seed)[0] == chosen


def test_chosen_pairs_are_spread_evenly():
    chosen, is_same = choose_pairs([24] * 100, 3000, seed=0)
    for kind in (True, False):
        times = Counter(
            person for pair, same in zip(chosen, is_same, strict=True) if same == kind for person, _ in pair
        )
        assert len(times) == 100
        assert max(times.values()) - min(times.values()) <= 4
    assert chosen != choose_pairs([24] * 100, 3000, seed=1)[0]


def test_all_there_are_can_be_chosen():
    """AT&T's ten held-out people with ten photos each: 450 pairs of one person, so 900 in all."""
    assert count_pairs([10] * 10) == 900
    chosen, _ = choose_pairs([10] * 10, 900, seed=0)
    assert len(set(chosen)) == 900
    with pytest.raises(DataError, match=r"920 pairs are asked for and 900 exist \(10 people\)"):
        choose_pairs([10] * 10, 920, seed=0)
    with pytest.raises(DataError, match="multiple of 20"):
        choose_pairs([10] * 10, 30, seed=0)


def test_images_that_no_protocol_takes_are_named(caplog):
    sizes = ((112, 112), (96, 96), (96, 112))
    good, small, wide = (encode_png(torch.zeros(3, *size, dtype=torch.uint8)) for size in sizes)
    check_sizes([good, good], "lfw")
    assert not caplog.messages
    check_sizes([good, small, small, good], "lfw")
    assert len(caplog.messages) == 1 and "lfw: 2 of 4 images have another size than 112x112, as 96x96" in caplog.text
    with pytest.raises(DataError, match="lfw, image 1 has 112x96 pixels"):
        check_sizes([good, wide], "lfw")
    with pytest.raises(DataError, match=r"^lfw, image 2 \(pair 1\): not an image that can be read; replace or"):
        check_sizes([good, good, b"\xff\xd8 broken", good], "lfw")
