"""The canvas that a person is drawn on, and the brushes: soft edges, hills, noise.

SIDE x SIDE points over [-REACH, REACH]^2, larger than the crop [-1, 1]^2, so that a head that turns shows its ears.
u runs right, v down. 1 unit = half a crop = 56 pixels, about 10 cm of a real head.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE, REACH = 180, 1.3
STEP = 2 * REACH / (SIDE - 1)
V, U = torch.meshgrid(*[torch.linspace(-REACH, REACH, SIDE)] * 2, indexing="ij")


def edge(distance: Tensor, width: float = 0.012) -> Tensor:
    """Return 1 where distance > 0, 0 where it is < 0, and a soft step between, `width` wide."""
    return torch.sigmoid(distance / width)


def bump(x: Tensor, y: Tensor, width: float, height: float) -> Tensor:
    """Return a hill of height 1 at x = y = 0."""
    return torch.exp(-((x / width) ** 2) - (y / height) ** 2)


def line(distance: Tensor, width: float | Tensor) -> Tensor:
    """Return a ridge of height 1 along distance = 0."""
    return torch.exp(-((distance / width) ** 2))


def ramp(x: Tensor, start: float, end: float) -> Tensor:
    """Return 0 before start, 1 after end, smooth between."""
    x = ((x - start) / (end - start)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Return the Gaussian blur of an (H, W) map; sigma in points of the canvas."""
    reach = int(2.5 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    image = F.pad(image[None, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(image, kernel[None, None, None]), kernel[None, None, :, None])[0, 0]


def noise(rng: np.random.Generator, rows: int, columns: int) -> Tensor:
    """Return a smooth random map with about rows x columns bumps, mean 0, deviation near 1."""
    cells = torch.from_numpy(rng.standard_normal((1, 1, rows, columns), dtype=np.float32))
    return F.interpolate(cells, size=(SIDE, SIDE), mode="bicubic", align_corners=False)[0, 0]


def strands(rng: np.random.Generator, across: Tensor, along: Tensor) -> Tensor:
    """Return the texture of hair: noise, fast across the strands and slow along them; coordinates in [-1, 1]."""
    cells = torch.from_numpy(rng.standard_normal((1, 1, 24, 160), dtype=np.float32))
    look = torch.stack([across, along], -1)[None]
    fine = F.grid_sample(cells, look, padding_mode="reflection", align_corners=False)
    coarse = F.grid_sample(cells, look * 0.3, padding_mode="reflection", align_corners=False)
    return (0.6 * fine + 0.7 * coarse)[0, 0]


def linear(*srgb: float) -> Tensor:
    """Return an sRGB colour of 0..255 as linear light in [0, 1]."""
    return (torch.tensor(srgb) / 255) ** 2.2


def rgb(channels: Tensor | Sequence[float]) -> Tensor:
    """Return a colour, or a factor per channel, as (3, 1, 1), which broadcasts over an image (3, H, W)."""
    return torch.as_tensor(channels)[:, None, None]
