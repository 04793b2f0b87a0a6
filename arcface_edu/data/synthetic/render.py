"""A photograph of a relief: change the mood, light it, put things around it, press the button.

Shapes: B photographs of one person; P = 112 * 112 pixels. Everything is linear light until `develop`.
"""

import numpy as np
import torch
import torch.nn.functional as F

from arcface_edu.data.synthetic.anatomy import straighten
from arcface_edu.data.synthetic.canvas import REACH, bump, edge, over, ramp
from arcface_edu.data.synthetic.maps import CHANNELS
from arcface_edu.data.synthetic.pose import CROP, on_head, on_plane, pose, sample, undo_alignment
from arcface_edu.data.synthetic.scene import background, clothes, occlude, patches


def take(maps, photo):
    """The photographs of one person: (B, 3, 112, 112) in [0, 1], sRGB.

    photo: a namespace with a tensor (B,) for every name of `faces.PHOTOGRAPH`, glasses_on (B,), and rngs, one each.
    """
    turn, factor, shift, _ = pose(maps, photo)
    points = undo_alignment(factor, shift)
    place = on_head(maps, turn, points, photo.nearness)
    moved, gap, below = express(maps.person, photo, *place.unbind(-1))
    look = dict(zip(CHANNELS, sample(maps.layers, moved), strict=True))
    colour = torch.stack([look["red"], look["green"], look["blue"]])  # (3, B, P)
    colour = colour + look["eye"] * (eyeballs(maps, photo, place) - colour)
    colour = colour + gap * (mouth(photo, below) - colour)
    face, around = illuminate(maps, photo, turn, place, look, colour)
    image = behind(maps, photo, on_plane(points, turn, -0.35), around)
    head = look["head"].view(-1, 1, CROP, CROP)
    image = image + head * (face - image)
    image = in_front(maps, photo, on_plane(points, turn, 0.5), place, image, head, around)
    return develop(image, photo)


def express(p, photo, u, v):
    """The face in motion. u, v: (B, P).   returns: the place (B, P, 2) of the calm face that shows there now,
    the gap between the lips as a mask (B, P), and the distance below the upper lip (B, P).
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


def eyeballs(maps, photo, place):
    """White, iris and pupil, looking where the photograph says: (3, B, P)."""
    u, v = (place - torch.stack([photo.gaze_x, photo.gaze_y - 0.012], -1)[:, None]).unbind(-1)
    r = torch.minimum(*[torch.hypot(u - x, v - y) for x, y, _ in maps.points[:2]])
    size = maps.person.iris_size
    iris = (
        over(maps.iris)[..., 0:1] * (0.75 + 0.8 * ramp(r, 0.015, 0.8 * size)) * (1 - 0.75 * ramp(r, 0.72 * size, size))
    )
    white, disc, pupil = over([0.25, 0.22, 0.205]), edge(size - r, 0.006), edge(0.025 - r, 0.005)
    return (white * (1 - disc) + iris * disc) * (1 - pupil) + 0.006 * pupil


def mouth(photo, below):
    """What shows between the lips, (3, B, P): teeth if it is wide open, and the dark."""
    teeth = edge(0.055 - below) * ramp(below, -0.005, 0.03) * ramp(photo.mouth_open, 0.025, 0.07)[:, None]
    return over([0.02, 0.008, 0.006]) + teeth * over([0.42, 0.39, 0.35])


def illuminate(maps, photo, turn, place, look, colour):
    """Key light, fill light and gloss, in the coordinates of the head.

    returns: the lit head (B, 3, 112, 112), and the light that falls on everything around it, (B, 3, 1, 1).
    """
    many = len(turn)
    light = F.normalize(torch.stack([photo.light_x - 0.2, photo.light_y - 0.45, torch.ones(many)], -1), dim=-1)
    light, view = (light[:, None] @ turn)[:, 0], turn[:, 2]
    steep = torch.rsqrt(look["slope_u"].square() + look["slope_v"].square() + 1)

    def facing(direction):
        """Cosine between the surface's normal and a direction (B, 3): (B, P)."""
        x, y, z = direction[:, :, None].unbind(1)
        return (z - x * look["slope_u"] - y * look["slope_v"]) * steep

    ratio = (0.4 + photo.contrast).exp()[:, None]
    lamp, air = temperature(photo.warmth), temperature(photo.fill_warmth)  # (B, 3)
    leaves = torch.stack([patches(rng) for rng in photo.rngs]).pow(photo.dapple[:, None, None]).view(many, -1)
    shadow = cast_shadow(maps, light)[:, None]
    shadow = (
        F.grid_sample(shadow, (place / REACH)[:, None], padding_mode="border", align_corners=True)[:, 0, 0] * leaves
    )
    key, fill = 1.6 * ratio / (1 + ratio), 0.9 / (1 + ratio)
    ambient = fill * (1 - 0.3 * facing(turn[:, 1])) * look["sky"]
    cosine, image = facing(light), []
    # light that seeps through skin comes out red: red wraps farther round, and into shadows
    for c, (wrap, hard) in enumerate(((0.38, 0.85), (0.22, 0.97), (0.16, 1.0))):
        direct = key * ((cosine + wrap) / (1 + wrap)).clamp_min(0) * (1 - hard * (1 - shadow))
        image.append(colour[c] * (direct * lamp[:, c, None] + ambient * air[:, c, None]))
    broad = facing(F.normalize(light + view, dim=-1)).clamp_min(0).square().square().square()
    sharp = broad.square().square()
    glint = (look["gloss"] * (broad + 1.6 * sharp) + 0.01 * look["eye"] * sharp) * shadow * key
    for x, y, _ in maps.points[:2]:  # the lamp's image in the eyes
        spot = torch.hypot(
            place[..., 0] - x - photo.gaze_x[:, None] - 0.03 * light[:, :1],
            place[..., 1] - y + 0.022 - 0.012 * light[:, 1:2],
        )
        glint = glint + 0.15 * look["eye"] * edge(0.013 - spot, 0.005)
    image = torch.stack(image, 1) + glint[:, None] * lamp[:, :, None]
    return image.view(many, 3, CROP, CROP), ((0.75 * key + fill) * (lamp + air) / 2)[:, :, None, None]


def cast_shadow(maps, light):
    """Share of the key light (B, 3) that reaches each place: (B, h, w), on a coarse canvas, for shadows are soft.

    It goes from each place toward the light in five steps, and asks by how much the relief stands in the way.
    """
    low = F.avg_pool2d(maps.height[None], 4)[0]
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-REACH, REACH, len(low))] * 2, indexing="xy"), -1).view(1, -1, 2)
    blocked = torch.zeros(len(light), low.numel())
    for far in (0.06, 0.12, 0.18, 0.26, 0.36):
        there = sample(low[None], grid + far * light[:, None, :2])[0]
        blocked = torch.maximum(blocked, there - low.reshape(1, -1) - far * light[:, None, 2])
    return torch.exp(-14 * blocked).view(-1, *low.shape)


def temperature(warmth):
    """Colour of a light, (B, 3): warm above 0, cool below."""
    return torch.exp(warmth[:, None] * torch.tensor([1.0, 0.1, -1.1]))


def behind(maps, photo, place, around):
    """Background, hair that hangs behind, neck and clothes: (B, 3, 112, 112). place: (B, P, 2) on the neck's plane."""
    p, image = maps.person, torch.stack([background(rng) for rng in photo.rngs])
    u, v = place.view(-1, 1, CROP, CROP, 2).unbind(-1)
    if p.hair_length > 0.25:
        fall = edge(p.skull_width + p.hair_side - u.abs(), 0.015) * edge(p.hair_length - v, 0.05)
        image = image + fall * (0.35 * over(maps.hair) * around - image)
    width = 0.16 + 0.52 * p.jaw_width + 0.5 * torch.relu(v - 1.05) ** 2
    rounded = (1 - (u / width).clamp(-1, 1) ** 2).sqrt() * (0.30 + 0.35 * ramp(v, 0.9, 1.35))
    neck = over(maps.skin) * over([1.0, 0.86, 0.82]) * rounded * around
    image = image + edge(width - u.abs()) * edge(v - 0.4, 0.05) * (neck - image)
    cloth, collar = zip(*[clothes(rng) for rng in photo.rngs], strict=True)
    cloth = torch.stack(cloth)[:, :, None, None] * (0.75 + 0.2 * torch.sin(9 * u + 5 * v)) * around
    return image + edge(v - torch.tensor(collar)[:, None, None, None] + 0.30 * (u.abs() - 0.5)) * (cloth - image)


def in_front(maps, photo, near, place, image, head, around):
    """Glasses, and what gets in the way. near: (B, P, 2) on the plane of the glasses; place: (B, P, 2) on the head."""
    if photo.glasses_on.any():
        rim, lens = (sample(maps.frame, near).view(2, -1, 1, CROP, CROP) * photo.glasses_on.view(-1, 1, 1, 1)).unbind(0)
        image = image + 0.10 * lens * (0.12 - image)  # a faint reflection
        image = image + 0.95 * rim * head * (over(maps.rim) * around - image)
    place = place.view(-1, CROP, CROP, 2)
    for k in photo.occluded.nonzero()[:, 0].tolist():
        image[k] = occlude(image[k], *place[k].unbind(-1), maps, around[k], photo.rngs[k])
    return image


def develop(image, photo):
    """The camera: linear light (B, 3, 112, 112) to sRGB in [0, 1]."""
    each = {name: value.view(-1, 1, 1, 1) for name, value in vars(photo).items() if name != "rngs"}
    grey = image[:, :, 24:104, 20:92].mean((1, 2, 3), keepdim=True)
    image = (
        image * (0.27 / grey) ** 0.65 * each["exposure"].exp()
    )  # it meters the face, and does not get it quite right
    image = image * torch.exp(each["tint"] * over([-0.5, 1.0, -0.5]))
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
