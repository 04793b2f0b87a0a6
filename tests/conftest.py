"""Small sets of drawn faces that several tests share, the order of the files, and no log left to the next test."""

import logging
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in make; before PyTorch is imported

import pytest

from arcface_edu.cli import set_up_logging
from arcface_edu.data.bins import write_pairs
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.exporting.facts import drawn_pairs


@pytest.fixture(autouse=True)
def log_to_standard_output():
    """What the package logs is seen by capsys, as in a command, and by caplog; afterwards all is as before."""
    logger = logging.getLogger("arcface_edu")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    set_up_logging()
    logger.propagate = True
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder with train.rec of 12 people x 10 photographs, and drawn.bin: 100 pairs of others."""
    folder = tmp_path_factory.mktemp("faces") / "drawn"
    draw_faces(folder, 12, 10, seed=7, pairs=100, pair_identities=10, workers=1)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A .bin file of 60 pairs of drawn people whom no run has trained on."""
    path = tmp_path_factory.mktemp("pairs") / "few.bin"
    write_pairs(path, *drawn_pairs(people=6, photos=4, pairs=60))
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Begin with the files that take long; short ones then fill the time until both workers are done."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def heard():
    """Hear the signals that stop a run: also under nohup, and after a test whose run was stopped and ignores more."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    }
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            before[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, before[number])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
