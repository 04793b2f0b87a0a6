"""The maps of a person: from the numbers of `parameters.PERSON` to the height and colour that `render.py` needs."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_edu.data.synthetic.albedo import frame_colour, hair_colour, iris_colour, paint_face, skin_colour
from arcface_edu.data.synthetic.anatomy import depth, height, locate_features, straighten
from arcface_edu.data.synthetic.canvas import REACH, STEP, blur, bump, edge, line
from arcface_edu.data.synthetic.hair import Beard, Hair, draw_beard, draw_brows, draw_hair

# depth: smooth height, by which points move when the head turns; slope_u, slope_v: of the fine height, for the light;
# head, hair, eye: 1 where that is; sky: how much ambient light gets in; gloss: strength of the highlight.
CHANNELS = ("depth", "slope_u", "slope_v", "red", "green", "blue", "head", "hair", "eye", "sky", "gloss")


@dataclass(frozen=True)
class FaceMaps:
    """A person, ready to be photographed."""

    person: SimpleNamespace  # the numbers of PERSON
    layers: Tensor  # (11, SIDE, SIDE) in the order of CHANNELS
    height: Tensor  # (SIDE, SIDE)
    frame: Tensor  # (2, SIDE, SIDE), rim and lens of the glasses
    points: Tensor  # (5, 3): pupils, nose tip, mouth corners as (u, v, depth)
    skin: Tensor  # (3,), a colour, as the next three
    hair: Tensor
    iris: Tensor
    rim: Tensor


def build_maps(p: SimpleNamespace, rng: np.random.Generator) -> FaceMaps:
    """Return the maps of person `p`; `rng` draws what numbers do not say: where moles are, how each strand runs."""
    m = locate_features(p, rng)
    hair, brows, beard = draw_hair(p, m, rng), draw_brows(p, m, rng), draw_beard(p, m, rng)
    mask = hair.mask
    z = height(p, m)
    z = z + 0.012 * brows.mask + 0.05 * blur(beard.mask, 1.7) + 0.007 * beard.mask * beard.strands
    z = z + blur(mask, 3.5) * (hair.surface - z) + 0.008 * (1 - 0.5 * p.curl) * mask * hair.strands
    slope_v, slope_u = torch.gradient(z, spacing=STEP)
    far = depth(p, m)
    head = torch.maximum(torch.maximum(m.face, m.ear), mask)
    colour = paint_face(p, m, hair, brows, beard, rng)
    layers = torch.stack([far, slope_u, slope_v, *colour, head, mask, m.eye, sky(m, z, mask), gloss(p, m, hair, beard)])
    return FaceMaps(
        person=p,
        layers=layers,
        height=z,
        frame=glasses(p, m),
        points=landmarks(p, far),
        skin=skin_colour(p),
        hair=hair_colour(p),
        iris=iris_colour(p),
        rim=frame_colour(p),
    )


def sky(m: SimpleNamespace, z: Tensor, mask: Tensor) -> Tensor:
    """Return the ambient light that gets in, (SIDE, SIDE) in [0, 1]: less in hollows, under hair and upper lids."""
    hollow = (1 - 3 * torch.relu(blur(z, 5) - z)).clamp(0.35, 1)
    return hollow * (1 - 0.35 * blur(mask, 4.5) * (1 - mask)) * (1 - 0.45 * m.eye * line(m.y - m.upper_lid, 0.03))


def gloss(p: SimpleNamespace, m: SimpleNamespace, hair: Hair, beard: Beard) -> Tensor:
    """Return the strength of the highlight: forehead, nose, cheeks shine more than the rest, lips and hair differ."""
    zone = 0.5 + 0.7 * bump(m.u, m.v + 0.45, 0.35, 0.25) + 0.8 * bump(m.u, m.v - 0.1, 0.10, 0.30)
    zone = zone + 0.4 * bump(m.a - 0.4, m.v - 0.15, 0.15, 0.12)
    skin = 0.06 * p.oily * zone * (1 + 0.3 * p.rough * m.fine) * (1 - beard.mask) + 0.03 * m.lips
    return skin * (1 - hair.mask) + hair.mask * (0.028 + 0.03 * hair.strands.clamp(-0.9, 2)) * (1 - 0.6 * p.curl)


def glasses(p: SimpleNamespace, m: SimpleNamespace) -> Tensor:
    """Return rim and lenses, (2, SIDE, SIDE) in [0, 1]: the rim is a rounded square about each eye."""
    x, y = m.a - p.eye_apart, m.v - p.eye_level
    level = ((x - 0.01) / p.frame_width).abs() ** p.frame_round + ((y - 0.03) / p.frame_height).abs() ** p.frame_round
    inside = (1 - level.clamp_min(1e-4) ** (1 / p.frame_round)) * p.frame_height
    bridge = edge(p.frame_thick - (y - 0.01 + 0.25 * (0.1 - m.a)).abs(), 0.008) * edge(-x - p.frame_width, 0.01)
    temple = edge(0.9 * p.frame_thick - (y + 0.02).abs(), 0.008) * edge(x - p.frame_width, 0.01)
    rim = torch.maximum(edge(p.frame_thick - inside.abs(), 0.008), torch.maximum(bridge, temple))
    return torch.stack([rim, edge(inside, 0.008)])


def landmarks(p: SimpleNamespace, far: Tensor) -> Tensor:
    """Return the five landmarks, (5, 3): pupils, tip of the nose, corners of the mouth as (u, v, depth)."""
    u = torch.tensor([-p.eye_apart, p.eye_apart, 0, -p.mouth_width, p.mouth_width])
    v = torch.tensor([p.eye_level, p.eye_level, p.nose_level, p.mouth_level - p.lip_curve, p.mouth_level - p.lip_curve])
    uv = torch.stack([u, v], -1)
    for _ in range(3):  # `straighten` the other way round
        bent = torch.stack(straighten(p, *uv.unbind(-1)), -1)
        uv = uv + torch.stack([u, v], -1) - bent
    z = F.grid_sample(far[None, None], (uv / REACH)[None, None], align_corners=True)[0, 0, 0]
    return torch.cat([uv, z[:, None]], -1)
