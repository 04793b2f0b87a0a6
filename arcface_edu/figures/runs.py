"""What a run did: its ROC, searches in a gallery, and its loss, angle and accuracy over the steps."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.figures.style import FAINT, INK, LABEL_SIZE, SAME, canvas, dress, method_color, panels


def plot_roc(
    fpr: ArrayLike | Mapping[str, tuple[ArrayLike, ArrayLike]],
    tpr: ArrayLike | None = None,
    label: str = "ArcFace",
    ax: Axes | None = None,
) -> Figure:
    """Draw the ROC over a logarithmic FAR (ArcFace fig. 9).

    Args:
        fpr: (T,) from low to high, in [0, 1]; or for several curves (fpr, tpr) by name.
        tpr: (T,), of the one curve.
        label: The name of the one curve.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw.
    """
    pairs = fpr if isinstance(fpr, Mapping) else {label: (fpr, np.asarray(tpr))}
    curves = {name: (np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for name, (x, y) in pairs.items()}
    if not curves or any(not (x > 0).any() for x, _ in curves.values()):
        raise DataError("an ROC needs at least one curve, and each a point with FAR above 0")
    figure, ax = canvas(ax, size=(6.4, 4.6))
    finest = min(x[x > 0].min() for x, _ in curves.values())
    left = 10 ** np.floor(np.log10(finest) + 1e-9)
    far = next((f for f in (1e-4, 1e-3, 1e-2) if f >= 9.99 * finest), 1e-1)  # a FAR that ten impostors or so resolve

    guess = np.geomspace(left, 1, 100)
    ax.plot(guess, guess, color=FAINT, linewidth=1, linestyle="--", label="guessing")
    at_far = {}
    for position, (name, (x, y)) in enumerate(curves.items()):
        distance = abs(x - far)
        nearest = np.flatnonzero(distance == distance.min())[-1]
        at_far[name] = y[nearest]
        color = method_color(name, position)
        ax.plot(x.clip(left), y, color=color, linewidth=2, drawstyle="steps-post", label=f"{name}: {y[nearest]:.1%}")
        ax.plot(x[nearest].clip(left), y[nearest], "o", color=color, markersize=6, clip_on=False)
    ax.axvline(far, color=INK, linewidth=1, linestyle=":")
    ax.set_xscale("log")
    ax.set_xlim(left, 1)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")

    best = max(at_far, key=at_far.__getitem__)
    title = f"With 1 stranger in {1 / far:,.0f} let in, {best} recognises {at_far[best]:.1%} of same-person pairs"
    if len(curves) > 1:
        title += f", {min(at_far, key=at_far.__getitem__)} {min(at_far.values()):.1%}"
    dress(ax, title, "FAR: strangers accepted (share, log)", "TAR: same-person pairs accepted", key=True)
    return figure


def plot_curves(
    training_lines: Iterable[Mapping[str, Any]],
    evaluation_lines: Collection[Mapping[str, Any]] = (),
    method: str = "ArcFace",
    axes: Any = None,
) -> Figure:
    """Draw loss, mean target angle and, where it was measured, verification accuracy over the steps of a run.

    Args:
        training_lines: Of metrics.jsonl, with `step loss target_angle`; of two lines of one step (the run was resumed)
            the later holds.
        evaluation_lines: Likewise, with `step pairs accuracy`.
        method: The head that the run was trained with, for its colour.
        axes: 2 axes (3 with evaluation lines) to draw into; None makes a new figure.

    Raises:
        DataError: No training lines.
    """
    by_step = {line["step"]: line for line in training_lines}
    if not by_step:
        raise DataError("the run has no training lines to draw: metrics.jsonl holds none")
    lines = [by_step[step] for step in sorted(by_step)]
    steps, losses, angles = (np.array([line[key] for line in lines]) for key in ("step", "loss", "target_angle"))
    rows = 3 if evaluation_lines else 2
    if axes is None:
        figure, axes = panels(rows, 1, (7.2, 2.5 * rows), sharex=True)
    figure = axes[0].figure

    loss_title = f"The loss {_way(losses)} from {_mean(losses, 0):.1f} to {_mean(losses, -1):.1f}"
    _curve(axes[0], steps, losses, method_color(method), loss_title, "loss")
    way = "close in on" if _way(angles) == "falls" else "drift away from"
    angle_title = f"Faces {way} their own centre: from {_mean(angles, 0):.0f}° to {_mean(angles, -1):.0f}°"
    _curve(axes[1], steps, angles, SAME, angle_title, "target angle (degrees)")

    sets: dict[str, dict[int, float]] = {}
    for line in sorted(evaluation_lines, key=lambda line: line["step"]):
        sets.setdefault(line.get("pairs", "pairs"), {})[line["step"]] = 100 * line["accuracy"]
    for position, (name, points) in enumerate(sets.items()):
        color = method_color(method if len(sets) == 1 else name, position)
        axes[2].plot(points.keys(), points.values(), "o-", color=color, markersize=5, linewidth=1.8, label=str(name))
    if sets:
        last = {name: list(points.values())[-1] for name, points in sets.items()}
        best = max(last, key=last.__getitem__)
        title = f"In the end {last[best]:.1f}% of the pairs of unseen people are judged rightly"
        dress(axes[2], title, y="accuracy (%)", key=len(sets) > 1)
    axes[-1].set_xlabel("step", fontsize=LABEL_SIZE, color=INK)
    return figure


def _curve(ax: Axes, steps: np.ndarray, values: np.ndarray, color: str, title: str, name: str) -> None:
    """Draw one quantity over the steps: each line pale, their running mean strong."""
    window = max(1, len(values) // 40)
    ax.plot(steps, values, color=color, linewidth=0.8, alpha=0.35)
    sums = np.cumsum(np.append(0.0, values))
    middle = steps[window // 2 :][: len(values) - window + 1]
    ax.plot(middle, (sums[window:] - sums[:-window]) / window, color=color, linewidth=2)
    dress(ax, title, y=name)


def _mean(values: np.ndarray, end: int) -> float:
    """Return the mean of the first (end = 0) or last (end = -1) fortieth of the lines."""
    window = max(1, len(values) // 40)
    return float(np.mean(values[:window] if end == 0 else values[-window:]))


def _way(values: np.ndarray) -> str:
    return "falls" if _mean(values, -1) < _mean(values, 0) else "rises"


def plot_cmc(cmc: ArrayLike | Mapping[str, ArrayLike], ax: Axes | None = None) -> Figure:
    """Draw the CMC: how often the right person is among the first 1, 2 ... of a search.

    Args:
        cmc: (ranks,) shares, rising; or for several curves (ranks,) by name.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw.
    """
    named = cmc if isinstance(cmc, Mapping) else {"ArcFace": cmc}
    curves = {name: np.asarray(shares, dtype=float) for name, shares in named.items()}
    if not curves or any(not len(shares) for shares in curves.values()):
        raise DataError("a CMC needs at least one curve, and each at least one rank")
    figure, ax = canvas(ax, size=(6.4, 4.2))
    for position, (name, shares) in enumerate(curves.items()):
        ranks, color = np.arange(1, len(shares) + 1), method_color(name, position)
        few = "o-" if len(ranks) <= 50 else "-"
        ax.plot(ranks, shares, few, color=color, linewidth=2, markersize=4, label=f"{name}: {shares[0]:.1%} at rank 1")
    lowest = min(shares[0] for shares in curves.values())
    ax.set_ylim(max(0, lowest - 0.25 * (1 - lowest) - 0.01), 1.005)
    most = max(map(len, curves.values()))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if 5 <= most <= 30:
        ax.set_xticks([1, *range(5, most + 1, 5)])
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}".replace(".0%", "%"))
    best = max(curves.values(), key=lambda shares: shares[0])
    title = f"The right person comes first in {best[0]:.1%} of the searches"
    if len(best) > 1:
        title += f", and is among the first {min(5, len(best))} in {best[min(5, len(best)) - 1]:.1%}"
    dress(ax, title, "rank", "share of searches for known people", key=len(curves) > 1)
    return figure


def plot_open_set(far: ArrayLike, rate: ArrayLike, ax: Axes | None = None) -> Figure:
    """Draw open-set identification: known people found, against strangers taken for somebody.

    Args:
        far: (T,), as `far` of `identify`, from 0 to 1.
        rate: (T,), as its `dir`.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No strangers.
    """
    far, rate = np.asarray(far, dtype=float), np.asarray(rate, dtype=float)
    if len(far) < 2:
        raise DataError("an open-set curve needs strangers among the probes")
    figure, ax = canvas(ax, size=(6.4, 4.2))
    finest = far[far > 0].min()
    marked = max(1e-2, finest) if finest <= 0.1 else finest
    at = np.searchsorted(far, marked * (1 + 1e-9), side="right") - 1
    ax.plot(far.clip(finest / 2), rate, color=method_color("ArcFace"), linewidth=2, drawstyle="steps-post")
    ax.plot(far[at], rate[at], "o", color=method_color("ArcFace"), markersize=6, clip_on=False)
    ax.axvline(far[at], color=INK, linewidth=1, linestyle=":")
    ax.set_xscale("log")
    ax.set_xlim(finest / 2, 1)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    title = f"With {far[at]:.1%} of the strangers taken for somebody, {rate[at]:.1%} of known people are named rightly"
    dress(ax, title, "FAR: strangers taken for somebody (share, log)", "DIR: known people found at rank 1")
    return figure


def plot_reject(curves: Mapping[str, np.ndarray], far: float, ax: Axes | None = None) -> Figure:
    """Draw error-versus-reject curves: how many same-person pairs are lost once the worst images are turned away.

    Args:
        curves: (96,) shares lost at 0, 1, ... 95 % rejected, by the measure of quality; "best possible" is dashed.
        far: Of the threshold.
        ax: Where; None makes a new figure.
    """
    figure, ax = canvas(ax, size=(6.4, 4.2))
    for position, (name, lost) in enumerate(curves.items()):
        best = name == "best possible"
        color, style = (FAINT, "--") if best else (method_color(name, position), "-")
        ax.plot(np.arange(96), 100 * lost, style, color=color, linewidth=2, label=name)
    measured = {name: lost for name, lost in curves.items() if name != "best possible"}
    name, lost = min(measured.items(), key=lambda item: item[1][20])
    title = f"A fifth turned away by {name}: {lost[0]:.1%} of the same-person pairs lost become {lost[20]:.1%}"
    ax.set_ylim(bottom=0)
    dress(ax, title, "worst pairs turned away, %", f"same-person pairs lost, %, at FAR {far:g}", key=True)
    return figure
