"""What wrong labels look like: the second hump, and the photographs that are suspected."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from arcface_edu.figures.style import DIFFERENT, SAME, dress, key_above, panels

BIN = 4  # degrees


def plot_humps(angles: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Draw the angles of training images to their own class centre, rightly and wrongly labelled ones apart.

    Args:
        angles: For each kind of wrong labels (a row) and each head (a column), degrees (N,) and whether each image is
            wrong (N,).
    """
    columns = list(next(iter(angles.values())))
    figure, axes = panels(
        len(angles), len(columns), (max(7.2, 2.4 * len(columns)), 1.4 + 2.1 * len(angles)), squeeze=False,
        sharex=True, sharey="row",
    )  # fmt: skip
    edges = np.arange(0, 124, BIN)
    for row, (kind, of_heads) in enumerate(angles.items()):
        for column, head in enumerate(columns):
            ax = axes[row, column]
            own, wrong = of_heads[head]
            for label, color, chosen in (("right label", SAME, ~wrong), ("wrong label", DIFFERENT, wrong)):
                counts = 100 * np.histogram(own[chosen], edges)[0] / len(own)
                ax.stairs(counts, edges, fill=True, color=color, alpha=0.4)
                ax.stairs(counts, edges, color=color, linewidth=1.5, label=label)
            dress(ax, "" if row else head, "", "" if column else f"{kind}, images (%)")
    key_above(figure, axes[0, 0])
    figure.supxlabel("angle to the centre of the own class (degrees)", fontsize=10.5)
    return figure


def plot_suspects(own: np.ndarray, suspects: np.ndarray) -> Figure:
    """Draw the angles of images to their own class centre, suspected ones apart: own (N,) degrees, suspects (N,)."""
    figure, ax = panels(1, 1, (7.2, 4.2))
    edges = np.arange(0, 184, 2)
    edges = edges[: np.searchsorted(edges, own.max()) + 2]
    for label, color, chosen in (("kept", SAME, ~suspects), ("suspected", DIFFERENT, suspects)):
        counts = np.histogram(own[chosen], edges)[0]
        ax.stairs(counts, edges, fill=True, color=color, alpha=0.4)
        ax.stairs(counts, edges, color=color, linewidth=1.6, label=f"{label}: {chosen.sum():,}")
    title = f"{suspects.mean():.1%} of the images lie nearer to another class than to their own, or too far away"
    dress(ax, title, "angle to the centre of the own class (degrees)", "images", key=True)
    return figure
