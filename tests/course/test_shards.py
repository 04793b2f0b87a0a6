"""What the notebook on Partial FC launches: two or three processes share one softmax, and one batch's sample."""

import json
import re
import runpy
from pathlib import Path

import jupytext
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


NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_partial_fc.py"
(PROGRAM,) = [
    cell.source.partition("\n")[2]
    for cell in jupytext.read(NOTEBOOK).cells
    if cell.cell_type == "code" and cell.source.startswith("%%writefile")
]


def run_file(path):
    runpy.run_path(path, run_name="__main__")


def differences(tmp_path, processes, change=("", "")):
    """(loss, [three differences from one process, three from PartialFC]) of the program that the notebook writes."""
    assert change[0] in PROGRAM
    path = tmp_path / "sharded.py"
    path.write_text(PROGRAM.replace(*change))
    ranks = run_ranks(processes, run_file, str(path))
    assert not any(rank.status for rank in ranks), ranks[0].errors
    said = ranks[0].said
    assert f"{processes} processes" in said and f"{3 * 8 * processes} numbers" in said
    number = r"([\d.]+e[-+]\d+)"
    found = re.findall(rf"loss {number}, embeddings' gradient {number}, centres' {number}", said)
    return float(re.search(r"loss (\d+\.\d+)", said)[1]), [float(one) for three in found for one in three]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_by_hand_is_what_one_process_and_partial_fc_have(tmp_path, processes):
    loss, apart = differences(tmp_path, processes)
    assert 40 < loss < 60  # two sides that are both 0 would be equal too
    assert len(apart) == 6 and max(apart) < 1e-5


@pytest.mark.slow
def test_without_the_last_message_the_embeddings_get_a_part_of_their_gradient(tmp_path):
    _, (loss, embeddings, centres, *_) = differences(tmp_path, 2, ("    dist.all_reduce(x.grad)", "    pass"))
    assert max(loss, centres) < 1e-5 < embeddings


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
    (rank,) = run_ranks(1, shards.main, ["sample"])
    assert rank.status == 2
    (line,) = rank.errors.splitlines()
    assert "start with `torchrun" in line
