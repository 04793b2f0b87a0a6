"""Heads: embeddings and labels in, a loss out."""

import inspect
from typing import Any, TypeAlias

from arcface_edu.errors import ConfigError
from arcface_edu.heads.adaface import AdaFace
from arcface_edu.heads.elasticface import ElasticFace
from arcface_edu.heads.hard_negatives import CurricularFace, MVSoftmax
from arcface_edu.heads.magface import MagFace
from arcface_edu.heads.margin_softmax import MarginSoftmax, PartialFC
from arcface_edu.heads.margins import MARGINS, target_logit
from arcface_edu.heads.softmax import Softmax
from arcface_edu.heads.sphereface import SphereFace, SphereFaceR

Head: TypeAlias = PartialFC | Softmax

# What `loss=` names: a class, and what sets it apart from others of this class. A new head is a line here.
HEADS: dict[str, tuple[type[Head], dict[str, Any]]] = {
    "softmax": (Softmax, {}),
    **{name: (PartialFC, {}) for name in MARGINS},
    "subcenter_arcface": (PartialFC, dict(sub_centers=3)),
    "adaface": (AdaFace, {}),
    "magface": (MagFace, {}),
    "curricularface": (CurricularFace, {}),
    "mv_softmax": (MVSoftmax, {}),
    "elasticface": (ElasticFace, {}),
    "sphereface_2017": (SphereFace, {}),
    "sphereface_r": (SphereFaceR, {}),
}

__all__ = [
    "HEADS",
    "MARGINS",
    "Head",
    "MarginSoftmax",
    "PartialFC",
    "Softmax",
    "build_head",
    "head_options",
    "target_logit",
]


def build_head(config: Any, num_classes: int) -> "Head":
    """Build the head that a config names, for that many identities.

    Raises:
        ConfigError: `head_options` holds what this head does not have, or a value that it cannot take.
    """
    head, _ = HEADS[config.loss]
    options = head_options(config.loss)
    for name in config.head_options:
        if name not in options:
            known = f"it has {', '.join(options)}" if options else "it has none"
            raise ConfigError(f"loss={config.loss} has no option {name}; {known} (head_options={config.head_options}).")
    if issubclass(head, Softmax):
        return head(config.embedding_size, num_classes)
    options |= config.head_options
    if head is PartialFC:
        options |= dict(
            margin=config.margin_list or MARGINS.get(config.loss, MARGINS["arcface"]), gradient=config.margin_gradient
        )
    elif config.margin_list:
        raise ConfigError(f"margin_list is for heads with one margin; loss={config.loss} takes head_options={options}.")
    return head(
        config.embedding_size,
        num_classes,
        scale=config.scale,
        interclass_filtering_threshold=config.interclass_filtering_threshold,
        sample_rate=config.sample_rate,
        batch_size=config.batch_size or 0,
        seed=config.seed,
        **options,
    )


def head_options(loss: str) -> dict[str, Any]:
    """Return the options that a head has besides those of every `PartialFC`, with their defaults."""
    head, options = HEADS[loss]
    own = {} if head in (PartialFC, Softmax) else inspect.signature(head).parameters
    only = inspect.Parameter.KEYWORD_ONLY
    return {name: p.default for name, p in own.items() if p.kind is only and name != "scale"} | options
