"""The margin on a half circle and on a sphere, where it makes the region of every class smaller, and its pull.

The course puts sliders beside them and lets them be dragged. Angles are in degrees; m2 is in radians, as in a config.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, Wedge

from arcface_edu.course.figures.animations import PEOPLE
from arcface_edu.course.figures.geometry import ANGLES, OWN_ANGLE, logit_at, probability, seen_angle, slope_at
from arcface_edu.figures.style import (
    DIFFERENT,
    FAINT,
    INK,
    METHODS,
    SAME,
    SMALL_SIZE,
    TITLE_SIZE,
    canvas,
    dress,
    panels,
)  # fmt: skip
from arcface_edu.heads.margins import target_logit

CUBE = np.array(list(itertools.product((-1, 1), repeat=3))) / math.sqrt(3)  # (8, 3), as far apart as eight can look
NOBODY = np.array([0.93, 0.93, 0.93])


def plot_margin_circle(
    angle: float = 30.0, s: float = 16.0, m1: float = 1.0, m2: float = 0.5, m3: float = 0.0
) -> Figure:
    """Plot two classes 90 degrees apart and an embedding between them: the angle in the loss, and where each wins.

    Args:
        angle: Degrees of the embedding from the first centre, its own, 0 to 180.
        s: Scale of the logits.
        m1: Factor on the angle.
        m2: Added to the angle, radians.
        m3: Subtracted from the cosine.
    """
    margin = (m1, m2, m3)
    seen = float(seen_angle(np.array([angle]), margin)[0])
    logits = s * logit_at(ANGLES, margin, "exact")
    others = s * np.sin(np.radians(ANGLES))
    own, other = np.interp(angle, ANGLES, logits), np.interp(angle, ANGLES, others)
    probability = 1 / (1 + math.exp(other - own))
    border = own_up_to(margin)

    figure, (left, right) = panels(1, 2, (9.2, 3.9), width_ratios=(1.25, 1))
    for start, end, color in ((0, border, SAME), (90 - border, 180, DIFFERENT)):
        if end > start:
            left.add_patch(Wedge((0, 0), 1, start, min(end, 180), color=color, alpha=0.22, linewidth=0))
    left.add_patch(Arc((0, 0), 2, 2, theta1=0, theta2=180, color=FAINT, linewidth=1.2))
    left.plot([-1, 1], [0, 0], color=FAINT, linewidth=1)
    for degrees, color, name in ((0, SAME, "own centre"), (90, DIFFERENT, "other centre")):
        x, y = _on_circle(degrees)
        left.plot([0, x], [0, y], color=color, linewidth=3, solid_capstyle="round")
        left.text(1.06 * x, 1.1 * y + (0.1 if degrees == 0 else 0), name, color=color, fontsize=SMALL_SIZE,
                  ha="left" if degrees == 0 else "center", va="center")  # fmt: skip
    x, y = _on_circle(seen)
    left.plot([0, x], [0, y], color=INK, linewidth=1.2, linestyle=":")
    left.plot(x, y, "o", color="white", markeredgecolor=INK, markersize=9, zorder=3)
    x, y = _on_circle(angle)
    left.annotate("", (x, y), (0, 0), arrowprops=dict(arrowstyle="-|>", color=INK, linewidth=2, shrinkA=0, shrinkB=0))
    left.plot(x, y, "o", color=INK, markersize=9, zorder=4)
    left.add_patch(Arc((0, 0), 0.5, 0.5, theta1=0, theta2=angle, color=INK, linewidth=1.4))
    left.set(xlim=(-1.1, 1.55), ylim=(-0.12, 1.25), aspect="equal")
    left.axis("off")
    left.set_title(f"It is at {angle:.0f}° (●); the loss sees {seen:.0f}° (○)", loc="left", fontsize=11, color=INK)

    right.plot(ANGLES, logits, color=SAME, linewidth=2, label="own")
    right.plot(ANGLES, s * np.cos(np.radians(ANGLES)), color=SAME, linewidth=1.3, linestyle=":", label="no margin")
    right.plot(ANGLES, others, color=DIFFERENT, linewidth=2, label="other")
    right.axvline(border, color=FAINT, linewidth=1.3, linestyle="--")
    right.plot([angle, angle], [own, other], color=INK, linewidth=1.6)
    right.plot([angle, angle], [own, other], "o", color=INK, markersize=6)
    right.set(xlim=(0, 180), xticks=range(0, 181, 30), ylim=(-2.1 * s, 1.08 * s))
    dress(right, f"p = {probability:.3f}; it wins up to {border:.0f}°", OWN_ANGLE, "logit", key=True)
    return figure


def own_up_to(margin: Sequence[float]) -> float:
    """Return the degrees up to which the own class wins against a centre at right angles, on the way there."""
    fine = np.linspace(0, 90, 9001)
    ahead = logit_at(fine, margin, "exact") > np.sin(np.radians(fine))
    return float(fine[ahead][-1]) if ahead.any() else 0.0


def plot_sphere(
    azimuth: float = 25.0,
    elevation: float = 20.0,
    m1: float = 1.0,
    m2: float = 0.5,
    m3: float = 0.0,
    centres: np.ndarray = CUBE,
) -> Figure:
    """Plot the sphere as class centres divide it: coloured where one wins by the margin, grey where none does.

    Args:
        azimuth: Degrees of the direction it is seen from.
        elevation: Degrees of the direction it is seen from.
        m1: Factor on the angle.
        m2: Added to the angle, radians.
        m3: Subtracted from the cosine.
        centres: (C, 3) unit vectors, C at most eight.
    """
    margin = (m1, m2, m3)
    figure, ax = canvas(size=(4.8, 4.9))
    turned = centres @ _view(azimuth, elevation).T  # (C, 3), x right, y up, z towards the eye
    side = np.linspace(-1, 1, 641)
    x, y = np.meshgrid(side, side)
    inside = x**2 + y**2 < 1
    points = np.stack([x[inside], y[inside], np.sqrt(1 - x[inside] ** 2 - y[inside] ** 2)], 1)
    owner = owners(points, turned, margin)
    colors = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in PEOPLE])
    light = 0.62 + 0.38 * (points @ np.array([-0.35, 0.45, 0.82])).clip(0)
    image = np.ones((*x.shape, 4))
    image[~inside, 3] = 0
    image[inside, :3] = np.where(owner[:, None] >= 0, colors[owner], NOBODY) * light[:, None]
    ax.imshow(image, origin="lower", extent=(-1, 1, -1, 1), interpolation="antialiased")
    for x, y, z in turned:
        if z > 0:
            ax.plot(x, y, "o", color="white", markeredgecolor=INK, markersize=7)
    ax.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal")
    ax.axis("off")
    share = np.mean(owners(even_points(4000), centres, margin) >= 0)
    title = f"{len(centres)} people own {share:.0%} of the sphere"
    ax.set_title(
        title if share > 0.995 else f"{title};\nthe margin gives the rest to nobody", fontsize=TITLE_SIZE, color=INK
    )
    return figure


def owners(points: np.ndarray, centres: np.ndarray, margin: Sequence[float]) -> np.ndarray:
    """Return the class that wins at each point by the margin, or -1, (P,).

    Args:
        points: (P, D) unit vectors.
        centres: (C, D) unit vectors.
        margin: (m1, m2, m3).
    """
    nearest = torch.from_numpy(points @ centres.T).topk(2)
    wins = target_logit(nearest.values[:, 0], margin, "exact") >= nearest.values[:, 1]
    return torch.where(wins, nearest.indices[:, 0], -1).numpy()


def even_points(count: int) -> np.ndarray:
    """Return points spread evenly over the unit sphere, (count, 3), on a spiral that turns by the golden angle."""
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], 1)


PULLS = {
    "norm-softmax": ((1.0, 0.0, 0.0), "exact"),
    "ArcFace, straight-through": ((1.0, 0.5, 0.0), "straight-through"),
    "ArcFace, exact": ((1.0, 0.5, 0.0), "exact"),
}


def plot_pulls(scale: float = 16.0, classes: int = 200, rings: Sequence[float] = (12, 27, 42, 57, 72, 87)) -> Figure:
    """Plot the gradient as arrows on the sphere: how hard each loss pulls faces towards their centre in the middle.

    Args:
        scale: As in `plot_gradients`.
        classes: As in `plot_gradients`.
        rings: Degrees from the centre at which faces lie.
    """
    figure, axes = panels(1, len(PULLS), (9.6, 3.9))
    at = np.linspace(2, 90, 353)
    for ax, (name, (margin, gradient)) in zip(axes, PULLS.items(), strict=True):
        pull = scale * (1 - probability(logit_at(at, margin), scale, classes))
        pull = pull * slope_at(at, margin, gradient) * np.sin(np.radians(at))
        ax.add_patch(Circle((0, 0), 1, facecolor="#F4F4F4", edgecolor=FAINT, linewidth=1.2))
        color = METHODS[name.partition(",")[0]]
        for number, ring in enumerate(rings):
            strength = np.interp(ring, at, pull)
            for turned in np.radians(np.arange(0, 360, 45) + 22.5 * (number % 2)):
                towards = np.array([math.cos(turned), math.sin(turned)])
                ends = [math.sin(math.radians(max(0, degrees))) for degrees in (ring, ring - 16 * strength / scale)]
                ax.plot(*(towards * ends[0]), "o", color=color if strength > 0.05 * scale else FAINT, markersize=4)
                if strength > 0.05 * scale:
                    arrow = dict(arrowstyle="-|>", color=color, linewidth=1.7, shrinkA=0, shrinkB=0)
                    ax.annotate("", towards * ends[1], towards * ends[0], arrowprops=arrow)
        ax.plot(0, 0, "o", color="white", markeredgecolor=INK, markersize=8)
        half = at[pull > scale / 2]
        ax.set(xlim=(-1.04, 1.04), ylim=(-1.04, 1.04), aspect="equal")
        ax.axis("off")
        reach = f"above half of s from {half[0]:.0f}° on" if len(half) else "never half of s"
        ax.set_title(f"{name}\n{reach}", fontsize=SMALL_SIZE + 1, color=INK)
    return figure


def _view(azimuth: float, elevation: float) -> np.ndarray:
    """Return the rotation (3, 3) from world coordinates to those of the viewer, who looks along -z with y up."""
    a, e = math.radians(azimuth), math.radians(elevation)
    about_y = np.array([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(e), -math.sin(e)], [0, math.sin(e), math.cos(e)]])
    return about_x @ about_y


def _on_circle(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
