"""What a run on CPUs asks of Linux, measured in docs/performance.md. Elsewhere, and on GPUs, it asks nothing."""

import contextlib
import ctypes
import os
import sys

from arcface_edu.training.launch import World

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
