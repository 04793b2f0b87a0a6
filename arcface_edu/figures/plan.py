"""A plan as a picture: what fills a GPU's memory, and what a step's time goes to."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from arcface_edu.figures.style import COMMUNICATION, COMPUTE, FAINT, INK, SMALL_SIZE, dress, panels, shades, stack


def plot_plan(
    memory: Mapping[str, float],
    limit: float,
    times: Mapping[str, float],
    name: str = "the GPU",
    overlapped: float = 0.0,
) -> Figure:
    """Draw memory by kind as a stacked bar against the card's limit, and the parts of a step's time.

    Args:
        memory: GiB of each kind.
        limit: GiB that the card has.
        times: Milliseconds of each part; a part named "messages: ..." is communication.
        name: Of the GPU.
        overlapped: Milliseconds of messages that travel while the GPU computes.
    """
    figure, (upper, lower) = panels(2, 1, (8.4, 5.2))
    total = sum(memory.values())
    kinds = {kind: size for kind, size in memory.items() if size >= 0.002 * total}
    colors = [*shades(COMPUTE, max(1, len(kinds) - 2))[::-1], *shades(FAINT, 2)][: len(kinds)]
    stack(upper, kinds, colors, form="{:.1f}", wide=0.05 * max(limit, total))
    upper.axvline(limit, color=INK, linewidth=1.6, linestyle="--")
    gap = 0.008 * max(limit, total)
    side = dict(ha="right", x=limit - gap) if limit > 0.6 * total else dict(ha="left", x=limit + gap)
    upper.text(y=0.62, s=f"{limit:.1f} GiB: {name}", fontsize=SMALL_SIZE, color=INK, **side)
    upper.set_xlim(0, 1.02 * max(limit, total))
    verdict = f"fit, {limit - total:.1f} to spare" if total <= limit else f"are {total - limit:.1f} too many"
    most = max(kinds, key=kinds.__getitem__)
    title = f"{total:.1f} GiB {verdict}; the most, {kinds[most] / total:.0%}, goes to {most}"
    dress(upper, title, x="GiB of one GPU's memory", key=True)

    step = sum(times.values())
    own = {part: time for part, time in times.items() if not part.startswith("messages")}
    compute = dict(zip(own, shades(COMPUTE, len(own))[::-1], strict=True))
    stack(lower, times, [compute.get(part, COMMUNICATION) for part in times], wide=0.04 * step)
    lower.set_xlim(0, 1.02 * max(step, 1e-9))
    waiting = sum(time for part, time in times.items() if part not in own)
    title = f"{waiting / step:.0%} of a step waits for messages"
    title += f"; another {overlapped:.0f} ms hide behind the backward pass" if overlapped >= 1 else ""
    dress(lower, title, x="ms of a step", key=True)
    for ax in (upper, lower):
        ax.set_yticks([])
        ax.set_ylim(-0.55, 0.9 if ax is upper else 0.55)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="y", visible=False)
    return figure
