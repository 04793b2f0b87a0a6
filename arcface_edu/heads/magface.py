"""MagFace: the margin grows with the length of the embedding, and a penalty draws every embedding out."""

from typing import Any

from torch import Tensor

from arcface_edu.errors import ConfigError
from arcface_edu.heads.margin_softmax import PartialFC
from arcface_edu.heads.margins import angular_margin


class MagFace(PartialFC):
    """cos(theta + m(a)) with a, the length of the embedding, and the penalty g(a) (MagFace, arXiv 2103.06627).

    m(a) rises from `l_margin` at length `l_a` to `u_margin` at `u_a`: a long embedding has to be nearer to its centre,
    and only an image that is easy can be. g(a) = a / u_a**2 + 1 / a is least at `u_a`. Lengths beyond the two bounds
    count as the bounds. Gradient: exact, also for the length.

    Args:
        embedding_size: D.
        num_classes: Of all ranks together.
        l_margin: Radians.
        u_margin: Radians.
        l_a: Length of an embedding.
        u_a: Length of an embedding.
        lambda_g: Weight of the penalty.
        options: Those of `PartialFC`.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        l_margin: float = 0.45,
        u_margin: float = 0.8,
        l_a: float = 10.0,
        u_a: float = 110.0,
        lambda_g: float = 35.0,
        **options: Any,
    ) -> None:
        if not (0 < l_a < u_a and 0 <= l_margin <= u_margin):
            raise ConfigError(
                f"MagFace has l_a={l_a}, u_a={u_a}, l_margin={l_margin}, u_margin={u_margin}; the lower bounds are "
                f"below the upper ones, and lengths are above 0."
            )
        super().__init__(embedding_size, num_classes, margin=(1.0, l_margin, 0.0), gradient="exact", **options)
        self.l_a, self.u_a, self.l_margin, self.u_margin, self.lambda_g = l_a, u_a, l_margin, u_margin, lambda_g

    def target_logit(self, cosine: Tensor, norms: Tensor) -> Tensor:
        slope = (self.u_margin - self.l_margin) / (self.u_a - self.l_a)
        return angular_margin(cosine, self.l_margin + slope * (norms.clamp(self.l_a, self.u_a) - self.l_a))

    def penalty(self, norms: Tensor) -> Tensor:
        norms = norms.clamp(self.l_a, self.u_a)
        return self.lambda_g * (norms / self.u_a**2 + 1 / norms)
