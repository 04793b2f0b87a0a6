"""AdaFace: the margin follows the quality of an image, for which the length of its embedding stands."""

import math
from typing import Any

import torch
from torch import Tensor

from arcface_edu.heads.margin_softmax import PartialFC
from arcface_edu.heads.margins import NEAR_ONE


class AdaFace(PartialFC):
    """cos(theta - m*q) - (m + m*q), with the quality q in [-1, 1] (AdaFace, arXiv 2204.00964).

    q is the length of the embedding, measured against mean and standard deviation of recent lengths. An image of high
    quality (q = 1) has its centre closed in on where it is hard, one of low quality (q = -1) has an ArcFace margin, and
    is left alone where it is hopeless. Gradient: exact; q passes none.

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        m: Margin, radians and cosine.
        h: Lengths at which q is 1 or -1: 1/h standard deviations from the mean.
        momentum: Share of the new batch in mean and standard deviation.
        options: Those of `PartialFC`.
    """

    batch_mean: Tensor  # of the lengths, over recent batches
    batch_std: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        m: float = 0.4,
        h: float = 0.333,
        momentum: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(embedding_size, num_classes, margin=(1.0, 0.0, m), gradient="exact", **options)
        self.m, self.h, self.momentum = m, h, momentum
        self.register_buffer("batch_mean", torch.tensor(20.0))
        self.register_buffer("batch_std", torch.tensor(100.0))

    def target_logit(self, cosine: Tensor, norms: Tensor) -> Tensor:
        quality = self.quality(norms.detach().clamp(1e-3, 100))
        theta = torch.acos(cosine.clamp(-NEAR_ONE, NEAR_ONE))
        return torch.cos((theta - self.m * quality).clamp(0, math.pi)) - self.m * (1 + quality)

    def quality(self, norms: Tensor) -> Tensor:
        """Return q, (N,), of the lengths of embeddings, (N,), after these have been counted in."""
        if len(norms) > 1:
            self.batch_mean.lerp_(norms.mean().to(self.batch_mean), self.momentum)
            self.batch_std.lerp_(norms.std().to(self.batch_std), self.momentum)
        return ((norms - self.batch_mean) / (self.batch_std + 1e-3) * self.h).clamp(-1, 1)
