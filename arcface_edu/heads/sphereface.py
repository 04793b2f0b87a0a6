"""SphereFace as it was published in 2017, and its revision of 2021."""

import math
from typing import Any

import torch
from torch import Tensor

from arcface_edu.errors import ConfigError
from arcface_edu.heads.margin_softmax import PartialFC
from arcface_edu.heads.margins import NEAR_ONE, straight_through


class SphereFace(PartialFC):
    """|x| * psi(theta), psi = (-1)**k * cos(m*theta) - 2*k on [k*pi/m, (k+1)*pi/m] (SphereFace, arXiv 1704.08063).

    Embeddings keep their length, so there is no scale. psi is mixed with lambda times the plain cosine, lambda falling
    from `base` to `lambda_min` as in the authors' training code; without it m = 4 does not learn from a random start.
    Gradient: exact.

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        m: Margin, 1, 2, 3 or 4.
        base: Lambda at the first step.
        gamma: Lambda at step i is base / (1 + gamma * i).
        lambda_min: The least lambda.
        options: Those of `PartialFC`, without `scale`, which is not used.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        m: int = 4,
        base: float = 1000.0,
        gamma: float = 0.12,
        lambda_min: float = 5.0,
        scale: float | None = None,
        **options: Any,
    ) -> None:
        if m not in (1, 2, 3, 4):
            raise ConfigError(f"m is {m!r}; SphereFace multiplies the angle by 1, 2, 3 or 4.")
        super().__init__(embedding_size, num_classes, margin=(1.0, 0.0, 0.0), scale=None, gradient="exact", **options)
        self.m, self.base, self.gamma, self.lambda_min, self.steps = m, base, gamma, lambda_min, 0

    def target_logit(self, cosine: Tensor, norms: Tensor) -> Tensor:
        share = 1 / (1 + max(self.lambda_min, self.base / (1 + self.gamma * self.steps)))  # of psi in the mixture
        self.steps += 1
        theta = torch.acos(cosine.clamp(-NEAR_ONE, NEAR_ONE))
        k = (self.m * theta.detach() / math.pi).floor()
        psi = (1 - 2 * (k % 2)) * torch.cos(self.m * theta) - 2 * k
        return (1 - share) * cosine + share * psi

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.samples_drawn, self.steps])

    def set_extra_state(self, state: Tensor) -> None:
        self.samples_drawn, self.steps = state.tolist()


class SphereFaceR(PartialFC):
    """cos(min(m*theta, pi)) with the gradient of cos(theta) (SphereFace-R v1, arXiv 2109.05565).

    The paper calls this gradient characteristic gradient detachment; here it is "straight-through".

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        m: Margin, a factor of 1 or more.
        options: Those of `PartialFC`.
    """

    def __init__(self, embedding_size: int, num_classes: int, *, m: float = 1.5, **options: Any) -> None:
        if m < 1:
            raise ConfigError(f"m is {m!r}; SphereFace-R multiplies the angle by 1 or more.")
        super().__init__(embedding_size, num_classes, margin=(m, 0.0, 0.0), **options)
        self.m = m

    def target_logit(self, cosine: Tensor, norms: Tensor) -> Tensor:
        theta = torch.acos(cosine.detach().clamp(-1, 1))
        return straight_through(cosine, torch.cos((self.m * theta).clamp(max=math.pi)))
