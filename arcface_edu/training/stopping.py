"""Being asked to stop: SIGTERM and Ctrl-C let the step in hand end, so that a checkpoint can be written."""

import contextlib
import signal


class StopRequest:
    """`name` is the signal that came, or None; `status` the exit status that a shell expects after it."""

    def __init__(self):
        self.name, self.status = None, 0

    def __call__(self, number, _frame):
        if self.name and number == signal.SIGINT:  # Ctrl-C again: at once, then
            raise KeyboardInterrupt
        # SIGTERM comes twice without anybody being impatient: Slurm sends it to torchrun and to what torchrun started.
        self.name, self.status = signal.Signals(number).name, 128 + number


@contextlib.contextmanager
def listen_for_stop():
    """Within it, the signals only leave a note; afterwards they act as before."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
