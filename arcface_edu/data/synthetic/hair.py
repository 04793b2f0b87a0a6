"""Hair of the head, brows and beard: masks in [0, 1] over the canvas, and the strands that texture them."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arcface_edu.data.synthetic.canvas import bump, edge, line, noise, ramp, strands


class Hair(NamedTuple):
    """Maps (SIDE, SIDE) of the hair of the head."""

    mask: Tensor
    strands: Tensor  # texture, mean 0
    surface: Tensor  # height of its outer surface


class Brows(NamedTuple):
    """Maps (SIDE, SIDE) of the brows."""

    mask: Tensor
    strands: Tensor


class Beard(NamedTuple):
    """Maps (SIDE, SIDE) of beard, goatee and moustache."""

    mask: Tensor
    stubble: Tensor  # mask of the stubble
    strands: Tensor


def draw_hair(p: SimpleNamespace, m: SimpleNamespace, rng: np.random.Generator) -> Hair:
    """Draw the hair of the head of person `p` over the features `m`."""
    u, v, a, long = m.u, m.v, m.a, float(p.hair_length > 0.25)
    # where it begins: a line over the forehead that falls to the side of the face
    t = a / (m.width + 0.02).clamp_min(0.3)
    front = p.hairline + p.widows_peak * line(u, 0.11) - p.receding * line(a - 0.42, 0.20)
    front = front + (min(p.hair_length, 0.12) - p.hairline) * ramp(t, 0.50, 1.08) ** 1.4
    front = front - 1.2 * p.bald * torch.exp(-((a / 0.60) ** 6))
    if p.fringe:
        front = front + p.fringe * torch.exp(-((a / 0.52) ** 4)) * (1 + 0.5 * (u - p.parting))
    else:
        front = front - 0.05 * (1 - p.bald) * line(u - p.parting, 0.14)
    # where it ends: round the head, or hanging down beside it
    outer = p.skull_width + p.hair_side + 0.02 - (1 - long) * 0.10 * ramp(v, -0.3, 0.2)
    outer = outer + long * (0.07 + 0.06 * ramp(v, -0.5, 0.8))
    outer = outer * (1 - (v / (-1.25 - p.hair_top)).clamp(0, 1) ** 4) ** 0.5
    inner = 0.90 * p.skull_width + 0.04 * torch.sin(3 * v + 6 * p.parting)
    curtain = long * edge(a - inner, 0.02) * edge(p.hair_length - v, 0.05)
    # strands flow from the crown; curls bend them, and the tightest ones have no direction left
    bend = 0.05 * p.curl * torch.sin(14 * v + 5 * noise(rng, 4, 4))
    down = torch.hypot(u, v + 1.75) - 1.6
    flow = strands(rng, torch.atan2(u + bend - 0.6 * p.parting, v + 1.75) / 1.6, down)
    flow = flow * (1 - p.curl**2) + noise(rng, 58, 58) * p.curl**2
    ragged = 0.022 * flow + 0.02 * noise(rng, 6, 9)
    mask = torch.maximum(edge(front - v + ragged, 0.020), curtain)
    mask = mask * edge(outer - a + ragged * (0.5 + p.curl), 0.014)
    surface = 0.62 * (1 - (a / (outer + 0.03)).clamp(0, 1) ** 4).clamp_min(1e-3) ** 0.5
    return Hair(mask, flow, surface - 0.35 * torch.relu(-v - 0.35) ** 2 + 0.14)


def draw_brows(p: SimpleNamespace, m: SimpleNamespace, rng: np.random.Generator) -> Brows:
    """Draw the brows."""
    bristle = strands(rng, m.a * 2.2 + m.v * 0.8, m.v)
    x = (m.a - p.eye_apart - p.brow_shift) / p.brow_length  # -1 at the inner to 1 at the outer end
    y = m.v - p.eye_level + p.brow_level + p.brow_tilt * (m.a - p.eye_apart) + p.brow_arch * (1 - (x - 0.25) ** 2)
    thick = p.brow_thick * (1.1 - 0.55 * ramp(x, 0.1, 1.1)) * (1 + 0.15 * bristle)
    mask = edge(thick - y.abs(), 0.010) * edge(1 - x.abs() + 0.08 * bristle, 0.06)
    return Brows(torch.maximum(mask, p.monobrow * bump(m.u, y, 0.14, 0.04)), bristle)


def draw_beard(p: SimpleNamespace, m: SimpleNamespace, rng: np.random.Generator) -> Beard:
    """Draw beard, goatee and moustache."""
    whisker = noise(rng, 39, 82)
    cheek_line = 0.66 - 0.62 * ((m.t - 0.42) / 0.55).clamp(0, 1)
    around = (
        (m.my - 0.5 * m.lip_low).abs() + 0.4 * torch.relu(m.a - 0.10) - 0.09 * edge(p.mouth_width + 0.03 - m.a, 0.02)
    )
    jaw = edge(m.v - cheek_line + 0.02 * whisker, 0.035) * m.face * (1 - m.lips) * edge(around, 0.02)
    chin = edge(0.20 + 0.02 * whisker - m.a, 0.03) * edge(m.my - m.lip_low - 0.03, 0.02) * m.face
    lip = (
        edge(m.v - p.nose_level - 0.15 + 0.02 * whisker, 0.02) * edge(-m.my - m.lip_up + 0.01, 0.012) * line(m.mx, 1.0)
    )
    full = torch.maximum(torch.maximum(p.beard * jaw, p.goatee * chin), max(p.moustache, p.beard) * lip)
    return Beard(full, p.stubble * torch.maximum(jaw, lip), whisker)
