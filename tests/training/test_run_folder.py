"""One run at a time in a folder, and room for what it will write."""

import json
import os
import signal
import socket
import time
from collections import namedtuple

import pytest
from ranks import run_ranks, start_ranks

from arcface_edu.config import load_config
from arcface_edu.errors import ConfigError
from arcface_edu.train import main
from arcface_edu.training import run_folder
from arcface_edu.training.launch import SINGLE_PROCESS, World
from arcface_edu.training.metrics import read_metrics
from arcface_edu.training.run_folder import LOCK, check_room, checkpoint_bytes, exclusive, lock
from arcface_edu.training.state import build_state

pytestmark = pytest.mark.skipif(not run_folder.fcntl, reason="this system has no locks")


def hold(folder, seconds=60):
    with lock(folder):
        (folder / "held").touch()
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Another process that has the folder."""
    monkeypatch.setattr(run_folder, "ENDING", 0.3)
    ranks = start_ranks(1, hold, tmp_path)
    for _ in range(1000):
        if (tmp_path / "held").exists():
            break
        time.sleep(0.02)
    yield ranks
    ranks.processes[0].kill()
    ranks.finish()


def test_a_folder_in_use_is_refused_with_who_has_it_since_when(tmp_path, holder):
    pid = holder.processes[0].pid
    sentence = rf"is in use: process {pid} on {socket.gethostname()} has been training there since 20\d\d-\d\d-\d\d "
    with pytest.raises(ConfigError, match=sentence):
        lock(tmp_path)
    holder.processes[0].kill()
    holder.processes[0].join()
    with lock(tmp_path):  # a file that a dead process has left is no obstacle
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_an_earlier_life_of_the_same_torchrun_may_take_longer_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "ENDING", 0.1)
    ranks = start_ranks(1, hold, tmp_path, 2, TORCHELASTIC_RUN_ID="job_7")
    while not (tmp_path / "held").exists():
        time.sleep(0.02)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job_8")
    with pytest.raises(ConfigError, match="is in use"):
        lock(tmp_path, timeout_seconds=60)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job_7")
    with lock(tmp_path, timeout_seconds=60):
        pass
    ranks.finish()


def test_rank_0_has_the_lock_and_the_others_do_not_ask_for_it(tmp_path, holder):
    with exclusive(tmp_path, World(3, 8, 3), 10):
        pass
    with pytest.raises(ConfigError), exclusive(tmp_path, SINGLE_PROCESS, 10):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_run_ends_with_a_sentence_and_the_first_goes_on(drawn, tmp_path, processes):
    words = ["own_data", f"rec={drawn}", f"output={tmp_path / 'run'}", "batch_size=16", "num_workers=0"]
    words += ["save_every=1", "frequent=1"]
    first = start_ranks(1, main, [*words, "num_epoch=10000"])  # it is there until it is asked to stop
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert first.alive(), first.finish()
        time.sleep(0.02)
    second = run_ranks(processes, main, [*words, "embedding_size=64", "loss=cosface", "num_epoch=1"])
    assert [rank.status for rank in second] == [2] * processes
    said = "".join(rank.errors for rank in second)
    assert said.count("arcface_edu:") == 1 and "is in use: process" in said and "Traceback" not in said
    lines = len(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    while len(read_metrics(tmp_path / "run" / "metrics.jsonl")) <= lines:
        assert first.alive(), first.finish()
        time.sleep(0.02)
    os.kill(first.processes[0].pid, signal.SIGTERM)
    (done,) = first.finish()
    assert done.status == 128 + signal.SIGTERM, done.errors
    assert "all is saved" in done.said
    assert not list((tmp_path / "run").glob("earlier-*"))


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.run cannot be written \(Not a directory\): choose another output="):
        lock(tmp_path / "file" / "run")


def test_room_for_the_checkpoints_is_looked_for_before_the_first_step(tmp_path, monkeypatch):
    import torch

    config = load_config("own_data", ["network=r10", "embedding_size=64", "lr=0.1"])
    state = build_state(config, 20, torch.device("cpu"), torch.float32)
    weights = sum(p.numel() for p in [*state.model.parameters(), *state.head.parameters()]) * 4
    size = checkpoint_bytes(state)
    assert 2 * weights < size < 2.1 * weights  # with momentum, and BN's statistics
    Usage = namedtuple("Usage", "total used free")
    for free, existing, fits in ((3.1, 0, True), (2.9, 0, False), (1.1, 2, True), (0.9, 2, False)):
        for number in range(existing):
            (tmp_path / "checkpoints" / f"step_{number:08d}").mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda _, free=free: Usage(1, 0, free * size))
        if fits:
            check_room(tmp_path, state, 2, SINGLE_PROCESS)
        else:
            with pytest.raises(ConfigError, match=r"GiB left, and \d more checkpoints of .* have to find room"):
                check_room(tmp_path, state, 2, SINGLE_PROCESS)
