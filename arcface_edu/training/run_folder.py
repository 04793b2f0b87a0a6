"""The folder of a run: one run at a time writes into it, and it has room for what the run will write.

Rank 0 holds a lock on `run.lock` for as long as the run lasts. The kernel releases it when the process ends, however it
ends, so that a file left behind means nothing. On a network disk (NFS, Lustre mounted with flock) the lock also holds
between machines; a file system without locks gives a warning.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from arcface_edu.errors import ConfigError
from arcface_edu.training.checkpoint import list_checkpoints
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World
from arcface_edu.training.state import TrainState

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK = "run.lock"
ENDING = 5  # seconds in which a run that has just been asked to stop may still be there


@contextlib.contextmanager
def exclusive(output: Path | str, world: World, timeout_seconds: float) -> Iterator[None]:
    """Hold a run's folder: rank 0 locks it, for all ranks on all machines; every rank calls it.

    Args:
        output: The folder, which is made if it is missing.
        world: The processes of the run.
        timeout_seconds: So long an earlier attempt of the same torchrun may take to end, on a machine that was cut off.

    Raises:
        ConfigError: On every rank, if another run has the folder.
    """
    file, problem = None, None
    if world.is_main:
        try:
            file = lock(Path(output), timeout_seconds)
        except ConfigError as error:
            problem = str(error)
    if problem := all_gather_object(problem)[0]:
        raise ConfigError(problem)
    with file or contextlib.nullcontext():
        yield


def lock(output: Path, timeout_seconds: float = 0) -> IO[str] | None:
    """Return the open lock of a folder, which closing it or the end of the process releases.

    Raises:
        ConfigError: Another process holds it, or the folder cannot be written; it says who and since when.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = open(output / LOCK, "a+")  # noqa: SIM115  (the caller closes it)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written ({error.strerror}): choose another output=.") from None
    if not fcntl:
        return file
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    began, holder = time.monotonic(), None
    while not try_lock(file, output):
        holder = read_holder(file)
        own = job not in (None, "none") and holder.get("job") == job
        if time.monotonic() - began > (timeout_seconds if own else ENDING):
            file.close()
            raise ConfigError(describe(holder, output))
        if holder and time.monotonic() - began > 1:
            log.debug("waiting for process %s to leave %s", holder.get("pid"), output)
        time.sleep(0.2)
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(json.dumps(dict(pid=os.getpid(), host=socket.gethostname(), since=since, job=job)) + "\n")
    file.flush()
    return file


def try_lock(file: IO[str], output: Path) -> bool:
    """Lock an open file unless another process has locked it. Return whether the run may begin."""
    try:
        # Of a process, not of an open file as flock's: a reader that outlives a killed trainer must not keep it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        log.warning(f"the file system of {output} has no locks: see to it that no other run writes there.")
    return True


def read_holder(file: IO[str]) -> dict[str, Any]:
    """Return what the run that holds a lock has written into it; {} if that is not there yet."""
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def describe(holder: dict[str, Any], output: Path) -> str:
    """Return the sentence for a folder that another run has."""
    who = "another process"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')} has been training there since {holder.get('since')}"
    return f"{output} is in use: {who}. Choose another output=, or end that run first; it saves when it gets SIGTERM."


def check_room(output: Path, state: TrainState, keep: int, world: World) -> None:
    """Raise ConfigError, on every rank, unless the checkpoints that a run keeps can be written; every rank calls it.

    Args:
        output: The folder of the run.
        state: What a checkpoint holds; the moments of the optimizer need not be there yet.
        keep: Checkpoints that stay; 0 = all, of which two have to find room.
        world: The processes of the run.
    """
    problem, needed = None, checkpoint_bytes(state)
    try:
        folder = output / "checkpoints"
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:  # each rank writes its part
            probe.write(b"0")
        there = min(len(list_checkpoints(folder)), keep or 1)
        missing = max(1, (keep + 1 if keep else 2) - there)  # an old one goes when the new one is whole
        free = shutil.disk_usage(folder)
        if world.is_main and free.total and free.free < missing * needed:
            problem = (
                f"{output} has {free.free / 2**30:.2f} GiB left, and {missing} more checkpoints of "
                f"{needed / 2**30:.2f} GiB have to find room there: free some space, choose another output=, or set "
                f"keep_checkpoints=1."
            )
    except OSError as error:
        problem = f"{error.filename or output} cannot be written ({error.strerror}): choose another output=."
    if problem := next(filter(None, all_gather_object(problem)), None):
        raise ConfigError(problem)


def checkpoint_bytes(state: TrainState) -> int:
    """Return the size of a checkpoint, of all ranks together: weights, moments and BN's statistics."""
    moments = 2 if "AdamW" in type(state.optimizer).__name__ else bool(state.optimizer.defaults["momentum"])

    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    head = size(state.head.parameters())
    if state.head.is_sharded:
        head = head // len(state.head.weight) * state.head.num_classes
    return (size(state.model.parameters()) + head) * (1 + moments) + size(state.model.buffers())
