"""ElasticFace: every image of every step draws a margin of its own."""

from typing import Any

import torch
from torch import Tensor

from arcface_edu.errors import ConfigError
from arcface_edu.heads.margin_softmax import PartialFC
from arcface_edu.heads.margins import angular_margin


class ElasticFace(PartialFC):
    """cos(theta + E), E normal with mean m and deviation `std` (ElasticFace-Arc, arXiv 2109.09416).

    The margins of a step follow from (seed, number of the step), on any number of ranks. Gradient: exact.

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        m: Mean margin, radians.
        std: Standard deviation of the margin, radians.
        options: Those of `PartialFC`.
    """

    def __init__(
        self, embedding_size: int, num_classes: int, *, m: float = 0.5, std: float = 0.05, **options: Any
    ) -> None:
        if std < 0:
            raise ConfigError(f"std is {std!r}; the standard deviation of a margin is 0 or more.")
        super().__init__(embedding_size, num_classes, margin=(1.0, m, 0.0), gradient="exact", **options)
        self.m, self.std, self.steps = m, std, 0

    def target_logit(self, cosine: Tensor, norms: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(((self.seed or 0) << 32) + self.steps)
        self.steps += 1
        margins = self.m + self.std * torch.randn(len(cosine), generator=generator, dtype=torch.float64)
        return angular_margin(cosine, margins.clamp(min=0).to(cosine))

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.samples_drawn, self.steps])

    def set_extra_state(self, state: Tensor) -> None:
        self.samples_drawn, self.steps = state.tolist()
