"""A table of points and photographs, to aligned faces: each in its place, or named."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from arcface_edu.data.alignment import landmarks
from arcface_edu.data.alignment.align import TEMPLATE, align
from arcface_edu.data.alignment.landmarks import (
    HEADER,
    align_photographs,
    find_landmarks,
    read_landmarks,
    write_landmarks,
)
from arcface_edu.data.images import decode, encode_png
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.errors import DataError

AT = (30, 20)  # where the faces lie in the photographs


@pytest.fixture
def faces():
    """Two drawn people with two photographs each."""
    return {f"{name}/{i}.png": decode(photo) for n, name in enumerate(("anna", "ben"))
            for i, photo in enumerate(draw_person(0, n, 2))}  # fmt: skip


@pytest.fixture
def photos(faces, tmp_path):
    """The faces in larger photographs, on grey."""
    for name, face in faces.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(F.pad(face, (AT[0], 40, AT[1], 50), value=128)))
    return tmp_path / "photos"


def table(path, *lines):
    path.write_text("\n".join([",".join(HEADER), *lines]) + "\n")
    return path


def line(photo, points=TEMPLATE + AT):
    return ",".join([photo, *(f"{x}" for x in np.ravel(points))])


def test_faces_come_back_from_where_they_were_put(faces, photos, tmp_path):
    broken = []
    points = read_landmarks(table(tmp_path / "t.csv", *map(line, faces)), broken)
    assert align_photographs(photos, points, tmp_path / "out", broken) == 4 and not broken
    for name, face in faces.items():
        assert torch.equal(decode((tmp_path / "out" / name).read_bytes()), face)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["anna", "ben"]


def test_points_are_those_of_the_upright_photograph(faces, photos, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    upright = Image.open(photos / "anna" / "0.png")
    upright.rotate(90, expand=True).save(photos / "anna" / "0.png", exif=exif)
    align_photographs(photos, {"anna/0.png": TEMPLATE + AT}, tmp_path / "out", [])
    assert torch.equal(decode((tmp_path / "out/anna/0.png").read_bytes()), faces["anna/0.png"])


def test_what_is_wrong_with_a_line_is_named_with_its_number(tmp_path):
    few, words = line("b.png").rsplit(",", 1)[0], line("c.png") + "x"
    broken = []
    path = table(tmp_path / "t.csv", line("a.png"), few, words, "", line("a.png"), line('"e, e.png"'), "f.png", "NaN")
    found = read_landmarks(path, broken)
    assert list(found) == ["a.png", "e, e.png"] and found["a.png"].shape == (5, 2)
    for number, sentence in enumerate((
        r"line 3 (b.png): has 9 numbers instead of 10",
        r"line 4 (c.png): ",
        r"line 6 (a.png): line 2 names this photograph too; the first counts",
        r"line 8 (f.png): has 0 numbers",
        r"line 9 (NaN): has 0 numbers",
    )):  # fmt: skip
        assert sentence in broken[number]
    assert "are not ten finite numbers" in broken[1] and len(broken) == 5
    broken.clear()
    assert not read_landmarks(table(tmp_path / "t.csv", line("d.png", [np.inf] * 10)), broken) and len(broken) == 1


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "none.csv").write_text("")
    (tmp_path / "bare.csv").write_text(line("a.png") + "\n")
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 1000)
    table(tmp_path / "empty.csv")
    for name, sentence in {
        "missing": "cannot be read as a table",
        "none": "has no header",
        "bare": "has no header",
        "empty": "holds no line below its header",
    }.items():
        with pytest.raises(DataError, match=sentence):
            read_landmarks(tmp_path / f"{name}.csv", [])
    broken = []
    try:
        assert not read_landmarks(tmp_path / "noise.csv", broken) and broken
    except DataError as error:
        assert "as a table" in str(error) or "header" in str(error)


def test_photographs_that_cannot_be_aligned_are_named(faces, photos, tmp_path):
    (photos / "anna" / "0.png").write_bytes(b"broken")
    (tmp_path / "secret.png").write_bytes((photos / "anna" / "1.png").read_bytes())
    swapped = (TEMPLATE + AT)[[1, 0, 2, 4, 3]]
    points = {
        "anna/0.png": TEMPLATE + AT, "anna/9.png": TEMPLATE + AT, "anna": TEMPLATE, "": TEMPLATE,
        "../secret.png": TEMPLATE + AT, str(tmp_path / "secret.png"): TEMPLATE + AT,
        "anna/1.png": swapped, "ben/0.png": TEMPLATE + 5000, "ben/1.png": TEMPLATE / 112,
    }  # fmt: skip
    broken = []
    assert align_photographs(photos, points, tmp_path / "out", broken) == 0
    assert not (tmp_path / "out").exists() and len(broken) == len(points)
    for number, words in enumerate((
        "anna/0.png: not an image", "anna/9.png: cannot be read (No such file", "anna: cannot be read", "photos: ",
        "lies outside of", "lies outside of", "left and right are mixed up",
        "none of its points lies in the photograph, which has 182x182 pixels", "not shares of the width",
    )):  # fmt: skip
        assert words in broken[number], broken[number]


@pytest.mark.parametrize("degrees", [-120, -45, 30, 90, 180])
def test_a_face_on_its_side_is_not_taken_for_mixed_up(degrees):
    turn = np.radians(degrees)
    points = (TEMPLATE - 56) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 100
    landmarks.check_points(points, 200, 200, "a photograph")


def test_photographs_of_one_name_do_not_overwrite_each_other(faces, photos, tmp_path):
    Image.open(photos / "anna" / "1.png").convert("L").save(photos / "anna" / "0.bmp")
    points = dict.fromkeys(("anna/0.png", "anna/0.bmp", "ben/0.png"), TEMPLATE + AT)
    assert align_photographs(photos, points, tmp_path / "out", []) == 3
    assert sorted(path.name for path in (tmp_path / "out" / "anna").iterdir()) == ["0.png", "0_2.png"]
    assert torch.equal(decode((tmp_path / "out/anna/0.png").read_bytes()), faces["anna/0.png"])


def test_a_table_is_read_as_it_was_written(tmp_path):
    names = ("anna/1.jpg", 'ben, "the" best.png', "two\nlines.png", "caf\udce9.jpg", "浩.png")
    points = {name: TEMPLATE + number for number, name in enumerate(names)}
    write_landmarks(tmp_path / "t.csv", points)
    broken = []
    found = read_landmarks(tmp_path / "t.csv", broken)
    assert list(found) == list(names) and not broken
    for name in names:
        np.testing.assert_allclose(found[name], points[name], atol=0.005001)


def test_a_detector_fills_the_table(faces, photos, tmp_path, monkeypatch):
    seen = iter(([TEMPLATE + AT], [], [TEMPLATE, TEMPLATE + 3], [TEMPLATE + AT]))
    monkeypatch.setattr(landmarks, "Mtcnn", lambda: lambda image: (None, torch.tensor(np.array(next(seen)))))
    (photos / "anna" / "broken.png").write_bytes(b"broken")
    broken = []
    points, several = find_landmarks(photos, sorted(photos.rglob("*.png")), broken)
    assert list(points) == ["anna/0.png", "ben/0.png", "ben/1.png"] and several == 1
    np.testing.assert_allclose(points["ben/0.png"], TEMPLATE)  # the first is the largest
    assert "anna/1.png: no face of 20 pixels" in broken[0] and "broken.png: not an image" in broken[1]
    assert torch.equal(align(decode((photos / "anna/0.png").read_bytes()), points["anna/0.png"]), faces["anna/0.png"])


@pytest.mark.parametrize("photo", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", ".."])
def test_a_table_does_not_lead_out_of_its_folder(tmp_path, photo):
    line = ",".join(["1"] * 10)
    (tmp_path / "points.csv").write_text(f"{','.join(HEADER)}\n{photo},{line}\nok.jpg,{line}\n")
    broken = []
    assert list(read_landmarks(tmp_path / "points.csv", broken)) == ["ok.jpg"]
    assert "leads out of the folder" in broken[0]


def test_a_name_with_a_zero_byte_is_left_out(tmp_path):
    broken = []
    points = np.array([[38.0, 52.0], [74, 52], [56, 72], [42, 92], [71, 92]])
    assert align_photographs(tmp_path, {"a\0b.jpg": points}, tmp_path / "out", broken) == 0
    assert "cannot be read" in broken[0]
