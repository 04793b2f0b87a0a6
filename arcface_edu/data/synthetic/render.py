"""A photograph of a person's maps: expression, light, surroundings, camera.

Shapes: B photographs of one person; P = 112 * 112 pixels; uv are (B, P, 2) coordinates of the head. Everything is
linear light until `develop`.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_edu.data.synthetic.anatomy import straighten
from arcface_edu.data.synthetic.canvas import REACH, bump, edge, ramp, rgb
from arcface_edu.data.synthetic.maps import CHANNELS, FaceMaps
from arcface_edu.data.synthetic.pose import CROP, on_head, on_plane, pose_head, sample, undo_alignment
from arcface_edu.data.synthetic.scene import background, clothes, occlude, patches


def render(maps: FaceMaps, photo: SimpleNamespace) -> Tensor:
    """Return the photographs of one person: (B, 3, 112, 112) in [0, 1], sRGB.

    Args:
        maps: The person.
        photo: A tensor (B,) for every name of `parameters.PHOTOGRAPH`, glasses_on (B,), and rngs, one each.
    """
    rotation, factor, shift, _ = pose_head(maps, photo)
    points = undo_alignment(factor, shift)
    uv = on_head(maps, rotation, points, photo.nearness)
    moved, gap, below = express(maps.person, photo, *uv.unbind(-1))
    surface = dict(zip(CHANNELS, sample(maps.layers, moved), strict=True))
    colour = torch.stack([surface["red"], surface["green"], surface["blue"]])  # (3, B, P)
    colour = colour + surface["eye"] * (eyeballs(maps, photo, uv) - colour)
    colour = colour + gap * (mouth(photo, below) - colour)
    face, around = illuminate(maps, photo, rotation, uv, surface, colour)
    image = behind(maps, photo, on_plane(points, rotation, -0.35), around)
    head = surface["head"].view(-1, 1, CROP, CROP)
    image = image + head * (face - image)
    image = in_front(maps, photo, on_plane(points, rotation, 0.5), uv, image, head, around)
    return develop(image, photo)


def express(p: SimpleNamespace, photo: SimpleNamespace, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move the face as the photograph's expression says.

    Args:
        p: The person.
        photo: As in `render`.
        u: (B, P) coordinate of the head.
        v: (B, P), likewise.

    Returns:
        The coordinates (B, P, 2) of the calm face that show there now, the gap between the lips as a mask (B, P), and
        the distance below the upper lip (B, P).
    """
    smile, lifted, opened = photo.smile[:, None], photo.brows[:, None], photo.mouth_open[:, None]
    du, dv = straighten(p, u, v)
    a = du.abs()
    corner = bump(a - p.mouth_width, dv - p.mouth_level, 0.13, 0.13)
    cheek = bump(a - 0.40, dv - 0.22, 0.16, 0.16)
    brow = bump(a - p.eye_apart, dv - p.eye_level + p.brow_level + 0.05, 0.24, 0.12)
    eye = bump(a - p.eye_apart, dv - p.eye_level, 0.21, 0.085)
    squeeze = (-photo.lids[:, None] - 0.10 * torch.relu(smile)).clamp(-0.3, 1.2).exp() - 1
    # the lower lip sinks by the gap, and takes the jaw with it
    x = a / (1.02 * p.mouth_width)
    width = (1 - x**2).clamp(0, 1)
    gap = opened * width**0.7
    below = dv - p.mouth_level + (0.028 * smile + p.lip_curve) * x**2 - 0.012 * torch.cos(3 * x)
    jaw = opened * bump(du, below - 0.05, 0.55, 0.35) * ramp(below, -0.01, 0.10)
    sunk = torch.maximum(jaw, torch.minimum(gap, below.clamp_min(0)) * width.sqrt())
    sway = photo.hair_sway[:, None]
    new_u = u - 0.025 * smile * corner * du.sign() + sway * ramp(-v, 0.25, 0.6) * torch.sin(5 * v + 9 * sway)
    new_v = v + (0.028 * corner + 0.02 * cheek) * smile + lifted * brow + squeeze * eye * (dv - p.eye_level) - sunk
    return torch.stack([new_u, new_v], -1), edge(below) * edge(gap - below) * ramp(gap, 0, 0.02), below


def eyeballs(maps: FaceMaps, photo: SimpleNamespace, uv: Tensor) -> Tensor:
    """Return white, iris and pupil, looking where the photograph says: (3, B, P)."""
    u, v = (uv - torch.stack([photo.gaze_x, photo.gaze_y - 0.012], -1)[:, None]).unbind(-1)
    r = torch.minimum(*[torch.hypot(u - x, v - y) for x, y, _ in maps.points[:2]])
    size = maps.person.iris_size
    iris = (
        rgb(maps.iris)[..., 0:1] * (0.75 + 0.8 * ramp(r, 0.015, 0.8 * size)) * (1 - 0.75 * ramp(r, 0.72 * size, size))
    )
    white, disc, pupil = rgb([0.25, 0.22, 0.205]), edge(size - r, 0.006), edge(0.025 - r, 0.005)
    return (white * (1 - disc) + iris * disc) * (1 - pupil) + 0.006 * pupil


def mouth(photo: SimpleNamespace, below: Tensor) -> Tensor:
    """Return what shows between the lips, (3, B, P): teeth if it is wide open, and the dark."""
    teeth = edge(0.055 - below) * ramp(below, -0.005, 0.03) * ramp(photo.mouth_open, 0.025, 0.07)[:, None]
    return rgb([0.02, 0.008, 0.006]) + teeth * rgb([0.42, 0.39, 0.35])


def illuminate(
    maps: FaceMaps, photo: SimpleNamespace, rotation: Tensor, uv: Tensor, surface: Mapping[str, Tensor], colour: Tensor
) -> tuple[Tensor, Tensor]:
    """Light the head by key light, fill light and gloss, in the coordinates of the head.

    Args:
        maps: The person.
        photo: As in `render`.
        rotation: (B, 3, 3) of the head.
        uv: (B, P, 2) coordinates of the head.
        surface: The layers of the maps by name, (B, P) each, sampled there.
        colour: (3, B, P).

    Returns:
        The lit head (B, 3, 112, 112), and the light that falls on everything around it, (B, 3, 1, 1).
    """
    batch = len(rotation)
    light = F.normalize(torch.stack([photo.light_x - 0.2, photo.light_y - 0.45, torch.ones(batch)], -1), dim=-1)
    light, view = (light[:, None] @ rotation)[:, 0], rotation[:, 2]
    steep = torch.rsqrt(surface["slope_u"].square() + surface["slope_v"].square() + 1)

    def facing(direction: Tensor) -> Tensor:
        """Return the cosine between the surface's normal and a direction (B, 3): (B, P)."""
        x, y, z = direction[:, :, None].unbind(1)
        return (z - x * surface["slope_u"] - y * surface["slope_v"]) * steep

    ratio = (0.4 + photo.contrast).exp()[:, None]
    lamp, air = temperature(photo.warmth), temperature(photo.fill_warmth)  # (B, 3)
    leaves = torch.stack([patches(rng) for rng in photo.rngs]).pow(photo.dapple[:, None, None]).view(batch, -1)
    shadow = cast_shadow(maps, light)[:, None]
    shadow = F.grid_sample(shadow, (uv / REACH)[:, None], padding_mode="border", align_corners=True)[:, 0, 0] * leaves
    key, fill = 1.6 * ratio / (1 + ratio), 0.9 / (1 + ratio)
    ambient = fill * (1 - 0.3 * facing(rotation[:, 1])) * surface["sky"]
    cosine, lit = facing(light), []
    # light that seeps through skin comes out red: red wraps farther round, and into shadows
    for c, (wrap, hard) in enumerate(((0.38, 0.85), (0.22, 0.97), (0.16, 1.0))):
        direct = key * ((cosine + wrap) / (1 + wrap)).clamp_min(0) * (1 - hard * (1 - shadow))
        lit.append(colour[c] * (direct * lamp[:, c, None] + ambient * air[:, c, None]))
    broad = facing(F.normalize(light + view, dim=-1)).clamp_min(0).square().square().square()
    sharp = broad.square().square()
    glint = (surface["gloss"] * (broad + 1.6 * sharp) + 0.01 * surface["eye"] * sharp) * shadow * key
    for x, y, _ in maps.points[:2]:  # the lamp's image in the eyes
        spot = torch.hypot(
            uv[..., 0] - x - photo.gaze_x[:, None] - 0.03 * light[:, :1],
            uv[..., 1] - y + 0.022 - 0.012 * light[:, 1:2],
        )
        glint = glint + 0.15 * surface["eye"] * edge(0.013 - spot, 0.005)
    image = torch.stack(lit, 1) + glint[:, None] * lamp[:, :, None]
    return image.view(batch, 3, CROP, CROP), ((0.75 * key + fill) * (lamp + air) / 2)[:, :, None, None]


def cast_shadow(maps: FaceMaps, light: Tensor) -> Tensor:
    """Return the share of the key light (B, 3) that reaches each point: (B, h, w), coarse, since shadows are soft.

    It goes from each point toward the light in five steps, and asks by how much the relief stands in the way.
    """
    low = F.avg_pool2d(maps.height[None], 4)[0]
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-REACH, REACH, len(low))] * 2, indexing="xy"), -1).view(1, -1, 2)
    blocked = torch.zeros(len(light), low.numel())
    for far in (0.06, 0.12, 0.18, 0.26, 0.36):
        there = sample(low[None], grid + far * light[:, None, :2])[0]
        blocked = torch.maximum(blocked, there - low.reshape(1, -1) - far * light[:, None, 2])
    return torch.exp(-14 * blocked).view(-1, *low.shape)


def temperature(warmth: Tensor) -> Tensor:
    """Return the colour of a light, (B, 3): warm above 0, cool below."""
    return torch.exp(warmth[:, None] * torch.tensor([1.0, 0.1, -1.1]))


def behind(maps: FaceMaps, photo: SimpleNamespace, uv: Tensor, around: Tensor) -> Tensor:
    """Return background, hair that hangs behind, neck and clothes: (B, 3, 112, 112).

    uv: (B, P, 2) on the neck's plane; around: (B, 3, 1, 1), the light.
    """
    p, image = maps.person, torch.stack([background(rng) for rng in photo.rngs])
    u, v = uv.view(-1, 1, CROP, CROP, 2).unbind(-1)
    if p.hair_length > 0.25:
        fall = edge(p.skull_width + p.hair_side - u.abs(), 0.015) * edge(p.hair_length - v, 0.05)
        image = image + fall * (0.35 * rgb(maps.hair) * around - image)
    width = 0.16 + 0.52 * p.jaw_width + 0.5 * torch.relu(v - 1.05) ** 2
    rounded = (1 - (u / width).clamp(-1, 1) ** 2).sqrt() * (0.30 + 0.35 * ramp(v, 0.9, 1.35))
    neck = rgb(maps.skin) * rgb([1.0, 0.86, 0.82]) * rounded * around
    image = image + edge(width - u.abs()) * edge(v - 0.4, 0.05) * (neck - image)
    colours, collar = zip(*[clothes(rng) for rng in photo.rngs], strict=True)
    cloth = torch.stack(colours)[:, :, None, None] * (0.75 + 0.2 * torch.sin(9 * u + 5 * v)) * around
    return image + edge(v - torch.tensor(collar)[:, None, None, None] + 0.30 * (u.abs() - 0.5)) * (cloth - image)


def in_front(
    maps: FaceMaps, photo: SimpleNamespace, near: Tensor, uv: Tensor, image: Tensor, head: Tensor, around: Tensor
) -> Tensor:
    """Add glasses and occluders to `image`. near: (B, P, 2) on the plane of the glasses; uv: on the head."""
    if photo.glasses_on.any():
        rim, lens = (sample(maps.frame, near).view(2, -1, 1, CROP, CROP) * photo.glasses_on.view(-1, 1, 1, 1)).unbind(0)
        image = image + 0.10 * lens * (0.12 - image)  # a faint reflection
        image = image + 0.95 * rim * head * (rgb(maps.rim) * around - image)
    uv = uv.view(-1, CROP, CROP, 2)
    for k in photo.occluded.nonzero()[:, 0].tolist():
        image[k] = occlude(image[k], uv[k, ..., 0], uv[k, ..., 1], maps, around[k], photo.rngs[k])
    return image


def develop(image: Tensor, photo: SimpleNamespace) -> Tensor:
    """Apply exposure, white balance, blur, tone curve and grain: linear light (B, 3, 112, 112) to sRGB in [0, 1]."""
    each = {name: value.view(-1, 1, 1, 1) for name, value in vars(photo).items() if name != "rngs"}
    grey = image[:, :, 24:104, 20:92].mean((1, 2, 3), keepdim=True)
    # The camera meters the face, and does not get it quite right.
    image = image * (0.27 / grey) ** 0.65 * each["exposure"].exp()
    image = image * torch.exp(each["tint"] * rgb([-0.5, 1.0, -0.5]))
    row = torch.arange(float(CROP))
    smear = torch.exp(-(((row - row[:, None]) / each["blur"].clamp_min(0.05)) ** 2) / 2)
    smear = smear / smear.sum(-1, keepdim=True)  # (B, 1, 112, 112): how much each row takes of every row, a Gaussian
    image = smear @ image @ smear.mT
    grey = image.mean(1, keepdim=True)
    image = (grey + each["saturation"].exp() * (image - grey)).clamp_min(0)
    image = 1.25 * image * (1 + image / 5) / (1 + image)  # a soft shoulder instead of burnt whites
    image = image.clamp(1e-4, 1) ** (each["gamma"].exp() / 2.2)
    grain = torch.stack([torch.from_numpy(rng.standard_normal((CROP, CROP), dtype=np.float32)) for rng in photo.rngs])
    hue = 0.5 * grain.roll(41, -1)
    return (image + each["grain"] * torch.stack([grain + hue, grain, grain - hue], 1)).clamp(0, 1)
