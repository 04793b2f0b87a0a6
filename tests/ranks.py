"""Processes of a run, as torchrun would start them, from a server that has imported PyTorch once.

Each is a new process, forked from the server: nothing of one test is left in it for the next, and it begins at once.
`torchrun` itself, which takes seconds, is left to the tests of what only it does: restarts, signals, its store.
"""

import multiprocessing
import os
import pickle
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

SERVER = multiprocessing.get_context("forkserver")
# Not the package itself, so that each process imports it anew, which takes a tenth of a second.
SERVER.set_forkserver_preload(["torch", "torchvision", "torch.distributed.checkpoint", "matplotlib.pyplot", "numpy"])

STREAMS = ("said", "errors", "value")
OF_TORCHRUN = ("RANK", "LOCAL_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


class Rank(NamedTuple):
    """How one process ended."""

    status: int  # exit status; -9 where it was killed by signal 9
    said: str
    errors: str
    value: Any  # what its function returned


def run_ranks(
    size: int, work: Callable[..., Any], *arguments: Any, timeout: float = 120, **environment: str
) -> list[Rank]:
    """Call work(*arguments) in `size` processes and wait for their end: `start_ranks`, in seconds at most `timeout`."""
    return start_ranks(size, work, *arguments, **environment).finish(timeout)


def start_ranks(size: int, work: Callable[..., Any], *arguments: Any, **environment: str) -> "Ranks":
    """Start `size` processes that call work(*arguments) with the variables of torchrun; one alone has none of them.

    Args:
        size: The number of processes.
        work: A function of a module.
        environment: More variables.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False) if size > 1 else None
    ranks = Ranks(store, tempfile.TemporaryDirectory(), [])
    folder = ranks.folder.name
    for rank in range(size):
        variables = {name: value for name, value in os.environ.items() if not name.startswith(OF_TORCHRUN)}
        if store:
            place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, LOCAL_WORLD_SIZE=size, GROUP_RANK=0)
            meet = dict(MASTER_ADDR="localhost", MASTER_PORT=store.port, TORCHELASTIC_USE_AGENT_STORE="True")
            life = dict(TORCHELASTIC_RESTART_COUNT=0, TORCHELASTIC_ERROR_FILE=f"{folder}/attempt_0/{rank}/e.json")
            variables |= {name: str(value) for name, value in (place | meet | life).items()}
        streams = [Path(folder, f"{rank}_{name}") for name in STREAMS]
        for path in streams:
            path.touch()
        process = SERVER.Process(target=be_rank, args=(variables | environment, streams, work, arguments))
        process.start()
        ranks.processes.append(process)
    return ranks


@dataclass
class Ranks:
    """Processes that were started together."""

    store: dist.TCPStore | None  # where they meet; it has to live as long as they do
    folder: tempfile.TemporaryDirectory
    processes: list[Any]

    def alive(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def send(self, number: int) -> None:
        """Send each process a signal."""
        for process in self.processes:
            os.kill(process.pid, number)

    def finish(self, timeout: float = 120) -> list[Rank]:
        """Wait for the end of all.  raises: TimeoutError with what they said, after these seconds; they are killed."""
        until = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        hung = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for process in self.processes:
            process.kill()
            process.join()
        with self.folder as folder:
            files = [[Path(folder, f"{rank}_{name}") for name in STREAMS] for rank in range(len(self.processes))]
            if hung:
                errors = "\n".join(path.read_text() for _, path, _ in files)
                raise TimeoutError(f"ranks {hung} of {len(files)} have not ended in {timeout:g} s:\n{errors}")
            return [
                Rank(process.exitcode, said.read_text(), errors.read_text(), read_value(value))
                for process, (said, errors, value) in zip(self.processes, files, strict=True)
            ]


def be_rank(variables: dict[str, str], streams: Sequence[Path], work: Callable[..., Any], arguments: tuple) -> None:
    """Be one of the processes: what it prints goes into files, what `work` returns into another."""
    os.environ.clear()
    os.environ.update(variables)
    for number, path in zip((1, 2), streams, strict=False):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    torch.set_num_threads(1)  # or four processes with a thread per core would get in each other's way
    value = work(*arguments)
    streams[2].write_bytes(pickle.dumps(value))


def run_module(name: str, words: Sequence[str]) -> None:
    """Be `python -m name words`, in a process of run_ranks: the package is imported anew."""
    sys.argv = [name, *words]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_code(code: str) -> None:
    """Be `python -c code`."""
    exec(code, {"__name__": "__main__"})


def read_value(path: Path) -> Any:
    return pickle.loads(path.read_bytes()) if path.stat().st_size else None


def run_on_ranks(work: Callable[[], Any], world_sizes: Sequence[int]) -> dict[int, list[Any]]:
    """Call work() on every rank of a gloo group of each size.  returns: {size: [what rank 0 returned, ...]}"""
    found = {}
    for size in world_sizes:
        ranks = run_ranks(size, in_group, work)
        for rank in ranks:
            assert rank.status == 0, rank.errors
        found[size] = [rank.value for rank in ranks]
    return found


def in_group(work: Callable[[], Any]) -> Any:
    """Call work() within a process group, which for one process is a group of one."""
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    value = work()
    dist.barrier()  # a rank that leaves early would cut the others' connections
    dist.destroy_process_group()
    return value
