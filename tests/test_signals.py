"""Signals: to one process and to all of a run at once, in every phase of it; and what the processes beside it do."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from ranks import start_ranks

from arcface_edu import dataset, export, io, train
from arcface_edu.cli import cli_main
from arcface_edu.io import replace_when_done, write_together
from arcface_edu.signals import STOPPING, Stopped, finish_first, held_from_children, listen_for_stop
from arcface_edu.training.checkpoint import list_checkpoints
from arcface_edu.training.metrics import read_metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no groups of processes")

NUMBERS = pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)


def test_one_request_is_a_note_and_a_second_ctrl_c_is_not():
    with listen_for_stop() as stop, stop.noted():
        assert (stop.name, bool(stop)) == ("", False)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # from Slurm, and from torchrun, whom Slurm has asked as well
        assert (stop.name, stop.status) == ("SIGTERM", 143)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
    with listen_for_stop() as stop, stop.noted():
        signal.raise_signal(signal.SIGINT)
        assert (stop.name, stop.status) == ("SIGINT", 130)


@NUMBERS
def test_a_command_ends_with_one_sentence_and_the_status_of_the_signal(number, capsys):
    before = signal.getsignal(number)

    @cli_main
    def command():
        signal.raise_signal(number)
        time.sleep(10)

    with pytest.raises(SystemExit) as ended:
        command()
    again, _ = signal.getsignal(number), signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"arcface_edu: stopped by {number.name}; what was written before is whole.\n"
    assert again == (before if number == signal.SIGINT else signal.SIG_IGN)  # torchrun sends it once more


def test_what_the_process_was_told_to_ignore_it_ignores():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with listen_for_stop():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_phase_that_may_end_anywhere_a_note_from_before_counts():
    with listen_for_stop() as stop, stop.noted():
        with pytest.raises(Stopped, match="stopped by SIGTERM; it is saved"), stop.raised("it is saved"):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped), stop.raised("it is saved"):
            pytest.fail("it had been asked to stop before")
    with listen_for_stop() as stop, stop.noted(), pytest.raises(OSError), stop.raised("it is saved"):
        raise OSError("nobody has asked it to stop")


@pytest.fixture(autouse=True)
def as_before():
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    while Group.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(Group.started.pop(), signal.SIGKILL)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_files_that_belong_together_get_their_names_together(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    replace = Path.replace

    def replace_and_signal(self, target):
        signal.raise_signal(signal.SIGTERM)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_and_signal)
    with pytest.raises(Stopped):
        write_together(dict.fromkeys(paths, b"whole"))
    assert sorted(tmp_path.iterdir()) == paths


def test_a_file_whose_writing_was_stopped_is_not_there(tmp_path):
    with pytest.raises(Stopped), listen_for_stop(), replace_when_done(tmp_path / "a") as beside:
        beside.write_text("half")
        signal.raise_signal(signal.SIGHUP)
    assert list(tmp_path.iterdir()) == []


def test_what_has_to_come_to_its_end_does(tmp_path):
    with listen_for_stop(), pytest.raises(Stopped), finish_first():
        signal.raise_signal(signal.SIGHUP)
        (tmp_path / "b").write_text("whole")
    assert (tmp_path / "b").read_text() == "whole"


def sleep_well(seconds):
    time.sleep(seconds)


def test_a_process_started_for_help_leaves_the_signals_to_the_one_that_started_it():
    with held_from_children():
        helper = multiprocessing.get_context("spawn").Process(target=sleep_well, args=(60,))
        helper.start()
    for number in STOPPING:
        os.kill(helper.pid, number)
    helper.join(0.5)
    assert helper.is_alive()
    helper.kill()
    helper.join()
    with pytest.raises(Stopped), listen_for_stop():  # nothing is held any more
        signal.raise_signal(signal.SIGTERM)


# --- signals to all processes of a command at once


def in_a_group(command, words, method=None):
    """Run a command as the first of a group of processes, as a shell or a service manager starts it."""
    os.setsid()
    multiprocessing.set_start_method(method, force=True)  # None: that of this Python; the server of the tests has one
    command(words)


class Group:
    """A command with the processes that it starts."""

    started: ClassVar = []

    def __init__(self, command, words, method=None):
        self.ranks = start_ranks(1, in_a_group, command, words, method)
        self.id = self.ranks.processes[0].pid
        self.started.append(self.id)

    def wait_for(self, condition, seconds=60):
        until = time.monotonic() + seconds
        while not condition():
            assert self.ranks.alive(), self.ranks.finish()
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.05)

    def stop(self, number, seconds=60):
        """Send all processes a signal, wait for their end, and return how the first one ended."""
        os.killpg(self.id, number)
        (ended,) = self.ranks.finish(seconds)
        for _ in range(100):
            if not (left := self.members()):
                break
            time.sleep(0.1)
        assert not left, "processes of the command have outlived it"
        assert "Traceback" not in ended.errors, ended.errors
        assert ended.status == 128 + number, ended.errors
        return ended

    def members(self):
        """The states of its processes by their ids, without those that are dead."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group, *_ = path.read_text().rpartition(")")[2].split()
                if int(group) == self.id and state != "Z":
                    found[int(path.parent.name)] = state
        return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are counted in /proc")


@pytest.fixture
def words(drawn, tmp_path):
    sizes = ["batch_size=16", "num_epoch=500", "lr=0.05", "num_workers=2", "frequent=1", "save_every=0"]
    return ["own_data", f"rec={drawn}", f"output={tmp_path / 'run'}", *sizes]


@linux
@pytest.mark.slow
@NUMBERS
def test_a_signal_to_trainer_and_readers_saves_and_ends(words, tmp_path, number):
    group = Group(train.main, words)
    group.wait_for(lambda: len(read_metrics(tmp_path / "run" / "metrics.jsonl")) > 3)
    assert len(group.members()) >= 3
    ended = group.stop(number)
    (step,) = [int(word) for word in ended.said.split() if word.isdigit() and "stopped by" in ended.said][-1:]
    assert f"stopped by {number.name} after step {step} of" in ended.said
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1].name == f"step_{step:08d}"


def main_with_a_long_verification(words):
    embed_images = train.embed_images

    def embed_slowly(*args, **kwargs):
        Path("verifying").touch()
        time.sleep(60)
        return embed_images(*args, **kwargs)

    os.chdir(words.pop())
    train.embed_images = embed_slowly
    train.main(words)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("keys", [["verbose=3"], ["num_epoch=1"]], ids=["between", "at the end"])
def test_a_verification_ends_at_once_since_all_is_saved(words, tmp_path, keys):
    group = Group(main_with_a_long_verification, [*words, *keys, str(tmp_path)])
    group.wait_for((tmp_path / "verifying").exists)
    ended = group.stop(signal.SIGTERM, seconds=20)
    assert "stopped by SIGTERM; all is saved, and resume=True goes on" in ended.errors
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == [
        f"step_{3 if keys == ['verbose=3'] else 7:08d}"
    ]
    assert (tmp_path / "run" / "model.pt").exists() == (keys == ["num_epoch=1"])


def main_with_a_long_save(words):
    from arcface_edu.training import checkpoint

    write = checkpoint.write_and_sync

    def write_slowly(*args):
        Path("saving").touch()
        time.sleep(1)
        write(*args)

    os.chdir(words.pop())
    checkpoint.write_and_sync = write_slowly
    train.main(words)


@linux
@pytest.mark.slow
def test_a_checkpoint_that_is_being_written_gets_whole(words, tmp_path):
    group = Group(main_with_a_long_save, [*words, str(tmp_path)])
    group.wait_for((tmp_path / "saving").exists)
    group.stop(signal.SIGTERM)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert "step_00000007" in names and not any(name.endswith(".tmp") for name in names)


@linux
@pytest.mark.slow
@NUMBERS
def test_drawing_ends_with_a_sentence_and_leaves_nothing(tmp_path, number):
    group = Group(dataset.main, ["draw", str(tmp_path / "d"), "--identities", "5000", "--workers", "2"])
    group.wait_for(lambda: (tmp_path / "d").exists() and len(group.members()) >= 3)
    time.sleep(3 if number == signal.SIGTERM else 0)  # while they import, or when they draw
    ended = group.stop(number)
    assert f"arcface_edu: stopped by {number.name}; what was written before is whole." in ended.errors
    assert list((tmp_path / "d").iterdir()) == []


def main_with_a_long_write(words):
    write = io.write_atomically

    def write_slowly(path):
        if path.name == "README.md":
            Path(words[-2], "writing").touch()
            time.sleep(60)
        return write(path)

    io.write_atomically = write_slowly
    export.main(words[:-2] + words[-1:])


@linux
@pytest.mark.slow
def test_an_export_that_was_stopped_has_written_nothing(tmp_path):
    pytest.importorskip("safetensors")
    import torch

    from arcface_edu.models import build_model

    torch.save(build_model("r10", 64).state_dict(), tmp_path / "w.pt")
    group = Group(main_with_a_long_write, [str(tmp_path / "w.pt"), "--hub", str(tmp_path / "m"), str(tmp_path), "-q"])
    group.wait_for((tmp_path / "writing").exists)
    group.stop(signal.SIGTERM)
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])  # before Python 3.14, and from then on
def test_a_reader_of_a_killed_trainer_ends_and_does_not_keep_the_folder(words, tmp_path, method):
    group = Group(train.main, words, method)
    group.wait_for(lambda: read_metrics(tmp_path / "run" / "metrics.jsonl"))
    os.kill(group.id, signal.SIGKILL)
    (ended,) = start_ranks(1, train.main, [*words, "num_epoch=1", "resume=True"]).finish()
    assert ended.status == 0, ended.errors
    for _ in range(200):
        if not group.members():
            return
        time.sleep(0.1)
    pytest.fail("readers have outlived their trainer")


@pytest.mark.slow
def test_python_itself_says_the_status(words):
    """Not through the server of the tests: what the shell sees."""
    process = subprocess.Popen(
        [sys.executable, "-m", "arcface_edu.train", *words], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    metrics = Path(words[2].split("=")[1]) / "metrics.jsonl"
    for _ in range(600):
        if read_metrics(metrics):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in errors and "arcface_edu:" not in errors
