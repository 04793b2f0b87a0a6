"""The shape of a head: where everything is, and how high it stands toward the viewer.

a = |u| treats both sides of the face alike; what makes them differ is a slight bend of the coordinates themselves.
"""

import math
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from arcface_edu.data.synthetic.canvas import U, V, blur, bump, edge, line, noise, ramp


def straighten(p: SimpleNamespace, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Map the canvas to a symmetric face's coordinates: undo a crooked nose and one eye higher than the other."""
    return u - p.lean * (v + 0.3), v - p.eye_skew * u * line(v - p.eye_level, 0.3)


def outline(p: SimpleNamespace, v: Tensor) -> Tensor:
    """Return the half width of the head at height v: temples, cheekbones, jaw, rounded off at crown and chin."""
    knots = [-1.4, -0.9, -0.45, 0.12, p.jaw_level, p.chin_level - 0.1, 1.6]
    widths = [0.86 * p.skull_width, 0.97 * p.skull_width, p.skull_width, p.cheek_width, p.jaw_width, p.chin_width, 0.2]
    window = np.hanning(21) / np.hanning(21).sum()
    rows = np.convolve(np.pad(np.interp(V[:, 0].numpy(), knots, widths), 10, mode="edge"), window, mode="valid")
    crown = (1 - (v / -1.42).clamp(0, 1) ** 4) ** 0.5
    chin = (1 - (v / p.chin_level).clamp(0, 1) ** p.chin_square) ** 0.5
    return torch.from_numpy(rows.astype(np.float32))[:, None] * crown * chin


def locate_features(p: SimpleNamespace, rng: np.random.Generator) -> SimpleNamespace:
    """Return where the features of person `p` are: maps (SIDE, SIDE) of coordinates, and masks in [0, 1].

    `age` is a number, from 0 at 28 years to 1 at 78.
    """
    u, v = straighten(p, U, V)
    a = u.abs()
    m = SimpleNamespace(u=u, v=v, a=a, age=float(np.clip((p.age - 28) / 50, 0, 1)), fine=noise(rng, 62, 62))
    m.width = outline(p, v)
    m.t = torch.where(m.width > 0.02, a / m.width.clamp_min(0.02), 2.0)  # 0 to 1 across the head, 2 below it
    m.face = edge((1 - m.t) * m.width.clamp_min(0.1), 0.009)

    # eyes; x: -1 at the inner to 1 at the outer corner; y: down from the line through both; the lids, in terms of y
    m.x = (a - p.eye_apart) / p.eye_width
    m.y = v - p.eye_level + p.eye_tilt * (a - p.eye_apart)
    arch = (1 - m.x**2).clamp(0, 1)
    m.upper_lid = -1.15 * p.eye_open * arch**0.75 * (1 + p.eye_peak * m.x)
    m.lower_lid = 0.72 * p.eye_open * arch * (1 + 0.3 * m.x)
    m.eye = edge(m.y - m.upper_lid, 0.007) * edge(m.lower_lid - m.y, 0.007) * edge(1 - m.x.abs(), 0.05)
    m.crease = line(m.y - m.upper_lid + p.lid_height, 0.012) * edge(1.15 - m.x.abs(), 0.08)
    m.bag = line(m.y - m.lower_lid - 0.055 - 0.02 * m.age, 0.018) * edge(1.0 - m.x.abs(), 0.12)

    # mouth; mx: 1 at the corners; my: down from the line between the lips
    m.mx = a / p.mouth_width
    m.my = v - p.mouth_level + p.lip_curve * m.mx**2 - 0.012 * torch.cos(3 * m.mx)
    arch = (1 - m.mx**2).clamp(0, 1)
    m.lip_up = p.lip_upper * arch**0.8 * (1 + 0.25 * line(m.mx - 0.3, 0.25)) - 0.6 * p.lip_bow * line(u, 0.035)
    m.lip_low = p.lip_lower * arch**0.6
    m.lips = edge(1 - m.mx, 0.03) * edge(m.my + m.lip_up) * edge(m.lip_low - m.my)

    # ears, as levels of an ellipse: below 1 inside
    beside = p.cheek_width + 0.02 + 0.4 * p.ear_out + 0.1 * (p.ear_level - v)
    m.ear_level = ((a - beside) / (0.05 + 0.5 * p.ear_out)) ** 2 + ((v - p.ear_level) / p.ear_size) ** 2
    m.ear = edge(1 - m.ear_level, 0.08)

    # lines of age: from nose to mouth, on the forehead, crow's feet
    way = ((v - p.nose_level) / (p.mouth_level - p.nose_level)).clamp(0, 1.3)
    fold = line(a - p.nose_width - 0.05 - (p.mouth_width + 0.05 - p.nose_width) * way, 0.022)
    m.fold = fold * ramp(v, p.nose_level - 0.06, p.nose_level + 0.08) * edge(p.mouth_level + 0.06 - v, 0.03)
    waves = 0.02 * noise(rng, 3, 5)
    m.furrows = sum(line(v + waves - level, 0.014) for level in (-0.36, -0.46, -0.57)) * edge(0.40 - a, 0.06)
    fan = torch.sin(9 * torch.atan2(v - p.eye_level, (a - p.eye_apart - 0.05).clamp_min(1e-3)))
    m.feet = line(fan, 0.3) * bump(a - p.eye_apart - 0.25, v - p.eye_level, 0.05, 0.10)
    return m


def nose(p: SimpleNamespace, u: Tensor, v: Tensor) -> Tensor:
    """Return the height of the nose: a ridge from between the eyes to the tip, wings at its sides, cut off below."""
    a, top = u.abs(), p.eye_level - 0.04
    way = ((v - top) / (p.nose_level - top)).clamp(0, 1)  # 0 at the root, 1 at the tip
    ridge = p.nose_root + (p.nose_height - p.nose_root) * way**1.3 + p.nose_hump * torch.sin(math.pi * way)
    width = p.nose_bridge * (1.1 - 0.1 * way) + (p.nose_tip - 0.6 * p.nose_bridge) * way**3
    ends = edge(v - top + 0.10, 0.05) * edge(p.nose_level + 0.06 - v, 0.034)
    wings = p.nose_wing * bump(a - 0.86 * p.nose_width, v - p.nose_level - 0.02, 0.055, 0.06)
    base = 0.10 * bump(u, v - p.nose_level, 1.25 * p.nose_width, 0.12)
    return ridge * ends * line(a, 1.12 * width) + wings + base


def height(p: SimpleNamespace, m: SimpleNamespace) -> Tensor:
    """Return the height of the hairless head and ears: the skull, what stands out of it and what is sunk into it."""
    u, v, a, ex, ey = m.u, m.v, m.a, p.eye_apart, p.eye_level
    z = 0.72 * (1 - m.t.clamp(0, 1) ** 2.3).clamp_min(1e-3) ** 0.55
    z = z - 0.30 * torch.relu(-v - 0.35) ** 2 - 0.10 * torch.relu(v - 0.5) + nose(p, u, v)
    z = z - p.eye_depth * bump(a - ex + 0.04, v - ey + 0.03, 0.17, 0.11) + 0.07 * bump(m.x, m.y + 0.01, 1, 0.07)
    z = z + p.brow_ridge * bump(a - ex, v - ey + p.brow_level - 0.02, 0.20, 0.075)
    z = z + p.cheekbone * bump(a - 0.43, v - 0.13, 0.15, 0.12) + p.cheek_fill * bump(a - 0.40, v - 0.48, 0.17, 0.20)
    z = z + p.lip_full * bump(u, m.my, 1.1 * p.mouth_width, 0.13) + 0.028 * blur(m.lips, 1.3)
    z = z - 0.03 * line(m.my, 0.016) * edge(1.08 - m.mx, 0.05)
    z = z - 0.03 * bump(u, m.my - m.lip_low - 0.06, 0.16, 0.04)  # the hollow above the chin
    z = z - 0.016 * bump(u, v - p.mouth_level + 0.16, 0.03, 0.07)  # the groove under the nose
    z = z + p.chin_boss * bump(u, v - p.chin_level + 0.15, 0.20, 0.11)
    z = z - 0.05 * p.chin_cleft * bump(u, v - p.chin_level + 0.12, 0.022, 0.06)
    z = z - 0.010 * p.lid_fold * m.crease - (0.003 + 0.010 * p.eye_bag) * m.bag
    z = z - m.age * (0.02 * m.fold + 0.01 * m.furrows + 0.008 * m.feet)
    z = z + p.rough * (0.0011 + 0.0020 * m.age) * m.fine
    rim = 0.05 * line(m.ear_level - 0.72, 0.25) * m.ear - 0.02
    return z * m.face + rim * (1 - m.face)


def depth(p: SimpleNamespace, m: SimpleNamespace) -> Tensor:
    """Return the height without fine relief and steep sides, by which points move when the head turns."""
    skull = 0.58 * (1 - m.t.clamp(0, 1) ** 2) - 0.22 * torch.relu(-m.v - 0.35) ** 2
    beyond = torch.where(m.t > 1, -0.5 * (m.a - m.width), 0.0).clamp_min(-0.15)  # ears and hair lie farther back
    return blur(skull + beyond + 0.75 * nose(p, m.u, m.v) + 0.08 * bump(m.u, m.my, 0.3, 0.2), 4.5)
