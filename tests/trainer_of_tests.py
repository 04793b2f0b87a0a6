"""The training command with a small network without BN, and faults on demand: `main` for ranks.py, a file for torchrun.

BN normalises over the images of one rank, so that only a network without it computes the same however a batch is split.
FAULT=<rank>:<step>:<kind> in the environment makes that rank fail there, once: "kill" (SIGKILL), "term" (SIGTERM to
itself), "hang", "nan" (in its images) or "diverge" (another seed than the rest).
PACE=<seconds> is what a step takes at least, shared by the processes.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from arcface_edu import runs, train
from arcface_edu.models import weights
from arcface_edu.training import state


class Linear(nn.Module):
    """A network without BN, whose gradient of a batch is exactly the mean of its parts'."""

    def __init__(self, *_):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3 * 28 * 28, 128)
        self.register_buffer("beside", torch.zeros(1))  # as `fc.` alone would look like a prefix of all names

    def forward(self, images):
        return self.fc(nn.functional.avg_pool2d(images, 4).flatten(1))


def use_small_network():
    """Give `Linear` to everything in this process that builds a network."""
    runs.build_model = state.build_model = weights.build_model = Linear


def failing_draw(draw, fault_step, kind):
    """`draw_mirrored`, which the loop calls once a step, with a fault in it."""

    def draw_or_fail(parts, world_size, batch_size, step, seed):
        if step == fault_step:
            if kind == "nan":
                train.augment = lambda images, _: images * float("nan")
                return draw(parts, world_size, batch_size, step, seed)
            if kind == "hang":
                time.sleep(1000)
            os.kill(os.getpid(), dict(kill=signal.SIGKILL, term=signal.SIGTERM)[kind])
        return draw(parts, world_size, batch_size, step, seed)

    return draw_or_fail


def slow_draw(draw, seconds):
    """`draw_mirrored` that takes its time, of which each process bears its share."""

    def draw_later(parts, world_size, *args):
        time.sleep(seconds / world_size)
        return draw(parts, world_size, *args)

    return draw_later


def main(words):
    """Run the training command with these words. What is patched stays so: the process is for this run alone."""
    use_small_network()
    train.draw_mirrored = slow_draw(train.draw_mirrored, float(os.environ.get("PACE", "0")))
    rank, step, kind = (os.environ.get("FAULT") or "-1:0:").split(":")
    first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if os.environ.get("RANK", "0") == rank and first_life:
        if kind == "diverge":
            words = [*words, "seed=7"]
        else:
            train.draw_mirrored = failing_draw(train.draw_mirrored, int(step), kind)
    train.main(words)


if __name__ == "__main__":
    status = 0
    try:
        main(sys.argv[1:])
    except SystemExit as left:
        status = left.code
        raise
    finally:
        if folder := os.environ.get("STATUS_FOLDER"):
            Path(folder, os.environ.get("RANK", "0")).write_text(str(status))
