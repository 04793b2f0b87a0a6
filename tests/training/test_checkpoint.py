"""Checkpoints: whole or absent, pruned, data and never code."""

import os
import pickle

import pytest
import torch

from arcface_edu.errors import CheckpointError
from arcface_edu.training import checkpoint
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint, load_latest, save_checkpoint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_and_pruning(tmp_path):
    for step in (5, 10, 100_000_000):
        save_checkpoint(tmp_path, step, {"step": step, "weight": torch.arange(3.0) + step}, keep=2)
    assert names(tmp_path) == ["step_00000010.pt", "step_100000000.pt"]
    assert load_latest(tmp_path)["step"] == 100_000_000
    torch.testing.assert_close(load_checkpoint(tmp_path / "step_00000010.pt")["weight"], torch.arange(3.0) + 10)


def test_keep_zero_keeps_all(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {}, keep=0)
    assert len(list_checkpoints(tmp_path)) == 5


def test_no_checkpoint_is_none(tmp_path):
    assert load_latest(tmp_path / "nowhere") is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path):
    save_checkpoint(tmp_path, 1, {"step": 1})
    save_checkpoint(tmp_path, 2, {"step": 2})
    newest = tmp_path / "step_00000002.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    said = []
    assert load_latest(tmp_path, say=said.append)["step"] == 1
    assert "step_00000002.pt cannot be read" in said[0]


def test_all_damaged_is_an_error(tmp_path):
    (tmp_path / "step_00000001.pt").write_bytes(b"nothing of use")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        load_latest(tmp_path, say=lambda _: None)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_malicious_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Malicious()}, "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious()))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)

    def full(_state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"step_00000002\.pt could not be written .*No space left"):
        save_checkpoint(tmp_path, 2, {"step": 2}, keep=1)
    assert names(tmp_path) == ["step_00000001.pt"]
    assert load_latest(tmp_path)["step"] == 1


def test_killed_while_writing_leaves_no_checkpoint_of_that_name(tmp_path):
    """What a SIGKILL in the middle leaves behind is a .tmp file, which nobody takes for a checkpoint."""
    save_checkpoint(tmp_path, 1, {"step": 1})
    (tmp_path / "step_00000002.pt.tmp").write_bytes(b"half of it")
    assert load_latest(tmp_path)["step"] == 1
    save_checkpoint(tmp_path, 2, {"step": 2})
    assert names(tmp_path) == ["step_00000001.pt", "step_00000002.pt"]
