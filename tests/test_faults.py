"""Processes killed at random moments: the run ends as if nobody had. benchmarks/kills.py does it 200 times."""

import importlib
import runpy
import time
from pathlib import Path

import pytest

from arcface_edu.training.metrics import read_metrics

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KILLER = runpy.run_path(str(BENCHMARKS / "kill_ranks.py"))
TWO, EPOCHS = 2, 2


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with an undisturbed run and a killed one, and what differs between them."""
    place = tmp_path_factory.mktemp("faults")
    return place, KILLER["kill_and_compare"](place, kills=4, seed=3, processes=TWO, epochs=EPOCHS)


def test_ranks_killed_at_random_moments_leave_weights_and_log_as_they_would_have_been(killed):
    place, differences = killed
    assert differences == []
    assert len(read_metrics(place / "killed_0" / "metrics.jsonl")) == 7 + 4  # of training and of verification


def test_a_run_of_one_process_and_its_reader_is_killed_and_resumed(killed, monkeypatch):
    place, _ = killed
    monkeypatch.syspath_prepend(BENCHMARKS)
    kills = importlib.import_module("kills")
    assert kills.kill_singles(place, kills=4, seed=5, epochs=1) == []


def test_when_torchrun_itself_is_killed_its_ranks_finish_the_run(killed):
    """Nobody would start them again, but the store that died with torchrun is not needed any more."""
    place, _ = killed
    orphaned = place / "orphaned"
    run = KILLER["start"](orphaned, KILLER["prepare"](place, TWO, EPOCHS), TWO)
    KILLER["wait_for"](run, lambda: read_metrics(orphaned / "metrics.jsonl"))
    ranks = KILLER["ranks"](run, life=1)
    run.kill()
    run.wait()
    assert len(ranks) == TWO
    until = time.time() + 100
    while any(KILLER["read"](f"/proc/{pid}/environ") for pid in ranks.values()) and time.time() < until:
        time.sleep(0.1)
    assert list(KILLER["differences"](place / "undisturbed", orphaned)) == []


def test_the_comparison_sees_what_differs(killed):
    place, _ = killed
    log = place / "killed_0" / "metrics.jsonl"
    first, *rest = log.read_text().splitlines(keepends=True)
    other = first.replace('"loss": ', '"loss": 1')
    changes = {"too many": [first, first, *rest], "lacks": rest, "at step 3": [other, *rest]}
    for sentence, lines in changes.items():
        log.write_text("".join(lines))
        (found,) = KILLER["differences"](place / "undisturbed", place / "killed_0")
        assert sentence in found
