"""The few things that the processes of a run tell each other, beside DDP's gradients and the head's embeddings.

Every function also works in a single process, where it does next to nothing.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_edu.errors import ConfigError

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
