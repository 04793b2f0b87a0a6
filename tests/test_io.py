"""Files are whole or not there; an embedding without a direction is named."""

import json

import numpy as np
import pytest
import torch

from arcface_edu.errors import CheckpointError, DataError
from arcface_edu.io import (
    check_norms,
    has_direction,
    parse_json,
    replace_when_done,
    save_torch_atomically,
    write_atomically,
    write_json_atomically,
    write_text_atomically,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    with write_atomically(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_atomically, replace_when_done])
def test_after_an_error_the_old_file_stays_and_nothing_beside_it(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write(path) as opened:
        if write is write_atomically:
            opened.write(b"half")
        else:
            opened.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_path_to_write_keeps_its_ending(tmp_path):
    with replace_when_done(tmp_path / "picture.png") as beside:
        assert beside.suffix == ".png" and beside.parent == tmp_path
        beside.write_bytes(b"")
    assert (tmp_path / "picture.png").exists()


def test_text_json_and_tensors_come_back(tmp_path):
    write_text_atomically(tmp_path / "names.txt", "Zoë\n\udcff\n")
    assert (tmp_path / "names.txt").read_bytes() == "Zoë\n".encode() + b"\xff\n"
    write_json_atomically(tmp_path / "facts.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "facts.json").read_text()) == {"a": [1, 2]}
    with pytest.raises(ValueError):
        write_json_atomically(tmp_path / "nan.json", float("nan"), allow_nan=False)
    save_torch_atomically({"weight": torch.arange(3)}, tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt")["weight"].tolist() == [0, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"names.txt", "facts.json", "model.pt"}


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"x\.bin cannot be written \(.*\): free some space"):
        write_text_atomically(tmp_path / "file" / "x.bin", "")
    with pytest.raises(CheckpointError, match=r"model\.pt could not be written"):
        save_torch_atomically({}, tmp_path / "file" / "model.pt")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, lambda norms: np.asarray(norms)[:, None]])
def test_the_first_row_without_a_direction_is_named(kind):
    assert has_direction(kind([1.0, 0.0, np.nan, np.inf])).tolist() == [True, False, False, False]
    check_norms(kind([1.0, 1e-30]), str)
    with pytest.raises(DataError, match=r"row 1 has no length \(all zeros\): look at that image"):
        check_norms(kind([1.0, 0.0, np.nan]), lambda row: f"row {row}")
    with pytest.raises(DataError, match=r"row 1 is not finite \(NaN or inf\): look at that image"):
        check_norms(kind([1.0, np.nan, 0.0]), lambda row: f"row {row}")


@pytest.mark.parametrize("text", ["[" * 100_000, b"\x80", "{", ""], ids=["deep", "bytes", "cut", "empty"])
def test_json_that_cannot_be_read_is_one_kind_of_error(text):
    with pytest.raises(ValueError):
        parse_json(text)
