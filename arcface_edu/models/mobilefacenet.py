"""MobileFaceNet (arXiv 1804.07573) at the width of InsightFace's `mbf`: 0.45 G multiply-adds, for telephones and CPUs.

A step is an inverted bottleneck: a 1x1 convolution, a 3x3 one on each channel by itself (which carries the stride), a
1x1 one back. At the end every channel of the 7 x 7 map has a filter of its own that weighs its places, in lieu of their
mean: the eyes count for more than a corner of the picture (section 3.1 of the paper). Module names are those of the
published checkpoints, so these load with `strict=True`.
"""

import torch
from torch import nn

from arcface_edu.models.prelu import PReLU
from arcface_edu.models.recompute import recomputed


class ConvBlock(nn.Module):
    """conv - BN, and PReLU unless it is `linear`: (B, C_in, H, W) -> (B, C_out, H', W')"""

    def __init__(self, channels_in, channels_out, kernel=1, stride=1, padding=0, groups=1, linear=False):
        super().__init__()
        layers = [
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        self.layers = nn.Sequential(*layers if linear else [*layers, PReLU(channels_out)])

    def forward(self, x):
        return self.layers(x)


class DepthWise(nn.Module):
    """An inverted bottleneck of `inner` channels: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride)

    residual: add the input, which then has to be of the output's shape.
    """

    def __init__(self, channels_in, channels_out, inner, stride=1, residual=False):
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(channels_in, inner),
            ConvBlock(inner, inner, 3, stride, padding=1, groups=inner),
            ConvBlock(inner, channels_out, linear=True),
        )

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class Residual(nn.Module):
    """`count` inverted bottlenecks, each with its input added: (B, C, H, W) -> (B, C, H, W)"""

    def __init__(self, channels, count, inner):
        super().__init__()
        self.layers = nn.Sequential(*[DepthWise(channels, channels, inner, residual=True) for _ in range(count)])

    def forward(self, x):
        return self.layers(x)


class WeighedPlaces(nn.Module):
    """One 7 x 7 filter a channel, then the linear layer and BN: (B, 512, 7, 7) -> (B, embedding_size)"""

    def __init__(self, embedding_size, dropout):
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(512, 512, 7, groups=512, linear=True),
            nn.Sequential(nn.Flatten(), nn.Dropout(dropout)),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x):
        return self.layers(x)


class MobileFaceNet(nn.Module):
    """(B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32, not normalised.

    blocks: residual bottlenecks at 56, 28, 14 and 7 places a side; the first stage of one block is a plain convolution.
    scale: channels are 64 and 128 times this; the bottlenecks' inner channels stay as they are.
    """

    def __init__(self, blocks, scale, embedding_size=512, dropout=0.0, gradient_checkpointing=False):
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
        self.features = WeighedPlaces(embedding_size, dropout)
        self.initialise()

    def initialise(self):
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        for layer in self.layers:
            # Of a stage each bottleneck is a piece of its own: only their inputs, the narrow ends, are kept.
            for block in layer.layers if isinstance(layer, Residual) else [layer]:
                x = recomputed(block, x) if self.gradient_checkpointing and self.training else block(x)
        # The end leaves autocast: an angle between embeddings is wanted to more than the 3 digits of bf16.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(self.conv_sep(x.float()))  # (B, embedding_size)


NETWORKS = {
    "mbf": dict(blocks=(1, 4, 6, 2), scale=2),
    "mbf_large": dict(blocks=(2, 8, 12, 4), scale=4),
}
