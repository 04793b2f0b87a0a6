"""What `augment="photo"` does to training images besides mirroring: plain tensor operations on a whole batch.

Each image is turned, scaled and shifted, which may bring black corners in, as the alignment of a photograph does; some
become coarse; gamma, brightness and contrast change; noise comes on top; half of the images become grey.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_edu.data.loader import seeded

# name: (lowest, highest) of an even distribution
RANGES = {
    "angle": (-8.0, 8.0),  # degrees, anticlockwise
    "scale": (0.88, 1.12),
    "shift_x": (-4.5, 4.5),  # pixels
    "shift_y": (-4.5, 4.5),
    "gamma": (-0.4, 0.4),  # logarithm of the exponent
    "brightness": (0.7, 1.3),  # factor
    "contrast": (0.6, 1.5),  # factor of the distance from the image's mean grey
    "noise": (0.0, 0.04),  # standard deviation, where white is 1
    "noise_x": (0.0, 256.0),  # which part of the sheet of noise
    "noise_y": (0.0, 256.0),
    "coarse": (0.0, 1.0),  # below COARSE: reduced to COARSE_SIDE pixels and back
    "grey": (0.0, 1.0),  # below GREY: without colour
}
COARSE, COARSE_SIDE, GREY, SHEET = 0.2, 48, 0.5, 256
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey (ITU-R 601)


def draw_photo(micro_batches: int, world_size: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Return the numbers by which the images of a step are changed: (micro_batches, world_size, batch_size, R).

    R numbers in the order of RANGES, float32, on the CPU. As `loader.draw_mirrored`, it draws the whole step on every
    rank alike, and from the step's number alone.
    """
    low, high = torch.tensor(list(RANGES.values())).T
    rolled = torch.rand(micro_batches, world_size, batch_size, len(RANGES), generator=seeded(seed, step, 2))
    return low + rolled * (high - low)


def augment_photo(images: Tensor, numbers: Tensor) -> Tensor:
    """Change the images of a batch as their numbers say.

    Args:
        images: (B, 3, S, S) float32 in [-1, 1].
        numbers: (B, R) as `draw_photo` returns them, on the CPU, so that choices need not wait for the device.

    Returns:
        (B, 3, S, S) float32 in [-1, 1], channels last in memory, on the device of the images.
    """
    device, drawn = images.device, dict(zip(RANGES, numbers.unbind(1), strict=True))
    each = {name: values.to(device, non_blocking=True).view(-1, 1, 1, 1) for name, values in drawn.items()}
    grid = F.affine_grid(placement(drawn, images.shape[-1]).to(device), list(images.shape), align_corners=False)
    x = F.grid_sample(images.contiguous().add(1).mul_(0.5), grid, align_corners=False)  # [0, 1], black outside

    coarse = (drawn["coarse"] < COARSE).nonzero()[:, 0].to(device)
    smear = _coarsening(x.shape[-1], device)
    x.index_copy_(0, coarse, smear @ x.index_select(0, coarse) @ smear.T)

    x = x.clamp_(min=0).pow_(each["gamma"].exp()).mul_(each["brightness"])
    mean = _grey(x).mean((1, 2, 3), keepdim=True)
    x = x.sub_(mean).mul_(each["contrast"]).add_(mean)
    x = x.addcmul_(_noise(drawn["noise_x"], drawn["noise_y"], x.shape[-1], device), each["noise"])
    grey = (drawn["grey"] < GREY).nonzero()[:, 0].to(device)
    x.index_copy_(0, grey, _grey(x.index_select(0, grey)).expand(-1, 3, -1, -1))
    return x.clamp_(0, 1).mul_(2).sub_(1).to(memory_format=torch.channels_last)


def placement(drawn: dict[str, Tensor], side: int) -> Tensor:
    """Return which point of the image each point of the result shows, as affine_grid takes it: (B, 2, 3).

    The result is the image turned by `angle` and scaled about its middle, then shifted.
    """
    turn = torch.deg2rad(drawn["angle"])
    cos, sin = turn.cos() / drawn["scale"], turn.sin() / drawn["scale"]
    x, y = drawn["shift_x"] * 2 / side, drawn["shift_y"] * 2 / side
    rows = [cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _grey(x: Tensor) -> Tensor:
    red, green, blue = LUMA
    return x[:, 0:1] * red + x[:, 1:2] * green + x[:, 2:3] * blue


@functools.cache
def _coarsening(side: int, device: torch.device) -> Tensor:
    """Return the matrix (side, side) that reduces a column of pixels to COARSE_SIDE and enlarges it, bilinearly."""
    few = F.interpolate(torch.eye(side)[None, None], size=(COARSE_SIDE, side), mode="bilinear", antialias=True)
    return F.interpolate(few, size=(side, side), mode="bilinear")[0, 0].to(device)


@functools.cache
def _sheet(device: torch.device) -> Tensor:
    """Return the noise that every image takes a part of, (SHEET * SHEET,) with deviation 1; its borders are joined."""
    return torch.randn(SHEET * SHEET, generator=seeded(0)).to(device)


def _noise(left: Tensor, top: Tensor, side: int, device: torch.device) -> Tensor:
    """Return a part of the sheet of noise for each image: (B, 1, side, side). left, top: (B,) on the CPU."""
    along = torch.arange(side)
    rows, columns = ((start.long()[:, None] + along) % SHEET for start in (top, left))  # (B, side)
    place = rows[:, None, :, None] * SHEET + columns[:, None, None, :]
    return _sheet(device)[place.to(device)]
