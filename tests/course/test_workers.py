"""The worker functions of the course, each as a notebook launches it: two processes under torchrun, JSON at the end."""

import json
import os
import subprocess
import sys

import pytest

MODULE = ["-m", "arcface_edu.course.workers"]


def launch(*words, processes=2):
    """The JSON that rank 0 ends with, and all that was said before it."""
    torchrun = ["-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command = [sys.executable, *torchrun, f"--nproc_per_node={processes}", *MODULE, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    *said, last = done.stdout.splitlines()
    assert said
    return json.loads(last)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_averaged_by_hand_is_what_ddp_and_one_process_have(processes):
    result = launch("all_reduce", processes=processes)
    assert result["equal"]
    assert result["differences"]["to_ddp"] < 1e-6
    assert result["differences"]["to_one_process"] < 1e-5
    assert result["differences"]["before"] > 0.1  # else nothing was shown
    assert result["numbers"] > 1e6


@pytest.mark.slow
def test_without_the_division_the_difference_is_seen():
    result = launch("all_reduce", "--operation=sum")
    assert not result["equal"]
    assert result["differences"]["to_ddp"] == pytest.approx(1, rel=1e-3)  # 2 g - g
    assert result["differences"]["to_one_process"] == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_a_centre_is_read_and_a_logit_computed_by_another_process():
    result = launch("rpc")
    assert result["computed_on"] == "rank1"
    assert result["equal"]
    assert 0 < abs(result["logit"]) < 64
    assert result["bytes_read"] == 20 * result["bytes_asked"]


@pytest.mark.slow
def test_a_forgotten_rank_loses_half_of_the_images():
    assert launch("shuffle")["different"] == {"own slice": 960, "rank forgotten": 480}


@pytest.mark.slow
def test_centres_outside_ddp_drift_apart():
    degrees = launch("head")["degrees_apart"]
    assert max(degrees["inside DDP"]) == 0
    assert degrees["outside DDP"][-1] > degrees["outside DDP"][0] > 0.1


@pytest.mark.parametrize("environment, sentence", [({}, "start with `torchrun"), ({"RANK": "0"}, "not WORLD_SIZE")])
def test_without_torchrun_one_sentence_says_so(environment, sentence):
    command = [sys.executable, *MODULE, "shuffle"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert sentence in line
