"""The head of arcface_torch at the time of its published figures, for its memory and time alone: all logits at once."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.heads import PartialFC, Softmax
from arcface_edu.heads.sharding import GatherBatch


class WholeLogits(PartialFC):
    """The head with (N, classes of this rank) matrices whole: of cosines, angles, logits, exponentials, as in their
    code of the time; arccos and cos run over all of them, and the softmax's gradient is made in the forward pass."""

    def forward(self, embeddings: Tensor, labels: Tensor, sizes: list[int] | None = None) -> Tensor:
        embeddings, labels = GatherBatch.apply(embeddings, labels, [len(labels)] * self.world_size)
        images = torch.arange(len(labels) // self.world_size)  # whose class is here
        columns, weight = labels[: len(images)], self.weight
        if self.sample_rate < 1:
            weight = WholeRows.apply(weight, self.sample(columns))
        cosine = F.normalize(embeddings) @ F.normalize(weight).T  # (N, C)
        margin = torch.zeros(len(images), len(weight)).scatter_(1, columns[:, None], self.margin[1])
        return WholeSoftmax.apply(
            (self.scale or 1.0) * cosine.acos().index_add(0, images, margin).cos(), images, columns
        )


class WholeSoftmax(torch.autograd.Function):
    """Mean loss over all ranks' classes, from (N, C) logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, images: Tensor, columns: Tensor) -> Tensor:
        top = all_reduce(logits.amax(1), dist.ReduceOp.MAX)
        grad = (logits - top[:, None]).exp()
        grad /= all_reduce(grad.sum(1), dist.ReduceOp.SUM)[:, None]
        loss = all_reduce(torch.zeros(len(logits)).index_copy(0, images, grad[images, columns]), dist.ReduceOp.SUM)
        grad[images] -= torch.zeros(len(images), grad.shape[1]).scatter_(1, columns[:, None], 1)
        ctx.save_for_backward(grad.div_(len(grad)))
        return -loss.log().mean()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad_loss, None, None


class WholeRows(torch.autograd.Function):
    """weight[rows], with the gradient of PartialFC's form: the rows in use alone."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.rows, ctx.shape = rows, weight.shape
        return weight[rows]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return torch.sparse_coo_tensor(ctx.rows[None], grad, ctx.shape), None


class OnEveryRank(Softmax):
    """Data parallel: each rank has all centres and the (B, C) logits of its own images; DDP averages the gradients."""

    def forward(self, embeddings: Tensor, labels: Tensor, sizes: list[int] | None = None) -> Tensor:
        cosine = F.normalize(embeddings) @ F.normalize(self.weight).T
        margin = torch.zeros_like(cosine).scatter_(1, labels[:, None], 0.5)
        return F.cross_entropy(64 * (cosine.acos() + margin).cos(), labels)


def all_reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    """Combine `tensor` in place with that of the other ranks, and return it."""
    if dist.is_initialized():
        dist.all_reduce(tensor, operation)
    return tensor
