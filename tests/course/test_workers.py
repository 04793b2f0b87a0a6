"""The worker functions of the course: two processes and more, JSON at the end; and torchrun as a notebook starts it."""

import json

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
def test_a_rank_with_a_batch_fewer_is_waited_for_or_joins():
    result = launch("uneven")
    assert result["batches"] == result["joined"] == [4, 3]
    assert result["plain"] == [3, 3]
    assert "imed out" in result["error"]
    assert result["same_weights"] and not result["error_joined"]


@pytest.mark.slow
def test_a_notebook_starts_torchrun_and_shows_what_it_says(capsys):
    assert workers("accumulate")["difference"] < 1e-6
    assert "after the last" in capsys.readouterr().out


@pytest.mark.slow
def test_what_goes_wrong_under_torchrun_is_an_error_here():
    with pytest.raises(TrainingError, match="no_such_task"):
        workers("no_such_task", processes=1)


@pytest.mark.slow
@pytest.mark.parametrize("environment, sentence", [({}, "start with `torchrun"), ({"RANK": "0"}, "not WORLD_SIZE")])
def test_without_torchrun_one_sentence_says_so(environment, sentence):
    (rank,) = run_ranks(1, module.main, ["uneven"], **environment)
    assert rank.status == 2
    (line,) = rank.errors.splitlines()
    assert sentence in line
