"""What a head needs that is sharded by class over the ranks: its messages, first centres and state dicts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

BLOCK = 1024  # classes whose first centres come from one random generator

# torch 2.14 warns of the old names of these two; torch 2.9 knows no others.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def draw_centres(weight: Tensor, first_class: int, seed: int) -> None:
    """Fill `weight`, (rows, ...) of the classes from `first_class` on, with its part of all classes' N(0, 0.01)."""
    weight = weight.flatten(1)  # sub-centres of a class one behind the other
    rows, dimension = weight.shape
    for block in range(first_class // BLOCK, -(-(first_class + rows) // BLOCK)):
        begin = block * BLOCK - first_class  # in this shard; below 0 if the block began in the one before
        centres = np.random.default_rng([seed, block]).standard_normal((BLOCK, dimension), dtype=np.float32)
        weight[max(0, begin) : begin + BLOCK] = 0.01 * torch.from_numpy(centres[max(0, -begin) : rows - begin])


def as_dtensor(tensor: Tensor, num_classes: int, world_size: int) -> Tensor:
    """Return (classes of this rank, ...) as a DTensor of (num_classes, ...) on the same memory; alone, the tensor."""
    if not dist.is_initialized():
        return tensor
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh  # a slow import, of no use to one process

    mesh = init_device_mesh(tensor.device.type, (world_size,))
    shape = torch.Size((num_classes, *tensor.shape[1:]))
    return DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False, shape=shape, stride=tensor.stride())


def show_whole_table(head: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    """After state_dict: put the table of all classes in the place of this rank's rows."""
    state[f"{prefix}weight"] = head.as_dtensor(state[f"{prefix}weight"])


def keep_own_rows(head: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before load_state_dict: put this rank's rows in the place of the table of all classes."""
    name = f"{prefix}weight"
    if name not in state:
        return
    if len(state[name]) != head.num_classes:
        raise RuntimeError(f"{name} has {len(state[name])} classes, the head {head.num_classes}.")
    rows = slice(head.first_class, head.first_class + len(head.weight))
    state[name] = state[name].to_local() if hasattr(state[name], "to_local") else state[name][rows]


class GatherBatch(torch.autograd.Function):
    """Gather the images of all ranks, rank after rank: (B, D) embeddings, (B,) labels -> (N, D), (N,).

    `sizes` holds the B of every rank; with a single one, nothing is done.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, labels: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        ctx.sizes = sizes
        if len(sizes) == 1:
            return embeddings, labels
        wait_embeddings, wait_labels = (gather_rows_async(local, sizes) for local in (embeddings, labels))
        return wait_embeddings(), wait_labels()

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, None, None]:
        """Sum over ranks the gradients (N, D) that their classes give every embedding, and return this rank's (B, D).

        They come back times the world size, because DistributedDataParallel divides by it: the loss is one mean over
        all images, so the backbone's gradient is the sum over ranks of what their images give, and DDP takes the mean.
        """
        if len(ctx.sizes) == 1:
            return grad, None, None
        padded = pad_sequence(grad.split(ctx.sizes), batch_first=True)  # (world, longest, ...)
        own = torch.empty_like(padded[0])
        reduce_scatter(own, padded.flatten(0, 1))
        return own[: ctx.sizes[dist.get_rank()]] * len(ctx.sizes), None, None


def count_once(value: Tensor, world_size: int) -> Tensor:
    """Return `value` with 1 / world_size of its gradient: every rank computes what follows, and all are summed."""
    return value if world_size == 1 else value / world_size + (value - value / world_size).detach()


def gather_rows_async(local: Tensor, sizes: list[int]) -> Callable[[], Tensor]:
    """Begin to gather (B, ...) of every rank, and return a function that waits for all rows, (N, ...)."""
    longest = max(sizes)  # a collective wants equal sizes, so shorter batches are padded on the way
    padded = local.new_zeros(longest, *local.shape[1:])
    padded[: len(local)] = local
    gathered = local.new_empty(longest * len(sizes), *local.shape[1:])
    work: Any = all_gather(gathered, padded, async_op=True)

    def wait() -> Tensor:
        work.wait()
        return torch.cat([rows[:size] for rows, size in zip(gathered.split(longest), sizes, strict=True)])

    return wait


def gather_sizes(size: int, world_size: int, device: torch.device) -> list[int]:
    """Return the batch size of every rank.

    The sizes travel between the CPUs where there is a way (gloo beside nccl, PyTorch's default): read from a GPU, they
    would have to wait for all that it was told to do before.
    """
    if world_size == 1:
        return [size]
    if "cpu" in dist.get_backend_config():
        device = torch.device("cpu")
    sizes = torch.zeros(world_size, dtype=torch.long, device=device)
    sizes[dist.get_rank()] = size
    dist.all_reduce(sizes)
    return sizes.tolist()
