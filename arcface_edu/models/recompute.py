"""Gradient checkpointing (arXiv 1604.06174): keep a block's input only, and compute the rest again for its gradient."""

from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(block, x):
    """`block(x)`, of which the backward pass computes the inside again.

    BN's running statistics take in the batch once, not twice, so that memory is all that changes.
    """
    if torch.compiler.is_compiling():  # compiled code takes them in once by itself, and knows no `context_fn`
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_at_rest(block)))


@contextmanager
def statistics_at_rest(block):
    norms = [part for part in block.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1
