"""The processes that read for a loader: whatever ends or stops one of them, the process that waits for it goes on.

A reader ignores the signals that ask a run to stop: the trainer asks its readers to end. A reader that cannot hand over
a batch ends with a status of its own. Readers of which none has moved for a while are killed. So each trouble becomes
the death of a process, which is noticed within seconds, and one sentence.
"""

import contextlib
import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn, TypeVar

from torch.utils.data import DataLoader

from arcface_edu.errors import DataError
from arcface_edu.signals import end_with_parent, held_from_children, ignore_stop_signals

T = TypeVar("T")

SILENCE = 45  # seconds without a single image, while a batch is waited for
NOT_SENT = 74  # exit status of a reader that cannot hand over what it has read


class Pulse:
    """The time at which a reader last moved, in memory that all of them share."""

    def __init__(self) -> None:
        self._time = multiprocessing.RawValue("d", 0.0)

    def beat(self) -> None:
        self._time.value = time.monotonic()  # one clock for all processes

    @property
    def last(self) -> float:
        return self._time.value


def be_reader(_worker: int) -> None:
    """Make this process a reader: a `worker_init_fn`."""
    ignore_stop_signals()
    end_with_parent()  # PyTorch looks at the process that forked this one, which may be a server
    # The thread that sends batches would print a traceback, drop the batch and go on; the trainer would wait for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end_unsent)  # type: ignore[attr-defined]


def end_unsent(_error: Exception, _batch: Any) -> NoReturn:
    os._exit(NOT_SENT)


def iterate(loader: DataLoader[T], pulse: Pulse | None = None) -> Generator[T, None, None]:
    """Yield what a loader yields; its processes have ended when the iterator is closed.

    Args:
        loader: With `be_reader` as its worker_init_fn.
        pulse: Of the readers; with it, their silence is noticed.

    Raises:
        DataError: A reader died or could not be started, or all are silent.
    """
    if not loader.num_workers:
        yield from loader
        return
    others, on_child = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
    if getattr(on_child, "__module__", "").startswith("torch."):  # an earlier loader's
        on_child = signal.SIG_DFL
    readers: set[BaseProcess] = set()
    watch = Watch(readers, pulse)
    batches: Iterator[T] = iter(())
    try:
        with held_from_children():
            try:
                batches = iter(loader)
            finally:
                readers |= set(multiprocessing.active_children()) - others
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_child)  # PyTorch's raises anywhere, as in the middle of a checkpoint
        with watch.watching():
            while True:
                with watch.waiting():
                    try:
                        batch = next(batches)
                    except StopIteration:
                        return
                yield batch
    except (RuntimeError, OSError, EOFError) as error:
        if str(error).startswith("Caught "):  # in the code of the data set, which is not to be blamed on the machine
            raise
        raise DataError(explain(error, readers, watch.silent)) from error
    finally:
        del batches  # asks the readers to end, and waits for them
        for reader in set(multiprocessing.active_children()) & readers:
            reader.kill()


class Watch:
    """A thread that kills readers of which none has moved for SILENCE, while a batch is waited for."""

    def __init__(self, readers: set[BaseProcess], pulse: Pulse | None) -> None:
        self.readers, self.pulse = readers, pulse
        self.silent = False
        self._since: float | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()
        if self.pulse:
            threading.Thread(target=self._watch, args=(self.pulse, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _watch(self, pulse: Pulse, over: threading.Event) -> None:
        while not over.wait(min(1.0, SILENCE / 4)):
            since = self._since
            if since is not None and time.monotonic() - max(since, pulse.last) > SILENCE:
                self.silent = True
                for reader in self.readers:
                    reader.kill()


def explain(error: Exception, readers: set[BaseProcess], silent: bool) -> str:
    """Return the sentence for readers that are gone."""
    for reader in readers:
        reader.join(1)
    codes = {reader.exitcode for reader in readers}
    if silent:
        return (
            f"no process that reads images has read one for {SILENCE} s: is the disk or network share there, and no "
            f"process stopped? num_workers=0 reads in the trainer itself."
        )
    if NOT_SENT in codes or "open files" in str(error):
        return (
            "a process that reads images died: it could not hand over a batch, as too many files are open (`ulimit "
            "-n`) or shared memory (/dev/shm) is full. Try fewer num_workers, or num_workers=0."
        )
    if isinstance(error, OSError) and not readers:
        return f"no process that reads images could be started ({error}); try fewer num_workers, or num_workers=0."
    killed = sorted(signal.Signals(-code).name for code in codes if code and code < 0)
    reason = f"by {killed[0]}" if killed else str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"a process that reads images died ({reason}); too little memory or shared memory (/dev/shm) is the usual "
        f"cause. Try fewer num_workers, or num_workers=0."
    )
