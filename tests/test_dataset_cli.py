"""`python -m arcface_edu.dataset`: photos to training data and pairs, and a sentence where that cannot be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import run_module, run_ranks

from arcface_edu import dataset
from arcface_edu.data.alignment import landmarks
from arcface_edu.data.alignment.align import TEMPLATE
from arcface_edu.data.alignment.landmarks import write_landmarks
from arcface_edu.data.bins import read_pairs, write_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.folder import FolderFaces, face_jpeg, held_out_pairs
from arcface_edu.data.images import decode, encode_jpeg, encode_png
from arcface_edu.errors import DataError


def face(colour, height=112, width=112):
    return torch.full((3, height, width), colour, dtype=torch.uint8)


@pytest.fixture
def photos(tmp_path):
    """Eight people of five photos: JPEGs of 112x112, but PNGs of 90x60 for s3."""
    folder = tmp_path / "photos"
    for person in range(1, 9):
        (folder / f"s{person}").mkdir(parents=True)
        for photo in range(5):
            colour = 20 * person + photo
            content = encode_png(face(colour, 90, 60)) if person == 3 else encode_jpeg(face(colour))
            (folder / f"s{person}" / (f"{photo}.png" if person == 3 else f"{photo}.jpg")).write_bytes(content)
    return folder


def fails(capsys, *arguments):
    """The one sentence on stderr of a command that leaves with status 2."""
    with pytest.raises(SystemExit) as left:
        dataset.main([str(argument) for argument in arguments])
    assert left.value.code == 2
    said = capsys.readouterr().err.split("\r")[-1]  # after the bar that shows progress, which clears its line
    assert said.startswith("arcface_edu: ")
    assert "Traceback" not in said
    return said


def run(capsys, *arguments):
    dataset.main([str(argument) for argument in arguments])
    return capsys.readouterr()


def test_pack(photos, tmp_path, capsys):
    said = run(capsys, "pack", photos, tmp_path / "packed", "--hold-out", 3)
    assert "25 images of 5 identities; 3 people held out" in said.out
    packed, folder = open_faces(tmp_path / "packed"), FolderFaces(photos, hold_out=3)
    assert packed.names == folder.names == ["s1", "s2", "s3", "s4", "s5"]
    assert packed.labels.tolist() == folder.labels.tolist()
    for i in range(25):
        if packed.labels[i] == 2:
            assert (packed[i][0].int() - folder[i][0].int()).abs().max() <= 25  # a JPEG of the edge to the black border
            assert decode(packed.encoded(i)[0]).shape == (3, 112, 112)
        else:
            assert packed.encoded(i)[0] == folder.encoded(i)[0]  # byte for byte


def test_pack_leaves_out_what_is_broken_and_says_so(photos, tmp_path, capsys):
    (photos / "s1" / "0.jpg").write_bytes(b"broken")
    for photo in (photos / "s2").iterdir():
        photo.write_bytes(b"broken")
    said = run(capsys, "pack", photos, tmp_path / "packed")
    assert "34 images of 7 identities" in said.out
    assert "s1/0.jpg: not an image that can be read" in said.out
    assert "s2: none of the photos can be read, so this identity is left out" in said.out
    assert open_faces(tmp_path / "packed").names == ["s1", "s3", "s4", "s5", "s6", "s7", "s8"]


def test_pairs_are_those_of_the_trainer(photos, tmp_path, capsys):
    said = run(capsys, "pairs", photos, tmp_path / "x.bin", "--hold-out", 4, "--pairs", 60, "--seed", 7)
    assert "60 pairs, 30 of one person and 30 of two" in said.out
    images, is_same = read_pairs(tmp_path / "x.bin")
    expected, expected_same = held_out_pairs(photos, 4, 60, seed=7)
    assert images == expected
    np.testing.assert_array_equal(is_same, expected_same)
    assert {round(decode(image).numpy().mean()) // 20 for image in images} == {5, 6, 7, 8}
    run(capsys, "pairs", photos, tmp_path / "all.bin")
    assert len(read_pairs(tmp_path / "all.bin")[1]) == 160


def test_pairs_of_a_list(photos, tmp_path, capsys):
    """LFW's own names, or bare numbers; small ones are fitted, and the order is the list's."""
    for person in ("s1", "s2"):
        for number in (0, 1):
            (photos / person / f"{number}.jpg").rename(photos / person / f"{person}_{number + 1:04d}.jpg")
    table = tmp_path / "pairs.txt"
    table.write_text("1\t2\ns1\t1\t2\ns4\t1\t2\ns1\t2\ts2\t1\ns2\t2\ts5\t3\n")
    said = run(capsys, "pairs", photos, tmp_path / "x.bin", "--list", table)
    assert "4 pairs, 2 of one person and 2 of two" in said.out
    images, is_same = read_pairs(tmp_path / "x.bin")
    assert is_same.tolist() == [True, True, False, False]
    named = ["s1/s1_0001", "s1/s1_0002", "s4/1", "s4/2", "s1/s1_0002", "s2/s2_0001", "s2/s2_0002", "s5/3"]
    for image, name in zip(images, named, strict=True):
        np.testing.assert_array_equal(decode(image), decode(face_jpeg(photos / f"{name}.jpg")[0]))
    assert "--list names the pairs itself" in fails(
        capsys, "pairs", photos, tmp_path / "y.bin", "--list", table, "--hold-out", 2
    )
    table.write_text("s1\t1\t9\ns1\t8\tnobody\t2\n")
    said = fails(capsys, "pairs", photos, tmp_path / "y.bin", "--list", table)
    assert "lacks 3 photographs that" in said and "as s1/s1_0009 or s1/9 (.jpg or any other)" in said
    assert not (tmp_path / "y.bin").exists()


def test_inspect_a_folder(photos, tmp_path, capsys):
    (photos / "s1" / "0.jpg").write_bytes(b"broken")
    (photos / "notes.txt").write_text("")
    with pytest.raises(SystemExit) as left:  # for scripts
        dataset.main(["inspect", str(photos), "--sheet", str(tmp_path / "sheet.png")])
    assert left.value.code == 1
    said = capsys.readouterr()
    assert "1 file is not used: 1 not images, by their names (notes.txt)" in said.out
    assert "40 images of 8 identities" in said.out
    assert "4 least, 5 median, 5 most" in said.out
    assert "112x112 (34), 60x90 (5)" in said.out
    assert "broken:              1" in said.out
    assert "s1/0.jpg: not an image" in said.out
    for photo in photos.rglob("*.*g"):
        photo.write_bytes(b"broken")
    with pytest.raises(SystemExit) as left:
        dataset.main(["inspect", str(photos), "--sheet", str(tmp_path / "none.png")])
    assert left.value.code == 1 and not (tmp_path / "none.png").exists()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 5 * 112
        assert sheet.height > 8 * 112


def test_inspect_a_packed_set_and_pairs(photos, tmp_path, capsys):
    run(capsys, "pack", photos, tmp_path / "packed")
    assert "40 images of 8 identities" in run(capsys, "inspect", tmp_path / "packed", "--sheet", tmp_path / "1.png").out
    named = run(capsys, "inspect", tmp_path / "packed" / "train.rec", "--sheet", tmp_path / "1.png").out
    assert "40 images of 8 identities" in named
    images = [encode_jpeg(face(colour)) for colour in (10, 20, 30)]
    write_pairs(tmp_path / "x.bin", [*images, b"broken"], [True, False])
    with pytest.raises(SystemExit) as left:
        dataset.main(["inspect", str(tmp_path / "x.bin"), "--sheet", str(tmp_path / "2.png")])
    assert left.value.code == 1
    said = capsys.readouterr()
    assert "2 pairs, 1 of one person and 1 of two" in said.out
    assert "x.bin, image 3: not an image" in said.out
    for sheet in ("1.png", "2.png"):
        assert (tmp_path / sheet).read_bytes().startswith(b"\x89PNG")


def points_of(photos, path, points=TEMPLATE):
    """A table with the same points for every photograph."""
    write_landmarks(path, {str(photo.relative_to(photos)): points for photo in sorted(photos.rglob("*.*g"))})
    return path


def test_align_makes_what_pack_takes(photos, tmp_path, capsys):
    (photos / "s1" / "0.jpg").write_bytes(b"broken")
    table = points_of(photos, tmp_path / "points.csv")
    (photos / "s8" / "new.png").write_bytes(encode_png(face(7)))
    said = run(capsys, "align", photos, table, tmp_path / "faces")
    assert "39 faces of 112x112" in said.out and "points.csv: 1 photographs, as s8/new.png" in said.out
    assert "s1/0.jpg: not an image" in said.out
    assert "39 images of 8 identities" in run(capsys, "pack", tmp_path / "faces", tmp_path / "packed").out
    assert open_faces(tmp_path / "packed").names == [f"s{person}" for person in range(1, 9)]


def test_detect_writes_the_table_of_align(photos, tmp_path, capsys, monkeypatch):
    found = torch.from_numpy(np.stack([TEMPLATE, TEMPLATE + 1]))
    monkeypatch.setattr(landmarks, "Mtcnn", lambda: lambda image: (None, found if image.max() > 30 else found[:0]))
    said = run(capsys, "detect", photos, tmp_path / "points.csv")
    assert "points in 35 of 40 photographs" in said.out and "35 of them show several faces" in said.out
    assert "s1/0.jpg: no face of 20 pixels" in said.out
    assert "35 faces" in run(capsys, "align", photos, tmp_path / "points.csv", tmp_path / "faces").out
    assert "points.csv is there already" in fails(capsys, "detect", photos, tmp_path / "points.csv")
    monkeypatch.setattr(landmarks, "Mtcnn", lambda: lambda image: (None, found[:0]))
    assert "no face was found in the 40 photographs" in fails(capsys, "detect", photos, tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_sentences_of_detect_and_align(photos, tmp_path, capsys, monkeypatch):
    table = points_of(photos, tmp_path / "points.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    for arguments, sentence in {
        ("align", tmp_path / "missing", table, tmp_path / "o"): "missing is not a folder with photographs in it",
        ("align", tmp_path / "empty", table, tmp_path / "o"): "empty is not a folder with photographs in it",
        ("detect", tmp_path / "empty", tmp_path / "o.csv"): "empty is not a folder with photographs in it",
        ("align", photos, tmp_path / "no.csv", tmp_path / "o"): "no.csv cannot be read as a table",
        ("align", photos, table, tmp_path / "full"): "full is there already",
        ("align", photos, table, photos / "s1"): "they would be mixed up",
        ("align", photos, table, photos): "they would be mixed up",
        ("align", photos / "s1", table, tmp_path / "o"): "names no photograph of",
        ("align", photos, table, table): "cannot be written",
    }.items():
        assert sentence in fails(capsys, *arguments)
    assert not (tmp_path / "o").exists()


def test_draw_hands_its_options_over(tmp_path, monkeypatch, capsys):
    seen = SimpleNamespace()
    monkeypatch.setattr(dataset, "draw_faces", lambda *args, **kwargs: seen.__dict__.update(args=args, **kwargs))
    run(
        capsys,
        "draw",
        tmp_path / "d",
        "--identities",
        3,
        "--photos",
        2,
        "--seed",
        5,
        "--pairs",
        40,
        "--difficulty",
        0.5,
    )
    assert seen.args == (tmp_path / "d", 3, 2)
    assert (seen.seed, seen.pairs, seen.difficulty, seen.mix) == (5, 40, 0.5, None)
    run(capsys, "draw", tmp_path / "d", "--mix", "skin=0.9,0.1")
    assert seen.mix == ("skin", (0.9, 0.1))
    assert "shoes is no attribute" in fails(capsys, "draw", tmp_path / "d", "--mix", "shoes=1,0")


def test_nothing_is_overwritten_unasked(photos, tmp_path, capsys):
    for command, out, file in (("pack", "packed", "packed/train.rec"), ("pairs", "x.bin", "x.bin")):
        run(capsys, command, photos, tmp_path / out)
        before = (tmp_path / file).read_bytes()
        assert f"{file} is there already" in fails(capsys, command, photos, tmp_path / out, "--hold-out", 4)
        assert (tmp_path / file).read_bytes() == before
        run(capsys, command, photos, tmp_path / out, "--hold-out", 4, "--overwrite")
        assert (tmp_path / file).read_bytes() != before
    assert "train.rec is there already" in fails(capsys, "draw", tmp_path / "packed")
    assert open_faces(tmp_path / "packed").names == ["s1", "s2", "s3", "s4"]


def test_sentences(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "evil.bin").write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    for arguments, sentence in {
        ("inspect", tmp_path / "missing"): "missing is not a folder",
        ("inspect", tmp_path): "holds photos only deeper than a folder for each person, as photos/s1/0.jpg: name the",
        ("inspect", tmp_path / "evil.bin"): "evil.bin asks for os.system, which no file of pairs needs",
        ("pack", tmp_path / "missing", tmp_path / "o"): "missing is not a folder",
        ("pack", photos, tmp_path / "o", "--hold-out", 8): "holds 8 people: 8 of them cannot be held out",
        ("pack", photos, tmp_path / "o", "--hold-out", 7): "holds one identity beside the 7 held out",
        ("pack", photos, tmp_path / "file"): "cannot be written",
        ("pairs", photos, tmp_path / "o", "--hold-out", 1): "do not make ten pairs of one person and ten of two",
        ("pairs", photos, tmp_path / "file" / "x.bin"): "cannot be written",
    }.items():
        assert sentence in fails(capsys, *arguments)
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").iterdir())
    with pytest.raises(DataError):  # the words come from errors that callers can catch
        open_faces(tmp_path)


def test_as_a_program(capsys):
    (program,) = run_ranks(1, run_module, "arcface_edu.dataset", ["inspect", "no"])
    assert (program.status, program.said) == (2, "")
    assert program.errors == "arcface_edu: no is not a folder: name one that holds a folder of photos per person.\n"
    for arguments in (["--help"], ["draw", "--help"], ["pack", "--help"], ["pairs", "--help"], ["inspect", "--help"],
                      ["detect", "--help"], ["align", "--help"]):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            dataset.main(arguments)
        assert left.value.code == 0
        assert "usage: python -m arcface_edu.dataset" in capsys.readouterr().out
