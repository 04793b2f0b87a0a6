"""Gradient checkpointing (arXiv 1604.06174): keep a block's input only, and compute the rest again for its gradient."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """Return `block(x)`, whose inside the backward pass computes again.

    BN's running statistics take in the batch once, not twice, so that memory is all that changes.
    """
    if torch.compiler.is_compiling():  # compiled code takes them in once by itself, and has no `context_fn`
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), frozen_bn_statistics(block)))


@contextmanager
def frozen_bn_statistics(block: nn.Module) -> Iterator[None]:
    """Let the BN layers of `block` normalise by their batch, but keep their running statistics as they are."""
    norms = [part for part in block.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1
