"""Checks of the exercises on the margin: each prints what is still wrong."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.course.checks import fail
from arcface_edu.errors import DataError
from arcface_edu.heads import MarginSoftmax, target_logit


def check_margin(attempt: Callable[[Tensor, float], Any]) -> bool:
    """Check that `attempt(cosine, m)` is ArcFace's logit at every angle, and its gradient right; print what is wrong.

    The gradient must be finite, and must never push a face away from its centre.

    Args:
        attempt: (T,) cosines and m in radians -> (T,) cos(theta + m), and past theta + m = pi the line
            cos(theta) - m*sin(m).

    Returns:
        Whether the attempt is right.
    """
    m = 0.5
    degrees = torch.arange(1, 180, dtype=torch.float64)
    cosine = degrees.deg2rad().cos().requires_grad_()
    logit = attempt(cosine, m)
    if logit is None:
        return fail("The function returns nothing yet: let it return the logits, as many as there are cosines.")
    if not isinstance(logit, torch.Tensor) or logit.shape != cosine.shape:
        return fail(f"It should return a tensor of shape {tuple(cosine.shape)}, one logit for each cosine.")
    turned = degrees.deg2rad() + m > math.pi
    wanted = target_logit(cosine.detach(), (1.0, m, 0.0), "exact")
    off = (logit.detach() - wanted).abs() > 1e-6
    if torch.allclose(logit.detach(), cosine.detach()):
        return fail("These are the cosines as they came: there is no margin in them yet.")
    if off[~turned].any():
        if torch.allclose(logit.detach()[~turned], (cosine.detach() - m)[~turned]):
            return fail("That is CosFace: m is taken from the cosine. ArcFace adds it to the angle.")
        if torch.allclose(logit.detach()[~turned], (degrees.deg2rad() - m).cos()[~turned]):
            return fail("m has the wrong sign: it should make the angle larger, and the task harder.")
        at = int(degrees[off][0])
        return fail(f"At {at}° the logit is {logit[off][0]:.3f}; it should be cos({at}° + m) = {wanted[off][0]:.3f}.")
    if not logit.requires_grad:
        return fail("The values are right, but no gradient flows back to the cosines: something detached them.")
    (slope,) = torch.autograd.grad(logit.sum(), cosine)
    if not torch.isfinite(slope).all():
        return fail("The values are right, but the gradient is not finite everywhere.")
    if (slope[turned] < 0).any():
        at = int(degrees[turned & (slope < 0)][0])
        return fail(f"Right up to 151°. At {at}°, past π − m, your gradient still pushes a bad angle to a worse one.")
    if off[turned].any():
        at = int(degrees[off][0])
        return fail(f"At {at}°, past π − m, the logit is {logit[off][0]:.3f}; the line has {wanted[off][0]:.3f} there.")
    edges = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(attempt(edges, m).sum(), edges)
    if not torch.isfinite(slope).all():
        return fail("At a cosine of exactly 1 or -1 the gradient is not finite: keep arccos a little away from there.")
    print("Right: the margin, the line past π − m, and a gradient that is finite and never points the wrong way.")
    return True


def check_head(attempt: Callable[[Tensor, Tensor, Tensor], Any]) -> bool:
    """Check that `attempt` computes ArcFace's loss and has none of the four bugs; print which one it has.

    Args:
        attempt: (N, D) embeddings, (C, D) class centres, (N,) labels -> the mean loss with m = 0.5 and s = 64.

    Returns:
        Whether the attempt is right.
    """
    generator = torch.Generator().manual_seed(0)
    embeddings, weight = torch.randn(16, 8, generator=generator), torch.randn(5, 8, generator=generator)
    labels = torch.arange(16) % 5
    loss = attempt(embeddings, weight, labels)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        return fail("It should return the mean loss, a tensor of one number.")
    if not torch.isclose(loss, attempt(embeddings, 3 * weight, labels), rtol=1e-3):
        return fail("Class centres three times as long change the loss: the weights are not normalised.")
    if not torch.isclose(loss, attempt(3 * embeddings, weight, labels), rtol=1e-3):
        return fail("Embeddings three times as long change the loss: they are not normalised.")
    head = MarginSoftmax(8, 5)
    head.weight.data.copy_(weight)
    plain = 64 * F.normalize(embeddings) @ F.normalize(weight).T
    if torch.isclose(loss, F.cross_entropy(plain, labels), rtol=1e-3):
        return fail("This is the loss without a margin: it may be computed, but nothing uses it.")
    if not torch.isclose(loss, head(embeddings, labels), rtol=1e-3):
        return fail(f"The loss of a test batch is {loss:.3f}; MarginSoftmax has {head(embeddings, labels):.3f}.")
    on_centre = weight[labels].clone().requires_grad_()
    at_one = attempt(on_centre, weight, labels)
    if not torch.isfinite(at_one):
        return fail("Embeddings that lie on their centre (cos θ = 1) make the loss NaN or infinite.")
    if not torch.isfinite(torch.autograd.grad(at_one, on_centre)[0]).all():
        return fail("Embeddings that lie on their centre (cos θ = 1) make the gradient NaN or infinite.")
    try:
        wrong = attempt(embeddings, weight, labels + 1)
    except (DataError, ValueError, IndexError):
        print("Right: normalised, with its margin, finite at cos θ = 1, and a wrong label is an error.")
        return True
    except RuntimeError as error:  # PyTorch's own, from deep inside
        return fail(
            f"Label 5 of 5 classes ends in PyTorch with '{str(error).splitlines()[0]}': say it yourself, first."
        )
    return fail(f"Label 5 of 5 classes goes unnoticed: the loss is {wrong:.2f}. Raise a ValueError that says so.")


def check_ablation(attempt: Callable[[Callable[[float, float, int], float]], Any]) -> bool:
    """Check that `attempt(judge)` compares margins and scales with a control and three seeds; print what is wrong.

    Args:
        attempt: A function judge(m, s, seed) -> {(m, s): (mean, lowest, highest)}.

    Returns:
        Whether the attempt is right.
    """
    asked: dict[tuple[float, float], list[int]] = {}

    def judge(m: float, s: float, seed: int) -> float:
        asked.setdefault((m, s), []).append(seed)
        return 0.5 + 0.1 * m + 0.001 * s + 0.02 * math.sin(12.9 * seed + 7 * m + s)

    study = attempt(judge)
    if study is None:
        return fail("The function returns nothing yet: let it return {(m, s): (mean, lowest, highest)}.")
    if not isinstance(study, dict) or not all(isinstance(key, tuple) and len(key) == 2 for key in study):
        return fail("It should return a dict with a key (m, s) for each setting.")
    if set(study) != set(asked):
        return fail("The settings that it returns are not those that it has judged.")
    margins, scales = {m for m, _ in study}, {s for _, s in study}
    if 0 not in margins:
        return fail("There is no control: without a run at m = 0 nobody knows what the margin brings.")
    if len(margins) < 3 or len(scales) < 2:
        return fail(f"{len(margins)} margins and {len(scales)} scales: three and two are the least.")
    if len(study) < len(margins) * len(scales):
        return fail("Some margin is missing at some scale: the best margin may depend on the scale.")
    if any(len(set(seeds)) < 3 for seeds in asked.values()):
        return fail("A setting has fewer than three different seeds: its spread is unknown.")
    if len({tuple(sorted(set(seeds))) for seeds in asked.values()}) > 1:
        return fail("The settings have different seeds: compare them on the same ones.")
    for (m, s), summary in study.items():
        found = [judge(m, s, seed) for seed in set(asked[m, s])]
        wanted = (sum(found) / len(found), min(found), max(found))
        if len(summary) != 3 or any(abs(a - b) > 1e-6 for a, b in zip(summary, wanted, strict=True)):
            return fail(f"At m = {m}, s = {s} mean, lowest and highest should be {wanted}; they are {summary}.")
    print(f"Right: {len(study)} settings with a control, the same seeds for each, and their spread.")
    return True
