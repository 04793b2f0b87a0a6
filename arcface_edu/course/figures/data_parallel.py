"""Several processes in pictures: when each computes, communicates and waits."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from arcface_edu.figures.style import (
    COMMUNICATION,
    COMPUTE,
    FAINT,
    INK,
    LABEL_SIZE,
    SMALL_SIZE,
    WAITING,
    canvas,
    dress,
    panels,
    shades,
)  # fmt: skip
from arcface_edu.figures.timeline import LANES

DATA_PARALLEL = "#882255"  # its curve, beside DDP's


class Span(NamedTuple):
    """One thing that a rank does from `begin` to `end`, of a kind that is a key of LANES."""

    rank: int
    kind: str
    words: str
    begin: float
    end: float


def plot_dp_ddp_timelines(
    milliseconds: Mapping[str, float], of_what: str, ranks: int = 3, buckets: int = 7, ax: Axes | None = None
) -> Figure:
    """Plot one step of DataParallel over one of DistributedDataParallel, on one clock: same images, same gradient.

    Images and embeddings are counted as sent in no time; an all-reduce takes 2 (N - 1) / N messages.

    Args:
        milliseconds: forward, backward, loss and update (what a GPU computes for its images), and message (until all
            have the weights, or one has the sum of all gradients), as `cost.milliseconds` returns them.
        of_what: Network, batch and GPU of these times, for the name of the time axis.
        ranks: N.
        buckets: How many, all of one size, DDP sends its gradients in.
        ax: Where; None makes a new figure.
    """
    figure, ax = canvas(ax, size=(10, 1.9 + 0.95 * ranks))
    ways = {
        "DataParallel": data_parallel_step(ranks, **milliseconds),
        "DistributedDataParallel": ddp_step(ranks, **milliseconds, buckets=buckets),
    }
    ends = {way: max(span.end for span in spans) for way, spans in ways.items()}
    ticks, labels = [], []
    for row, (way, spans) in enumerate(ways.items()):
        base = (1 - row) * (ranks + 1.1)
        for rank in range(ranks):
            y = base + ranks - 1 - rank
            ticks.append(y)
            labels.append(f"{'GPU' if row == 0 else 'rank'} {rank}")
            draw_rank(ax, [span for span in spans if span.rank == rank], y, ends[way])
        what = "one process feeds all GPUs, and GPU 0 collects" if row == 0 else "every rank does the same"
        ax.text(0, base + ranks - 0.38, f"{way}: {what}", fontsize=LABEL_SIZE, color=INK, fontweight="bold")
        ax.plot([ends[way]] * 2, [base - 0.5, base + ranks - 0.5], color=INK, linewidth=1.2)
    for kind, color in LANES.items():
        ax.broken_barh([], (0, 1), facecolors=color, label=kind)
    ax.set_yticks(ticks, labels)
    ax.set_xlim(0, max(ends.values()) * 1.01)
    ax.set_ylim(-0.6, 2 * ranks + 1.4)
    x = f"milliseconds, computed, not measured: {of_what}"
    dress(ax, "The same step: DDP does not wait for GPU 0, and its gradients travel meanwhile", x, key=True)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return figure


def draw_rank(ax: Axes, spans: Iterable[Span], y: float, end: float) -> None:
    """Draw one rank's lane at height y: computation over communication, grey up to `end` where there is neither."""
    moments = sorted({0.0, end, *(moment for span in spans for moment in (span.begin, span.end))})
    idle = [(a, b - a) for a, b in itertools.pairwise(moments) if not any(s.begin <= a and b <= s.end for s in spans)]
    ax.broken_barh(idle, (y - 0.4, 0.8), facecolors=WAITING)
    for span in spans:
        compute = span.kind == "compute"
        low, height, edge, ink = (y - 0.1, 0.5, "white", "white") if compute else (y - 0.4, 0.3, INK, INK)
        length, middle = span.end - span.begin, (span.begin + span.end) / 2
        ax.broken_barh(
            [(span.begin, length)], (low, height), facecolors=LANES[span.kind], edgecolor=edge, linewidth=0.5
        )
        if length > 0.0075 * end * len(span.words):  # else it would run into its neighbour's
            y_text = low + height / 2 - 0.02
            ax.text(middle, y_text, span.words, ha="center", va="center", fontsize=SMALL_SIZE, color=ink)


def data_parallel_step(
    ranks: int, forward: float, backward: float, loss: float, update: float, message: float
) -> list[Span]:
    """Return the spans of a DataParallel step: GPU 0 sends the weights, computes the loss of all and adds gradients."""
    gathered = message + forward
    known = gathered + ranks * loss
    done = known + backward
    spans = [Span(0, "compute", f"head of all {ranks}", gathered, known)]
    for rank in range(ranks):
        spans.append(Span(rank, "communication", "weights", 0, message))
        spans.append(Span(rank, "compute", "forward", message, gathered))
        spans.append(Span(rank, "compute", "backward", known, done))
        spans.append(Span(rank, "communication", "gradient", done, done + message))
    return [*spans, Span(0, "compute", "update", done + message, done + message + update)]


def ddp_step(
    ranks: int, forward: float, backward: float, loss: float, update: float, message: float, buckets: int
) -> list[Span]:
    """Return the spans of a DDP step: each bucket of gradients is sent as soon as the backward pass has filled it."""
    travel = 2 * (ranks - 1) / ranks * message / buckets
    known = forward + loss
    arrived, spans = 0.0, []
    for number in range(1, buckets + 1):
        leaves = max(arrived, known + backward * number / buckets)
        arrived = leaves + travel
        spans += [Span(rank, "communication", f"{number}", leaves, arrived) for rank in range(ranks)]
    phases = {"forward": (0, forward), "loss": (forward, known), "backward": (known, known + backward)}
    phases["update"] = arrived, arrived + update
    return spans + [Span(rank, "compute", name, *phase) for rank in range(ranks) for name, phase in phases.items()]


def plot_ring(contributions: ArrayLike) -> Figure:
    """Plot how a ring all-reduce fills up: after each step, the number of ranks that each chunk of each rank sums.

    Args:
        contributions: (steps + 1, ranks, chunks) whole numbers, 1 ... ranks; the first is before any step.
    """
    contributions = np.asarray(contributions)
    steps, ranks, chunks = contributions.shape
    figure, axes = panels(1, steps, (10, 9.4 / steps + 0.75), sharey=True)
    colors = shades(COMPUTE, ranks)
    for step, ax in enumerate(axes):
        for rank in range(ranks):
            for chunk in range(chunks):
                count = int(contributions[step, rank, chunk])
                new = step > 0 and count != contributions[step - 1, rank, chunk]
                ax.add_patch(
                    Rectangle(
                        (chunk + 0.06, rank + 0.06), 0.88, 0.88, facecolor=colors[count - 1],
                        edgecolor=COMMUNICATION if new else "none", linewidth=3,
                    )
                )  # fmt: skip
                dark = count > ranks / 3
                ax.text(
                    chunk + 0.5, rank + 0.5, count, ha="center", va="center", fontsize=SMALL_SIZE,
                    color="white" if dark else INK,
                )  # fmt: skip
        ax.set_xlim(0, chunks)
        ax.set_ylim(ranks, 0)
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks(np.arange(ranks) + 0.5, [f"rank {rank}" for rank in range(ranks)], fontsize=SMALL_SIZE)
        ax.tick_params(length=0, colors=INK)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_title("before" if step == 0 else f"step {step}", fontsize=SMALL_SIZE, color=INK)
    figure.suptitle(
        f"In {steps // 2} steps each chunk gathers its sum on its way round, in {steps // 2} more all get it"
        " (yellow: just arrived)",
        x=0.02, ha="left", fontsize=LABEL_SIZE + 1, color=INK,
    )  # fmt: skip
    return figure


def plot_scaling(
    counts: ArrayLike,
    rates: Mapping[str, Sequence[float]],
    steps: Mapping[str, tuple[float, float, float]],
    ranks: int,
) -> Figure:
    """Plot how training speed grows with the number of ranks, and how one step of `ranks` ranks spends its time.

    Args:
        counts: (R,) numbers of ranks.
        rates: For each way by name, (R,) images/s, as `cost.speeds` computes them.
        steps: For each way, (compute, waiting, hidden) of one step in ms.
        ranks: Of the step.
    """
    figure, (left, right) = panels(1, 2, (10, 4.4), width_ratios=(5, 4))
    counts = np.asarray(counts)
    left.plot(counts, counts * next(iter(rates.values()))[0], color=FAINT, linestyle="--", label="no waiting")
    for (way, speed), color in zip(rates.items(), (DATA_PARALLEL, COMPUTE), strict=True):
        left.plot(counts, speed, color=color, linewidth=2, label=way)
        left.plot([ranks], np.interp([ranks], counts, speed), "o", color=color, markersize=7)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    ticks = [2**power for power in range(int(np.log2(counts[-1])) + 1)]
    left.set_xticks(ticks, [str(tick) for tick in ticks])
    at = {way: float(np.interp(ranks, counts, speed)) for way, speed in rates.items()}
    *_, (best, fastest) = at.items()
    dress(
        left, f"{ranks} ranks: {fastest:,.0f} images/s by {best}", "ranks", "images/s of all ranks, computed", key=True
    )

    for y, (compute, waiting, hidden) in enumerate(list(steps.values())[::-1]):
        right.barh(y + 0.12, compute, height=0.4, color=COMPUTE)
        right.barh(y + 0.12, waiting, left=compute, height=0.4, color=WAITING)
        right.barh(y - 0.2, hidden, left=compute - hidden, height=0.2, color=COMMUNICATION)
    for words, color in (("compute", COMPUTE), ("waiting", WAITING), ("messages that hide", COMMUNICATION)):
        right.barh(0, 0, color=color, label=words)
    right.set_yticks(range(len(steps)), list(steps)[::-1])
    right.set_ylim(-0.6, len(steps) - 0.4)
    compute, waiting, _ = steps[best]
    dress(
        right,
        f"{waiting / (compute + waiting):.0%} of a step under {best} is waiting",
        "ms of a step, computed",
        key=True,
    )
    right.grid(axis="y", visible=False)
    return figure
