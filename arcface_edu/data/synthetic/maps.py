"""A person as a relief: from the numbers of `faces.PERSON` to the maps that `studio.py` photographs."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from arcface_edu.data.synthetic.albedo import frame_colour, hair_colour, iris_colour, paint_face, skin_colour
from arcface_edu.data.synthetic.anatomy import depth, height, measure, straighten
from arcface_edu.data.synthetic.canvas import REACH, STEP, blur, bump, edge, line
from arcface_edu.data.synthetic.hair import beard, brows, hair

# depth: smooth height, by which places move when the head turns; slope_u, slope_v: of the fine height, for the light;
# head, hair, eye: 1 where that is; sky: how much ambient light gets in; gloss: strength of the highlight.
CHANNELS = ("depth", "slope_u", "slope_v", "red", "green", "blue", "head", "hair", "eye", "sky", "gloss")


def carve(p, rng):
    """The maps of person p. rng draws what numbers do not say: the places of moles, the course of each strand.

    returns: layers (11, SIDE, SIDE) in the order of CHANNELS; height (SIDE, SIDE); frame (2, SIDE, SIDE), rim and lens
    of the glasses; points (5, 3): pupils, nose tip, mouth corners as (u, v, depth); colours (3,) skin, hair, iris, rim.
    """
    m = measure(p, rng)
    locks, brow, whiskers = hair(p, m, rng), brows(p, m, rng), beard(p, m, rng)
    mask, strand, surface = locks
    z = height(p, m)
    z = z + 0.012 * brow[0] + 0.05 * blur(whiskers[0], 1.7) + 0.007 * whiskers[0] * whiskers[2]
    z = z + blur(mask, 3.5) * (surface - z) + 0.008 * (1 - 0.5 * p.curl) * mask * strand
    slope_v, slope_u = torch.gradient(z, spacing=STEP)
    far = depth(p, m)
    head = torch.maximum(torch.maximum(m.face, m.ear), mask)
    colour = paint_face(p, m, locks, brow, whiskers, rng)
    layers = torch.stack(
        [far, slope_u, slope_v, *colour, head, mask, m.eye, sky(m, z, mask), gloss(p, m, locks, whiskers)]
    )
    return SimpleNamespace(
        person=p,
        layers=layers,
        height=z,
        frame=glasses(p, m),
        points=points(p, far),
        skin=skin_colour(p),
        hair=hair_colour(p),
        iris=iris_colour(p),
        rim=frame_colour(p),
    )


def sky(m, z, mask):
    """Ambient light that gets in, (SIDE, SIDE) in [0, 1]: less in hollows, under the hair and under the upper lids."""
    hollow = (1 - 3 * torch.relu(blur(z, 5) - z)).clamp(0.35, 1)
    return hollow * (1 - 0.35 * blur(mask, 4.5) * (1 - mask)) * (1 - 0.45 * m.eye * line(m.y - m.upper_lid, 0.03))


def gloss(p, m, locks, whiskers):
    """Strength of the highlight: forehead, nose and cheeks shine more than the rest, lips and hair in their own way."""
    mask, strand, _ = locks
    zone = 0.5 + 0.7 * bump(m.u, m.v + 0.45, 0.35, 0.25) + 0.8 * bump(m.u, m.v - 0.1, 0.10, 0.30)
    zone = zone + 0.4 * bump(m.a - 0.4, m.v - 0.15, 0.15, 0.12)
    skin = 0.06 * p.oily * zone * (1 + 0.3 * p.rough * m.fine) * (1 - whiskers[0]) + 0.03 * m.lips
    return skin * (1 - mask) + mask * (0.028 + 0.03 * strand.clamp(-0.9, 2)) * (1 - 0.6 * p.curl)


def glasses(p, m):
    """Rim and lenses, (2, SIDE, SIDE) in [0, 1]: the rim follows a level line of a rounded square about each eye."""
    x, y = m.a - p.eye_apart, m.v - p.eye_level
    level = ((x - 0.01) / p.frame_width).abs() ** p.frame_round + ((y - 0.03) / p.frame_height).abs() ** p.frame_round
    inside = (1 - level.clamp_min(1e-4) ** (1 / p.frame_round)) * p.frame_height
    bridge = edge(p.frame_thick - (y - 0.01 + 0.25 * (0.1 - m.a)).abs(), 0.008) * edge(-x - p.frame_width, 0.01)
    temple = edge(0.9 * p.frame_thick - (y + 0.02).abs(), 0.008) * edge(x - p.frame_width, 0.01)
    rim = torch.maximum(edge(p.frame_thick - inside.abs(), 0.008), torch.maximum(bridge, temple))
    return torch.stack([rim, edge(inside, 0.008)])


def points(p, far):
    """The five points of the relief, (5, 3): pupils, tip of the nose, corners of the mouth as (u, v, depth)."""
    u = torch.tensor([-p.eye_apart, p.eye_apart, 0, -p.mouth_width, p.mouth_width])
    v = torch.tensor([p.eye_level, p.eye_level, p.nose_level, p.mouth_level - p.lip_curve, p.mouth_level - p.lip_curve])
    place = torch.stack([u, v], -1)
    for _ in range(3):  # `straighten` the other way round
        bent = torch.stack(straighten(p, *place.unbind(-1)), -1)
        place = place + torch.stack([u, v], -1) - bent
    z = F.grid_sample(far[None, None], (place / REACH)[None, None], align_corners=True)[0, 0, 0]
    return torch.cat([place, z[:, None]], -1)
