"""What surrounds a face in a photograph: patches of light, the background, clothes, and what gets in the way.

Linear light in [0, 1]; X and Y are the crop's own coordinates in [-1, 1], y down; rng is the photograph's own.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_edu.data.synthetic.canvas import bump, edge, linear, ramp, rgb
from arcface_edu.data.synthetic.maps import FaceMaps
from arcface_edu.data.synthetic.pose import CROP, X, Y


def cloud(rng: np.random.Generator, side: int) -> Tensor:
    """Return smooth noise, (side, side), mean 0, deviation near 1."""
    cells = torch.from_numpy(rng.standard_normal((1, 1, 5, 5), dtype=np.float32))
    return F.interpolate(cells, size=(side, side), mode="bicubic")[0, 0]


def patches(rng: np.random.Generator) -> Tensor:
    """Return light and shade as through leaves or a window, (112, 112) in [0, 1]."""
    return torch.sigmoid(1.5 + 2.5 * cloud(rng, CROP))


def muted(rng: np.random.Generator, darkest: float = 0.03, lightest: float = 0.6) -> Tensor:
    """Return a colour that walls and clothes have, (3,): any hue, little saturation, any brightness."""
    hue, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.45)
    grey = math.exp(rng.uniform(math.log(darkest), math.log(lightest)))
    return torch.tensor([grey * math.exp(strength * math.cos(hue + k * 2.1)) for k in range(3)], dtype=torch.float32)


def background(rng: np.random.Generator) -> Tensor:
    """Return something out of focus, (3, 112, 112): a wall in uneven light, lamps, shelves, trees or the horizon."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 28)] * 2, indexing="ij")
    here, there, way = rgb(muted(rng)), rgb(muted(rng)), rng.uniform(0, 2 * math.pi)
    along = x * math.cos(way) + y * math.sin(way)
    image = here + ramp(along, -1.2, 1.2) * (there - here)
    kind = rng.integers(4)
    if kind == 1:  # lamps far behind
        for _ in range(rng.integers(3, 9)):
            disc = rng.uniform(0.08, 0.3) - torch.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 0.6))
            image = image + 0.5 * edge(disc, 0.04) * rgb(muted(rng, 0.05, 0.5))
    elif kind == 2:  # shelves, curtains, trunks
        bars = along if rng.random() < 0.3 else x
        image = image * (1 + 0.45 * torch.sin(rng.uniform(4, 14) * bars + way) * torch.sin(rng.uniform(2, 6) * bars))
    elif kind == 3:  # land and sky
        image = image + edge(y - rng.uniform(-0.8, 0.3), 0.12) * (rgb(muted(rng)) - image)
    image = (image * (1 + 0.18 * cloud(rng, 28))).clamp_min(0.002)
    return F.interpolate(image[None], size=(CROP, CROP), mode="bilinear")[0]


def clothes(rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return the colour of the clothes (3,), and height of the collar, y; mostly below the crop."""
    return muted(rng, 0.01, 0.5), rng.uniform(1.0, 1.5)


def occlude(image: Tensor, u: Tensor, v: Tensor, maps: FaceMaps, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Put something in front of one face, (3, 112, 112).

    Args:
        image: (3, 112, 112).
        u: (112, 112) coordinate of the head.
        v: (112, 112), likewise.
        maps: The person.
        light: (3, 1, 1).
        rng: The photograph's own.
    """
    thing = (hand, cup, mask, scarf, dark_glasses)[rng.integers(5)]
    return thing(image, u, v, maps, light, rng)


def hand(image: Tensor, u: Tensor, v: Tensor, maps: FaceMaps, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw fingers at the cheek: rounded bars side by side, with a knuckle and a nail each."""
    side, lean, reach = rng.choice([-1, 1]), rng.uniform(-0.1, 0.8), rng.uniform(0.55, 1.05)
    x, y = X - side * rng.uniform(0.35, 0.75), Y - 1.25  # from where the fingers spread
    across = x * math.cos(lean) - y * side * math.sin(lean)
    along = -x * side * math.sin(lean) - y * math.cos(lean)
    skin, nails = rgb(maps.skin) * rgb([1.0, 0.86, 0.82]), rgb(linear(226, 190, 178))
    for k, length in enumerate((0.82, 1.0, 0.95, 0.75)):
        s, t = across - 0.165 * side * (k - 1.5) * (1 + 0.12 * along), along - reach * length  # t = 0 near the tip
        radius = 0.088 - 0.018 * ramp(t, -0.5, 0.0)
        depth = radius - torch.hypot(s, torch.relu(t))
        nail = 0.45 * edge(1 - torch.hypot(s / 0.042, (t - 0.005) / 0.055), 0.15)
        form = 0.45 + 0.6 * (depth / radius).clamp(0, 1) ** 0.5 - 0.12 * bump(t + 0.26, 0 * t, 0.02, 1)
        image = image * (1 - 0.4 * edge(depth + 0.05, 0.025))
        image = image + edge(depth, 0.010) * ((skin + nail * (nails - skin)) * form * light + 0.01 - image)
    return image


def cup(image: Tensor, u: Tensor, v: Tensor, maps: FaceMaps, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a cup before the mouth: a cone with a rim."""
    top, colour = rng.uniform(0.38, 0.62), rgb(muted(rng, 0.02, 0.6))
    s = (X - rng.uniform(-0.35, 0.35)) / (0.36 - 0.06 * (Y - top))  # -1 to 1 across the cup
    ellipse = 0.05 * (1 - s.clamp(-1, 1) ** 2).sqrt()
    form = 0.35 + 0.65 * (1 - (s - 0.2).clamp(-1, 1) ** 2).sqrt()
    form = form * (1 - 0.5 * edge(0.03 - (Y - top - ellipse).abs(), 0.01))
    image = image * (1 - 0.3 * edge(1.12 - s.abs(), 0.06) * edge(Y - top + 0.12, 0.05))
    return image + edge(1 - s.abs(), 0.025) * edge(Y - top + 0.8 * ellipse) * (colour * form * light - image)


def mask(image: Tensor, u: Tensor, v: Tensor, maps: FaceMaps, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a mask over nose and mouth, pleated, with straps to the ears."""
    p, a, colour = maps.person, u.abs(), rgb(muted(rng, 0.12, 0.6))
    colour = colour if rng.random() < 0.4 else rgb(linear(196, 214, 222))
    top = p.nose_level - 0.13 + 0.28 * (u / 0.6) ** 2
    cloth = edge(v - top) * edge(p.chin_level + 0.02 - v, 0.02) * edge(0.62 - a - 0.15 * torch.relu(v - 0.5))
    strap = edge(0.012 - (v - 0.07 - 0.35 * a).abs(), 0.006) * edge(a - 0.6, 0.01) * edge(0.74 - a, 0.01)
    form = 0.85 - 0.5 * (u / 0.75) ** 2 + 0.12 * bump(u, v - p.nose_level, 0.2, 0.2)
    form = form + 0.08 * torch.sin(34 * v) * ramp(v - top, 0.08, 0.16)
    image = image * (1 - 0.35 * edge(v - top + 0.04, 0.02) * edge(0.66 - a, 0.02))
    return image + torch.maximum(cloth, 0.8 * strap) * (colour * form * light - image)


def scarf(image: Tensor, u: Tensor, v: Tensor, maps: FaceMaps, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a knitted scarf up to the mouth."""
    colour = rgb(muted(rng, 0.02, 0.6))
    top = rng.uniform(0.5, 0.8) + 0.10 * torch.sin(3 * X + rng.uniform(0, 6)) - 0.25 * X**2
    form = 0.6 + 0.25 * torch.sin(11 * (Y + 0.35 * X**2) + 4 * X) + 0.08 * torch.sin(60 * (X + 0.4 * Y))
    image = image * (1 - 0.35 * edge(Y - top + 0.05, 0.03))
    return image + edge(Y - top) * (colour * form * light - image)


def dark_glasses(
    image: Tensor, u: Tensor, v: Tensor, maps: FaceMaps, light: Tensor, rng: np.random.Generator
) -> Tensor:
    """Draw sunglasses, which a photograph's light turns lighter toward the top."""
    x, y = u.abs() - maps.person.eye_apart, v - maps.person.eye_level
    size, roundness = rng.uniform(0.20, 0.26), rng.uniform(2.2, 4)
    lens = 1 - ((x - 0.01) / size).abs() ** roundness - ((y - 0.03) / (0.72 * size)).abs() ** roundness
    bridge = edge(0.018 - (y + 0.02).abs(), 0.008) * edge(0.14 - u.abs(), 0.02)
    temple = edge(0.02 - (y + 0.03).abs(), 0.008) * edge(x - 0.8 * size, 0.01) * edge(0.78 - u.abs(), 0.02)
    shape = torch.maximum(edge(lens, 0.06), torch.maximum(bridge, temple))
    return image + 0.96 * shape * ((0.016 + 0.07 * ramp(-y, -0.2, 0.15)) * light - image)
