"""How every picture of this house looks: one colour, one meaning; degrees; a title that says what is to be seen.

The figures are plain `matplotlib.figure.Figure` objects, never pyplot's: they need no display and none is left open.
In a notebook the last line of a cell shows one, once `%matplotlib inline` has run.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from arcface_edu.io import replace_when_done

Color = str | tuple[float, float, float]

# Okabe and Ito's colours (and Tol's indigo), told apart by colour-blind readers too.
SAME, DIFFERENT = "#0072B2", "#D55E00"
METHODS = {
    "softmax": "#6B6B6B",
    "norm-softmax": "#56B4E9",
    "ArcFace": "#009E73",
    "CosFace": "#CC79A7",
    "SphereFace": "#E69F00",
    "raw pixels": "#8C510A",
}
COMPUTE, COMMUNICATION, WAITING = "#332288", "#F0E442", "#D4D4D4"
INK, FAINT = "#222222", "#8A8A8A"  # text and threshold lines; guides of no data

TITLE_SIZE, LABEL_SIZE, SMALL_SIZE = 12, 10.5, 9.5  # points
DPI = 100


def canvas(ax: Axes | None = None, size: tuple[float, float] = (7.2, 4.2)) -> tuple[Figure, Axes]:
    """Return a figure and an ax to draw into: a new white figure of `size` inches, or those of the given ax."""
    return (cast(Figure, ax.figure), ax) if ax is not None else panels(1, 1, size)


def panels(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """Return a new white figure of `size` inches, and what `Figure.subplots` makes of it."""
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def dress(ax: Axes, title: str = "", x: str = "", y: str = "", key: bool = False) -> None:
    """Give an ax its title (wrapped, left), its axis names, a faint grid and, above the data, a key of its labels."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.grid(color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=SMALL_SIZE, colors=INK)
    ax.set_xlabel(x, fontsize=LABEL_SIZE, color=INK)
    ax.set_ylabel(y, fontsize=LABEL_SIZE, color=INK)
    pad = 8
    if key:
        labels = ax.get_legend_handles_labels()[1]
        room, widths = characters_across(ax) * TITLE_SIZE / SMALL_SIZE, [len(label) + 6 for label in labels]
        columns = len(labels) if sum(widths) <= room else max(1, int(room / max(widths)))
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=SMALL_SIZE,
            borderaxespad=0.2, handlelength=1.4, columnspacing=1.4, labelcolor=INK,
        )  # fmt: skip
        pad += 18 * -(-len(labels) // columns)
    ax.set_title(textwrap.fill(title, int(characters_across(ax))), loc="left", fontsize=TITLE_SIZE, color=INK, pad=pad)


def key_above(figure: Figure, ax: Axes) -> None:
    """Put one key over all panels of a figure, made of the labels in one of them."""
    lines, labels = ax.get_legend_handles_labels()
    figure.legend(
        lines, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=SMALL_SIZE, labelcolor=INK,
        handlelength=1.4, columnspacing=1.4,
    )  # fmt: skip


def stack(
    ax: Axes,
    parts: Mapping[str, float],
    colors: Sequence[Color],
    y: float = 0,
    form: str = "{:.0f}",
    wide: float = 0.0,
    height: float = 0.8,
    key: bool = True,
) -> None:
    """Draw one horizontal bar of many parts.

    Args:
        ax: Where.
        parts: The length of each part by its name.
        colors: One for each part.
        y: The middle of the bar.
        form: How a length is written into its part.
        wide: A part longer than this carries its number.
        height: Of the bar.
        key: Label the parts, for the key.
    """
    left = 0.0
    for (name, size), color in zip(parts.items(), colors, strict=True):
        label = name if key else None
        ax.barh(y, size, left=left, height=height, color=color, edgecolor="white", linewidth=0.8, label=label)
        if size > wide:
            ink = "white" if sum(to_rgb(color)) < 1.75 else INK
            ax.text(left + size / 2, y, form.format(size), ha="center", va="center", fontsize=LABEL_SIZE, color=ink)
        left += size


def characters_across(ax: Axes) -> float:
    """Return about how many characters of a title fit over an ax, once the layout has given it its room."""
    inches = cast(Figure, ax.figure).get_size_inches()[0] * min(ax.get_position().width * 1.15, 1)
    return inches * 72 / (TITLE_SIZE * 0.54)


def shades(color: Color, count: int) -> list[Color]:
    """Return `count` shades of one colour, pale to full: the stages of one thing over time."""
    strength = np.linspace(0.35, 1.0, count) if count > 1 else [1.0]
    return [tuple(1 - s * (1 - np.array(to_rgb(color)))) for s in strength]


def method_color(name: str, position: int = 0) -> str:
    """Return the colour of a method everywhere in this project; for any other name, the spare one at `position`."""
    others = ["#882255", "#44AA99", "#999933", "#AA4499"]
    return METHODS.get(name, others[position % len(others)])


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, in the format that the name ends with or as PNG; it appears under its name only when it is whole.

    Raises:
        OSError: The folder cannot be written.
    """
    with replace_when_done(path) as beside:
        figure.savefig(beside, dpi=figure.dpi, format=Path(path).suffix[1:] or "png")
    return Path(path)
