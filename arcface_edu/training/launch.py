"""Processes: who this one is, how it meets the others, and which of them says what went wrong.

torchrun --nproc_per_node=2 -m arcface_edu.train        two processes on this machine
python -m arcface_edu.train                             one, which needs no process group at all
"""

import contextlib
import datetime
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from arcface_edu.errors import ArcfaceError, ConfigError, TrainingError
from arcface_edu.signals import Stopped
from arcface_edu.training.collectives import FAILED, all_gather_object

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
TOO_LONG = ("timed out", "timeout")  # gloo's words for a message that did not come, and for the others behind it
GRACE = 3  # seconds; ranks that wait for the same message give up at almost the same moment


class World(NamedTuple):
    """The place of this process among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine
    store: dist.Store | None = None  # where all processes of the run can leave a word; None for one process

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which prints and writes what all ranks share."""
        return self.rank == 0


SINGLE_PROCESS = World()


def read_world() -> World:
    """Return the place of this process among all, from the variables that torchrun sets."""
    present = [name for name in VARIABLES if name in os.environ]
    if not {"RANK", "WORLD_SIZE"} & set(present):
        return SINGLE_PROCESS
    if missing := [name for name in VARIABLES if name not in present]:
        raise ConfigError(
            f"the environment has {', '.join(present)} but not {', '.join(missing)}; start several processes with "
            f"`torchrun --nproc_per_node=N -m arcface_edu.train ...`, which sets them all."
        )
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return World(rank, size, local_rank)


def take_local_rank(local_rank: int | None) -> None:
    """Take the place that an old launcher says by a flag, `--local-rank=1`, where the environment does not say it.

    Raises:
        ConfigError: There is no launcher that would have set the other variables.
    """
    if local_rank is None:
        return
    if "RANK" not in os.environ:
        raise ConfigError(
            f"--local-rank={local_rank} is what an old launcher passes, and none has started this process; start "
            f"several with `torchrun --nproc_per_node=8 -m arcface_edu.train ...`, without that flag."
        )
    os.environ.setdefault("LOCAL_RANK", str(local_rank))


@contextlib.contextmanager
def join_world(timeout_seconds: float = 600) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end.

    PyTorch takes nccl for tensors on CUDA and gloo for those on the CPU. Ranks other than 0 print nothing to standard
    output; if one fails, all end with its error, which is printed once.

    Raises:
        ConfigError: The processes cannot meet.
    """
    world = read_world()
    if world.size == 1:
        yield world
        return
    timeout = datetime.timedelta(seconds=timeout_seconds)
    try:
        store = meet(timeout)
        store = dist.PrefixStore(agree_on_attempt(store, world, timeout), store)
        dist.init_process_group(store=store, timeout=timeout, rank=world.rank, world_size=world.size)
    except (RuntimeError, ValueError, TimeoutError) as error:  # also dist.DistError
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        advice = (
            "is that port taken, or the machine out of reach? torchrun's --master_port and --rdzv_endpoint choose "
            "another."
        )
        if "gloo" in str(error).lower():  # they have met, but the addresses that they tell each other lead nowhere
            advice = "GLOO_SOCKET_IFNAME=eth0, or such, names the network card that leads to them."
        raise ConfigError(
            f"rank {world.rank} cannot meet the other processes at {where} ({first_line(error)}); {advice}"
        ) from error
    with open(os.devnull, "w") as nowhere:
        try:
            with contextlib.nullcontext() if speaks(world) else contextlib.redirect_stdout(nowhere):
                yield world._replace(store=store)
        except Exception as error:
            raise tell_once(error, world, store) from error
        except Stopped as error:
            if has_failed(store):  # torchrun ends the others, and the cause has been told
                setattr(error, "said_elsewhere", True)  # noqa: B010  (as in `tell_once`)
            raise
    dist.destroy_process_group()


def speaks(world: World) -> bool:
    """Return whether a process prints: rank 0 always, the others where the log was asked for everything."""
    return world.is_main or logging.getLogger("arcface_edu").isEnabledFor(logging.DEBUG)


def meet(timeout: datetime.timedelta) -> dist.Store:
    """Return the store in which the processes find each other, or raise TimeoutError.

    Where another program listens at that port and says nothing, PyTorch waits for ever: so it waits in a thread.
    """
    answer: queue.SimpleQueue[dist.Store | Exception] = queue.SimpleQueue()

    def knock() -> None:
        try:
            answer.put(next(dist.rendezvous("env://", timeout=timeout))[0])
        except Exception as error:
            answer.put(error)

    threading.Thread(target=knock, daemon=True).start()
    try:
        store = answer.get(timeout=timeout.total_seconds() + GRACE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout.total_seconds():.0f} seconds") from None
    if isinstance(store, Exception):
        raise store
    return store


def agree_on_attempt(store: dist.Store, world: World, timeout: datetime.timedelta) -> str:
    """Return a name for this attempt that all its processes share with none of an earlier one.

    torchrun keeps one store over its restarts: what processes that are dead now left there must not be read. Its
    TORCHELASTIC_RESTART_COUNT differs between machines, each of which counts its own faults, and does not change when a
    machine joins. So rank 0 names the attempt and lists the processes that have read the name: an earlier name lists
    other processes.
    """
    me = uuid.uuid4().hex
    if world.is_main:
        store.set("attempt", me)
        store.set(f"{me}/heard", ",".join(store.get(f"{me}/{rank}").decode() for rank in range(1, world.size)))
        return me
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        attempt = store.get("attempt").decode()
        store.set(f"{attempt}/{world.rank}", me)
        with contextlib.suppress(dist.DistStoreError):
            store.wait([f"{attempt}/heard"], datetime.timedelta(seconds=1))
            if me in store.get(f"{attempt}/heard").decode():
                return attempt
            time.sleep(0.1)
    raise dist.DistStoreError(f"no answer in {timeout.total_seconds():g} s")


def tell_once(error: Exception, world: World, store: dist.Store) -> Exception:
    """Return the error to end with, marked with whether another rank prints it.

    Of the errors that the ranks end with, the first is the cause, and it alone is printed; a key in the store says
    which rank that is. The others have only lost the connection to a process that is gone.
    """
    if is_lost_process(error):
        error = TrainingError(
            f"{name_silent_ranks(str(error), world, store)}; it hangs, died or was cut off. "
            f"resume=True goes on from the last checkpoint."
        )
    with contextlib.suppress(RuntimeError):  # the store may be gone as well
        mine = f"rank {world.rank}"
        first = store.compare_set(FAILED, "", mine).decode()
        if first != mine and not isinstance(error, (ArcfaceError, OSError)):
            error = TrainingError(f"{first} failed.")
        setattr(error, "said_elsewhere", first != mine)  # noqa: B010  (an attribute that Exception does not declare)
    return error


def has_failed(store: dist.Store) -> bool:
    """Return whether a rank has failed and said so."""
    with contextlib.suppress(RuntimeError):  # the store may be gone
        return bool(store.check([FAILED]))
    return False


def is_lost_process(error: BaseException) -> bool:
    """Return whether PyTorch says so that a message found no other process; gloo has no error class of its own."""
    words = ("gloo", "nccl", "connection", *TOO_LONG)
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def name_silent_ranks(reason: str, world: World, store: dist.Store) -> str:
    """Return a clause with the ranks that did not report within a few seconds after a collective failed."""
    with contextlib.suppress(RuntimeError):  # the store may be gone as well
        store.set(f"answers_{world.rank}", "")
        if any(word in reason.lower() for word in TOO_LONG):
            time.sleep(GRACE)
            silent = [rank for rank in range(world.size) if not store.check([f"answers_{rank}"])]
            if silent:
                return f"rank {' and rank '.join(map(str, silent))} did not answer in time"
    return f"rank {world.rank} has lost another process"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to a length that fits a sentence."""
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def was_restarted() -> bool:
    """Return whether torchrun has started the processes of this run again, on this machine or another.

    It does so after a fault, or because a machine came or went.
    """
    marker = start_marker()
    return any(all_gather_object(bool(marker and marker.exists())))


def mark_started() -> None:
    """Leave a file from which processes that torchrun may start in place of this one learn that the run has begun."""
    if marker := start_marker():
        marker.touch()


def start_marker() -> Path | None:
    """Return the path of that file, in the temporary folder of one start of torchrun; None without torchrun."""
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder>/attempt_<n>/<local rank>/error.json
    return Path(errors).parents[2] / f"started_{os.environ['LOCAL_RANK']}" if errors else None
