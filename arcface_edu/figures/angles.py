"""Angles as histograms: to the own class centre during training, and between the two faces of a pair."""

import numpy as np

from arcface_edu.errors import DataError
from arcface_edu.figures.style import DIFFERENT, INK, SAME, SMALL_SIZE, canvas, dress, shades

BIN = 2  # degrees


def plot_target_angles(histograms, ax=None):
    """Angles between training embeddings and the centre of their own class, at stages of a run (ArcFace fig. 4a).

    histograms: dict name of the stage, in order -> counts over equal bins of 0 to 180 degrees.   returns: Figure.
    raises: DataError (no stage, a stage without counts).
    """
    if not histograms:
        raise DataError("there is no histogram of target angles to draw")
    figure, ax = canvas(ax)
    means, lowest, highest = {}, 180.0, 0.0
    for (name, counts), color in zip(histograms.items(), shades(SAME, len(histograms)), strict=True):
        counts = np.asarray(counts, dtype=float)
        if not counts.sum() > 0:
            raise DataError(f"the histogram of target angles '{name}' counts nothing")
        edges = np.linspace(0, 180, len(counts) + 1)
        mean = means[name] = float(np.average((edges[1:] + edges[:-1]) / 2, weights=counts))
        _histogram(ax, 100 * counts / counts.sum(), edges, color, f"{name}: mean {mean:.1f}°")
        ax.axvline(mean, color=color, linewidth=1.2, linestyle=":")
        filled = np.flatnonzero(counts)
        lowest, highest = min(lowest, edges[filled[0]]), max(highest, edges[filled[-1] + 1])
    ax.set_xlim(max(lowest - 5, 0), min(highest + 5, 180))
    ax.set_ylim(bottom=0)
    first, last = means[next(iter(means))], mean
    if len(means) == 1:
        title = f"Faces lie {last:.0f}° from the centre of their own class on average"
    else:
        way = "draws faces in towards" if last < first else "drives faces away from"
        title = f"Training {way} their own class centre: {first:.0f}° becomes {last:.0f}°"
    dress(ax, title, "angle to the own class centre (degrees)", "share of images (%)", key=True)
    return figure


def plot_pair_angles(cosines, is_same, threshold_cosine=None, ax=None):
    """Angles of same- and different-identity pairs, the threshold between them (ArcFace figs. 6 and 7).

    cosines: (N,).   is_same: (N,) bools.   threshold_cosine: pairs above it are called the same.   returns: Figure.
    raises: DataError (one kind of pair only).
    """
    degrees = np.degrees(np.arccos(np.clip(np.asarray(cosines, dtype=float), -1, 1)))
    is_same = np.asarray(is_same, dtype=bool)
    if is_same.all() or not is_same.any():
        raise DataError("the angles of pairs are drawn for same- and different-identity pairs; one kind is missing")
    figure, ax = canvas(ax)
    edges = np.arange(np.floor(degrees.min() / BIN) * BIN, degrees.max() + BIN, BIN)
    edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + BIN])
    kinds = (("same person", SAME, degrees[is_same]), ("different people", DIFFERENT, degrees[~is_same]))
    shares = []
    for name, color, angles in kinds:
        share = 100 * np.histogram(angles, edges)[0] / len(angles)
        shares.append(share)
        _histogram(ax, share, edges, color, f"{name}: mean {angles.mean():.1f}°")
    overlap = np.minimum(*shares)
    ax.stairs(
        overlap, edges, fill=True, facecolor="none", edgecolor=INK, hatch="////", linewidth=0, alpha=0.55,
        label=f"overlap {overlap.sum():.1f}%",
    )  # fmt: skip
    ax.set_ylim(0, 1.12 * max(map(np.max, shares)))  # room for the threshold's name

    gap = degrees[~is_same].mean() - degrees[is_same].mean()
    title = f"Same-person pairs sit {abs(gap):.0f}° {'closer' if gap >= 0 else 'further apart'} than strangers"
    if threshold_cosine is not None:
        threshold = float(np.degrees(np.arccos(threshold_cosine)))
        wrong = np.mean((degrees < threshold) != is_same)
        title += f"; {wrong:.1%} of all pairs end on the wrong side of {threshold:.1f}°"
        ax.axvline(threshold, color=INK, linewidth=1.4, linestyle="--")
        left_half = threshold < (edges[0] + edges[-1]) / 2
        ax.annotate(
            f"threshold {threshold:.1f}°", (threshold, 1), xycoords=("data", "axes fraction"), va="top",
            xytext=(5 if left_half else -5, -2), textcoords="offset points", ha="left" if left_half else "right",
            fontsize=SMALL_SIZE, color=INK,
        )  # fmt: skip
    dress(ax, title, "angle between the two embeddings of a pair (degrees)", "share of its kind (%)", key=True)
    return figure


def _histogram(ax, share, edges, color, label):
    """A pale area under a strong line, from the first filled bin to the last."""
    filled = np.flatnonzero(share)
    first, last = filled[0], filled[-1] + 1
    ax.stairs(share[first:last], edges[first : last + 1], fill=True, color=color, alpha=0.32)
    ax.stairs(share[first:last], edges[first : last + 1], color=color, linewidth=1.8, label=label)
