"""The albedo of a person: colours in linear light in [0, 1], as physics mixes them; the camera makes sRGB."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from arcface_edu.data.synthetic.canvas import bump, edge, line, linear, noise, ramp, rgb
from arcface_edu.data.synthetic.hair import Beard, Brows, Hair


def skin_colour(p: SimpleNamespace) -> Tensor:
    """Return the skin's colour (3,). Melanin absorbs, so colours mix as powers (Beer-Lambert), not as sums."""
    colour = linear(243, 207, 182) ** (1 - p.melanin) * linear(80, 55, 44) ** p.melanin
    return colour * torch.exp(p.undertone * torch.tensor([-0.04, 0.05, -0.10]))


def hair_colour(p: SimpleNamespace) -> Tensor:
    colour = linear(216, 186, 132) ** (1 - p.hair_melanin) * linear(22, 18, 17) ** p.hair_melanin
    colour = colour * torch.exp(p.hair_red * torch.tensor([0.25, -0.35, -0.8]))
    grey = float(np.clip((p.age + p.grey_early - 45) / 28, 0, 1))
    return colour * (1 - grey) + grey * linear(186, 184, 182)


def iris_colour(p: SimpleNamespace) -> Tensor:
    light = linear(74, 112, 150) * (1 - p.iris_green) + linear(96, 108, 62) * p.iris_green
    return light ** (1 - p.iris_melanin) * linear(52, 28, 16) ** p.iris_melanin


def frame_colour(p: SimpleNamespace) -> Tensor:
    return 0.011 * (1 - p.frame_light) + p.frame_light * linear(150, 112, 70)


def paint_face(
    p: SimpleNamespace, m: SimpleNamespace, hair: Hair, brows: Brows, beard: Beard, rng: np.random.Generator
) -> Tensor:
    """Return the colour of person `p` everywhere, (3, SIDE, SIDE); `m`: as `locate_features` returns it."""
    u, v, a, ex, ey = m.u, m.v, m.a, p.eye_apart, p.eye_level
    skin, dark = skin_colour(p), hair_colour(p)
    colour = rgb(skin) * (1 + (0.03 + 0.05 * p.rough) * (0.5 * m.fine + 0.6 * noise(rng, 10, 10)))

    def paint(amount: Tensor, new: Tensor) -> None:
        """Cover what is there by `amount` (a mask) with the colour `new`, (3,) or (3, SIDE, SIDE)."""
        colour.add_(amount.clamp(0, 1) * ((rgb(new) if new.dim() == 1 else new) - colour))

    def tint(amount: Tensor, *scale: float) -> None:
        """Paint with the skin's colour, scaled by channel."""
        paint(amount, skin * torch.tensor(scale))

    # blood, shade, freckles, moles, a scar
    rosy = (
        bump(a - 0.40, v - 0.25, 0.20, 0.17) + 0.8 * bump(u, v - p.nose_level, 0.13, 0.10) + 0.7 * m.ear * (1 - m.face)
    )
    tint((0.15 + 0.45 * p.ruddy) * rosy, 1.0, 0.68, 0.66)
    shade = 0.30 * bump(a - ex, v - ey, 0.18, 0.12) + (0.1 + 0.3 * p.eye_bag) * bump(a - ex, v - ey - 0.09, 0.13, 0.05)
    tint(shade, 0.55, 0.47, 0.50)
    speckles = edge(noise(rng, 70, 70) - 0.9, 0.3) * bump(a - 0.25, v - 0.12, 0.38, 0.22)
    tint(p.freckles * speckles, 0.62, 0.44, 0.33)
    for _ in range(int(p.moles)):
        distance = torch.hypot(u - rng.uniform(-0.5, 0.5), v - rng.uniform(-0.4, 0.9))
        tint(0.9 * edge(rng.uniform(0.011, 0.024) - distance, 0.005), 0.28, 0.20, 0.18)
    scar_v, side, slant = v - rng.uniform(-0.35, 0.6), rng.choice([-1, 1]), rng.uniform(-1, 1)
    scar_u = u - side * rng.uniform(0.2, 0.45) - slant * scar_v
    tint(p.scar * bump(scar_u, scar_v, 0.014, 0.12), 1.0, 0.62, 0.60)

    # lines of age and of the lids, nose, mouth
    tint(0.35 * m.age * (m.fold + 0.6 * m.furrows + m.feet), 0.60, 0.45, 0.42)
    tint(0.22 * m.fold, 0.70, 0.55, 0.52)
    tint((0.25 + 0.4 * p.lid_fold) * m.crease + 0.2 * p.eye_bag * m.bag, 0.42, 0.30, 0.28)
    plain, made_up = skin**0.85 * torch.tensor([0.80, 0.50, 0.52]), skin**0.6 * torch.tensor([0.58, 0.15, 0.17])
    red = plain * (1 - p.lip_red) + p.lip_red * made_up
    paint(0.85 * m.lips * (0.88 + 0.1 * noise(rng, 7, 60)), red)
    paint(0.9 * line(m.my, 0.013) * edge(1.04 - m.mx, 0.03), 0.18 * red)
    hole = a - 0.5 * p.nose_width
    tint(0.95 * p.nostrils * bump(hole, v - p.nose_level - 0.075 - 0.12 * hole, 0.036, 0.019), 0.13, 0.13, 0.13)
    under = 0.3 * bump(u, v - p.nose_level - 0.1, 0.12, 0.02)
    tint(0.35 * bump(a - 1.12 * p.nose_width, v - p.nose_level - 0.02, 0.02, 0.06) + under, 0.50, 0.34, 0.32)

    # hair
    paint(brows.mask * p.brow_dense * (0.85 + 0.2 * brows.strands), 0.55 * dark + 0.02 * skin)
    paint(0.42 * beard.stubble * (0.8 + 0.3 * m.fine), 0.5 * dark + 0.25 * skin)
    paint(beard.mask * (0.85 + 0.15 * beard.strands), (0.75 + 0.05 * p.curl) * dark)
    upper = line(m.y - m.upper_lid + 0.004, 0.010 + 0.008 * p.lashes) * edge(1.06 - m.x.abs(), 0.05)
    paint((0.4 + 0.6 * p.lashes) * upper * (0.75 + 0.25 * ramp(m.x, -1, 0.6)), 0.25 * dark + 0.008)
    paint(0.35 * p.lashes * line(m.y - m.lower_lid, 0.010) * edge(1 - m.x.abs(), 0.08), 0.2 * dark + 0.06 * skin)
    contrast = 0.30 - 0.15 * p.curl**2
    paint(hair.mask, rgb(dark) * (0.62 + contrast * hair.strands.clamp(-1.5, 1.8)).clamp_min(0.15))
    return colour.clamp(0.002, 1)
