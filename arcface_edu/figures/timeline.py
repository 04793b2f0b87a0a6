"""What each rank does over a few steps: computes, sends or waits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcface_edu.errors import DataError
from arcface_edu.figures.style import COMMUNICATION, COMPUTE, INK, SMALL_SIZE, WAITING, canvas, dress

LANES = {"compute": COMPUTE, "communication": COMMUNICATION, "waiting": WAITING}


def plot_timeline(timelines: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Figure:
    """Draw compute, communication and waiting of every rank over a few steps; the steps' phases above each rank.

    Args:
        timelines: One of each rank, all in milliseconds on one clock: (K, 2) intervals `compute`, `communication`,
            `hidden` (both at once), `waiting` and `steps`; `phases`, a list of (name, begin, end).
        ax: Where; None makes a new figure.

    Raises:
        DataError: Nothing recorded.
    """
    if not timelines or not all(len(line["steps"]) for line in timelines):
        raise DataError("a timeline needs at least one step of every rank")
    figure, ax = canvas(ax, size=(10, 1.2 + 1.5 * len(timelines)))
    begin = min(line["steps"][0][0] for line in timelines)  # where the clock starts, for who looks on
    end = max(line["steps"][-1][1] for line in timelines) - begin
    ticks, names = [], []
    for rank, line in enumerate(timelines):
        top = 4.2 * (len(timelines) - 1 - rank)
        for lane, (kind, color) in enumerate(LANES.items()):
            y = top + 2 - lane
            spans = [(first - begin, last - first) for first, last in line[kind]]
            edge: dict[str, Any] = (
                dict(edgecolor=INK, linewidth=0.4) if kind == "communication" else {}
            )  # yellow needs one on white
            ax.broken_barh(spans, (y - 0.4, 0.8), facecolors=color, label=kind if rank == 0 else None, **edge)
            ticks.append(y)
            names.append(f"rank {rank}: {kind}" if lane == 0 else kind)
        for name, first, last in line["phases"]:
            ax.plot([first - begin] * 2, [top - 0.5, top + 2.9], color=INK, linewidth=0.5, alpha=0.5)
            short = name.split(": ")[-1]
            if (last - first) / end > 0.011 * len(short):  # else it would run into its neighbour's
                ax.text((first + last) / 2 - begin, top + 2.6, short, ha="center", fontsize=SMALL_SIZE, color=INK)
    ax.set_yticks(ticks, names)
    ax.set_xlim(0, end)
    all_of = {kind: sum(total(line[kind]) for line in timelines) for kind in ("hidden", "waiting", "steps", *LANES)}
    title = f"{all_of['waiting'] / all_of['steps']:.0%} of its time a rank waits"
    if all_of["communication"]:
        hidden = all_of["hidden"] / all_of["communication"]
        title = f"{hidden:.0%} of the communication travels while a rank computes; " + title
    dress(ax, title, "milliseconds")
    ax.grid(axis="y", visible=False)
    return figure


def total(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of all intervals together."""
    return float(sum(last - first for first, last in spans))
