"""Many processes, one run: the same weights as one process, resumed on another number, and no fault that hangs it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_train import set_label

from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint
from arcface_edu.training.metrics import read_metrics

pytestmark = pytest.mark.slow
TRAINER = Path(__file__).parent / "trainer_of_tests.py"


def command(processes, words, restarts=0):
    """A run of 24 images a step, 5 steps an epoch, however many processes share it."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
        launch += [f"--nproc_per_node={processes}", f"--max-restarts={restarts}"]
    return [*launch, str(TRAINER), "own_data", f"batch_size={24 // processes}", *words]


def start(processes, words, restarts=0, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command(processes, words, restarts), env=environment, **pipes)


def run(processes, words, restarts=0, **environment):
    """(exit status, what it printed, what it complained of)"""
    process = start(processes, words, restarts, **environment)
    try:
        said, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    return process.returncode, said, errors


def complaints(errors):
    """What the training command said, without what torchrun says about it."""
    return re.findall(r"^arcface_edu: (.*)$", errors, re.MULTILINE)


@pytest.fixture
def words(drawn, tmp_path):
    sizes = ["num_epoch=2", "lr=0.02", "num_workers=0", "frequent=2", "fp16=False", "keep_checkpoints=0"]
    return [f"rec={drawn}", f"output={tmp_path / 'run'}", *sizes]


def weights(run):
    return torch.load(run / "model.pt", weights_only=True)


def head_and_momentum(run):
    state = load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
    return state["head"]["weight"], state["optimizer"]["state"]


def assert_equal_runs(one, other):
    """The same network, centres, momentum, log and verification, but for the order in which floats were added."""
    near = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights(one), weights(other), **near)
    torch.testing.assert_close(head_and_momentum(one), head_and_momentum(other), **near)
    first, second = (read_metrics(run / "metrics.jsonl") for run in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for a, b in zip(first, second, strict=True):
        for key in {"loss", "target_angle", "lr", "epoch", "accuracy"} & a.keys():
            assert a[key] == pytest.approx(b[key], rel=1e-3)


@pytest.mark.parametrize("more", [[], ["loss=softmax"]])
def test_two_ranks_train_what_one_does(words, tmp_path, more):
    for processes in (1, 2):
        output = [f"output={tmp_path / str(processes)}"]
        status, said, errors = run(processes, [*words, *more, *output])
        assert status == 0, errors
        assert "10 steps of 24 images" in said
        assert said.count("first loss about") == 1  # one process speaks
    assert_equal_runs(tmp_path / "1", tmp_path / "2")
    assert read_metrics(tmp_path / "2" / "metrics.jsonl")[0]["loss"] > 1


def test_resumed_on_another_number_of_processes_it_ends_as_if_never_stopped(words, tmp_path):
    """1 -> 2 -> 3 -> 1: the weights, the momentum, the schedule and the order of the data all go on."""
    words = [*words, "num_epoch=4", "save_every=1"]
    assert run(1, [*words, f"output={tmp_path / 'whole'}"])[0] == 0
    for processes, stop in ((1, 3), (2, 8), (3, 13)):
        status, _, errors = run(processes, [*words, "resume=True"], FAULT=f"{processes - 1}:{stop}:term")
        assert status != 0
        assert not complaints(errors), errors
        assert load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["step"] in (stop + 1, stop + 2)
    status, said, errors = run(1, [*words, "resume=True"])
    assert status == 0, errors
    assert "from step 1" in said
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_killed_rank_is_started_again_and_the_run_finishes(words, tmp_path):
    words = [*words, "save_every=2"]
    assert run(2, [*words, f"output={tmp_path / 'whole'}"])[0] == 0
    status, said, errors = run(2, words, restarts=2, FAULT="1:7:kill")
    assert status == 0, errors
    assert "resuming" in said
    assert not (tmp_path / "run" / "earlier-1").exists()
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def assert_one_sentence(processes, words, sentence, tmp_path, **environment):
    status, _, errors = run(processes, words, STATUS_FOLDER=str(tmp_path), **environment)
    assert status != 0  # torchrun's own
    (complaint,) = complaints(errors)
    assert re.search(sentence, complaint), complaint
    assert "Traceback" not in errors.split("torch/distributed/elastic")[0], errors
    assert {(tmp_path / str(rank)).read_text() for rank in range(processes)} == {"2"}


def test_different_configs_are_named_by_rank_and_key(words, tmp_path):
    assert_one_sentence(2, words, "rank 1 has seed=7 and rank 0 has 2048", tmp_path, FAULT="1:0:diverge")


def test_too_many_processes(words, tmp_path):
    assert_one_sentence(2, [*words, "batch_size=100"], "x processes = 200 images, but there are only 120", tmp_path)


def test_a_wrong_label_that_one_rank_reads_ends_all_with_one_sentence(words, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "wrong")
    set_label(tmp_path / "wrong", 3, 12.0)
    more = [f"rec={tmp_path / 'wrong'}"]
    assert_one_sentence(2, [*words, *more], "record 3 has label 12", tmp_path)


def test_asked_to_stop_torchrun_saves_and_leaves(words, tmp_path):
    process = start(2, [*words, "num_epoch=2000", "save_every=0"])
    log = tmp_path / "run" / "metrics.jsonl"
    for _ in range(600):
        if read_metrics(log):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    step = re.search(r"stopped by SIGTERM after step ([\d,]+) of 10,000; all is saved", said)[1]
    step = int(step.replace(",", ""))
    assert load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["step"] == step
    assert not complaints(errors)
