"""Checkpoints: whole or absent, pruned, data and never code."""

import io
import os
import pickle

import pytest
import torch
from torch.distributed import checkpoint as dcp

from arcface_edu.errors import CheckpointError
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint, load_latest, save_checkpoint
from arcface_edu.training.safe_reader import ADMITTED, MetadataUnpickler


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_and_pruning(tmp_path):
    for step in (5, 10, 100_000_000):
        save_checkpoint(tmp_path, step, {"step": step, "weight": torch.arange(3.0) + step}, keep=2)
    assert names(tmp_path) == ["step_00000010", "step_100000000"]
    assert load_latest(tmp_path)["step"] == 100_000_000
    torch.testing.assert_close(load_checkpoint(tmp_path / "step_00000010")["weight"], torch.arange(3.0) + 10)


def test_keep_zero_keeps_all(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {}, keep=0)
    assert len(list_checkpoints(tmp_path)) == 5


def test_no_checkpoint_is_none(tmp_path):
    assert load_latest(tmp_path / "nowhere") is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, capsys):
    save_checkpoint(tmp_path, 1, {"step": 1, "weight": torch.ones(30)})
    files = sorted(path.name for path in (tmp_path / "step_00000001").iterdir())
    assert files == [".metadata", "__0_0.distcp", "state.json"]
    for name in files:
        save_checkpoint(tmp_path, 2, {"step": 2, "weight": torch.ones(30)})
        damaged = tmp_path / "step_00000002" / name
        damaged.write_bytes(damaged.read_bytes()[:-20])
        assert load_latest(tmp_path)["step"] == 1, name
        assert "step_00000002 cannot be read" in capsys.readouterr().out


def test_all_damaged_is_an_error(tmp_path):
    (tmp_path / "step_00000001").mkdir()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        load_latest(tmp_path)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_malicious_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path, 1, {"weight": torch.ones(3)})
    list_of_tensors, tensors = (tmp_path / "step_00000001" / name for name in (".metadata", "__0_0.distcp"))
    disguised, metadata = (pickle.loads(list_of_tensors.read_bytes()) for _ in range(2))
    disguised.planner_data = Malicious()
    zipped = io.BytesIO()
    torch.save(Malicious(), zipped)
    (info,) = metadata.storage_data.values()
    info.length = len(zipped.getvalue())
    for listed, stored, reason in (
        (Malicious(), b"", "asks for .*mkdir, which no checkpoint needs"),
        (disguised, b"", "asks for .*mkdir, which no checkpoint needs"),
        (metadata, zipped.getvalue(), "Weights only load failed"),
    ):
        list_of_tensors.write_bytes(pickle.dumps(listed))
        tensors.write_bytes(stored)
        with pytest.raises(CheckpointError, match=f"step_00000001 cannot be read .*{reason}"):
            load_checkpoint(tmp_path / "step_00000001")
    assert not (tmp_path / "harm").exists()


def test_these_names_are_admitted_and_no_other():
    dcp_classes = {"Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "ChunkStorageMetadata"}
    dcp_classes |= {"TensorProperties", "_MEM_FORMAT_ENCODING"}
    paths = {f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")}
    others = {"torch.Size", "torch.serialization._get_layout", "torch.distributed.checkpoint.filesystem._StorageInfo"}
    admitted = {f"{module}.{name}" for module, names in ADMITTED.items() for name in names}
    assert admitted == paths | others | {f"torch.distributed.checkpoint.metadata.{name}" for name in dcp_classes}
    with pytest.raises(CheckpointError, match=r"asks for torch\.serialization\.load, which no checkpoint needs"):
        MetadataUnpickler(io.BytesIO(pickle.dumps(torch.load))).load()


def test_values_that_dcp_would_unpickle_are_never_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dcp.save({"run.harm": Malicious()}, checkpoint_id=tmp_path / "step_00000001", no_dist=True)
    (tmp_path / "step_00000001" / "state.json").write_text('{"dict": [["harm", {"tensor": "run.harm"}]]}')
    with pytest.raises(CheckpointError, match="BytesStorageMetadata, which no checkpoint needs"):
        load_checkpoint(tmp_path / "step_00000001")
    assert not (tmp_path / "harm").exists()


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)

    def full(_tensor, file, **_):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"step_00000002 could not be written .*No space left"):
        save_checkpoint(tmp_path, 2, {"step": 2, "weight": torch.ones(3)}, keep=1)
    assert names(tmp_path) == ["step_00000001"]
    assert load_latest(tmp_path)["step"] == 1


def test_killed_while_writing_leaves_no_checkpoint_of_that_name(tmp_path):
    """What a SIGKILL in the middle leaves behind is a .tmp folder, which nobody takes for a checkpoint."""
    save_checkpoint(tmp_path, 1, {"step": 1})
    for left in ("step_00000002.tmp", "step_00000003.tmp"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "__0_0.distcp").write_bytes(b"half of it")
    assert load_latest(tmp_path)["step"] == 1
    save_checkpoint(tmp_path, 2, {"step": 2})
    assert names(tmp_path) == ["step_00000001", "step_00000002"]


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"optimizer": {"state": {7: {"momentum": torch.randn(3, 2)}}, "groups": [{"lr": 0.1, "betas": [0.9, 1]}]}}
    state |= {"empty": {}, "none": None, "name": "r10", "steps": torch.tensor(3), "bytes": torch.arange(5).byte()}
    state["channels_last"] = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path, 1, state)
    loaded = load_latest(tmp_path)
    assert str(loaded) == str(state)
    assert torch.equal(loaded["channels_last"], state["channels_last"])
