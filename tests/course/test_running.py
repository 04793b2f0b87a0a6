"""Runs that a notebook follows: what it sees is what they log."""

import os
import signal
import sys

import numpy as np
import pytest

from arcface_edu.course import running
from arcface_edu.course.running import STOPPED, Run, short_run, take_people
from arcface_edu.data.datasets import open_faces
from arcface_edu.errors import TrainingError


def words(rec, output):
    return [f"rec={rec}", f"output={output}", "batch_size=16", "num_epoch=1", "num_workers=0", "frequent=1"]


def test_people_are_copied_byte_by_byte_and_shuffled_ones_lose_their_names(drawn, tmp_path):
    whole, some = open_faces(drawn), open_faces(take_people(drawn, tmp_path / "some", 5))
    mixed = open_faces(take_people(drawn, tmp_path / "mixed", 5, shuffled=True))
    assert len(some) == len(mixed) == 50 and some.num_classes == mixed.num_classes == 5
    assert all(some.encoded(i)[:2] == whole.encoded(i)[:2] for i in range(50))
    assert sorted(mixed.encoded(i)[0] for i in range(50)) == sorted(some.encoded(i)[0] for i in range(50))
    kept = np.mean(
        [mixed.encoded(i)[0] in {some.encoded(10 * mixed.labels[i] + k)[0] for k in range(10)} for i in range(50)]
    )
    assert kept < 0.5


@pytest.mark.slow
def test_a_short_run_notes_each_step_and_ends_with_a_sentence(drawn, tmp_path, capsys):
    course = short_run("own_data", *words(drawn, tmp_path / "run"), "lr=0.01")
    assert len(course.loss) == len(course.angle) == len(course.norm) == 7
    assert (course.norm > 0).all() and course.error == ""
    sick = short_run("own_data", *words(drawn, tmp_path / "sick"), "lr=1e9", "max_norm=0", "warmup_epoch=-1")
    assert "the loss is" in sick.error
    assert capsys.readouterr() == ("", "")


def test_a_run_has_as_many_threads_as_there_are_idle_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(running.os, "cpu_count", lambda: 4)
    for idle, threads in ((4.0, None), (3.6, None), (2.9, "3"), (1.1, "1"), (0.0, "1"), (None, None)):
        monkeypatch.setattr(running, "idle_cores", lambda idle=idle: idle)
        assert running.environment().get("OMP_NUM_THREADS") == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # who sets it has decided
    assert running.environment()["OMP_NUM_THREADS"] == "7"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says it")
def test_idle_cores_are_no_more_than_there_are():
    assert 0 <= running.idle_cores(0.1) <= 1.2 * os.cpu_count()


@pytest.mark.slow
def test_a_run_is_watched_stopped_and_asked_what_it_said(drawn, tmp_path):
    run = Run("own_data", *words(drawn, tmp_path / "run"), "num_epoch=200")
    assert run.stop_after(step=3) == STOPPED == 128 + signal.SIGTERM
    assert run.lines()[-1]["step"] >= 3
    assert "stopped by SIGTERM" in run.said()
    failed = Run("own_data", *words(tmp_path / "nowhere", tmp_path / "other"))
    with pytest.raises(TrainingError, match="status 2"):
        failed.said()
    assert failed.lines() == []
