"""Checks of the exercises on a softmax in chunks and over processes: each prints what is still wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.course.checks import fail

Pair = tuple[Tensor, Tensor]  # of some classes: maximum (N,), and sum of exp(logit - maximum) (N,)


def check_merge(attempt: Callable[[Pair, Pair], Any]) -> bool:
    """Check that `attempt(a, b)` joins the pairs of two chunks of classes without overflow; print what is wrong.

    Args:
        attempt: Two pairs (maximum, sum of exp(logit - maximum)) of (N,) tensors -> the pair of both chunks together.

    Returns:
        Whether the attempt is right.
    """
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 40, generator=generator)
    joined, said = _joined(attempt, logits[:, :15], logits[:, 15:])
    if joined is None:
        return fail(said)
    top, total = joined
    if not torch.allclose(top, logits.amax(1)):
        return fail("The first of the pair should be the greater of the two maxima, image by image.")
    parts = [_summary(part)[1] for part in (logits[:, :15], logits[:, 15:])]
    if torch.allclose(total, parts[0] + parts[1]):
        return fail("The two sums count from different maxima: bring each to the common one before adding.")
    wanted = _summary(logits)[1]
    if not torch.allclose(total, wanted, rtol=1e-4):
        return fail(f"The sum of the first image is {total[0]:.3f}; all its classes at once give {wanted[0]:.3f}.")
    large = logits + torch.tensor([-500.0, 0, 89, 200, 500])[:, None]
    top, total = attempt(_summary(large[:, :15]), _summary(large[:, 15:]))
    if not torch.allclose(top + total.log(), large.logsumexp(1)):
        return fail(
            "Right for small logits. Near ±500 it is not: exp(maximum) itself is inf or 0 there; only take exp "
            "of differences that are 0 or less."
        )
    far = logits.clone()
    far[:, :15] -= 300
    low, high = _summary(far[:, :15]), _summary(far[:, 15:])
    for pair in ((low, high), (high, low)):
        top, total = attempt(*pair)
        if not torch.allclose(top + total.log(), far.logsumexp(1)):
            return fail("With one chunk 300 below the other it fails: only take exp of differences that are 0 or less.")
    print("Right: exp never sees more than 0, so chunks of any logits can be joined, in any order, on any machine.")
    return True


def check_backward(attempt: Callable[[Tensor, Tensor, Tensor, int, Tensor, Tensor, float], Any]) -> bool:
    """Check that `attempt` computes one rank's part of the gradients of a class-sharded softmax; print what is wrong.

    Args:
        attempt: x (N, D), centres (c, D), labels (N,), first class, maximum (N,), sum (N,), s -> the gradients of the
            mean loss, (N, D) as far as these classes contribute, and (c, D).

    Returns:
        Whether the attempt is right.
    """
    generator = torch.Generator().manual_seed(0)
    x, table = (torch.randn(count, 5, generator=generator, dtype=torch.float64) for count in (6, 9))
    labels, s = torch.tensor([0, 3, 4, 8, 8, 1]), 3.0
    x, table = x.requires_grad_(), table.requires_grad_()
    logits = s * x @ table.T
    wanted = torch.autograd.grad(F.cross_entropy(logits, labels), (x, table))
    top, total = _summary(logits.detach())
    whole, part = x.detach(), table.detach()
    shards = [(0, part[:4]), (4, part[4:])]
    found = [attempt(whole, centres, labels, first, top, total, s) for first, centres in shards]
    if found[0] is None:
        return fail("The function returns nothing yet: let it return two gradients, (N, D) and (c, D).")
    for gradients, (_, centres) in zip(found, shards, strict=True):
        shapes = [tuple(one.shape) for one in gradients] if isinstance(gradients, tuple | list) else gradients
        if shapes != [tuple(x.shape), tuple(centres.shape)]:
            return fail(f"It should return two tensors, of {tuple(x.shape)} and {tuple(centres.shape)}.")
    for name, mine, right in (
        ("embeddings", found[0][0] + found[1][0], wanted[0]),
        ("centres", torch.cat([found[0][1], found[1][1]]), wanted[1]),
    ):
        if torch.allclose(mine, right):
            continue
        for factor, words in ((len(x), "the loss is a mean: divide by N"), (1 / s, "the scale s is missing")):
            if torch.allclose(mine, factor * right):
                return fail(f"The gradient of the {name} is {factor:.3g} times too large: {words}.")
        return fail(
            f"The gradient of the {name}, of both processes together, is off by {(mine - right).abs().max():.2g}."
        )
    print("Right: two processes together have the gradients of one, and sent only what the softmax needs.")
    return True


def _joined(attempt: Callable[[Pair, Pair], Any], left: Tensor, right: Tensor) -> tuple[Any, str]:
    """Return (the pair, ""), or (None, a sentence on what is wrong with its form)."""
    found = attempt(_summary(left), _summary(right))
    if found is None:
        return None, "The function returns nothing yet: let it return a pair, (maximum, sum)."
    if not isinstance(found, tuple | list) or len(found) != 2:
        return None, "It should return two things, (maximum, sum)."
    if not all(isinstance(one, torch.Tensor) and one.shape == (len(left),) for one in found):
        return None, f"Both should be tensors of shape ({len(left)},), one number an image."
    return found, ""


def _summary(logits: Tensor) -> Pair:
    top = logits.amax(1)
    return top, (logits - top[:, None]).exp().sum(1)
