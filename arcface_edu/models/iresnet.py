"""IResNet, the residual network of ArcFace (arXiv 1801.07698, section 3.1; the block is that of arXiv 1610.02915).

What sets it apart from torchvision's ResNet: BN comes first in a block, PReLU stands between the convolutions, nothing
follows the sum, the second convolution carries the stride, and a linear layer reads the whole 7 x 7 map instead of its
mean. Module names are those of the published checkpoints, so these load with `strict=True`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from arcface_edu.models.gradient_checkpointing import checkpointed
from arcface_edu.models.prelu import PReLU


class IBasicBlock(nn.Module):
    """BN - conv3x3 - BN - PReLU - conv3x3(stride) - BN, plus the input.

    (B, C_in, H, W) -> (B, C_out, H/stride, W/stride)
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.prelu = PReLU(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.conv1(self.bn1(x))
        x = self.conv2(self.prelu(self.bn2(x)))
        return self.bn3(x) + identity


class IResNet(nn.Module):
    """(B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32, not normalised.

    Args:
        blocks: blocks in each of the four stages; every stage halves the map: 112 -> 56 -> 28 -> 14 -> 7.
        widths: channels of the four stages; the stem has as many as the first.
        stem_stride: 2 quarters the work of every layer, at the price of fine detail; 4 does so again.
        stem_kernel: side of the stem's filter; at least the stride, or pixels would be skipped.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_stride: int = 1,
        stem_kernel: int = 3,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.conv1 = nn.Conv2d(3, widths[0], stem_kernel, stride=stem_stride, padding=stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = PReLU(widths[0])
        channels = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layer = [IBasicBlock(channels, width, stride=2)]
            layer += [IBasicBlock(width, width, stride=1) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
            channels = width
        side = -(-112 // (16 * stem_stride))  # 7 with stem stride 1, 4 with 2, 2 with 4: a strided 3x3 rounds up
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels * side * side, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights of convolutions from N(0, 0.1), as InsightFace does; the rest is PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)
        # The gain of each dimension stays 1, as in the published networks.
        self.features.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))  # (B, widths[0], 112, 112), or less with a stem stride
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = checkpointed(block, x) if self.gradient_checkpointing and self.training else block(x)
        x = self.dropout(self.bn2(x).flatten(1))  # (B, widths[3] * 7 * 7)
        # The last layer leaves autocast: the 3 digits of bf16 are too few for the angle between embeddings.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(self.fc(x.float()))  # (B, embedding_size)


NETWORKS: dict[str, dict[str, Any]] = {
    "r10": dict(blocks=(1, 1, 1, 1), widths=(16, 32, 96, 192), stem_stride=2),  # the default run's
    "r10_quick": dict(blocks=(1, 1, 1, 1), widths=(16, 48, 96, 192), stem_stride=4, stem_kernel=7),  # docs/speedrun.md
    "r18": dict(blocks=(2, 2, 2, 2)),
    "r34": dict(blocks=(3, 4, 6, 3)),
    "r50": dict(blocks=(3, 4, 14, 3)),
    "r100": dict(blocks=(3, 13, 30, 3)),
    "r200": dict(blocks=(6, 26, 60, 6)),
    "r2060": dict(blocks=(3, 128, 896, 3)),
}
