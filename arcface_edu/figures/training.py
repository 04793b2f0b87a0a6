"""What a training run is made of: number formats, rates over time, a run so far, and runs side by side."""

import numpy as np
import torch
from matplotlib.ticker import NullFormatter

from arcface_edu.errors import DataError
from arcface_edu.figures.angles import plot_target_angles
from arcface_edu.figures.runs import plot_curves
from arcface_edu.figures.style import (
    FAINT, INK, LABEL_SIZE, SAME, SMALL_SIZE, TITLE_SIZE, canvas, dress, method_color,
)  # fmt: skip

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def plot_number_formats(gradients, scale=1.0, ax=None):
    """Which powers of two each format reaches, over the gradients that it should hold.

    gradients: (N,) magnitudes, any that are 0 are left out.   scale: what they are multiplied by, the loss scale.
    returns: Figure.   raises: DataError (no gradient above 0).
    """
    gradients = np.asarray(gradients, dtype=float)
    powers = np.log2(gradients[gradients > 0] * scale)
    if not len(powers):
        raise DataError("there is no gradient above 0 to draw")
    figure, ax = canvas(ax, size=(7.6, 3.6))
    left, right = -60, 24  # beyond, fp32 and bf16 go on to 2^-149, 2^-133 and 2^128
    ax.hist(
        powers.clip(left, right),
        bins=np.arange(left, right + 1),
        color=SAME,
        alpha=0.75,
        weights=np.full(len(powers), 1 / len(powers)),
    )
    top = ax.get_ylim()[1]
    for row, (name, dtype) in enumerate(FORMATS.items()):
        info, y = torch.finfo(dtype), top * (1.12 + 0.13 * row)
        smallest = np.log2(info.smallest_normal) + np.log2(info.eps)
        for low, high, alpha in (
            (smallest, np.log2(info.smallest_normal), 0.3),
            (np.log2(info.smallest_normal), np.log2(info.max), 0.9),
        ):
            ax.plot(
                np.clip([low, high], left, right), [y, y], color=INK, linewidth=7, alpha=alpha, solid_capstyle="butt"
            )
        ax.text(right + 1, y, name, va="center", fontsize=LABEL_SIZE, color=INK)
    edge = np.log2(torch.finfo(torch.float16).smallest_normal) + np.log2(torch.finfo(torch.float16).eps)
    ax.axvline(edge, color=INK, linewidth=1, linestyle=":")
    ax.set(xlim=(left, right), ylim=(0, top * 1.5), yticks=[])
    ax.set_xticks(range(left, right + 1, 12), [f"2^{power}" for power in range(left, right + 1, 12)])
    lost = np.mean(powers < edge - 1)  # half the smallest number and less is rounded to 0
    what = f"Scaled by {scale:,.0f}, " if scale != 1 else "Unscaled, "
    title = f"{what}{lost:.1%} of these gradients are zero to fp16"
    dress(ax, title, "magnitude of a gradient (pale bars: fewer digits)", "share")
    return figure


def plot_schedules(schedules, ax=None):
    """Learning rates over the epochs of a run, on one logarithmic axis.

    schedules: dict name -> (epochs (S,), rates (S,)).   returns: Figure.   raises: DataError (none given).
    """
    if not schedules:
        raise DataError("there is no schedule to draw")
    figure, ax = canvas(ax, size=(7.6, 3.8))
    for position, (name, (epochs, rates)) in enumerate(schedules.items()):
        rates = np.where(np.asarray(rates) > 0, rates, np.nan)
        ax.plot(epochs, rates, color=method_color(name, position), linewidth=2, label=name)
    ax.set_yscale("log")
    title = "Three steps or one line: both end far below where they began"
    dress(ax, title, "epoch", "learning rate (log)", key=True)
    return figure


def plot_run(lines):
    """A run so far: loss, target angle, and how the angles lay at its start and lie now.

    lines: training lines of metrics.jsonl, with `step loss target_angle target_angle_histogram`.
    returns: Figure.   raises: DataError (no lines).
    """
    if not lines:
        raise DataError("the run has logged nothing yet")
    figure, ax = canvas(size=(7.6, 8.4))
    ax.remove()
    axes = figure.subplots(3, 1)
    axes[0].sharex(axes[1])
    plot_curves(lines, axes=axes[:2])
    counts = np.array([line["target_angle_histogram"] for line in lines])
    span = max(1, len(counts) // 20)
    plot_target_angles({"start": counts[:span].sum(0), "now": counts[-span:].sum(0)}, ax=axes[2])
    return figure


def plot_clinic(courses, knows_nothing):
    """Runs side by side: loss, target angle and gradient norm, each over the first run in grey.

    courses: dict name -> (loss, angle in degrees, norm), each (S,); the first is the healthy one.
    knows_nothing: angles (S,) in degrees -> loss (S,) of a network that sees no difference between people.
    returns: Figure.   raises: DataError (none given).
    """
    if not courses:
        raise DataError("there is no run to draw")
    figure, ax = canvas(size=(2.05 * len(courses) + 0.6, 5.6))
    ax.remove()
    axes = figure.subplots(3, len(courses), sharex=True, sharey="row", squeeze=False)
    healthy = next(iter(courses.values()))
    kinds = (("loss", method_color("ArcFace")), ("target angle (degrees)", SAME), ("gradient norm (log)", "#882255"))
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


def _smooth(values, window=5):
    """Running mean; the ends are means of what is there."""
    values = np.asarray(values, dtype=float)
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
