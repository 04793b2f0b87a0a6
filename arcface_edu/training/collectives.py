"""The few things that the processes of a run tell each other, beside DDP's gradients and the head's embeddings.

Every function also works in a single process, where it does next to nothing.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_edu.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from arcface_edu.data.loader import Batch
    from arcface_edu.training.launch import World

T = TypeVar("T")


def is_distributed() -> bool:
    """Return whether this process belongs to a process group."""
    return dist.is_initialized()


def all_gather_object(value: T) -> list[T]:
    """Return the plain value of every rank, as a list by rank."""
    if not is_distributed():
        return [value]
    if _start:
        _start[-1].wait_for_all()
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return the sum of every rank's tensor, on every rank."""
    if is_distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def all_gather_ints_async(numbers: Sequence[int]) -> Callable[[], list[list[int]]]:
    """Begin to gather a list of whole numbers from every rank; they travel while the caller goes on.

    Returns:
        A function that waits for the numbers and returns, for each place in the list, its values by rank.
    """
    if not is_distributed():
        return lambda: [[number] for number in numbers]
    table = torch.zeros(dist.get_world_size(), len(numbers), dtype=torch.long)
    table[dist.get_rank()] = torch.tensor(numbers)
    work = dist.all_reduce(table, async_op=True)

    def wait() -> list[list[int]]:
        work.wait()
        return table.T.tolist()

    return wait


FAILED = "failed"  # the key under which the first rank that failed stands in the store of a run
_start: list["Start"] = []  # holds the one that is under way


@contextlib.contextmanager
def patient_start(world: "World", timeout_seconds: float) -> Iterator[None]:
    """Within it, `all_gather_object` waits for a rank as long as that works, and not for `timeout_seconds` alone.

    A rank may have to read the labels of a large set, or to draw faces, while the others have nothing to do.
    """
    if world.store is None:
        yield
        return
    over = threading.Event()
    _start.append(Start(world.store, world.rank, world.size, timeout_seconds))
    threading.Thread(target=_start[-1].beat_until, args=(over,), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _start.pop()


class Start:
    """The start-up of a run on several ranks: each says in the store that it lives, and where it has come to.

    Args:
        store: Of all ranks.
        rank, size: The place of this process.
        timeout_seconds: So long a rank may be silent.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, timeout_seconds: float) -> None:
        self.store, self.rank, self.size, self.timeout = store, rank, size, timeout_seconds
        self.places = 0  # that this rank has come to
        self.main_thread = threading.get_ident()

    def beat_until(self, over: threading.Event) -> None:
        """Count up a number in the store as long as the main thread works: its processor time grows."""
        clock = getattr(time, "pthread_getcpuclockid", None)
        before = -1.0
        while not over.is_set():
            now = time.clock_gettime(clock(self.main_thread)) if clock else before + 1
            with contextlib.suppress(RuntimeError):  # the store is gone: the ranks will find out by themselves
                if now != before:
                    self.store.add(f"beat_{self.rank}", 1)
            before = now
            over.wait(min(2.0, self.timeout / 4))

    def wait_for_all(self) -> None:
        """Wait until all ranks have come to the same call, or one has failed.

        Raises:
            TrainingError: A rank has been silent for too long.
        """
        self.places += 1
        self.store.set(f"place_{self.places}_{self.rank}", "")
        waiting = [rank for rank in range(self.size) if rank != self.rank]
        beats, since = dict.fromkeys(waiting, 0), dict.fromkeys(waiting, time.monotonic())
        while waiting := [rank for rank in waiting if not self.store.check([f"place_{self.places}_{rank}"])]:
            for rank in waiting:
                if (beat := self.store.add(f"beat_{rank}", 0)) != beats[rank]:
                    beats[rank], since[rank] = beat, time.monotonic()
                if time.monotonic() - since[rank] > self.timeout:
                    raise TrainingError(
                        f"rank {rank} has done nothing for {self.timeout:g} s at the start of the run; it hangs, died "
                        f"or was cut off. timeout_seconds= says how long to wait."
                    )
            if self.store.check([FAILED]):
                return  # to the collective, in which the connection to that rank is gone
            time.sleep(0.05)


class StepSync:
    """What the ranks agree on in one step, in one small message that travels while the step is computed.

    What one rank alone has met, all have to know: a rank that stopped or skipped alone would leave the others waiting
    for ever. The batches' sizes differ between ranks where records could not be read.

    Args:
        stop: Whether this rank was asked to stop.
        batches: This rank's micro-batches of the step.
    """

    def __init__(self, stop: bool, batches: Sequence["Batch"]) -> None:
        unreadable = any(batch.broken or batch.fatal for batch in batches)
        self._wait = all_gather_ints_async([stop, unreadable, *(len(batch.labels) for batch in batches)])

    @cached_property
    def _columns(self) -> list[list[int]]:
        return self._wait()

    @property
    def stop(self) -> bool:
        """Whether any rank was asked to stop."""
        return any(self._columns[0])

    @property
    def unreadable(self) -> bool:
        """Whether any rank met a record that could not be read."""
        return any(self._columns[1])

    @property
    def sizes(self) -> list[list[int]]:
        """The images of each micro-batch, by rank."""
        return self._columns[2:]


@contextlib.contextmanager
def local_rank_zero_first(world: "World") -> Iterator[None]:
    """Let rank 0 of each machine go through the block first, and the others after it; its error is theirs as well."""
    if world.local_rank > 0:
        if problem := next(filter(None, all_gather_object(None)), None):
            raise ConfigError(problem)
        yield
        return
    try:
        yield
    except Exception as error:
        all_gather_object(str(error))
        raise
    all_gather_object(None)


def assert_same_on_all_ranks(values: Mapping[str, Any]) -> None:
    """Raise ConfigError, on every rank, if a dict of plain values differs between ranks; it names rank and key."""
    by_rank = all_gather_object(values)
    for rank, theirs in enumerate(by_rank):
        for key, value in by_rank[0].items():
            if theirs.get(key) != value:
                raise ConfigError(
                    f"rank {rank} has {key}={theirs.get(key)!r} and rank 0 has {value!r}; "
                    f"all processes of a run need the same config and the same data."
                )
