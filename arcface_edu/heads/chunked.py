"""The two numbers that a softmax needs of each image, without ever holding its logits against all classes.

A row of logits for each of 128 images is 48 MB at 93,431 classes and half a gigabyte at a million; softmax, margin and
autograd would each hold it several times over. But the loss needs of it only the logit of the true class and the
log-sum-exp of all others, and the gradient needs each part only once. So both passes walk over the classes in chunks
that stay in the processor's cache.
"""

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

CHUNK_BYTES = {"cpu": 8 << 20}  # of one chunk's centres and logits: what fits the last cache
KEPT_BYTES = {"cpu": 48 << 20}  # of logits kept from forward to backward; what exceeds them is computed twice
BYTES_OF_ACCELERATORS = 256 << 20  # for both: a small chunk is computed before the next one can be launched
SMALLEST_NORM = 1e-12  # of a centre, as in F.normalize


class TrueAndOthers(torch.autograd.Function):
    """Logit of each image's true class, and log-sum-exp over all others; both in bits, since exp2 is faster than exp.

    points: (N, D), the images.  weight: (C, D), centres of any length: the logit of image i for class j is
    points[i] @ weight[j] / |weight[j]|.  rows: (R,) long, the rows of `weight` in use, or None for all of them.
    own: (N,) long, each image's true class as a place among the rows in use; -1 where another rank holds it.
    threshold: logits of others above it count as 0, unless it is None.
    update: a function of (rows, gradient) that steps a chunk's centres in place, (c,) or a slice and (c, D); then
        `weight` gets no gradient.  None leaves one in `weight.grad`, sparse where `rows` are given.
    world_size: above 1, the classes are spread over the ranks of the default process group, the images the same on all.
    returns: (N,) logits of the true classes, (N,) log2(sum(2 ** others)), over all ranks.

    The gradient for `points` is that of this rank's classes alone.
    """

    @staticmethod
    def forward(ctx, points, weight, own, rows, threshold, chunk_size, update, world_size):
        count = len(weight if rows is None else rows)
        chunk_size = chunk_size or automatic_chunk(points)
        may_keep = KEPT_BYTES.get(points.device.type, BYTES_OF_ACCELERATORS) if any(ctx.needs_input_grad) else 0
        keep = may_keep // (min(count, chunk_size) * len(points) * points.itemsize + 1)
        shortening = points.new_empty(count)  # 1 / |centre|
        true = points.new_zeros(len(points))
        top = points.new_full((len(points),), torch.finfo(points.dtype).min)  # greatest logit of another class
        total = points.new_zeros(len(points))  # sum of 2 ** (other - top)
        kept = []
        scratch = points.new_empty(min(count, chunk_size), len(points))  # made once: fresh memory is slow to touch
        for begin in range(0, count, chunk_size):
            part = slice(begin, begin + chunk_size)
            centres, short = weight[chunk(rows, part)], shortening[part]
            torch.linalg.vector_norm(centres, dim=1, out=short).clamp_(min=SMALLEST_NORM).reciprocal_()
            logits = logits_of(centres, short, points)
            if len(kept) < keep:
                kept.append(logits)
            true += own_entries(logits, own - begin)
            others = others_of(logits, own - begin, threshold, scratch)
            higher = torch.maximum(top, others.amax(0))
            total.mul_(torch.exp2(top - higher)).add_(others.sub_(higher).exp2_().sum(0))
            top = higher
        if world_size > 1:
            highest = top.clone()
            dist.all_reduce(highest, dist.ReduceOp.MAX)
            sums = torch.stack([total.mul_(torch.exp2(top - highest)), true])
            dist.all_reduce(sums)
            top, (total, true) = highest, sums
        others = top + total.log2()
        ctx.save_for_backward(points, weight, own, rows, others, shortening, *kept)
        ctx.options = threshold, chunk_size, update
        return true, others

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_true, grad_others):
        points, weight, own, rows, others, shortening, *kept = ctx.saved_tensors
        threshold, chunk_size, update = ctx.options
        grad_points = torch.zeros_like(points)
        scratch = points.new_empty(min(len(shortening), chunk_size), len(points))
        grad_centres = points.new_empty(len(shortening), points.shape[1]) if update is None else None
        with torch.autocast(points.device.type, enabled=False):
            for number, begin in enumerate(range(0, len(shortening), chunk_size)):
                part = slice(begin, begin + chunk_size)
                centres, short = weight[chunk(rows, part)], shortening[part]
                logits = kept[number] if number < len(kept) else logits_of(centres, short, points)
                grad = others_of(logits, own - begin, threshold, scratch).sub_(others).exp2_().mul_(grad_others)
                if threshold is not None:
                    grad.masked_fill_(logits > threshold, 0)
                set_own_entries(grad, own - begin, grad_true).mul_(short[:, None])
                grad_points.addmm_(grad.T, centres)
                grad_chunk = torch.mm(grad, points, out=None if update else grad_centres[part])
                # A centre's length changes nothing, so the part of its gradient along itself goes.
                along = grad.mul_(logits).sum(1).mul_(short)
                grad_chunk.addcmul_(centres, along[:, None], value=-1)
                if update:
                    update(chunk(rows, part), grad_chunk)
        if rows is not None and not update:
            with torch.sparse.check_sparse_tensor_invariants(False):  # torch 2.11 warns where nobody has chosen
                grad_centres = torch.sparse_coo_tensor(rows[None], grad_centres, weight.shape)
        return grad_points, grad_centres, None, None, None, None, None, None


def automatic_chunk(points):
    """How many classes to take at a time: as many as fit the cache, with their logits for (N, D) points."""
    size = CHUNK_BYTES.get(points.device.type, BYTES_OF_ACCELERATORS)
    return max(1, size // (sum(points.shape) * points.itemsize))


def chunk(rows, part):
    """What selects a chunk's centres from the table of all; part: a slice of the classes in use."""
    return part if rows is None else rows[part]


def logits_of(centres, short, points):
    """(c, N) from (c, D) centres, (c,) 1 / their lengths, (N, D) points: no centre is ever normalised itself."""
    return (centres @ points.T).mul_(short[:, None])


def others_of(logits, own, threshold, scratch):
    """A copy of (c, N) logits, in `scratch`, without the true classes: these take no part in a sum at -inf."""
    others = scratch[: len(logits)].copy_(logits)
    if threshold is not None:
        others.masked_fill_(logits > threshold, 0)
    return set_own_entries(others, own, torch.full_like(others[0], -torch.inf))


def own_entries(logits, own):
    """(N,) from (c, N): the entries of the true classes, 0 where they are in another chunk."""
    place = own.clamp(0, len(logits) - 1)
    return torch.where(own == place, logits.gather(0, place[None])[0], 0)


def set_own_entries(logits, own, values):
    """(N,) values in their places of (c, N) logits, where they are in this chunk."""
    place = own.clamp(0, len(logits) - 1)[None]
    return logits.scatter_(0, place, torch.where(own == place, values, logits.gather(0, place)))
