"""The picture of the whole: what the margin does in training, and which angles it leads to.

It stands on a card of its own, white with round corners on a clear ground, for light pages and dark ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Arc, FancyBboxPatch, Wedge
from numpy.typing import ArrayLike

from arcface_edu.course.figures.animations import PEOPLE
from arcface_edu.errors import DataError
from arcface_edu.figures.faces import Image
from arcface_edu.figures.style import DIFFERENT, FAINT, INK, METHODS, SAME, SMALL_SIZE, TITLE_SIZE, Color

Example = tuple[Image, Image, float]  # two photographs and the angle between them, degrees
DPI = 120
MARGIN = 0.5  # radians, ArcFace's
FAN = (114, 136, 158), (66, 44, 22)  # degrees of two people's photographs on the circle, centres in the middle


def plot_hero(
    people: Sequence[Sequence[Image]], degrees: ArrayLike, is_same: ArrayLike, examples: Sequence[Example]
) -> Figure:
    """Plot ArcFace at a glance: the margin between two people on the circle, and the angles of verification pairs.

    Args:
        people: Two lists of three uint8 images (3, H, W), photographs of one person each.
        degrees: (N,) angles of verification pairs.
        is_same: (N,) bool.
        examples: A pair of one person and a pair of two, each (first, second, degrees).

    Raises:
        DataError: Pairs of one kind only.
    """
    degrees, is_same = np.asarray(degrees, dtype=float), np.asarray(is_same, dtype=bool)
    if is_same.all() or not is_same.any():
        raise DataError("the picture needs pairs of one person and pairs of two")
    figure, back = card(11.0, 4.1)
    title: dict[str, Any] = dict(va="center", fontsize=TITLE_SIZE + 1.5, fontweight="bold", color=INK)
    back.text(0.3, 3.78, "Train: every photograph has to win with a margin", **title)
    back.text(6.0, 3.78, "Verify: people never seen before", **title)
    draw_margin(figure.add_axes((0.015, 0.0, 0.515, 0.97)), people)
    draw_angles(figure.add_axes((6.05 / 11, 0.135, 4.6 / 11, 0.46)), degrees, is_same, examples)
    return figure


def draw_margin(ax: Axes, people: Sequence[Sequence[Image]]) -> None:
    """Draw two class centres on the unit circle, photographs about them, and the angle that counts with m added."""
    ax.set(xlim=(-1.62, 1.62), ylim=(-0.42, 1.84))
    ax.set_aspect("equal", anchor="S")
    ax.axis("off")
    nearest, own, margin = *FAN[0][:2], np.degrees(MARGIN)  # the photograph and its centre
    ax.add_patch(Wedge((0, 0), 1, nearest - margin, nearest, color=METHODS["ArcFace"], alpha=0.22, lw=0))
    ax.add_patch(Arc((0, 0), 2, 2, theta1=8, theta2=172, color=FAINT, lw=1.6))
    for person, (photos, places) in enumerate(zip(people, FAN, strict=True)):
        color, centre = PEOPLE[6 * person], places[1]
        arrow = dict(arrowstyle="-|>", color=color, lw=2.6, shrinkA=0, shrinkB=0)
        ax.annotate("", at(centre), (0, 0), arrowprops=arrow)
        for photo, place in zip(photos, places, strict=True):
            show(ax, photo, at(place, 1.36), 58, color)
            ax.plot(*at(place), "o", ms=8, color=color, mec="white", mew=1.2, zorder=4)
    middle: dict[str, Any] = dict(ha="center", va="center", fontsize=TITLE_SIZE)
    ax.plot(*zip((0, 0), at(nearest), strict=True), color=PEOPLE[0], lw=1.2, ls="--")
    for begin, end, size, color, name in (
        (nearest, own, 0.86, INK, "θ"),
        (nearest - margin, nearest, 1.1, METHODS["ArcFace"], "+ m"),
    ):
        ax.add_patch(Arc((0, 0), size, size, theta1=begin, theta2=end, color=color, lw=2.4))
        ax.text(*at((begin + end) / 2, size / 2 + 0.1), name, color=color, **middle)
    ax.text(0, -0.12, "trained as if it were at  θ + m,  judged at  θ", color=INK, **middle)
    demand = f"m = {margin:.1f}° is what training demands; what it reaches is measured"
    ax.text(0, -0.31, demand, color=METHODS["ArcFace"], **middle | dict(fontsize=SMALL_SIZE + 0.5))


def draw_angles(ax: Axes, degrees: np.ndarray, is_same: np.ndarray, examples: Sequence[Example]) -> None:
    """Draw histograms of the angles of pairs (N,), of one person and of two, with an example over each."""
    bins = np.arange(np.floor(degrees.min() / 2) * 2, degrees.max() + 2, 2)
    for kind, color, name, (first, second, angle) in zip(
        (is_same, ~is_same), (SAME, DIFFERENT), ("one person", "two people"), examples, strict=True
    ):
        counts, edges = np.histogram(degrees[kind], bins)
        ax.stairs(100 * counts / kind.sum(), edges, fill=True, color=color, alpha=0.75)
        mean = degrees[kind].mean()
        for photo, side in ((first, -1), (second, 1)):
            show(ax, photo, (mean, 1.02), 58, color, ("data", "axes fraction"), (side * 26, 48))
        above: dict[str, Any] = dict(
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", va="bottom"
        )
        style: dict[str, Any] = dict(fontsize=SMALL_SIZE + 0.5, color=color, fontweight="bold")
        ax.annotate(f"{name}: {angle:.0f}°", (mean, 1.02), (0, 6), **above, **style)
    for spine in ("top", "right", "left"):
        ax.spines[spine].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)
    ax.set_yticks([])
    ax.set_xticks(range(0, 181, 30), [f"{tick}°" for tick in range(0, 181, 30)], fontsize=SMALL_SIZE, color=INK)
    ax.set_xlim(min(bins[0], degrees[is_same].mean() - 22), max(bins[-1], degrees[~is_same].mean() + 22))
    ax.set_xlabel(f"angle between two photographs, {len(degrees):,} pairs", fontsize=SMALL_SIZE + 0.5, color=INK)


def at(degrees: float, radius: float = 1.0) -> tuple[float, float]:
    """Return the point (x, y) at an angle of a circle."""
    return radius * np.cos(np.radians(degrees)), radius * np.sin(np.radians(degrees))


def show(
    ax: Axes,
    image: Image,
    place: tuple[float, float],
    size: float,
    color: Color,
    coordinates: str | tuple[str, str] = "data",
    offset: tuple[float, float] = (0, 0),
) -> None:
    """Draw a framed face.

    Args:
        ax: Where.
        image: uint8 (3, H, W).
        place: Its middle, in `coordinates`.
        size: Its height, 1.2 to the point.
        color: Of the frame.
        coordinates: As `xycoords` of Matplotlib's `AnnotationBbox`.
        offset: Moves it from its place, points.
    """
    picture = np.asarray(image).transpose(1, 2, 0)
    picture = OffsetImage(picture, zoom=size / picture.shape[0] * 100 / DPI, dpi_cor=True, interpolation="lanczos")
    frame = dict(edgecolor=color, linewidth=2, boxstyle="round,pad=0.04,rounding_size=0.2")
    ax.add_artist(
        AnnotationBbox(picture, place, offset, coordinates, boxcoords="offset points", bboxprops=frame, pad=0.1)
    )


def card(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure, white with round corners and clear beyond them, and an ax over all of it in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    corners = "round,pad=0,rounding_size=0.2"
    ax.add_patch(FancyBboxPatch((0.03, 0.03), width - 0.06, height - 0.06, corners, fc="white", ec="#D0D7DE", lw=1))
    return figure, ax
