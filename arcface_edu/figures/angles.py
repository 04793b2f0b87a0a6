"""Angles as histograms: to class centres, during training and after it, and between the two faces of a pair."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import nearest_random_density, random_angle_density
from arcface_edu.figures.style import (
    DIFFERENT,
    FAINT,
    INK,
    SAME,
    SMALL_SIZE,
    Color,
    canvas,
    dress,
    method_color,
    panels,
    shades,
)  # fmt: skip

BIN = 2  # degrees


def plot_target_angles(histograms: Mapping[str, ArrayLike], ax: Axes | None = None) -> Figure:
    """Draw the angles between training embeddings and their own class centre, at stages of a run (ArcFace fig. 4a).

    Args:
        histograms: For each stage, in order, counts over equal bins of 0 to 180 degrees.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No stage, or a stage without counts.
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


def plot_angle_history(steps: ArrayLike, histograms: ArrayLike, ax: Axes | None = None, name: str = "") -> Figure:
    """Draw how the angles to the own class centre spread at every step of a run, and their mean.

    Args:
        steps: (L,), rising.
        histograms: (L, bins) counts over equal bins of 0 to 180 degrees.
        ax: Where; None makes a new figure.
        name: Begins the title.

    Raises:
        DataError: Fewer than two lines, or a line without counts.
    """
    steps, histograms = join_lines(steps, histograms, 160)
    if len(steps) < 2:
        raise DataError("the history of target angles needs at least two lines of the log")
    figure, ax = canvas(ax)
    edges = np.linspace(0, 180, histograms.shape[1] + 1)
    means = histograms @ ((edges[1:] + edges[:-1]) / 2)
    borders = np.concatenate([[steps[0] - (steps[1] - steps[0]) / 2], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    # The square root lets the thin tails show beside the crowded start.
    ax.pcolormesh(borders, edges, np.sqrt(histograms.T), cmap=LinearSegmentedColormap.from_list("", ["white", SAME]))
    ax.plot(steps, means, color=INK, linewidth=1.8, label="mean")
    filled = np.flatnonzero(histograms.sum(0))
    ax.set_ylim(edges[filled[0]], edges[filled[-1] + 1])
    way = "come in towards" if means[-1] < means[0] else "drift away from"
    title = f"Step by step, faces {way} their own class centre: from {means[0]:.0f}° to {means[-1]:.0f}°"
    dress(ax, _named(name, title), "step", "angle to the own class centre (degrees)", key=True)
    return figure


def join_lines(steps: ArrayLike, histograms: ArrayLike, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Join the lines of a log to at most `most`.

    Returns:
        The last step of each (G,), and its shares (G, bins).
    """
    steps, histograms = np.asarray(steps), np.asarray(histograms, dtype=float)
    if len(steps) == 0 or histograms.ndim != 2 or len(steps) != len(histograms) or not (histograms.sum(1) > 0).all():
        raise DataError(
            f"{len(steps)} steps and histograms of shape {histograms.shape}: one is meant for each, and none empty"
        )
    parts = np.array_split(np.arange(len(steps)), min(most, len(steps)))
    joined = np.stack([histograms[part].sum(0) for part in parts])
    return np.array([steps[part[-1]] for part in parts]), joined / joined.sum(1, keepdims=True)


def plot_own_centre(degrees: Mapping[str, np.ndarray], ax: Axes | None = None) -> Figure:
    """Draw the angles of embeddings to the centre of their own class, under several heads.

    Args:
        degrees: For each head by name, (N,) degrees.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw.
    """
    figure, ax, means = _by_method(degrees, ax)
    low, high = (of(means, key=means.__getitem__) for of in (min, max))
    title = f"Faces lie {means[low]:.0f}° from the centre of their own class on average"
    if means[high] - means[low] >= 2:
        title = f"Faces lie {means[low]:.0f}° from their own class centre under {low}, {means[high]:.0f}° under {high}"
    elif len(means) > 1:
        title = f"How near faces lie to their own class centre hardly differs: {means[low]:.0f}° to {means[high]:.0f}°"
    dress(ax, title, "angle to the own class centre (degrees)", "share of images per degree (%)", key=True)
    return figure


def plot_nearest_centres(degrees: Mapping[str, np.ndarray], dimension: int, ax: Axes | None = None) -> Figure:
    """Draw the angle of each class centre to the nearest other one, beside what random directions would have.

    Args:
        degrees: For each head by name, (C,) degrees; the random directions are as many as the first has classes.
        dimension: Of the embeddings.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw.
    """
    figure, ax, means = _by_method(degrees, ax)
    count = len(next(iter(degrees.values())))
    at = np.linspace(0, 180, 3601)
    random = nearest_random_density(at, dimension, count)
    at_random = np.average(at, weights=random)
    low, high = ax.get_xlim()
    reach = at[random > 0.01 * random.max()]
    low, high = min(low, reach[0]), max(high, reach[-1])
    ax.plot(
        at, 100 * random, color=FAINT, linewidth=1.4, linestyle=":",
        label=f"{count:,} random directions in {dimension}-D: mean {at_random:.1f}°",
    )  # fmt: skip
    ax.set_xlim(low, high)
    furthest_first = sorted(means, key=means.__getitem__, reverse=True)
    ends = furthest_first[:1] + furthest_first[1:][-1:]
    away = ", ".join(f"{means[name]:.0f}° away under {name}" for name in ends)
    title = f"The nearest other class centre is {away}; of random directions it would be {at_random:.0f}°"
    dress(ax, title, "angle to the nearest other class centre (degrees)", "share of classes per degree (%)", key=True)
    return figure


def plot_own_and_other(own: ArrayLike, other: ArrayLike, name: str = "", ax: Axes | None = None) -> Figure:
    """Draw the angles of embeddings to the centre of their own class and to the nearest other centre.

    Args:
        own: (N,) degrees.
        other: (N,) degrees.
        name: Begins the title.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing to draw.
    """
    own, other = np.asarray(own, dtype=float), np.asarray(other, dtype=float)
    if len(own) == 0 or own.shape != other.shape:
        raise DataError(f"{len(own)} angles to own centres and {len(other)} to others: as many of both are meant")
    figure, ax = canvas(ax)
    for label, color, angles in (("own centre", SAME, own), ("nearest other", DIFFERENT, other)):
        _histogram(ax, *_shares(angles), color, f"{label}: mean {angles.mean():.1f}°")
    ax.set_ylim(bottom=0)
    title = f"{np.mean(own < other):.1%} of the faces lie nearest to the centre of their own class"
    dress(ax, _named(name, title), "angle to a class centre (degrees)", "share of images per degree (%)", key=True)
    return figure


def plot_norms(norms: ArrayLike, degrees: ArrayLike, name: str = "", ax: Axes | None = None) -> Figure:
    """Draw the length of an embedding before normalisation against its angle to the own class centre.

    Args:
        norms: (N,), a measure of an image's quality.
        degrees: (N,) degrees.
        name: Begins the title.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Fewer than ten.
    """
    norms, degrees = np.asarray(norms, dtype=float), np.asarray(degrees, dtype=float)
    if len(norms) < 10 or norms.shape != degrees.shape:
        raise DataError(
            f"{len(norms)} norms and {len(degrees)} angles: at least ten of both are meant, as many of each"
        )
    figure, ax = canvas(ax)
    ax.hexbin(
        norms, degrees, gridsize=45, mincnt=1, bins="log", linewidths=0.1,
        cmap=LinearSegmentedColormap.from_list("", ["#DCEAF4", SAME]),
    )  # fmt: skip
    groups = np.array_split(np.argsort(norms), 10 if len(norms) >= 400 else 5)
    x, y = ([np.median(values[group]) for group in groups] for values in (norms, degrees))
    ax.plot(x, y, "o-", color=INK, linewidth=1.8, markersize=4, label="median")
    ranks = [np.argsort(np.argsort(values)) for values in (norms, degrees)]
    correlation = np.corrcoef(ranks[0], ranks[1])[0, 1]
    if abs(correlation) < 0.1:
        title = "The length of an embedding says little about its angle"
    else:
        way = "nearer it lies to" if correlation < 0 else "further it lies from"
        title = f"The longer an embedding, the {way} its centre"
    title = _named(name, f"{title} (rank correlation {correlation:.2f})")
    dress(ax, title, "length of the embedding", "angle to the own class centre (degrees)", key=True)
    return figure


def plot_pair_angles(
    cosines: ArrayLike,
    is_same: ArrayLike,
    threshold_cosine: float | None = None,
    ax: Axes | None = None,
    dimension: int | None = None,
    name: str = "",
) -> Figure:
    """Draw the angles of same- and different-identity pairs, the threshold between them (ArcFace figs. 6 and 7).

    Args:
        cosines: (N,).
        is_same: (N,) bool.
        threshold_cosine: Pairs above it are called the same.
        ax: Where; None makes a new figure.
        dimension: Of the embeddings; adds how angles of random directions spread there.
        name: Begins the title.

    Raises:
        DataError: One kind of pair only.
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
    for kind, color, angles in kinds:
        share = 100 * np.histogram(angles, edges)[0] / len(angles)
        shares.append(share)
        _histogram(ax, share, edges, color, f"{kind}: mean {angles.mean():.1f}°")
    overlap = np.minimum(*shares)
    ax.stairs(
        overlap, edges, fill=True, facecolor="none", edgecolor=INK, hatch="////", linewidth=0, alpha=0.55,
        label=f"overlap {overlap.sum():.1f}%",
    )  # fmt: skip
    peak = max(map(np.max, shares))
    if dimension is not None:
        at = np.linspace(edges[0], edges[-1], 361)
        random = 100 * BIN * random_angle_density(at, dimension)
        peak = max(peak, min(random.max(), 2 * peak))  # in 512 dimensions it towers over everything
        ax.plot(at, random, color=FAINT, linewidth=1.4, linestyle=":", label=f"random directions in {dimension}-D")
    ax.set_ylim(0, 1.12 * peak)  # room for the threshold's name

    gap = degrees[~is_same].mean() - degrees[is_same].mean()
    title = f"Same-person pairs sit {abs(gap):.0f}° {'closer' if gap >= 0 else 'further apart'} than strangers"
    title = _named(name, title)
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


def plot_pairs_by_run(
    runs: Mapping[str, tuple[ArrayLike, ArrayLike, float | None]], dimension: int | None = None
) -> Figure:
    """Draw the angles of pairs under several networks, one above the other.

    Args:
        runs: For each network by name, (cosines (N,), is_same (N,), threshold cosine), as in `plot_pair_angles`.
        dimension: Of the embeddings.

    Raises:
        DataError: Nothing to draw, or one kind of pair only.
    """
    if not runs:
        raise DataError("there are no pairs to draw")
    figure, axes = panels(len(runs), 1, (7.2, 3.8 * len(runs)), sharex=True, squeeze=False)
    for panel, (name, (cosines, is_same, threshold)) in zip(axes[:, 0], runs.items(), strict=True):
        plot_pair_angles(cosines, is_same, threshold, panel, dimension, name)
        if panel is not axes[-1, 0]:
            panel.set_xlabel("")
    return figure


def _histogram(ax: Axes, share: np.ndarray, edges: np.ndarray, color: Color, label: str) -> None:
    """Draw a pale area under a strong line, from the first filled bin to the last."""
    filled = np.flatnonzero(share)
    first, last = filled[0], filled[-1] + 1
    ax.stairs(share[first:last], edges[first : last + 1], fill=True, color=color, alpha=0.32)
    ax.stairs(share[first:last], edges[first : last + 1], color=color, linewidth=1.8, label=label)


def _named(name: str, title: str) -> str:
    return f"{name}: {title[0].lower()}{title[1:]}" if name else title


def _by_method(degrees: Mapping[str, np.ndarray], ax: Axes | None) -> tuple[Figure, Axes, dict[str, float]]:
    """Draw a histogram for each head, in its colour, and return figure, ax and the means."""
    if not degrees or any(len(angles) == 0 for angles in degrees.values()):
        raise DataError("there are no angles to draw")
    figure, ax = canvas(ax)
    means = {name: float(np.mean(angles)) for name, angles in degrees.items()}
    for position, (name, angles) in enumerate(degrees.items()):
        _histogram(ax, *_shares(angles), method_color(name, position), f"{name}: mean {means[name]:.1f}°")
    ax.set_ylim(bottom=0)
    return figure, ax, means


def _shares(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (share in % per degree, edges) of angles, over bins of two degrees or, where they lie close, of less."""
    width = next((width for reach, width in ((30, 2.0), (15, 1.0)) if np.ptp(angles) > reach), 0.5)
    edges = np.arange(np.floor(np.min(angles) / width) * width, np.max(angles) + 1.001 * width, width)
    return 100 * np.histogram(angles, edges, density=True)[0], edges
