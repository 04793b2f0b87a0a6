"""What the notebook on Partial FC launches: two or three processes share one softmax, and one batch's sample."""

import json

import pytest
from ranks import run_ranks

from arcface_edu.course import shards


def launch(task, processes=2):
    """The JSON that rank 0 ends with."""
    ranks = run_ranks(processes, shards.main, [task])
    for rank in ranks:
        assert rank.status == 0, rank.errors
    *said, last = ranks[0].said.splitlines()
    assert said
    return json.loads(last)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_by_hand_is_what_one_process_and_partial_fc_have(processes):
    result = launch("softmax", processes)
    assert result["equal"]
    for worst in result["apart"].values():
        assert len(worst) == 3 and max(worst) < 1e-5
    assert 40 < result["loss"] < 60  # two sides that are both 0 would be equal too
    assert result["numbers_sent"] == 3 * 8 * processes
    firsts = [first for first, _ in result["holds"]]
    assert firsts == [0] + [last + 1 for _, last in result["holds"][:-1]]
    assert result["holds"][-1][1] == 1000


@pytest.mark.slow
def test_a_sample_keeps_the_batch_and_moves_nobody_else():
    ranks = launch("sample")["ranks"]
    assert sum(one["people"] for one in ranks) > 1
    for one in ranks:
        assert one["missing"] == 0
        assert one["used"] == round(0.1 * one["holds"])
        assert one["people"] <= one["moved"] <= one["used"]


@pytest.mark.slow
def test_without_torchrun_one_sentence_says_so():
    (rank,) = run_ranks(1, shards.main, ["softmax"])
    assert rank.status == 2
    (line,) = rank.errors.splitlines()
    assert "start with `torchrun" in line
