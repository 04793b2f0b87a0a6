"""Whatever ends or stops a process that reads, the trainer ends with a sentence, and soon."""

import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader

from arcface_edu.data import readers
from arcface_edu.data.loader import BatchReader, load
from arcface_edu.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other processes")

CPU = torch.device("cpu")


class Faces:
    """A hundred grey squares."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return torch.full((3, 112, 112), index, dtype=torch.uint8), index


BATCHES = [[i, i + 1] for i in range(0, 100, 2)]


class Killed(Faces):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short


class Stopped(Faces):
    def __getitem__(self, index):
        if index == 30:
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().__getitem__(index)


class Slow(Faces):
    def __getitem__(self, index):
        time.sleep(0.3)
        return super().__getitem__(index)


class WithoutFiles(Faces):
    """A process that may open no more files can read on, but can hand over nothing."""

    def __getitem__(self, index):
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return super().__getitem__(index)


class Wrong(Faces):
    def __getitem__(self, index):
        raise RuntimeError("a fault of the program")


class WithoutMemory(Faces):
    def __getitem__(self, index):
        raise MemoryError


@pytest.mark.parametrize(
    ("faces", "sentence"),
    [
        (Killed(), r"a process that reads images died \(by SIGKILL\); too little memory .* num_workers=0"),
        (WithoutFiles(), "too many files are open|Too many open files"),
    ],
)
def test_a_reader_that_cannot_go_on_ends_in_a_sentence(faces, sentence, capfd):
    began = time.monotonic()
    with pytest.raises(DataError, match=sentence):
        batches = list(load(faces, BATCHES, 1, CPU))
        raise DataError(next(batch.fatal for batch in batches if batch.fatal))
    assert time.monotonic() - began < 60
    assert "Traceback" not in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_memory_that_is_not_there_is_told_by_the_batch():
    batch = BatchReader(WithoutMemory()).__getitems__([1, 2])
    assert "a batch could not be read (too little memory): try fewer num_workers" in batch.fatal
    assert len(batch.labels) == 0


def test_readers_that_stand_still_end_in_a_sentence(monkeypatch):
    monkeypatch.setattr(readers, "SILENCE", 2)
    with pytest.raises(DataError, match="no process that reads images has read one for 2 s"):
        list(load(Stopped(), BATCHES, 1, CPU))
    assert not multiprocessing.active_children()


def test_readers_that_are_slow_are_waited_for(monkeypatch):
    monkeypatch.setattr(readers, "SILENCE", 2)
    (batch,) = load(Slow(), [list(range(10))], 1, CPU)  # three seconds for one batch, and an image in each of them
    assert len(batch.labels) == 10


def test_readers_end_with_their_loader_and_leave_the_handler_of_their_ends_alone():
    list(DataLoader(Faces(), num_workers=1))  # leaves PyTorch's handler, which raises in the middle of anything
    batches = load(Faces(), BATCHES, 2, CPU)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()


def test_an_error_in_a_data_set_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"Caught RuntimeError(.|\n)*a fault of the program"):
        list(load(Wrong(), BATCHES, 1, CPU))
