"""Signals that ask a process to end: noted where a step has to end first, raised elsewhere, kept from helpers.

A service manager, `timeout`, Slurm and a closed terminal send them to every process of a run. The process that the user
started decides; the processes that it started for itself ignore them, and it ends those.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)  # Windows has the first two


class Stopped(KeyboardInterrupt):
    """A signal has asked this process to end; `status` is what a shell expects then."""

    def __init__(self, number: int, advice: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {advice}")
        self.status = 128 + number


class StopRequest:
    """The handler of the signals of STOPPING. It keeps the first that came, and raises Stopped unless told to wait."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._waits, self.advice = False, "what was written before is whole."

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        """The name of the signal, or "" as long as none has come."""
        return signal.Signals(self.number).name if self.number else ""

    @property
    def status(self) -> int:
        """The exit status that a shell expects after the signal."""
        return 128 + (self.number or 0)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        again, self.number = bool(self), self.number or number
        # A second SIGTERM is no impatience: Slurm sends it to torchrun and to what torchrun started. Ctrl-C again is.
        if number == signal.SIGINT if again else not self._waits:
            raise Stopped(self.number, self.advice)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within it, a signal leaves a note only: the block looks at it where it may end."""
        self._waits, before = True, self._waits
        try:
            yield
        finally:
            self._waits = before

    @contextlib.contextmanager
    def raised(self, advice: str) -> Iterator[None]:
        """Within `noted`, a part that a signal may end anywhere, also one that was noted before.

        Args:
            advice: What to say then, after "stopped by SIGTERM; ".
        """
        before = self._waits, self.advice
        self._waits, self.advice = False, advice
        try:
            if self.number:
                raise Stopped(self.number, advice)
            yield
        except Exception as error:
            if self.number:  # another rank has stopped as well, and the connection to it is gone
                raise Stopped(self.number, advice) from error
            raise
        finally:
            self._waits, self.advice = before


@contextlib.contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Within it, signals of STOPPING raise Stopped, in the main thread; within another one it is the same request.

    What the process was told to ignore (nohup) it ignores further on.
    """
    outer = signal.getsignal(signal.SIGTERM)
    if isinstance(outer, StopRequest):
        yield outer
        return
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # it alone may set handlers
        yield request
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, request)
        yield request
    finally:
        for number, handler in before.items():  # torchrun repeats the signal, and the status is to be that of the first
            signal.signal(number, signal.SIG_IGN if request and number != signal.SIGINT else handler)


@contextlib.contextmanager
def finish_first() -> Iterator[None]:
    """Let the block come to its end, such as files that get their names together; a signal of STOPPING waits."""
    with listen_for_stop() as request:
        with request.noted():
            yield
        with request.raised(request.advice):
            pass


def ignore_stop_signals() -> None:
    """Leave the signals of STOPPING to the process that started this one."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held_from_children() -> Iterator[None]:
    """Start processes that no signal of STOPPING reaches, from their first moment on.

    Processes inherit which signals are blocked. Those that come meanwhile reach this process after the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        resource_tracker.ensure_running()  # a process too; up to Python 3.12 it unblocks two of the signals
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process, which was started by multiprocessing, when its parent dies; to be called in it once."""
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
