"""Heads: embeddings and labels in, a loss out."""

from typing import Any, TypeAlias

from arcface_edu.heads.margin_softmax import MarginSoftmax, PartialFC
from arcface_edu.heads.margins import MARGINS, target_logit
from arcface_edu.heads.softmax import Softmax

Head: TypeAlias = PartialFC | Softmax

__all__ = [
    "MARGINS",
    "Head",
    "MarginSoftmax",
    "PartialFC",
    "Softmax",
    "build_head",
    "target_logit",
]


def build_head(config: Any, num_classes: int) -> "Head":
    """Build the head that a config names, for that many identities."""
    if config.loss == "softmax":
        return Softmax(config.embedding_size, num_classes)
    return PartialFC(
        config.embedding_size,
        num_classes,
        margin=config.margin_list or MARGINS[config.loss],
        scale=config.scale,
        gradient=config.margin_gradient,
        interclass_filtering_threshold=config.interclass_filtering_threshold,
        sample_rate=config.sample_rate,
        batch_size=config.batch_size or 0,
        seed=config.seed,
    )
