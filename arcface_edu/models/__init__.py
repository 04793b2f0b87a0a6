"""Networks: an aligned face in, an embedding out."""

from torch import nn

from arcface_edu.errors import ConfigError
from arcface_edu.models import iresnet, mobilefacenet, vit
from arcface_edu.models.iresnet import IResNet
from arcface_edu.models.mobilefacenet import MobileFaceNet
from arcface_edu.models.vit import VisionTransformer

__all__ = ["NETWORKS", "IResNet", "MobileFaceNet", "VisionTransformer", "build_model"]

FAMILIES = (
    (IResNet, iresnet.NETWORKS),
    (MobileFaceNet, mobilefacenet.NETWORKS),
    (VisionTransformer, vit.NETWORKS),
)
NETWORKS = [name for _, networks in FAMILIES for name in networks]


def build_model(
    network: str, embedding_size: int = 512, dropout: float = 0.0, gradient_checkpointing: bool = False
) -> nn.Module:
    """Return a network with random weights: (B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32.

    Args:
        network: "r18" "r34" "r50" "r100" "r200" "r2060"; "r10", the small one of the default run, and "r10_quick",
            which computes even less; "mbf" "mbf_large"; "vit_t" "vit_s" "vit_b" "vit_l", and their kin in
            models/vit.py.
        embedding_size: numbers in an embedding.
        dropout: share of the features that are dropped in training, before the last linear layer.
        gradient_checkpointing: keep only each block's input for the backward pass and compute the rest again there.

    Raises:
        ConfigError: There is no such network.
    """
    for family, networks in FAMILIES:
        if network in networks:
            return family(
                **networks[network],
                embedding_size=embedding_size,
                dropout=dropout,
                gradient_checkpointing=gradient_checkpointing,
            )
    raise ConfigError(f'there is no network called "{network}"; known are {", ".join(NETWORKS)}.')
