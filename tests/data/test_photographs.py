"""Photographs below a folder: none is lost without a word."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from arcface_edu.data import images
from arcface_edu.data.folder import FolderFaces, list_people
from arcface_edu.data.images import encode_png, missing_decoders
from arcface_edu.data.photographs import natural_order, photographs_in, scan_people
from arcface_edu.errors import DataError

FOLDERS = st.sampled_from(["", "anna", "ben", ".git", "anna/2023", "ben/a/b", "train/carl", "anna/.trash"])
FILES = st.sampled_from(
    ["1.jpg", "2.PNG", "10.webp", ".DS_Store", "._1.jpg", "notes.txt", "clip.mp4", "Makefile", "h.avif"]
)


def test_natural_order():
    names = ["s10", "s2", "S1", "a", "s2b", "s02", "10", "9", "é", ""]
    assert sorted(names, key=natural_order) == ["", "9", "10", "a", "S1", "s02", "s2", "s2b", "s10", "é"]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(FOLDERS, FILES, st.sampled_from(["file", "broken link", "link"]))))
def test_every_file_is_used_or_counted_once(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("photos")
    target = root.parent / "target.jpg"
    target.touch()
    for folder, name, kind in files:
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file" and not path.is_symlink():
            path.touch()
        elif not path.exists() and not path.is_symlink():
            path.symlink_to("nowhere" if kind == "broken link" else target)
    there = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
    people, unused = scan_people(root)
    used = [photo for photos in people.values() for photo in photos]
    assert sorted(used + [path for paths in unused.values() for path in paths]) == there
    for photo in used:
        assert Path(photo).parent.parent == root and Path(photo).is_file() and not Path(photo).name.startswith(".")
    below = {str(photo) for photo in photographs_in(root)}  # embed takes those of any depth
    assert below == {
        *used,
        *unused.get("beside the folders of people", []),
        *unused.get("deeper than a person's folder", []),
    }


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(torch.full((3, 20, 20), 90, dtype=torch.uint8)))


def test_one_sentence_with_an_example_of_each_kind(tmp_path, caplog):
    root = tmp_path / "photos"
    for name in ("anna/1.png", "ben/1.png", "anna/2023/1.png", "anna/2023/2.png", "loose.png"):
        photo(root / name)
    (root / "notes.txt").touch()
    (root / "ben" / "gone.jpg").symlink_to("nowhere")
    (root / "ben" / "again").symlink_to(root)  # which would never end
    os.mkfifo(root / "ben" / "pipe.jpg")
    FolderFaces(root)
    assert caplog.messages == [
        f"{root}: 7 files are not used: 2 deeper than a person's folder (anna/2023/1.png, ...); 1 links to a folder "
        "around them (ben/again); 1 broken links (ben/gone.jpg); 1 neither files nor folders (ben/pipe.jpg); 1 beside "
        "the folders of people (loose.png); 1 not images, by their names (notes.txt)."
    ]
    assert [str(path.relative_to(root)) for path in photographs_in(root)] == [
        "anna/1.png", "anna/2023/1.png", "anna/2023/2.png", "ben/1.png", "loose.png",
    ]  # fmt: skip


def test_linked_folders_are_people(tmp_path):
    photo(tmp_path / "elsewhere" / "1.png")
    photo(tmp_path / "photos" / "anna" / "1.png")
    (tmp_path / "photos" / "ben").symlink_to(tmp_path / "elsewhere")
    assert list(list_people(tmp_path / "photos")) == ["anna", "ben"]
    assert len(photographs_in(tmp_path / "photos")) == 2


def test_the_folders_above_the_people_are_named(tmp_path):
    for name in ("train/anna/1.png", "train/ben/1.png", "val/carl/1.png"):
        photo(tmp_path / name)
    with pytest.raises(DataError) as error:
        FolderFaces(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds photos only deeper than a folder for each person, as train/anna/1.png: name the folder that "
        f"the people's folders are in, as {tmp_path}/train or {tmp_path}/val, or move the photos up."
    )


def test_a_folder_that_cannot_be_read_is_named(tmp_path, caplog, monkeypatch):
    photo(tmp_path / "anna" / "1.png")
    (tmp_path / "ben").mkdir()
    real = os.scandir

    def scandir(place):
        if str(place).endswith("ben"):
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(photographs_in(tmp_path)) == 1
    assert "1 folders that cannot be read: Permission denied (ben)" in caplog.text


def test_without_a_decoder_phones_photographs_are_counted(tmp_path, monkeypatch, caplog):
    photo(tmp_path / "anna" / "1.png")
    for name in ("2.HEIC", "3.hif", "4.avif"):
        (tmp_path / "anna" / name).touch()
    missing_decoders()  # what is installed registers itself
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".jpg": "JPEG"})
    monkeypatch.setattr("arcface_edu.data.photographs.missing_decoders", images.missing_decoders.__wrapped__)
    assert len(photographs_in(tmp_path)) == 1
    assert caplog.messages == [
        f'{tmp_path}: 3 files are not used: 2 HEIC, which takes the package pillow-heif: pip install -e ".[heif]" '
        "(anna/2.HEIC, ...); 1 AVIF, which takes Pillow from 11.3 on (anna/4.avif)."
    ]
