"""From the angle between an embedding and its class centre to the target logit: cos(m1*theta + m2) - m3.

One formula holds three margins (ArcFace, arXiv 1801.07698, eq. 4): m1 multiplies the angle, as SphereFace does, m2 is
ArcFace's, m3 CosFace's. SphereFace's own m = 4 is piecewise, and CurricularFace changes the negatives: they do not fit,
and have heads of their own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MARGINS = {
    "norm_softmax": (1.0, 0.0, 0.0),
    "sphereface": (1.35, 0.0, 0.0),
    "cosface": (1.0, 0.0, 0.35),
    "arcface": (1.0, 0.5, 0.0),
    "combined1": (1.0, 0.3, 0.2),
    "combined2": (0.9, 0.4, 0.15),
}

# The derivative of arccos is infinite at +-1. Closer to it than this (0.08 degrees) the exact gradient is taken as 0.
NEAR_ONE = 1 - 1e-6


def target_logit(cosine: Tensor, margin: Sequence[float], gradient: str = "straight-through") -> Tensor:
    """Return the logit of the target class after the margin, before the scale (ArcFace eq. 4).

    "exact" is the derivative of the formula, m1*sin(m1*theta + m2) / sin(theta): the paper's, and arcface_torch's until
    December 2022, from January 2022 on with a guard. Past m1*theta + m2 = pi the formula turns back up and would push a
    bad angle to a worse one; from there on the logit is cos(theta) - m2*sin(m2) - m3, which falls all the way to
    theta = pi. The value steps down there, by 0.12 for m2 = 0.5; the gradient is right on either side.

    "straight-through" passes the gradient on to `cosine` as if there were no margin (factor 1), as arcface_torch has
    done since December 2022, when it moved the margin out of autograd. Past pi the logit turns back up, as it does
    there; the gradient keeps its sign. For CosFace (m1 = 1, m2 = 0) the two are the same.

    Args:
        cosine: (...,) of the angle theta between embedding and class centre, in [-1, 1] up to rounding.
        margin: (m1, m2, m3), the angles in radians.
        gradient: "straight-through" or "exact".

    Returns:
        (...,) cos(m1*theta + m2) - m3.
    """
    if gradient == "straight-through":
        with torch.no_grad():
            shift = margin_formula(cosine.clamp(-1, 1), margin) - cosine
        return cosine + shift
    m1, m2, m3 = margin
    logit = margin_formula(cosine.clamp(-NEAR_ONE, NEAR_ONE), margin)
    turn = math.cos((math.pi - m2) / m1) if m1 * math.pi + m2 > math.pi else -math.inf  # cosine at m1*theta + m2 = pi
    # m2*sin(m2) for m1 = 1; a larger m1 turns earlier, and needs the larger step down to stay below -1.
    step = max(m2 * math.sin(m2), 1 + turn)
    return torch.where(cosine > turn, logit, cosine - step - m3)


def margin_formula(cosine: Tensor, margin: Sequence[float]) -> Tensor:
    """Return cos(m1*theta + m2) - m3 for theta = arccos(cosine)."""
    m1, m2, m3 = margin
    return torch.cos(m1 * torch.acos(cosine) + m2) - m3


def angular_margin(cosine: Tensor, m2: Tensor) -> Tensor:
    """Return cos(theta + m2) for images that have a margin each, (N,), with its exact gradient, also for `m2`.

    Past theta + m2 = pi the usual line takes over, as in `target_logit`.

    Args:
        cosine: (N,), of the angle theta.
        m2: (N,), radians.
    """
    cosine = cosine.clamp(-NEAR_ONE, NEAR_ONE)
    return torch.where(cosine > -torch.cos(m2), torch.cos(torch.acos(cosine) + m2), cosine - m2 * torch.sin(m2))


def straight_through(cosine: Tensor, logit: Tensor) -> Tensor:
    """Return `logit` with the gradient of `cosine`: what the margin adds is taken as a constant."""
    return cosine + (logit - cosine).detach()
