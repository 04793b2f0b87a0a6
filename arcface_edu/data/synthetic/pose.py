"""From the head to the crop and back: turn, perspective, and the alignment by five points that every ArcFace crop has.

Shapes: B photographs of one person; P = 112 * 112 pixels of a crop; coordinates of the head (u, v), of the crop (x, y).
"""

from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_edu.data.alignment import align
from arcface_edu.data.synthetic.canvas import REACH
from arcface_edu.data.synthetic.maps import FaceMaps

CROP = 112
TEMPLATE = torch.from_numpy(align.TEMPLATE).float()  # (5, 2), where the alignment puts the landmarks, in pixels
Y, X = torch.meshgrid(*[(torch.arange(CROP) + 0.5) / (CROP / 2) - 1] * 2, indexing="ij")  # of the pixels' centres


class Pose(NamedTuple):
    """How the head stands in each crop."""

    rotation: Tensor  # (B, 3, 3)
    factor: Tensor  # (B, 1) complex: turns and scales the posed head into the crop
    shift: Tensor  # (B, 1) complex
    points: Tensor  # (B, 5, 2), the landmarks in pixels of the crop


def rotation_matrix(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Return (B, 3, 3): turn by yaw, then nod by pitch, both in degrees (B,)."""
    yaw, pitch = torch.deg2rad(yaw), torch.deg2rad(pitch)
    one, zero, cy, sy, cp, sp = torch.ones_like(yaw), 0 * yaw, yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    turn = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    nod = torch.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).view(-1, 3, 3)
    return nod @ turn


def complex_similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the similarities that bring source nearest to target, both (B, 5, 2), as `alignment.align` does for one.

    With points as complex numbers, target = factor * source + shift, complex (B, 1): a complex factor turns and scales.
    """
    source, target = torch.view_as_complex(source.contiguous()), torch.view_as_complex(target.contiguous())
    start, goal = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    factor = ((target - goal) * (source - start).conj()).sum(1, keepdim=True)
    factor = factor / (source - start).abs().square().sum(1, keepdim=True)
    return factor, goal - factor * start


def pose_head(maps: FaceMaps, photo: SimpleNamespace) -> Pose:
    """Turn the head as each photograph says, and align it.

    The landmarks lie near TEMPLATE, rarely on it: a similarity cannot undo the person's own shape and the pose.
    """
    points = maps.points.repeat(len(photo.yaw), 1, 1)
    points[:, 3:, 1] -= 0.028 * photo.smile[:, None]  # a smile lifts the corners of the mouth and draws them apart
    points[:, 3:, 0] += 0.025 * photo.smile[:, None] * torch.tensor([-1.0, 1.0])
    rotation = rotation_matrix(photo.yaw, photo.pitch)
    posed = points @ rotation.mT
    posed = (posed[..., :2] * (1 + photo.nearness[:, None, None] * posed[..., 2:])).contiguous()
    factor, shift = complex_similarity(posed, ((TEMPLATE + 0.5) / (CROP / 2) - 1).expand_as(posed))
    slip = torch.polar(photo.jitter_size.exp(), torch.deg2rad(photo.jitter_roll))[:, None]
    factor, shift = factor * slip, shift * slip + torch.complex(photo.jitter_x, photo.jitter_y)[:, None]
    crop = torch.view_as_real(torch.view_as_complex(posed) * factor + shift)
    return Pose(rotation, factor, shift, (crop + 1) * (CROP / 2) - 0.5)


def undo_alignment(factor: Tensor, shift: Tensor) -> Tensor:
    """Return the posed coordinates of every pixel of the crop: (B, P, 2)."""
    return torch.view_as_real((torch.complex(X, Y).view(1, -1) - shift) / factor)


def sample(layers: Tensor, uv: Tensor) -> Tensor:
    """Look up layers (C, H, W) of the canvas at (B, P, 2) coordinates, bilinearly: (C, B, P)."""
    return F.grid_sample(layers[None], (uv / REACH)[None], padding_mode="border", align_corners=True)[0]


def on_plane(points: Tensor, rotation: Tensor, depth: float | Tensor) -> Tensor:
    """Return which (u, v) of a plane at `depth`, a number or (B, P), each posed point (B, P, 2) shows: (B, P, 2)."""
    x, y = (points - rotation[:, None, :2, 2] * torch.as_tensor(depth)[..., None]).unbind(-1)
    m = torch.linalg.inv(rotation[:, :2, :2])[..., None]
    return torch.stack([m[:, 0, 0] * x + m[:, 0, 1] * y, m[:, 1, 0] * x + m[:, 1, 1] * y], -1)


def on_head(maps: FaceMaps, rotation: Tensor, points: Tensor, nearness: Tensor) -> Tensor:
    """Return which (u, v) of the head each posed point (B, P, 2) shows: (B, P, 2).

    A point of depth z appears at (R (u, v, z))_xy * (1 + nearness * z): solved for (u, v) by a few damped steps.
    """
    batch = len(points)
    points = points.view(batch, CROP, CROP, 2)[:, ::2, ::2].reshape(batch, -1, 2)  # smooth: every second point will do
    uv = on_plane(points, rotation, 0.3)
    for _ in range(5):
        z = sample(maps.layers[:1], uv)[0]
        uv = 0.3 * uv + 0.7 * on_plane(points / (1 + nearness[:, None] * z)[..., None], rotation, z)
    uv = F.pad(uv.view(batch, CROP // 2, CROP // 2, 2).permute(0, 3, 1, 2), (0, 1, 0, 1), mode="replicate")
    uv = F.interpolate(uv, size=(CROP + 1, CROP + 1), mode="bilinear", align_corners=True)
    return uv[:, :, :CROP, :CROP].permute(0, 2, 3, 1).reshape(batch, -1, 2)
