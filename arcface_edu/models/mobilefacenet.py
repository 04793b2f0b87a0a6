"""MobileFaceNet (arXiv 1804.07573) at the width of InsightFace's `mbf`: 0.45 G multiply-adds, for telephones and CPUs.

A step is an inverted bottleneck: a 1x1 convolution, a 3x3 one on each channel by itself (which carries the stride), a
1x1 one back. At the end a global depthwise convolution (GDC, section 3.1 of the paper) replaces the mean over the 7 x 7
map: each channel has a filter of its own over all positions, so that the eyes count for more than a corner of the
picture. Module names are those of the published checkpoints, so these load with `strict=True`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from arcface_edu.models.gradient_checkpointing import checkpointed
from arcface_edu.models.prelu import PReLU


class ConvBlock(nn.Module):
    """conv - BN, and PReLU unless it is `linear`: (B, C_in, H, W) -> (B, C_out, H', W')"""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        self.layers = nn.Sequential(*layers if linear else [*layers, PReLU(channels_out)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DepthWise(nn.Module):
    """An inverted bottleneck of `inner` channels: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride)

    Args:
        residual: add the input, which then has to be of the output's shape.
    """

    def __init__(
        self, channels_in: int, channels_out: int, inner: int, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(channels_in, inner),
            ConvBlock(inner, inner, 3, stride, padding=1, groups=inner),
            ConvBlock(inner, channels_out, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Residual(nn.Module):
    """`count` inverted bottlenecks, each with its input added: (B, C, H, W) -> (B, C, H, W)"""

    def __init__(self, channels: int, count: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[DepthWise(channels, channels, inner, residual=True) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GDC(nn.Module):
    """Global depthwise convolution, one 7 x 7 filter a channel, then linear and BN: (B, 512, 7, 7) -> (B, D)"""

    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(512, 512, 7, groups=512, linear=True),
            nn.Sequential(nn.Flatten(), nn.Dropout(dropout)),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MobileFaceNet(nn.Module):
    """(B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32, not normalised.

    Args:
        blocks: residual bottlenecks on the maps of 56, 28, 14 and 7 positions a side; a first stage of one block is a
            plain convolution.
        scale: channels are 64 and 128 times this; the bottlenecks' inner channels stay as they are.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        scale: int,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        narrow, wide = 64 * scale, 128 * scale
        first = ConvBlock(narrow, narrow, 3, padding=1, groups=64) if blocks[0] == 1 else None
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, narrow, 3, stride=2, padding=1),  # 56 x 56
                first or Residual(narrow, blocks[0], 128),
                DepthWise(narrow, narrow, 128, stride=2),  # 28 x 28
                Residual(narrow, blocks[1], 128),
                DepthWise(narrow, wide, 256, stride=2),  # 14 x 14
                Residual(wide, blocks[2], 256),
                DepthWise(wide, wide, 512, stride=2),  # 7 x 7
                Residual(wide, blocks[3], 256),
            ]
        )
        self.conv_sep = ConvBlock(wide, 512)
        self.features = GDC(embedding_size, dropout)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights of convolutions and linear layers as He et al. do (arXiv 1502.01852)."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            # Each bottleneck of a stage is checkpointed by itself: only its input, the narrow end, is kept.
            for block in layer.layers if isinstance(layer, Residual) else [layer]:
                x = checkpointed(block, x) if self.gradient_checkpointing and self.training else block(x)
        # The end leaves autocast: the 3 digits of bf16 are too few for the angle between embeddings.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(self.conv_sep(x.float()))  # (B, embedding_size)


NETWORKS: dict[str, dict[str, Any]] = {
    "mbf": dict(blocks=(1, 4, 6, 2), scale=2),
    "mbf_large": dict(blocks=(2, 8, 12, 4), scale=4),
}
