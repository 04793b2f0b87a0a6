"""The geometry of the margin: what cos(m1*theta + m2) - m3 does to logits, boundaries, probabilities and gradients.

Angles are in degrees throughout; a margin is (m1, m2, m3) with m2 in radians, as in a config. All values come from the
very `target_logit` that training calls.
"""

import math
from collections.abc import Mapping, Sequence, Sized

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Arc
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.figures.style import (
    DIFFERENT,
    FAINT,
    INK,
    METHODS,
    SAME,
    SMALL_SIZE,
    canvas,
    dress,
    key_above,
    method_color,
    panels,
    shades,
)  # fmt: skip
from arcface_edu.heads.margins import target_logit

ANGLES = np.linspace(0, 180, 721)
OWN_ANGLE = "angle θ to the own class centre (degrees)"


def logit_at(degrees: np.ndarray, margin: Sequence[float], gradient: str = "straight-through") -> np.ndarray:
    """Return cos(m1*theta + m2) - m3, (T,), at angles of (T,) degrees; "exact" takes the line past the turn."""
    return target_logit(torch.from_numpy(np.cos(np.radians(degrees))), margin, gradient).numpy()


def slope_at(degrees: np.ndarray, margin: Sequence[float], gradient: str) -> np.ndarray:
    """Return the derivative of the target logit with respect to the cosine, (T,), as autograd computes it."""
    cosine = torch.from_numpy(np.cos(np.radians(degrees))).requires_grad_()
    return torch.autograd.grad(target_logit(cosine, margin, gradient).sum(), cosine)[0].numpy()


def seen_angle(degrees: np.ndarray, margin: Sequence[float]) -> np.ndarray:
    """Return the (T,) degrees at which an embedding would have this logit without a margin; 180 where none would."""
    return np.degrees(np.arccos(np.clip(logit_at(degrees, margin, "exact"), -1, 1)))


def probability(logit: ArrayLike, scale: float, classes: float) -> np.ndarray:
    """Return p of the target among `classes`, all others at right angles: 1 / (1 + (C - 1) exp(-s * logit))."""
    return 1 / (1 + (classes - 1) * np.exp(-scale * np.asarray(logit, dtype=float)))


def turn_of(margin: Sequence[float]) -> float:
    """Return the degrees from which on m1*theta + m2 exceeds pi; 180 where it never does."""
    return min(180.0, math.degrees((math.pi - margin[1]) / margin[0]))


def plot_boundaries(margins: Mapping[str, Sequence[float]]) -> Figure:
    """Plot which pair of angles belongs to which of two classes (ArcFace fig. 5); white belongs to neither.

    Args:
        margins: For each head by name, (m1, m2, m3); a panel each.

    Raises:
        DataError: Nothing to draw.
    """
    _some(margins)
    figure, axes = panels(1, len(margins), (2.3 * len(margins) + 0.5, 3.1), sharey=True, squeeze=False)
    first = np.linspace(0, 90, 361)  # degrees to the first centre
    for position, (ax, (name, margin)) in enumerate(zip(axes[0], margins.items(), strict=True)):
        needed = seen_angle(first, margin)  # the second centre must be further away than this
        inside = needed <= 90
        color = method_color(name, position)
        ax.fill_between(first[inside], needed[inside], 90, color=color, alpha=0.45, linewidth=0)
        ax.fill_betweenx(first[inside], needed[inside], 90, color="#BBBBBB", alpha=0.6, linewidth=0)
        ax.plot(first[inside], needed[inside], color=color, linewidth=2)
        ax.plot(needed[inside], first[inside], color="#8A8A8A", linewidth=2)
        ax.text(6, 84, "class 1", va="top", fontsize=SMALL_SIZE, color=INK)
        ax.text(86, 5, "class 2", ha="right", fontsize=SMALL_SIZE, color=INK)
        gaps = (needed - first)[inside]
        gap = f"{gaps.min():.0f}° to {gaps.max():.0f}°" if np.ptp(gaps) > 1 else f"{gaps.mean():.0f}° everywhere"
        gap = "none" if gaps.max() < 0.1 else gap
        ax.set(xlim=(0, 90), ylim=(0, 90), xticks=(0, 30, 60, 90), yticks=(0, 30, 60, 90), aspect="equal")
        dress(ax, f"{name}\ngap: {gap}", "θ₁ to centre 1 (°)", "θ₂ to centre 2 (°)" if position == 0 else "")
        ax.set_title(f"{name}\ngap: {gap}", loc="left", fontsize=SMALL_SIZE + 1, color=INK)
    return figure


def plot_arc_and_chord(degrees: float = 50.0, arc: float = 0.5, cut: float = 0.35) -> Figure:
    """Plot ArcFace's margin on the arc and CosFace's on the axis of cosines, and what each is worth at every angle.

    Args:
        degrees: Angle of the embedding that is drawn.
        arc: m2, radians.
        cut: m3, of the cosine.
    """
    figure, left = canvas(size=(8.4, 3.7))
    left.remove()
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    theta, moved = math.radians(degrees), math.radians(degrees) + arc
    arcface, cosface = METHODS["ArcFace"], METHODS["CosFace"]
    left.add_patch(Arc((0, 0), 2, 2, theta1=0, theta2=180, color=FAINT, linewidth=1.2))
    left.add_patch(Arc((0, 0), 2, 2, theta1=degrees, theta2=math.degrees(moved), color=arcface, linewidth=5))
    left.plot([math.cos(theta), math.cos(theta) - cut], [0, 0], color=cosface, linewidth=5, solid_capstyle="butt")
    left.plot([-1.05, 1.05], [0, 0], color=FAINT, linewidth=1, zorder=0)
    left.plot([0, math.cos(theta)], [0, math.sin(theta)], color=INK, linewidth=1.8)
    left.plot([math.cos(theta)] * 2, [0, math.sin(theta)], color=FAINT, linewidth=1.2, linestyle=":")
    left.plot([1, math.cos(theta)], [0, math.sin(theta)], color=SAME, linewidth=1.4, linestyle="--")
    left.plot([0, 1], [0, 0], color=INK, linewidth=1.8)
    words = dict(fontsize=SMALL_SIZE, color=INK, ha="center", va="center")
    left.text(1.13, 0, "W", **words)
    left.text(1.13 * math.cos(theta), 1.13 * math.sin(theta), "x", **words)
    middle = (theta + moved) / 2
    left.text(1.25 * math.cos(middle), 1.17 * math.sin(middle), f"arc {arc:g}", **(words | dict(color=arcface)))
    left.text(math.cos(theta) - cut / 2, -0.13, f"cut {cut:g}", **(words | dict(color=cosface)))
    left.text(*(0.5 + 0.5 * math.cos(theta) + 0.2, 0.5 * math.sin(theta) + 0.06), "chord", **(words | dict(color=SAME)))
    left.set(xlim=(-1.15, 1.3), ylim=(-0.3, 1.25), aspect="equal")
    left.axis("off")
    left.set_title("One goes along the circle,\none along the axis of cosines", loc="left", fontsize=11, color=INK)
    at = np.linspace(0, 150, 601)
    worth = {"ArcFace": (1, arc, 0), "CosFace": (1, 0, cut), "SphereFace": (1.35, 0, 0)}
    for name, margin in worth.items():
        inside = (logit_at(at, margin) > -1 + 1e-9) & (at < turn_of(margin))
        right.plot(at[inside], (seen_angle(at, margin) - at)[inside], color=METHODS[name], linewidth=2, label=name)
    right.set(xlim=(0, 150), ylim=(0, 62), xticks=range(0, 151, 30))
    dress(right, "ArcFace's is worth the same at every angle", OWN_ANGLE, "worth of the margin (degrees)", key=True)
    return figure


def plot_probability(
    scales: Sequence[float], classes: Sequence[int], margin: Sequence[float] = (1.0, 0.0, 0.0)
) -> Figure:
    """Plot p of the target against its angle, all other centres at right angles, for several scales and class counts.

    Args:
        scales: Rising; the right panel takes the last.
        classes: Rising; the left panel takes the middle one.
        margin: (m1, m2, m3).
    """
    figure, (left, right) = panels(1, 2, (8.4, 3.7), sharey=True)
    count, scale = classes[len(classes) // 2], scales[-1]
    logits = logit_at(ANGLES, margin)
    for s, color in zip(scales, shades(SAME, len(scales)), strict=True):
        left.plot(ANGLES, probability(logits, s, count), color=color, linewidth=2, label=f"s = {s:g}")
    for number, color in zip(classes, shades(DIFFERENT, len(classes)), strict=True):
        right.plot(ANGLES, probability(logits, scale, number), color=color, linewidth=2, label=f"{number:,}")
    for ax, title in (
        (left, f"{count:,} classes, several scales"),
        (right, f"s = {scale:g}, several numbers of classes"),
    ):
        ax.set(xlim=(0, 120), xticks=range(0, 121, 30), ylim=(-0.02, 1.02))
        dress(ax, title, OWN_ANGLE, "p of the target" if ax is left else "", key=True)
    return figure


def plot_gradients(margins: Mapping[str, Sequence[float]], scale: float = 64.0, classes: int = 10_000) -> Figure:
    """Plot the margin's factor on the cosine's gradient, and the pull of a whole step: s (1 - p) |d logit / d theta|.

    Solid is the derivative of the formula, dashed the straight-through gradient. The pull is in logits per radian.

    Args:
        margins: For each head by name, (m1, m2, m3).
        scale: s.
        classes: All others at right angles.

    Raises:
        DataError: Nothing to draw.
    """
    _some(margins)
    figure, (left, right) = panels(1, 2, (8.4, 3.9))
    at = np.linspace(0.5, 179.5, 717)
    for position, (name, margin) in enumerate(margins.items()):
        color, wrong = method_color(name, position), 1 - probability(logit_at(at, margin), scale, classes)
        for gradient, style in (("exact", "-"), ("straight-through", "--")):
            # The exact slope is that of the bare formula here: the line past the turn is shown elsewhere.
            factor = slope_at(at, margin, gradient)
            factor = np.where(at < turn_of(margin), factor, np.nan) if gradient == "exact" else factor
            label = name if gradient == "exact" else None
            left.plot(at, factor, style, color=color if label else INK, linewidth=2, label=label)
            pull = scale * wrong * factor * np.sin(np.radians(at))
            right.plot(at, pull, style, color=color, linewidth=2)
    for words, style in (("exact", "-"), ("straight-through", "--")):
        left.plot([], [], style, color=INK, linewidth=2, label=words)
    left.set(xlim=(0, 180), ylim=(-0.2, 4), xticks=range(0, 181, 30))
    right.set(xlim=(0, 180), xticks=range(0, 181, 30))
    right.set_ylim(bottom=0)
    dress(left, "Factor on the cosine's gradient: straight-through, it is 1", OWN_ANGLE, "d logit / d cos θ")
    dress(right, f"Pull towards the centre, s = {scale:g}", OWN_ANGLE, "pull (logits per radian)")
    key_above(figure, left)
    return figure


def plot_turn(margin: Sequence[float], ways: Mapping[str, ArrayLike]) -> Figure:
    """Plot the formula past m1*theta + m2 = pi, the line that replaces it there, and where gradient steps lead.

    Args:
        margin: (m1, m2, m3).
        ways: For each gradient by name, (steps + 1,) degrees of an embedding before the first step and after each.

    Raises:
        DataError: Nothing to draw.
    """
    _some(ways)
    figure, (left, right) = panels(1, 2, (8.4, 3.9))
    turn, at = turn_of(margin), np.linspace(90, 180, 721)
    past, line = at > turn, logit_at(at, margin, "exact")
    left.axvspan(turn, 180, color="#F2F2F2", linewidth=0)
    left.plot(at, logit_at(at, margin), color=DIFFERENT, linewidth=2, label="the formula")
    left.plot(at[past], line[past], color=SAME, linewidth=2, label="the line cos θ − m₂ sin m₂")
    left.plot([turn, turn], [line[~past][-1], line[past][0]], color=SAME, linewidth=1.4, linestyle=":")
    left.set(xlim=(90, 180), xticks=range(90, 181, 15))
    step = line[~past][-1] - line[past][0]
    dress(left, f"At {turn:.1f}° the line begins, {step:.2f} lower", OWN_ANGLE, "target logit / s", key=True)
    for (name, angles), color in zip(ways.items(), (DIFFERENT, SAME, INK), strict=False):
        right.plot(angles, color=color, linewidth=2, label=name, linestyle="--" if color == INK else "-")
    right.axhspan(turn, 180, color="#F2F2F2", linewidth=0)
    right.set(ylim=(0, 183), yticks=range(0, 181, 30))
    right.set_xlim(left=0)
    dress(right, "The formula drives a bad face away", "step", "angle θ (degrees)", key=True)
    return figure


def _some(things: Sized) -> None:
    """Raise DataError where there is nothing to draw."""
    if not things:
        raise DataError("there is nothing to draw: name at least one margin.")
