"""The choice of a threshold, and how far the TAR of a short list of pairs is off."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.evaluation.roc import roc, thin
from arcface_edu.figures.angles import plot_pair_angles
from arcface_edu.figures.style import FAINT, INK, SAME, canvas, dress, key_above, panels


def plot_threshold(cosines: ArrayLike, is_same: ArrayLike, degrees: float) -> Figure:
    """Plot one threshold on the angle: the pairs of both kinds that it cuts off, and its point on the ROC curve.

    Args:
        cosines: (N,).
        is_same: (N,) bool.
        degrees: Pairs below it are accepted.

    Returns:
        A figure of two axes, angles and ROC.

    Raises:
        DataError: One kind of pair only.
    """
    figure, (left, right) = panels(1, 2, (9.6, 4.2), width_ratios=(1.3, 1))
    plot_pair_angles(cosines, is_same, np.cos(np.radians(degrees)), left)
    left.get_legend().remove()
    key_above(figure, left)
    left.set_title(left.get_title(loc="left"), loc="left", pad=8)
    fpr, tpr = thin(*roc(cosines, is_same)[:2])
    accepted, is_same = np.degrees(np.arccos(np.clip(cosines, -1, 1))) < degrees, np.asarray(is_same, dtype=bool)
    far, tar = accepted[~is_same].mean(), accepted[is_same].mean()
    finest = 1 / (~is_same).sum()
    right.plot(fpr.clip(finest / 2), tpr, color=FAINT, linewidth=2, drawstyle="steps-post")
    right.plot(max(far, finest / 2), tar, "o", color=INK, markersize=8, clip_on=False)
    right.set_xscale("log")
    right.set_xlim(finest / 2, 1)
    right.set_ylim(0, 1.02)
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    title = f"{tar:.1%} of the right pairs get in, and {far:.2%} of the wrong"
    dress(right, title, "FAR: strangers accepted (log)", "TAR: same-person pairs accepted")
    return figure


def plot_reports(
    reports: Mapping[float, ArrayLike], truth: Mapping[float, float], pairs: int, ax: Axes | None = None
) -> Figure:
    """Plot the TAR that many short lists of pairs report, beside that of the long list they were drawn from.

    Args:
        reports: For each FAR, (R,) TAR of R lists.
        truth: For each FAR, the TAR of the long list.
        pairs: Pairs of different people in a short list.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw, or FARs that differ.
    """
    if not reports or reports.keys() != truth.keys():
        raise DataError(f"reports at FARs {list(reports)} and the truth at {list(truth)}: the same ones are meant")
    figure, ax = canvas(ax, size=(7.2, 4.0))
    fars = sorted(reports, reverse=True)
    rng, fill = np.random.default_rng(0), {True: "full", False: "none"}
    for place, far in enumerate(fars):
        found = np.asarray(reports[far], dtype=float)
        x = place + rng.uniform(-0.18, 0.18, len(found))
        ax.plot(x, found, "o", color=SAME, markersize=4, fillstyle=fill[pairs * far >= 10], alpha=0.6)
        ax.hlines(truth[far], place - 0.32, place + 0.32, color=INK, linewidth=2)
    for enough, label in ((True, "lists with ten false accepts or more"), (False, "with fewer")):
        ax.plot([], [], "o", color=SAME, markersize=4, fillstyle=fill[enough], label=label)
    ax.plot([], [], color=INK, linewidth=2, label="all pairs")
    ax.set_xticks(range(len(fars)), [f"{far:g}\n{pairs * far:g} in" for far in fars])
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    low, high = np.min(reports[fars[-1]]), np.max(reports[fars[-1]])
    title = f"At FAR {fars[-1]:g} short lists report a TAR from {low:.0%} to {high:.0%}; it is {truth[fars[-1]]:.0%}"
    dress(ax, title, f"FAR, and how many of a list's {pairs:,} pairs of strangers that lets in", "TAR", key=True)
    return figure
