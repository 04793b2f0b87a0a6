"""A place where the true step runs without data, without GPUs and without memory.

Tensors are fake (shape and type, no numbers), processes are fake (this one of N; collectives return at once), and the
few places where the step asks what the numbers are get the answer of a healthy step. All else is the trainer's code.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.heads import MarginSoftmax, chunked, margin_softmax, softmax
from arcface_edu.models import prelu
from arcface_edu.planning.torch_internals import (
    FakeDDP,
    Patch,
    TorchDispatchMode,
    check_torch,
    fake_process_group,
    fake_tensors,
    torch_patches,
)
from arcface_edu.training import parallel, row_optim, state
from arcface_edu.training.launch import World


@contextlib.contextmanager
def fake_world(gpus: int, batch_size: int) -> Iterator[World]:
    """Within it, tensors are fake, and this process is rank 0 of `gpus` with batches of `batch_size` images.

    The device is "cpu": fake CUDA tensors need a driver in their backward pass. What a GPU would do otherwise than a
    CPU is set to the GPU's way: its PReLU, the size of the head's chunks.

    Raises:
        ConfigError: This PyTorch lacks what the planner takes from inside it.
    """
    check_torch()
    with contextlib.ExitStack() as stack:
        stack.enter_context(fake_process_group(gpus))
        for owner, name, fake in [*own_patches(), *torch_patches()]:
            stack.enter_context(mock.patch.object(owner, name, fake))
        stack.enter_context(fake_tensors())
        stack.enter_context(MaskedRows(batch_size))
        yield World(0, gpus, 0)


def own_patches() -> list[Patch]:
    """Return what of this package asks for numbers, or does on a CPU what it would not do on a GPU."""
    sparse = SparseRows()
    return [
        # Numbers that have no meaning here
        Patch(margin_softmax, "draw_centres", lambda *_: None),
        Patch(margin_softmax, "check_labels", lambda *_, **__: None),
        Patch(softmax, "check_labels", lambda *_, **__: None),
        Patch(margin_softmax, "gather_sizes", lambda size, world_size, _: [size] * world_size),
        Patch(MarginSoftmax, "sample", sample),
        Patch(state, "item_async", lambda _: lambda: True),  # the loss is finite
        # What fake tensors and fake processes lack
        Patch(torch, "sparse_coo_tensor", sparse.keep),
        Patch(row_optim, "blocks_of", sparse.blocks),
        Patch(parallel, "DistributedDataParallel", FakeDDP),
        # The ways of a GPU
        Patch(chunked, "CHUNK_BYTES", {}),
        Patch(chunked, "KEPT_BYTES", {}),
        Patch(prelu.PReLU, "forward", lambda layer, x: F.prelu(x, layer.weight.to(x.dtype))),
    ]


def sample(head: Any, positives: Tensor) -> Tensor:
    """Return as many row numbers as `MarginSoftmax.sample` does."""
    rows = len(head.weight)
    return torch.empty(min(rows, max(len(positives), round(head.sample_rate * rows))), dtype=torch.long)


class SparseRows:
    """Keeps the rows of sparse gradients until the optimizer comes: a fake sparse tensor forgets how many it holds."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def keep(self, indices: Tensor, values: Tensor, size: Sequence[int], **_: Any) -> Tensor:
        """Stand in for `torch.sparse_coo_tensor`."""
        self.parts.append((indices[0], values))
        return torch.empty(size, layout=torch.sparse_coo, device=values.device)

    def blocks(self, gradient: Tensor) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Stand in for `row_optim.blocks_of`, with the blocks of an accelerator."""
        block = row_optim.BLOCK_OF_ACCELERATORS
        if not gradient.is_sparse:
            return ((slice(at, at + block), gradient[at : at + block]) for at in range(0, len(gradient), block))
        rows, values = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*self.parts, strict=True))
        self.parts.clear()
        return zip(rows.split(block), values.split(block), strict=True)


# Steps of an optimizer in one kernel. They have no fake: PyTorch runs them, on true memory for weights and moments.
FUSED = (torch.ops.aten._fused_sgd_, torch.ops.aten._fused_adamw_)


class MaskedRows(TorchDispatchMode):
    """Gives x[mask] as many rows as one rank has images, and leaves out the fused steps, which return nothing.

    How many ones a mask has is not known. The only mask in a step selects, of all ranks' images, those whose class
    is on this rank.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
            return args[0].new_empty(min(self.batch_size, len(args[0])), *args[0].shape[1:])
        if getattr(func, "overloadpacket", None) in FUSED:
            return None
        return func(*args, **(kwargs or {}))
