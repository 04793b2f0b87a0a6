"""What a run on CPUs asks of Linux, measured in docs/performance.md. Elsewhere, and on GPUs, it asks nothing."""

import contextlib
import ctypes
import logging
import os
import sys
import time
from pathlib import Path

import torch

from arcface_edu.training.launch import World

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST = 2**31 - 1  # bytes; mallopt takes an int


def set_up(world: World) -> None:
    """Set memory and scheduling of this process, one of a run's, as its steps need them."""
    if sys.platform == "linux":
        keep_freed_memory()
        if world.size > 1:
            with contextlib.suppress(PermissionError):  # of a strict sandbox: then ranks only wait longer
                schedule_as_batch()
                take_own_cores(world.local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class CrowdedCores:
    """Notices that other programs have the cores, and logs once what helps.

    The threads of a step wait for each other hundreds of times. One that has to wait for its core makes all wait.
    """

    LIMIT = 0.2  # of its time that a thread waits for a core; beside one busy program on two cores it is a third

    def __init__(self) -> None:
        self.said, self.was_long = sys.platform != "linux" or torch.get_num_threads() < 2, False
        self.began, self.before = time.perf_counter(), self.delay()

    @staticmethod
    def delay() -> float:
        """Return the seconds in which threads of this process were ready to run and had no core, all added up."""
        seconds = 0.0
        for path in Path("/proc/self/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError, ValueError):  # the thread has ended, or the kernel has none
                seconds += int(path.read_text().split()[1]) / 1e9
        return seconds

    def look(self) -> None:
        """Compare the time since the last call with the delay in it; two long delays in a row are logged, once.

        A single one is no sign: at the start of a run its own readers fill their queues.
        """
        if self.said:
            return
        now, delay = time.perf_counter(), self.delay()
        share = (delay - self.before) / max(now - self.began, 1e-9) / torch.get_num_threads()
        self.began, self.before = now, delay
        is_long = share > self.LIMIT
        if is_long and self.was_long:
            self.said = True
            log.warning(
                f"other programs take the cores: the threads of this run wait for one {share:.0%} of the time, and "
                f"for each other meanwhile. End those programs, or stop this run, and go on with OMP_NUM_THREADS=1 "
                f"before the command and resume=True."
            )
        self.was_long = is_long


def keep_freed_memory() -> None:
    """Let glibc keep what is freed.

    It would give each big buffer back to the system at every step, and the kernel would clear the same pages again.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, MOST)


def schedule_as_batch() -> None:
    """Schedule all threads of this process as batch work: one that wakes up no longer interrupts one that computes.

    Ranks wait for each other several times a step; a message that wakes one up in the middle of another's convolution
    makes both late.
    """
    for thread in os.listdir("/proc/self/task"):
        os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))


def take_own_cores(local_rank: int, processes: int) -> None:
    """Bind all threads of this process to its share of the machine's cores, unless it is bound already."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // processes
    if len(cores) < (os.cpu_count() or 1) or not share:
        return
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores[local_rank * share : (local_rank + 1) * share])
