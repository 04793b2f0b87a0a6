"""A head of many classes in pictures: its memory, its softmax in chunks, its samples, and published runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from arcface_edu.course.figures.animations import Array
from arcface_edu.figures.style import (
    COMMUNICATION,
    COMPUTE,
    DIFFERENT,
    FAINT,
    INK,
    METHODS,
    SAME,
    SMALL_SIZE,
    canvas,
    dress,
    key_above,
    panels,
    stack,
)  # fmt: skip
from arcface_edu.figures.style import shades as shades_of

GIB = 2**30
NUMBER = 4  # bytes of a number in fp32
WAYS = {"data": "a copy each", "model": "shared", "chunks": "shared, in chunks", "partial": "shared, a tenth in use"}
COLORS = {"data": FAINT, "model": DIFFERENT, "chunks": METHODS["ArcFace"], "partial": SAME}
KINDS = dict(zip(("weights", "momentum", "gradient"), shades_of(COMPUTE, 3)[::-1], strict=True), logits=COMMUNICATION)


def head_memory(
    classes: float | np.ndarray,
    gpus: int = 1,
    batch: int = 128,
    rate: float = 1.0,
    dimension: int = 512,
    copies: bool = False,
    chunks: bool = False,
) -> dict[str, Any]:
    """Return the bytes that a head takes of one GPU, by arithmetic, where all logits of a step are held once in fp32.

    Args:
        classes: People, or an array of counts.
        gpus: That share the classes.
        batch: Images of one GPU.
        rate: Share of the centres in use.
        dimension: Of the embeddings.
        copies: Each GPU holds all classes, as under DDP.
        chunks: No logits are held but those of a chunk, which count as nothing here.

    Returns:
        Bytes of weights, momentum, gradient and logits, for each class count.
    """
    held = classes if copies else classes / gpus
    images = batch if copies else batch * gpus  # the images that these classes are compared with
    table = NUMBER * held * dimension
    return dict(
        weights=table, momentum=table, gradient=rate * table, logits=0 if chunks else NUMBER * images * rate * held
    )


def plot_memory_growth(
    classes: ArrayLike, gpus: int = 8, batch: int = 128, rate: float = 0.1, limit: float = 80
) -> Figure:
    """Plot the GiB that a head takes of one GPU against the class count, for four ways to hold it.

    Args:
        classes: (T,), rising.
        gpus: That share the classes.
        batch: Images of one GPU.
        rate: Share of the centres in use, where they are sampled.
        limit: GiB of the GPU.
    """
    classes = np.asarray(classes, dtype=float)
    figure, ax = canvas()
    ways: dict[str, dict[str, Any]] = {
        "data": dict(copies=True),
        "model": {},
        "chunks": dict(chunks=True),
        "partial": dict(rate=rate),
    }
    ends = {}
    for way, options in ways.items():
        held = np.asarray(sum(head_memory(classes, gpus, batch, **options).values())) / GIB
        ends[way] = limit / (held[-1] / classes[-1])  # all of it grows in proportion
        ax.plot(classes, held, color=COLORS[way], linewidth=2.4, label=WAYS[way])
        ax.plot(ends[way], limit, "o", color=COLORS[way])
    ax.axhline(limit, color=INK, linewidth=1.2, linestyle="--")
    ax.text(1.15 * classes[0], 1.3 * limit, f"{limit} GiB, a large GPU", fontsize=SMALL_SIZE, color=INK)
    ax.set(xscale="log", yscale="log", xlim=(classes[0], classes[-1]))
    millions = ", ".join(f"{end / 1e6:.0f}" for end in ends.values())
    dress(ax, f"The head alone fills {gpus} GPUs at {millions} million people", "people", "GiB of one GPU", key=True)
    return figure


def plot_memory_bars(classes: float, gpus: int, batch: int, rate: float, limit: float = 80) -> Figure:
    """Plot what fills one GPU in each of five ways to hold a head, as stacked bars.

    Args:
        classes: People.
        gpus: That share the classes.
        batch: Images of one GPU.
        rate: Share of the centres in use, where they are sampled.
        limit: GiB of the GPU.
    """
    ways = {
        "a copy on each GPU": head_memory(classes, gpus, batch, copies=True),
        "shared by class": head_memory(classes, gpus, batch),
        "shared, in chunks": head_memory(classes, gpus, batch, chunks=True),
        f"shared, {rate:.0%} in use": head_memory(classes, gpus, batch, rate),
        f"{rate:.0%} in use, in chunks": head_memory(classes, gpus, batch, rate, chunks=True),
    }
    figure, ax = canvas(size=(7.2, 4.0))
    most = max(sum(held.values()) for held in ways.values()) / GIB
    gap = 0.012 * most
    for row, held in enumerate(ways.values()):
        parts = {kind: size / GIB for kind, size in held.items()}
        stack(ax, parts, list(KINDS.values()), y=row, wide=math.inf, key=row == 0)
        # On a white ground, since the line of the limit may pass behind.
        ground = dict(facecolor="white", edgecolor="none", pad=1)
        end = sum(parts.values())
        ax.text(end + gap, row, f"{end:,.1f}", va="center", fontsize=SMALL_SIZE, color=INK, bbox=ground)
    edge = 1.12 * max(most, 0.02 * limit)
    if limit < edge:
        ax.axvline(limit, color=INK, linewidth=1.4, linestyle="--")
    ax.set(yticks=range(len(ways)), xlim=(0, edge))
    fit = sum(sum(held.values()) <= limit * GIB for held in ways.values())
    dress(
        ax,
        f"{classes:,.0f} people: {fit} of {len(ways)} ways fit {limit} GiB",
        "GiB of one GPU, the head alone",
        key=True,
    )
    ax.set_yticklabels(ways, fontsize=SMALL_SIZE)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return figure


def plot_walk(seen: ArrayLike, tops: ArrayLike, sums: ArrayLike) -> Figure:
    """Plot one image's softmax chunk by chunk: the running maximum, and the logarithm of the running sum.

    Args:
        seen: (T,) classes after each chunk.
        tops: (T,) running maximum.
        sums: (T,) sum of exp(logit - maximum).
    """
    seen, tops, sums = (np.asarray(values, dtype=float) for values in (seen, tops, sums))
    total = tops + np.log(sums)
    figure, ax = canvas(size=(7.2, 3.6))
    ax.step(seen, tops, where="post", color=DIFFERENT, linewidth=2, label="running maximum")
    ax.plot(seen, total, color=SAME, linewidth=2, label="maximum + ln(running sum)")
    raised = int((np.diff(tops) > 0).sum())
    title = f"Over {len(seen)} chunks the maximum rose {raised} times; the sum ends at {total[-1]:.2f}"
    dress(ax, title, "classes seen", "logit", key=True)
    return figure


def plot_samples(positives: Sequence[Array], samples: Sequence[Array], classes: int) -> Figure:
    """Plot the centres in use in each of T steps: those of the people of the batch, and others drawn at random.

    Args:
        positives: For each step, the classes of the batch.
        samples: For each step, all classes in use, the positives among them.
        classes: Their number.
    """
    figure, ax = canvas(size=(7.2, 4.2))
    for step, (own, used) in enumerate(zip(positives, samples, strict=True)):
        own, used = np.asarray(own), np.asarray(used)
        others = np.setdiff1d(used, own)
        for people, color, label in ((others, SAME, "drawn by lot"), (own, DIFFERENT, "a person of the batch")):
            ax.scatter([step] * len(people), people, s=14, color=color, marker="s", label=None if step else label)
    seen = len(np.unique(np.concatenate([np.asarray(used) for used in samples])))
    ax.set(xlim=(-0.7, len(samples) - 0.3), ylim=(-4, classes + 3))
    title = f"A step uses {len(samples[0])} of {classes} centres; {len(samples)} steps have used {seen}"
    dress(ax, title, "step", "class", key=True)
    return figure


def plot_published(rows: Sequence[tuple[Any, ...]]) -> Figure:
    """Plot published runs (filled) and the plan of each (hollow): memory and speed against the class count.

    Args:
        rows: (way, classes, images/s, planned images/s, GiB, planned GiB) each; a way is a key of WAYS.
    """
    figure, axes = panels(1, 2, (9.6, 4.2))
    for ax, place, unit in zip(axes, (4, 2), ("GiB of one GPU", "images/s of all GPUs"), strict=True):
        for way, name in WAYS.items():
            some = sorted(row for row in rows if row[0] == way)
            if not some:
                continue
            classes, published, predicted = (np.array([row[at] for row in some]) for at in (1, place, place + 1))
            ax.plot(classes, published, "o-", color=COLORS[way], linewidth=2, markersize=7, label=name)
            style = dict(linestyle="none", markerfacecolor="white", markeredgewidth=1.6)
            ax.plot(classes, predicted, "D", color=COLORS[way], markersize=5, **style)
        off = np.array([abs(row[place + 1] / row[place] - 1) for row in rows])
        what = "Memory" if place == 4 else "Speed"
        counts = sorted({row[1] for row in rows})
        ax.set(xscale="log", ylim=(0, None), xticks=counts, xticklabels=[f"{count / 1e6:g} M" for count in counts])
        ax.minorticks_off()
        title = f"{what}: the plan (hollow) is off by {off.mean():.0%} in the mean, {off.max():.0%} at worst"
        dress(ax, title, "people", unit)
    key_above(figure, axes[0])
    return figure


def plot_step_time(classes: Sequence[int], milliseconds: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the time of a head's step against its class count.

    Args:
        classes: (T,), rising.
        milliseconds: For each way by name, (T,).
    """
    figure, ax = canvas(size=(6.4, 3.6))
    colors = dict(zip(milliseconds, (DIFFERENT, SAME, FAINT), strict=False))
    for name, times in milliseconds.items():
        ax.plot(classes, times, "o-", color=colors[name], linewidth=2, label=name)
    ax.set(xlim=(0, None), ylim=(0, None))
    growth = next(iter(milliseconds.values()))
    title = f"{classes[-1] / classes[0]:.0f} times the classes, {growth[-1] / growth[0]:.0f} times the time"
    dress(ax, title, "people", "ms of a step", key=True)
    return figure
