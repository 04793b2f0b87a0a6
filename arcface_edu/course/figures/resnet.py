"""The residual network: its block, how gradients pass through it, what it sees, and what it costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.figures.faces import Image
from arcface_edu.figures.style import DPI, FAINT, INK, LABEL_SIZE, SMALL_SIZE, TITLE_SIZE, canvas, dress, shades, stack

SKIP, PLAIN = "#117733", "#882255"  # with the skip connection, and without
NOTHING = 1e-9  # a gradient that no optimizer notices
LAYERS = {"conv": "#332288", "BN": "#88CCEE", "act": "#DDCC77"}
RESNET = (("conv", "conv 3×3, stride"), ("BN", "BN"), ("act", "ReLU"), ("conv", "conv 3×3"), ("BN", "BN"))
IRESNET = (
    ("BN", "BN"),
    ("conv", "conv 3×3"),
    ("BN", "BN"),
    ("act", "PReLU"),
    ("conv", "conv 3×3, stride"),
    ("BN", "BN"),
)
WIDTH, HEIGHT, STEP = 2.5, 0.62, 0.92  # of a layer's box, and from one to the next


def plot_blocks() -> Figure:
    """Plot the basic block of ResNet (arXiv 1512.03385) beside that of ArcFace's IResNet."""
    figure = Figure(figsize=(8.4, 6.0), dpi=DPI, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    _block(
        ax,
        3.0,
        "ResNet's basic block",
        RESNET,
        "ReLU",
        "after the sum, ReLU:\nnegative numbers are lost\non the main road, too",
    )
    _block(ax, 9.6, "IResNet's block", IRESNET, None, "nothing after the sum:\nthe input goes on\nas it came")
    ax.text(
        5.2,
        -2.9,
        "on the skip: nothing,\nor conv 1×1 and BN\nwhere the shape changes",
        va="center",
        color=SKIP,
        fontsize=SMALL_SIZE,
    )
    ax.set(xlim=(0, 13.6), ylim=(-9.25, 0.65))
    ax.axis("off")
    return figure


def _block(ax: Axes, x: float, title: str, layers: Sequence[tuple[str, str]], after: str | None, remark: str) -> None:
    """Draw layers from top to bottom along `x`, the skip at their right, and a remark beside the sum."""
    ax.text(x, 0.3, title, ha="center", va="center", fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    top, joint = -0.35, -1.2 - 6 * STEP
    _arrow(ax, (x, top), (x, joint + 0.24), INK)
    for place, (kind, name) in enumerate(layers):
        _layer(ax, x, -1.2 - (place + (6 - len(layers)) / 2) * STEP, kind, name)
    side = x + WIDTH / 2 + 0.45
    ax.plot([x, side, side], [top - 0.2, top - 0.2, joint], color=SKIP, linewidth=3, solid_joinstyle="round")
    _arrow(ax, (side, joint), (x + 0.24, joint), SKIP, 3)
    ax.text(
        x,
        joint,
        "+",
        ha="center",
        va="center",
        fontsize=15,
        color=INK,
        bbox=dict(boxstyle="circle,pad=0.12", fc="white", ec=INK, lw=1.4),
    )
    _arrow(ax, (x, joint - 0.24), (x, joint - 1.85), INK)
    if after:
        _layer(ax, x, joint - 0.95, "act", after)
    ax.text(
        side + 0.12 if after else x + 0.3,
        joint - 0.95,
        remark,
        va="center",
        fontsize=SMALL_SIZE,
        color=PLAIN if after else SKIP,
    )


def _layer(ax: Axes, x: float, y: float, kind: str, name: str) -> None:
    box = FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2),
        WIDTH,
        HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.12",
        fc=LAYERS[kind],
        ec="white",
        lw=1.5,
        zorder=3,
    )
    ax.add_patch(box)
    ax.text(
        x, y, name, ha="center", va="center", fontsize=LABEL_SIZE, color="white" if kind == "conv" else INK, zorder=4
    )


def _arrow(ax: Axes, begin: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.6) -> None:
    arrow = dict(arrowstyle="-|>", color=color, lw=width, shrinkA=0, shrinkB=0, mutation_scale=14)
    ax.annotate("", end, begin, arrowprops=arrow)


def plot_gradient_norms(norms: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Figure:
    """Plot the norm of the gradient in every block of a deep stack, for each way to build it.

    Args:
        norms: For each way by name, (depth,) norms, first block first; "no skip" in a name gives its colour.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw.
    """
    if not norms:
        raise DataError("there are no gradient norms to draw")
    figure, ax = canvas(ax)
    alive = {name: values for name, values in norms.items() if max(values) > NOTHING}
    for name, values in alive.items():
        label = f"{name}: {values[0] / values[-1]:.0f} ×"
        ax.semilogy(np.arange(1, len(values) + 1), values, **_line(name), label=label)
    title = "How many times the last block's gradient the first block gets"
    title += "".join(f"; {name}: nothing, {max(norms[name]):.0e}" for name in norms if name not in alive)
    dress(ax, title, "block, from the image to the loss", "norm of the gradient", key=True)
    return figure


def plot_losses(losses: Mapping[str, Sequence[float]], chance: float, ax: Axes | None = None) -> Figure:
    """Plot the training loss of the same stacks at every step.

    Args:
        losses: For each way by name, (steps,).
        chance: The loss of guessing.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No losses.
    """
    if not losses:
        raise DataError("there are no losses to draw")
    figure, ax = canvas(ax)
    for name, values in losses.items():
        ax.plot(np.arange(len(values)), values, **_line(name), label=name)
    ax.axhline(chance, color=FAINT, linewidth=1.2, linestyle=":")
    steps = max(len(values) for values in losses.values())
    ax.text(1.02 * steps, 1.02 * chance, "guessing", va="bottom", fontsize=SMALL_SIZE, color=INK)
    ax.set_xlim(right=1.13 * steps)
    learnt = [name for name, values in losses.items() if values[-1] < chance / 4]
    title = f"{len(learnt)} of {len(losses)} stacks learn their few faces by heart: " + "; ".join(learnt)
    dress(ax, title if learnt else "None of the stacks learns its few faces", "step", "loss", key=True)
    ax.set_ylim(0, 2.5 * chance)
    return figure


def _line(name: str) -> dict[str, Any]:
    """Return the style of a stack: its colour shows whether it has a skip, its dashes how it is initialized."""
    dashes = ":" if "He" in name else "--" if "no BN" in name else "-"
    return dict(color=PLAIN if "no skip" in name else SKIP, linestyle=dashes, linewidth=2)


def plot_stages(face: Image, maps: Mapping[str, ArrayLike]) -> Figure:
    """Plot a face after each stage: the strength of the features at every cell of the map.

    Args:
        face: uint8 (3, H, W).
        maps: For each stage by title, (side, side).
    """
    figure, panels = _panels(1 + len(maps))
    _show(panels[0], np.asarray(face).transpose(1, 2, 0), f"{face.shape[-1]} × {face.shape[-1]}, 3 colours")
    for ax, (title, values) in zip(panels[1:], maps.items(), strict=True):
        _show(ax, np.asarray(values), title, cmap="magma")
    return figure


def plot_reach(face: Image, gradients: Mapping[str, ArrayLike], sides: Sequence[int]) -> Figure:
    """Plot the pixels that one cell of a map depends on: the face is bright where the gradient is large.

    Args:
        face: uint8 (3, H, W).
        gradients: For each map by title, (H, W), at least 0.
        sides: Of the receptive fields, pixels.

    Raises:
        DataError: A gradient that is 0 everywhere.
    """
    figure, panels = _panels(len(gradients))
    picture = np.asarray(face).transpose(1, 2, 0) / 255
    size = picture.shape[0]
    for ax, (title, gradient), side in zip(panels, gradients.items(), sides, strict=True):
        gradient = np.asarray(gradient, dtype=float)
        if not gradient.max() > 0:
            raise DataError(f"{title}: the gradient is 0 at every pixel")
        strong = np.percentile(gradient[gradient > 0], 99)  # single pixels of random weights reach far above
        light = np.sqrt(gradient / strong).clip(max=1)[..., None]
        _show(ax, (0.13 + 0.87 * light) * picture, title)
        rows, columns = np.nonzero(gradient)
        corner = columns.min() - 0.5, rows.min() - 0.5
        ax.add_patch(Rectangle(corner, np.ptp(columns) + 1, np.ptp(rows) + 1, fill=False, ec=LAYERS["act"], lw=2))
        inside = "the whole face" if side >= size else f"{side / size:.0%} of its side"
        ax.text(0.5, -0.04, inside, transform=ax.transAxes, ha="center", va="top", fontsize=SMALL_SIZE, color=INK)
    return figure


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(2.3 * count, 2.75), dpi=DPI, facecolor="white", layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, count))


def _show(ax: Axes, picture: np.ndarray, title: str, **options: Any) -> None:
    ax.imshow(picture, interpolation="nearest", **options)
    ax.set_title(title, fontsize=LABEL_SIZE, color=INK)
    ax.set_xticks([])
    ax.set_yticks([])


def plot_budget(budgets: Mapping[str, Mapping[str, float]], part: str) -> Figure:
    """Plot the shares of the same parts in different quantities, a bar each.

    Args:
        budgets: For each quantity by name, the amount of each part; all have the same parts.
        part: The one that the title names.
    """
    figure, ax = canvas(size=(8.4, 3.1))
    names = list(next(iter(budgets.values())))
    colors = [*shades(SKIP, len(names) - 1), PLAIN]
    for row, budget in enumerate(budgets.values()):
        shares = {name: 100 * budget[name] / sum(budget.values()) for name in names}
        stack(ax, shares, colors, y=-row, wide=4, height=0.66, key=row == 0)
    ax.set_yticks(-np.arange(len(budgets)), budgets)
    ax.set_xlim(0, 100)
    told = " and ".join(f"{b[part] / sum(b.values()):.1%} of the {quantity}" for quantity, b in budgets.items())
    dress(ax, f"The {part} has {told}", "per cent", key=True)
    ax.grid(axis="y", visible=False)
    return figure


def plot_depth(
    names: Sequence[str],
    work: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
) -> Figure:
    """Plot the error of deeper and deeper networks against the work per image.

    Args:
        names: N networks.
        work: (N,) 1e9 multiply-adds.
        errors: For each test by name, (N,) per cent.
        ax: Where; None makes a new figure.
    """
    figure, ax = canvas(ax)
    for (test, values), color, marker in zip(errors.items(), (INK, SKIP, PLAIN), "os^", strict=False):
        ax.plot(work, values, marker=marker, color=color, linewidth=1.8, label=test)
        for place, (x, value) in enumerate(zip(work, values, strict=True)):
            above = value == max(of[place] for of in errors.values())  # where two lines cross, numbers must not
            style: dict[str, Any] = dict(ha="center", va="bottom" if above else "top", fontsize=SMALL_SIZE, color=INK)
            ax.annotate(f"{value:.1f}", (x, value), (0, 6 if above else -6), textcoords="offset points", **style)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(work, [f"{name}\n{x:.1f}" for name, x in zip(names, work, strict=True)])
    ax.minorticks_off()
    ax.set_yticks([2, 5, 10, 20], ["2", "5", "10", "20"])
    ax.margins(0.08, 0.15)
    first = next(iter(errors.values()))
    title = f"{work[-1] / work[0]:.0f} times the work, and of {first[0]:.1f} % missed {first[-1]:.1f} % are left"
    dress(ax, title, "network, 1e9 multiply-adds per image", "same-person pairs missed (%)", key=True)
    return figure
