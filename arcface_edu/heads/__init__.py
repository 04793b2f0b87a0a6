"""Heads: embeddings and labels in, a loss out."""

from arcface_edu.heads.margins import MARGINS, target_logit
from arcface_edu.heads.partial_fc import PartialFC
from arcface_edu.heads.softmax import MarginSoftmax, Softmax

__all__ = ["MARGINS", "MarginSoftmax", "PartialFC", "Softmax", "build_head", "target_logit"]


def build_head(config, num_classes):
    """The head that a config names, for that many identities."""
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
        seed=config.seed,
    )
