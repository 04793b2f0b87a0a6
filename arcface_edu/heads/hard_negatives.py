"""CurricularFace and MV-Softmax: negatives that are nearer than the margin allows get more weight."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from arcface_edu.errors import ConfigError
from arcface_edu.heads.chunked import HardNegatives
from arcface_edu.heads.margin_softmax import PartialFC


class CurricularFace(PartialFC):
    """ArcFace whose hard negatives count as cos * (t + cos) (CurricularFace, arXiv 2004.00288).

    A negative is hard if its cosine exceeds the target's after the margin. t is a moving average of the mean target
    cosine (eq. 9): about 0 at the start, where hard negatives are made light of, and above it later, when they weigh
    more. Gradient: exact; t passes none.

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        m: Margin, radians.
        momentum: Share of the new batch in t.
        options: Those of `PartialFC`.
    """

    t: Tensor

    def __init__(
        self, embedding_size: int, num_classes: int, *, m: float = 0.5, momentum: float = 0.01, **options: Any
    ) -> None:
        super().__init__(embedding_size, num_classes, margin=(1.0, m, 0.0), gradient="exact", **options)
        self.momentum = momentum
        self.register_buffer("t", torch.tensor(0.0))

    @torch.no_grad()
    def hard_negatives(self, radius: Tensor | float, targets: Callable[[], Tensor]) -> HardNegatives:
        cosine = targets() / radius
        if len(cosine):
            self.t.lerp_(cosine.mean().to(self.t), self.momentum)
        return HardNegatives(radius * self.target_logit(cosine, cosine), linear=self.t.clone(), square=1 / radius)


class MVSoftmax(PartialFC):
    """CosFace whose hard negatives count as t * cos + t - 1 (MV-AM-Softmax, arXiv 1912.00833).

    A negative is hard if its cosine exceeds the target's after the margin. Gradient: exact. With an angular margin,
    (1, 0.5, 0), it is MV-Arc-Softmax.

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        margin: (m1, m2, m3) as `MarginSoftmax` takes them.
        t: Weight of hard negatives; 1 is none.
        options: Those of `PartialFC`.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        margin: Sequence[float] = (1.0, 0.0, 0.35),
        t: float = 1.12,
        **options: Any,
    ) -> None:
        if t < 1:
            raise ConfigError(f"t is {t!r}; hard negatives of MV-Softmax weigh 1 or more.")
        super().__init__(embedding_size, num_classes, margin=margin, gradient="exact", **options)
        self.t = t

    @torch.no_grad()
    def hard_negatives(self, radius: Tensor | float, targets: Callable[[], Tensor]) -> HardNegatives:
        cosine = targets() / radius
        limit = radius * self.target_logit(cosine, cosine)
        return HardNegatives(limit, constant=(self.t - 1) * radius, linear=self.t)

    def expected_first_loss(self) -> float:
        return super().expected_first_loss() + (self.scale or 0) * (self.t - 1)  # at first, all negatives are hard
