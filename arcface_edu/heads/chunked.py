"""The two numbers that a softmax needs of each image, without ever holding its logits against all classes.

A row of logits for each of 128 images is 48 MB at 93,431 classes and half a gigabyte at a million; softmax, margin and
autograd would each hold it several times over. But the loss needs of it only the logit of the target class and the
log-sum-exp of the negative classes, and the gradient needs each part only once. So both passes walk over the classes in
chunks that stay in the processor's cache. On a CPU that is faster as well; on an H100 chunks saved memory and cost time
(docs/performance.md). (For the log-sum-exp in one pass see "Online normalizer calculation for
softmax", arXiv 1805.02867.)
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_BYTES = {"cpu": 8 << 20}  # of one chunk's centres and logits: what fits the last cache
KEPT_BYTES = {"cpu": 48 << 20}  # of logits kept from forward to backward; what exceeds them is computed twice
BYTES_OF_ACCELERATORS = 256 << 20  # for both: a small chunk is computed before the next one can be launched
SMALLEST_NORM = 1e-12  # of a centre, as in F.normalize


class HardNegatives(NamedTuple):
    """The negatives whose logit l exceeds `limit`, and what their logit becomes: constant + linear * l + square * l**2.

    Zeros filter them out; CurricularFace and MV-Softmax give them more weight. `limit` passes no gradient.
    """

    limit: Tensor | float  # (N,), one for each image, or one for all
    constant: Tensor | float = 0.0
    linear: Tensor | float = 0.0
    square: Tensor | float = 0.0

    def reweight(self, logits: Tensor, out: Tensor) -> Tensor:
        """Write (c, N) logits to `out`, the hard ones changed, and return it."""
        changed = (logits * self.square).add_(self.linear).mul_(logits).add_(self.constant)
        return torch.where(logits > self.limit, changed, logits, out=out)

    def reweight_gradient(self, grad: Tensor, logits: Tensor) -> Tensor:
        """Carry the gradient of changed (c, N) logits back to the logits, in place."""
        slope = (logits * (2 * self.square)).add_(self.linear)
        return grad.mul_(slope.masked_fill_(logits <= self.limit, 1))


class TargetAndNegativeLSE(torch.autograd.Function):
    """Logit of each image's target class, and log-sum-exp of its negatives; both to base 2: exp2 is faster than exp.

    The gradient for `features` is that of this rank's classes alone; that for `weight` is sparse where `rows` are
    given.

    Args:
        features: (N, D), the images.
        weight: (C, D), class centres of any length: the logit of image i for class j is
            features[i] @ weight[j] / |weight[j]|. Or (C, K, D), K sub-centres a class, of which the nearest counts.
        targets: (N,) long, each image's class as an index into the rows in use; -1 where another rank holds it.
        rows: (R,) long, the rows of `weight` in use; None = all.
        hard: What becomes of the logits of hard negatives; None = nothing.
        chunk_size: Classes at a time; None = what fits the cache.
        world_size: Above 1, the classes are sharded over the default process group; the images are the same on all.

    Returns:
        (N,) logits of the target classes, and (N,) log2(sum(2 ** negatives)), over all ranks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: Tensor | None,
        hard: HardNegatives | None,
        chunk_size: int | None,
        world_size: int,
    ) -> tuple[Tensor, Tensor]:
        count, sub_centers = len(weight if rows is None else rows), weight.shape[1:-1].numel()
        chunk_size = chunk_size or max(1, automatic_chunk(features) // sub_centers)
        may_keep = KEPT_BYTES.get(features.device.type, BYTES_OF_ACCELERATORS) if any(ctx.needs_input_grad) else 0
        keep = may_keep // (min(count, chunk_size) * sub_centers * len(features) * features.itemsize + 1)
        inv_norms = features.new_empty(count, sub_centers)  # 1 / |centre|
        target = features.new_zeros(len(features))
        running_max = features.new_full((len(features),), torch.finfo(features.dtype).min)  # of the negatives
        running_sum = features.new_zeros(len(features))  # of 2 ** (negative - running_max)
        kept: list[Tensor] = []
        scratch = features.new_empty(min(count, chunk_size), len(features))  # made once: fresh memory is slow to touch
        for begin in range(0, count, chunk_size):
            part = slice(begin, begin + chunk_size)
            centres, inv_norm = weight[select(rows, part)].flatten(0, -2), inv_norms[part].flatten()
            torch.linalg.vector_norm(centres, dim=1, out=inv_norm).clamp_(min=SMALLEST_NORM).reciprocal_()
            all_logits = compute_logits(centres, inv_norm, features)  # (c * K, N)
            if len(kept) < keep:
                kept.append(all_logits)
            logits, _ = nearest_sub_center(all_logits, sub_centers)
            target += target_entries(logits, targets - begin)
            negatives = mask_targets(logits, targets - begin, hard, scratch)
            new_max = torch.maximum(running_max, negatives.amax(0))
            running_sum.mul_(torch.exp2(running_max - new_max)).add_(negatives.sub_(new_max).exp2_().sum(0))
            running_max = new_max
        if world_size > 1:
            global_max = running_max.clone()
            dist.all_reduce(global_max, dist.ReduceOp.MAX)
            sums = torch.stack([running_sum.mul_(torch.exp2(running_max - global_max)), target])
            dist.all_reduce(sums)
            running_max, (running_sum, target) = global_max, sums
        negatives_lse = running_max + running_sum.log2()
        ctx.save_for_backward(features, weight, targets, rows, negatives_lse, inv_norms, *kept)
        ctx.options = hard, chunk_size
        return target, negatives_lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_target: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, targets, rows, negatives_lse, inv_norms, *kept = ctx.saved_tensors
        hard, chunk_size = ctx.options
        count, sub_centers = inv_norms.shape
        grad_features = torch.zeros_like(features)
        scratch = features.new_empty(min(count, chunk_size), len(features))
        grad_weight = features.new_empty(count * sub_centers, features.shape[1])
        with torch.autocast(features.device.type, enabled=False):
            for number, begin in enumerate(range(0, count, chunk_size)):
                part = slice(begin, begin + chunk_size)
                centres, inv_norm = weight[select(rows, part)].flatten(0, -2), inv_norms[part].flatten()
                all_logits = kept[number] if number < len(kept) else compute_logits(centres, inv_norm, features)
                logits, nearest = nearest_sub_center(all_logits, sub_centers)
                # The gradient of a log-sum-exp is a softmax: 2 ** (logit - lse).
                grad = mask_targets(logits, targets - begin, hard, scratch).sub_(negatives_lse).exp2_()
                grad.mul_(grad_lse)
                if hard is not None:
                    hard.reweight_gradient(grad, logits)
                set_target_entries(grad, targets - begin, grad_target)
                if nearest is not None:  # the other sub-centres get none
                    zeros = torch.zeros_like(all_logits).view(-1, sub_centers, len(features))
                    grad = zeros.scatter_(1, nearest[:, None], grad[:, None]).flatten(0, 1)
                grad.mul_(inv_norm[:, None])
                grad_features.addmm_(grad.T, centres)
                own_rows = grad_weight[begin * sub_centers : (begin + chunk_size) * sub_centers]
                grad_centres = torch.mm(grad, features, out=own_rows)
                # A centre's length changes nothing, so the part of its gradient along itself goes.
                along = grad.mul_(all_logits).sum(1).mul_(inv_norm)
                grad_centres.addcmul_(centres, along[:, None], value=-1)
        grad_weight = grad_weight.view(count, *weight.shape[1:])
        if rows is not None:
            with torch.sparse.check_sparse_tensor_invariants(False):  # torch 2.11 warns where this was not chosen
                grad_weight = torch.sparse_coo_tensor(rows[None], grad_weight, weight.shape)
        return grad_features, grad_weight, None, None, None, None, None


@torch.no_grad()
def logits_of_targets(
    features: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | None, world_size: int
) -> Tensor:
    """Return the logit of each image's target class, (N,), the same on all ranks; the arguments are those above."""
    own = targets.clamp(min=0)
    centres = F.normalize(weight[own if rows is None else rows[own]], dim=-1)  # (N, D) or (N, K, D)
    logits = (centres.view(len(features), -1, features.shape[1]) @ features[:, :, None]).amax((1, 2))
    logits = torch.where(targets >= 0, logits, 0)
    if world_size > 1:
        dist.all_reduce(logits)
    return logits


def automatic_chunk(features: Tensor) -> int:
    """Return how many classes to take at a time: as many as fit the cache, with their logits for (N, D) features."""
    size = CHUNK_BYTES.get(features.device.type, BYTES_OF_ACCELERATORS)
    return max(1, size // (sum(features.shape) * features.itemsize))


def select(rows: Tensor | None, part: slice) -> Tensor | slice:
    """Return what selects a chunk's centres from the table of all, for a slice of the classes in use."""
    return part if rows is None else rows[part]


def compute_logits(centres: Tensor, inv_norm: Tensor, features: Tensor) -> Tensor:
    """Return (c, N) from (c, D) centres, (c,) 1 / their norms, (N, D) features: no centre is ever normalised itself."""
    return (centres @ features.T).mul_(inv_norm[:, None])


def nearest_sub_center(logits: Tensor, sub_centers: int) -> tuple[Tensor, Tensor | None]:
    """Return (c, N) logits of the nearest of K sub-centres and its number, from (c * K, N); with one, no number."""
    if sub_centers == 1:
        return logits, None
    nearest = logits.view(-1, sub_centers, logits.shape[1]).max(1)
    return nearest.values, nearest.indices


def mask_targets(logits: Tensor, targets: Tensor, hard: HardNegatives | None, scratch: Tensor) -> Tensor:
    """Copy (c, N) logits into `scratch` with -inf for the target classes, which take no part in the sum."""
    negatives = scratch[: len(logits)]
    negatives = negatives.copy_(logits) if hard is None else hard.reweight(logits, negatives)
    return set_target_entries(negatives, targets, torch.full_like(negatives[0], -torch.inf))


def target_entries(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the (N,) entries of the target classes in (c, N) logits, 0 where they are in another chunk."""
    index = targets.clamp(0, len(logits) - 1)
    return torch.where(targets == index, logits.gather(0, index[None])[0], 0)


def set_target_entries(logits: Tensor, targets: Tensor, values: Tensor) -> Tensor:
    """Write (N,) values to the target classes' entries of (c, N) logits, where they are in this chunk."""
    index = targets.clamp(0, len(logits) - 1)[None]
    return logits.scatter_(0, index, torch.where(targets == index, values, logits.gather(0, index)))
