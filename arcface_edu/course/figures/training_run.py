"""A training run in pictures: number formats, learning rates, a run so far, and runs side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.figures.angles import plot_target_angles
from arcface_edu.figures.runs import plot_curves
from arcface_edu.figures.style import INK, LABEL_SIZE, SAME, SMALL_SIZE, TITLE_SIZE, canvas, dress, method_color, panels

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def plot_number_formats(gradients: ArrayLike, power: float = 0, ax: Axes | None = None) -> Figure:
    """Plot the powers of two that each number format reaches, over the gradients that it should hold.

    Args:
        gradients: (N,) magnitudes; those that are 0 are left out.
        power: The gradients are multiplied by 2^power, the loss scale.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No gradient above 0.
    """
    gradients = np.asarray(gradients, dtype=float)
    powers = np.log2(gradients[gradients > 0]) + power
    if not len(powers):
        raise DataError("there is no gradient above 0 to draw")
    figure, ax = canvas(ax, size=(7.6, 3.0))
    left, right = -60, 24  # fp32 and bf16 go on beyond, to 2^-149, 2^-133 and 2^128
    shares = np.full(len(powers), 1 / len(powers))
    ax.hist(powers.clip(left, right), range(left, right + 1), weights=shares, color=SAME, alpha=0.75)
    top = ax.get_ylim()[1]
    for row, (name, dtype) in enumerate(FORMATS.items()):
        smallest, normal, largest = reach(dtype)
        for low, high, strength in ((smallest, normal, 0.3), (normal, largest, 0.9)):
            ends, heights = np.clip([low, high], left, right), 2 * [top * (1.12 + 0.13 * row)]
            ax.plot(ends, heights, color=INK, linewidth=7, alpha=strength, solid_capstyle="butt")
        ax.text(right + 1, heights[0], name, va="center", fontsize=LABEL_SIZE, color=INK)
    smallest, normal, largest = reach(FORMATS["fp16"])
    for edge in (smallest, largest):
        ax.axvline(edge, color=INK, linewidth=1, linestyle=":")
    ax.set(xlim=(left, right), ylim=(0, top * 1.5), yticks=[])
    ax.set_xticks(range(left, right + 1, 12), [f"$2^{{{number}}}$" for number in range(left, right + 1, 12)])
    zero = np.mean(powers < smallest - 1)  # below half the smallest number, rounding gives 0
    thin, infinite = np.mean((powers < normal) & (powers >= smallest - 1)), np.mean(powers > largest)
    title = f"Times $2^{{{power:g}}}$, fp16 makes {zero:.2%} zero and {infinite:.2%} infinite, and blurs {thin:.1%}"
    dress(ax, title, "size of a gradient (pale: fewer and fewer digits)", "share")
    return figure


def reach(dtype: torch.dtype) -> tuple[float, float, float]:
    """Return the powers of two of a format's smallest number, of its smallest with all digits, and of its largest."""
    info = torch.finfo(dtype)
    normal = np.log2(info.smallest_normal)
    return normal + np.log2(info.eps), normal, np.log2(info.max)


def plot_schedules(schedules: Mapping[str, tuple[ArrayLike, ArrayLike]], ax: Axes | None = None) -> Figure:
    """Plot learning rates over the epochs of a run, on one logarithmic axis.

    Args:
        schedules: For each recipe by name, (epochs (S,), learning rates (S,)).
        ax: Where; None makes a new figure.

    Raises:
        DataError: No schedule.
    """
    if not schedules:
        raise DataError("there is no schedule to draw")
    figure, ax = canvas(ax, size=(7.6, 3.4))
    widths = np.linspace(4.5, 1.8, len(schedules))  # where two are the same, both are seen
    for position, (name, (epochs, rates)) in enumerate(schedules.items()):
        rates = np.where(np.asarray(rates) > 0, rates, np.nan)
        ax.plot(epochs, rates, color=method_color(name, position), linewidth=widths[position], label=name)
    ax.set_yscale("log")
    ax.set_ylim(bottom=max(1e-5, ax.get_ylim()[0]))  # a line that goes down to 0 has no end here
    title = "Three steps or one line: both end far below where they began"
    dress(ax, title, "epoch", "learning rate (log)", key=True)
    return figure


def plot_run(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot a run so far: loss, target angle, and the histograms of target angles at its start and now.

    Args:
        lines: Training lines of metrics.jsonl, with `step loss target_angle target_angle_histogram`.

    Raises:
        DataError: No lines.
    """
    if not lines:
        raise DataError("the run has logged nothing yet")
    figure, axes = panels(3, 1, (7.2, 7.2))
    axes[0].sharex(axes[1])
    plot_curves(lines, axes=axes[:2])
    counts = np.array([line["target_angle_histogram"] for line in lines])
    span = max(1, len(counts) // 20)
    plot_target_angles({"start": counts[:span].sum(0), "now": counts[-span:].sum(0)}, ax=axes[2])
    return figure


def plot_clinic(
    courses: Mapping[str, Sequence[np.ndarray]], knows_nothing: Callable[[np.ndarray], np.ndarray]
) -> Figure:
    """Plot runs side by side: loss, target angle and gradient norm, each over the first run in grey.

    Args:
        courses: For each run by name, (loss, angle in degrees, norm), each (S,); the first is the healthy one.
        knows_nothing: Returns the loss (S,) of a network that sees no difference between people, from angles (S,) in
            degrees.

    Raises:
        DataError: No run.
    """
    if not courses:
        raise DataError("there is no run to draw")
    figure, axes = panels(3, len(courses), (1.9 * len(courses) + 0.5, 5.2), sharex=True, sharey="row", squeeze=False)
    healthy = next(iter(courses.values()))
    kinds = (("loss", method_color("ArcFace")), ("angle (degrees)", SAME), ("gradient (log)", "#882255"))
    for column, (name, course) in enumerate(courses.items()):
        for row, (kind, color) in enumerate(kinds):
            panel = axes[row, column]
            panel.plot(_smooth(healthy[row]), color="#BDBDBD", linewidth=4)
            panel.plot(_smooth(course[row]), color=color, linewidth=2)
            dress(panel, y=kind if column == 0 else "")
        axes[0, column].plot(_smooth(knows_nothing(course[1])), color=INK, linewidth=1, linestyle="--")
        axes[0, column].set_title(name, loc="left", fontsize=LABEL_SIZE, color=INK)
        axes[2, column].set_yscale("log")
        axes[2, column].yaxis.set_minor_formatter(NullFormatter())
        axes[2, column].set_xlabel("step", fontsize=SMALL_SIZE, color=INK)
    title = "Grey: the healthy run. Dashed: the loss of one who knows nobody, at this angle"
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_SIZE, color=INK)
    return figure


def _smooth(values: ArrayLike, window: int = 5) -> np.ndarray:
    """Return the running mean; at the ends it is the mean of what is there."""
    values = np.asarray(values, dtype=float)
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
