"""Two overviews: the head sharded over ranks, and the stages of a run."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from arcface_edu.course.figures.animations import PEOPLE
from arcface_edu.course.figures.hero import card
from arcface_edu.figures.style import (
    COMMUNICATION,
    COMPUTE,
    FAINT,
    INK,
    LABEL_SIZE,
    SMALL_SIZE,
    TITLE_SIZE,
    WAITING,
    Color,
)  # fmt: skip

RANKS = (PEOPLE[1], PEOPLE[2], PEOPLE[6])  # whose images are whose
STEPS = (  # name, what it makes, where it is written, and its place: column, row
    ("records", "JPEG bytes, a label", "data/recordio.py", 0, 1),
    ("decode", "3 × 112 × 112, −1 to 1", "data/loader.py", 1, 1),
    ("network", "512 numbers a face", "models/iresnet.py", 2, 1),
    ("head", "angles, margin, loss", "heads/", 3, 1),
    ("checkpoint", "all that a run is", "training/checkpoint.py", 3, 0),
    ("evaluation", "pairs never seen", "evaluation/", 2, 0),
)


def plot_sharded_head() -> Figure:
    """Plot Partial FC: embeddings are sent to every rank, class centres are not sent."""
    figure, ax = card(10.4, 5.9)
    heading(ax, 0.35, 5.55, "Embeddings travel, class centres stay")
    centred: dict[str, Any] = dict(ha="center", va="center", fontsize=LABEL_SIZE, color=INK)
    for rank, (color, left) in enumerate(zip(RANKS, (0.35, 3.0, 5.65), strict=True)):
        middle = left + 1.15
        box(ax, left, 4.55, 2.3, 0.6, f"rank {rank}: network", COMPUTE)
        strip(ax, middle, 4.0, [color])
        for begin, end in ((4.55, 4.26), (3.87, 3.64), (3.2, 2.93), (1.5, 1.28), (0.83, 0.62)):
            arrow(ax, middle, begin, middle, end)
        strip(ax, middle - 0.62, 2.4, RANKS)
        ax.text(middle - 0.17, 2.4, "×", **centred)
        ax.add_patch(Rectangle((middle + 0.05, 1.95), 0.95, 0.9, fc="#C9C4E3", ec="none"))
        third = ("first", "second", "last")[rank]
        ax.text(middle + 0.52, 2.4, f"centres:\n{third}\nthird", **(centred | dict(fontsize=SMALL_SIZE)))
        ax.text(middle, 1.68, "their logits, in chunks", **(centred | dict(fontsize=SMALL_SIZE)))
        ax.text(middle, 0.42, "loss of all images", **centred)
    box(ax, 0.35, 3.2, 7.6, 0.44, "all-gather: the embeddings of all ranks", COMMUNICATION)
    box(
        ax,
        0.35,
        0.83,
        7.6,
        0.45,
        "all-reduce: the largest logit of an image;  all-reduce: sum of exp, own logit",
        COMMUNICATION,
    )
    for y, text in (
        (4.85, "the same weights\non every rank"),
        (4.0, "each its own images"),
        (3.42, "N × 512 numbers"),
        (2.4, "a third of the classes\neach: never sent,\ngradient stays, too"),
        (1.06, "3 numbers an image,\nhowever many classes"),
        (0.42, "the same everywhere"),
    ):
        ax.text(8.15, y, text, va="center", fontsize=SMALL_SIZE + 0.5, color=INK)
    return figure


def plot_pipeline() -> Figure:
    """Plot the stages of a run from records to evaluation: what each makes, and the file that it is written in."""
    figure, ax = card(10.6, 4.1)
    heading(ax, 0.35, 3.75, "Training needs the head; what is evaluated and used is the network alone")
    small: dict[str, Any] = dict(ha="center", va="center", fontsize=SMALL_SIZE)
    for name, makes, where, column, row in STEPS:
        left, bottom = 0.45 + 2.55 * column, 0.95 + 1.65 * row
        box(ax, left, bottom, 1.6, 0.55, name, COMPUTE if name in ("network", "head") else WAITING)
        ax.text(left + 0.8, bottom - 0.24, makes, color=INK, **small)
        ax.text(left + 0.8, bottom - 0.5, where, color="#5C5C5C", family="monospace", **small)
        if row and column:
            arrow(ax, left - 0.95, bottom + 0.27, left, bottom + 0.27)
    arrow(ax, 6.35, 1.98, 6.35, 1.5)
    arrow(ax, 8.9, 1.98, 8.9, 1.5)
    back = dict(arrowstyle="-|>", color=PEOPLE[6], lw=1.8, connectionstyle="arc3,rad=0.3", mutation_scale=13)
    ax.annotate("", (6.6, 3.2), (8.6, 3.2), arrowprops=back)
    ax.text(7.6, 3.3, "gradient", color=PEOPLE[6], **small)
    ax.text(4.2, 1.22, "without the head: new people\nhave no class centre", color=INK, **small)
    return figure


def heading(ax: Axes, x: float, y: float, text: str) -> None:
    """Write the title of a card; x is its left end, y its middle, inches."""
    ax.text(x, y, text, va="center", fontsize=TITLE_SIZE + 1.5, fontweight="bold", color=INK)


def box(ax: Axes, x: float, y: float, width: float, height: float, text: str, color: Color) -> None:
    """Draw a box with its text; (x, y) is its lower left corner, all in inches."""
    edge = FAINT if color == COMMUNICATION else "white"  # yellow needs one on white
    ax.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.09", fc=color, ec=edge))
    ink = "white" if color == COMPUTE else INK
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=LABEL_SIZE, color=ink)


def strip(ax: Axes, x: float, y: float, colors: Sequence[Color]) -> None:
    """Draw embeddings as a stack of bars about (x, y), in the colour of the rank that each comes from."""
    for row, color in enumerate(colors):
        ax.add_patch(Rectangle((x - 0.3, y + 0.26 * (len(colors) / 2 - row - 1)), 0.6, 0.23, fc=color, ec="none"))


def arrow(ax: Axes, x: float, y: float, x_end: float, y_end: float) -> None:
    """Draw an arrow from (x, y) to (x_end, y_end)."""
    line = dict(arrowstyle="-|>", color=INK, lw=1.4, shrinkA=0, shrinkB=0, mutation_scale=11)
    ax.annotate("", (x_end, y_end), (x, y), arrowprops=line)
