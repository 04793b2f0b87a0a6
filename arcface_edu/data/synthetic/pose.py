"""From the head to the crop and back: turn, perspective, and the alignment by five points that every ArcFace crop has.

Shapes: B photographs of one person; P = 112 * 112 pixels of a crop; places of the head (u, v), of the crop (x, y).
"""

import torch
import torch.nn.functional as F

from arcface_edu.data.synthetic.canvas import REACH

CROP = 112
# Where the alignment puts the five points, in pixels: the pupils, the tip of the nose, the corners of the mouth.
TEMPLATE = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
Y, X = torch.meshgrid(*[(torch.arange(CROP) + 0.5) / (CROP / 2) - 1] * 2, indexing="ij")  # of the pixels' centres


def rotation(yaw, pitch):
    """(B, 3, 3): turn by yaw, then nod by pitch, both in degrees (B,)."""
    yaw, pitch = torch.deg2rad(yaw), torch.deg2rad(pitch)
    one, zero, cy, sy, cp, sp = torch.ones_like(yaw), 0 * yaw, yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    turn = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    nod = torch.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).view(-1, 3, 3)
    return nod @ turn


def similarity(source, target):
    """The rotation, scale and shift that bring source nearest to target (least squares), as a real alignment does.

    With points as complex numbers, target = factor * source + shift: a complex factor turns and scales.
    source, target: (B, 5, 2).   returns: factor, shift, complex (B, 1).
    """
    source, target = torch.view_as_complex(source.contiguous()), torch.view_as_complex(target.contiguous())
    start, goal = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    factor = ((target - goal) * (source - start).conj()).sum(1, keepdim=True)
    factor = factor / (source - start).abs().square().sum(1, keepdim=True)
    return factor, goal - factor * start


def pose(maps, photo):
    """How the head stands in the crop.   returns: turn (B, 3, 3), factor, shift (B, 1), five points (B, 5, 2), pixels.

    The points lie near TEMPLATE, rarely on it: what a similarity cannot mend is the person's own, and the pose's.
    """
    points = maps.points.repeat(len(photo.yaw), 1, 1)
    points[:, 3:, 1] -= 0.028 * photo.smile[:, None]  # a smile lifts the corners of the mouth and draws them apart
    points[:, 3:, 0] += 0.025 * photo.smile[:, None] * torch.tensor([-1.0, 1.0])
    turn = rotation(photo.yaw, photo.pitch)
    posed = points @ turn.mT
    posed = (posed[..., :2] * (1 + photo.nearness[:, None, None] * posed[..., 2:])).contiguous()
    factor, shift = similarity(posed, ((TEMPLATE + 0.5) / (CROP / 2) - 1).expand_as(posed))
    slip = torch.polar(photo.jitter_size.exp(), torch.deg2rad(photo.jitter_roll))[:, None]
    factor, shift = factor * slip, shift * slip + torch.complex(photo.jitter_x, photo.jitter_y)[:, None]
    crop = torch.view_as_real(torch.view_as_complex(posed) * factor + shift)
    return turn, factor, shift, (crop + 1) * (CROP / 2) - 0.5


def five_points(maps, photo):
    """(B, 5, 2): pixels of the pupils, the tip of the nose and the corners of the mouth (left before right)."""
    return pose(maps, photo)[3]


def undo_alignment(factor, shift):
    """Posed coordinates of every pixel of the crop: (B, P, 2)."""
    return torch.view_as_real((torch.complex(X, Y).view(1, -1) - shift) / factor)


def sample(layers, places):
    """Bilinear look-up. layers: (C, H, W) over the canvas; places: (B, P, 2).   returns: (C, B, P)."""
    return F.grid_sample(layers[None], (places / REACH)[None], padding_mode="border", align_corners=True)[0]


def on_plane(points, turn, depth):
    """Which (u, v) of a plane at this depth (a number, or (B, P)) each posed point (B, P, 2) shows: (B, P, 2)."""
    x, y = (points - turn[:, None, :2, 2] * torch.as_tensor(depth)[..., None]).unbind(-1)
    m = torch.linalg.inv(turn[:, :2, :2])[..., None]
    return torch.stack([m[:, 0, 0] * x + m[:, 0, 1] * y, m[:, 1, 0] * x + m[:, 1, 1] * y], -1)


def on_head(maps, turn, points, nearness):
    """Which place (u, v) of the head each posed point (B, P, 2) shows: (B, P, 2).

    A place of depth z appears at (R (u, v, z))_xy * (1 + nearness * z): solved for (u, v) by a few damped steps.
    """
    many = len(points)
    points = points.view(many, CROP, CROP, 2)[:, ::2, ::2].reshape(many, -1, 2)  # smooth: every second point will do
    place = on_plane(points, turn, 0.3)
    for _ in range(5):
        z = sample(maps.layers[:1], place)[0]
        place = 0.3 * place + 0.7 * on_plane(points / (1 + nearness[:, None] * z)[..., None], turn, z)
    place = F.pad(place.view(many, CROP // 2, CROP // 2, 2).permute(0, 3, 1, 2), (0, 1, 0, 1), mode="replicate")
    place = F.interpolate(place, size=(CROP + 1, CROP + 1), mode="bilinear", align_corners=True)
    return place[:, :, :CROP, :CROP].permute(0, 2, 3, 1).reshape(many, -1, 2)
