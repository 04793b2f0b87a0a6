"""The worker functions of the course: two processes and more, JSON at the end; and torchrun as a notebook starts it."""

import json

import numpy as np
import pytest
from ranks import run_ranks

from arcface_edu.course import workers as module
from arcface_edu.course.notebook import workers
from arcface_edu.errors import TrainingError


def launch(*words, processes=2):
    """The JSON that rank 0 ends with, after all that it says for people."""
    ranks = run_ranks(processes, module.main, words)
    for rank in ranks:
        assert rank.status == 0, rank.errors
        assert "Warning" not in rank.errors
    *said, last = ranks[0].said.splitlines()
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


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_a_ring_of_sends_sums_as_all_reduce_does_and_sends_its_share(processes):
    result = launch("ring", processes=processes)
    assert result["equal"]
    whole = 2 * (processes - 1) / processes * result["bytes"]
    assert sum(result["sent"]) == pytest.approx(processes * whole)
    assert result["sent"] == pytest.approx([whole] * processes, rel=1e-5)  # chunks differ by a number at most
    filled = np.array(result["contributions"])
    assert filled.shape == (2 * processes - 1, processes, processes)
    assert (filled[0] == 1).all() and (filled[-1] == processes).all()
    assert ((filled[1:] != filled[:-1]).sum(axis=2) == 1).all()  # in each step one chunk arrives at each rank


@pytest.mark.slow
def test_small_buckets_leave_during_the_backward_pass_and_one_big_one_after_it():
    result = launch("buckets")
    assert result["messages"]["one bucket"] == 1
    assert result["messages"]["buckets of 1 MB"] == 4
    still_to_do = {way: [left_at_first_message(line) for line in lines] for way, lines in result["timelines"].items()}
    assert max(still_to_do["one bucket"]) < 0.1 < 0.5 < min(still_to_do["buckets of 1 MB"])


def left_at_first_message(line):
    """The share of the backward pass's operations that is not yet done when its first message leaves."""
    _, begin, end = next(phase for phase in line["phases"] if phase[0] == "backward")
    leaves = min(first for first, _ in line["communication"] if first >= begin)
    work = [(first, min(last, end)) for first, last in line["compute"] if begin <= first < end]
    left = [last - max(first, leaves) for first, last in work if last > leaves]
    return sum(left) / sum(last - first for first, last in work)


@pytest.mark.slow
def test_accumulation_with_no_sync_sends_a_quarter_for_the_same_gradient():
    result = launch("accumulate")
    assert result["megabytes"]["after each"] == 4 * result["megabytes"]["after the last"]
    assert result["messages"]["after each"] > result["messages"]["after the last"]
    assert result["difference"] < 1e-6


@pytest.mark.slow
def test_bn_statistics_differ_under_equal_weights_until_they_are_averaged():
    result = launch("bn", processes=3)
    assert result["same_weights"]
    assert result["own"] > 1
    assert result["averaged"] < 1e-3


@pytest.mark.slow
def test_a_rank_with_a_batch_fewer_is_waited_for_or_joins():
    result = launch("uneven")
    assert result["batches"] == result["joined"] == [4, 3]
    assert result["plain"] == [3, 3]
    assert "imed out" in result["error"]
    assert result["same_weights"] and not result["error_joined"]


@pytest.mark.slow
def test_a_notebook_starts_torchrun_and_shows_what_it_says(capsys):
    assert workers("shuffle")["different"] == {"own slice": 960, "rank forgotten": 480}
    assert "own slice" in capsys.readouterr().out


@pytest.mark.full
def test_two_torchruns_meet_as_two_machines(capsys):
    result = workers("all_reduce", processes=2, machines=2)
    assert "all-reduces" in capsys.readouterr().out
    assert result["equal"] and result["processes"] == 4
    assert result["places"] == [[0, 0, 0], [1, 0, 1], [2, 1, 0], [3, 1, 1]]


@pytest.mark.slow
def test_what_goes_wrong_under_torchrun_is_an_error_here():
    with pytest.raises(TrainingError, match="no_such_task"):
        workers("no_such_task", processes=1)


@pytest.mark.slow
@pytest.mark.parametrize("environment, sentence", [({}, "start with `torchrun"), ({"RANK": "0"}, "not WORLD_SIZE")])
def test_without_torchrun_one_sentence_says_so(environment, sentence):
    (rank,) = run_ranks(1, module.main, ["shuffle"], **environment)
    assert rank.status == 2
    (line,) = rank.errors.splitlines()
    assert sentence in line
