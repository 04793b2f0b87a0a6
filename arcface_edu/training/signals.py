"""A request to stop: SIGTERM and Ctrl-C let the step in hand end, so that a checkpoint can be written."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Note the first signal that came: its `name`, or None, and the exit `status` that a shell expects after it."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.status = 0

    def __bool__(self) -> bool:
        return self.name is not None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.name and number == signal.SIGINT:  # Ctrl-C again: at once, then
            raise KeyboardInterrupt
        # A second SIGTERM is no impatience: Slurm sends it to torchrun and to what torchrun started.
        self.name, self.status = signal.Signals(number).name, 128 + number


@contextlib.contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Within it, SIGTERM and SIGINT only leave a note; afterwards they act as before."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
