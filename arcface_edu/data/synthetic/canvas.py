"""The canvas that a person is drawn on, and the brushes: soft edges, hills, noise.

SIDE x SIDE points over [-REACH, REACH]^2, larger than the crop [-1, 1]^2, so that a head that turns shows its ears.
u runs right, v down. 1 unit = half a crop = 56 pixels, about 10 cm of a real head.
"""

import numpy as np
import torch
import torch.nn.functional as F

SIDE, REACH = 180, 1.3
STEP = 2 * REACH / (SIDE - 1)
V, U = torch.meshgrid(*[torch.linspace(-REACH, REACH, SIDE)] * 2, indexing="ij")


def edge(distance, width=0.012):
    """1 where distance > 0, 0 where it is < 0, and a soft step between, `width` wide."""
    return torch.sigmoid(distance / width)


def bump(x, y, width, height):
    """A hill of height 1 at x = y = 0."""
    return torch.exp(-((x / width) ** 2) - (y / height) ** 2)


def line(distance, width):
    """A ridge of height 1 along distance = 0."""
    return torch.exp(-((distance / width) ** 2))


def ramp(x, start, end):
    """0 before start, 1 after end, smooth between."""
    x = ((x - start) / (end - start)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def blur(image, sigma):
    """Gaussian blur of an (H, W) map; sigma in points of the canvas."""
    reach = int(2.5 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    image = F.pad(image[None, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(image, kernel[None, None, None]), kernel[None, None, :, None])[0, 0]


def noise(rng, rows, columns):
    """Smooth random map with about rows x columns bumps, mean 0, deviation near 1."""
    cells = torch.from_numpy(rng.standard_normal((1, 1, rows, columns), dtype=np.float32))
    return F.interpolate(cells, size=(SIDE, SIDE), mode="bicubic", align_corners=False)[0, 0]


def strands(rng, across, along):
    """Hair: noise that changes fast across the strands and slowly along them; both coordinates in [-1, 1]."""
    cells = torch.from_numpy(rng.standard_normal((1, 1, 24, 160), dtype=np.float32))
    look = torch.stack([across, along], -1)[None]
    fine = F.grid_sample(cells, look, padding_mode="reflection", align_corners=False)
    coarse = F.grid_sample(cells, look * 0.3, padding_mode="reflection", align_corners=False)
    return (0.6 * fine + 0.7 * coarse)[0, 0]


def linear(*srgb):
    """An sRGB colour of 0..255 as linear light in [0, 1]."""
    return (torch.tensor(srgb) / 255) ** 2.2


def over(plane):
    """A colour (3,) or scale per channel, ready to be spread over an image (3, H, W)."""
    return torch.as_tensor(plane)[:, None, None]
