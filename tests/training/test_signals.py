"""Being asked to stop, once and twice."""

import signal

import pytest

from arcface_edu.training.signals import listen_for_stop


def test_one_request_is_a_note_and_a_second_ctrl_c_is_not():
    with listen_for_stop() as stop:
        assert stop.name is None
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # from Slurm, and from torchrun, whom Slurm has asked as well
        assert (stop.name, stop.status) == ("SIGTERM", 143)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with listen_for_stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert (stop.name, stop.status) == ("SIGINT", 130)
