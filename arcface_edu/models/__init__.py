"""Networks: an aligned face in, an embedding out."""

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


def build_model(network, embedding_size=512, dropout=0.0, gradient_checkpointing=False):
    """A network by its name: (B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32.

    network: "r18" "r34" "r50" "r100" "r200"; "r10", the small one of the default run, and "r10_quick", which has even
    less to do; "mbf" "mbf_large"; "vit_t" "vit_s" "vit_b" "vit_l", and their kin in models/vit.py. Raises ConfigError
    for others.
    dropout: before the last linear layer.
    gradient_checkpointing: keep only each block's input for the backward pass and compute the rest again there.
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
