"""Networks: an aligned face in, an embedding out."""

from arcface_edu.errors import ConfigError
from arcface_edu.models.iresnet import NETWORKS, IResNet

__all__ = ["NETWORKS", "IResNet", "build_model"]


def build_model(network, embedding_size=512, dropout=0.0, gradient_checkpointing=False):
    """A network by its name: (B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32.

    network: "r18" "r34" "r50" "r100" "r200", or "r10", the small one of the default run. Raises ConfigError for others.
    gradient_checkpointing: keep only each block's input for the backward pass and compute the rest again there.
    """
    if network not in NETWORKS:
        raise ConfigError(f'there is no network called "{network}"; known are {", ".join(NETWORKS)}.')
    return IResNet(
        **NETWORKS[network],
        embedding_size=embedding_size,
        dropout=dropout,
        gradient_checkpointing=gradient_checkpointing,
    )
