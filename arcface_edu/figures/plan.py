"""A plan as a picture: what fills a GPU's memory, and what a step's time goes to."""

from arcface_edu.figures.style import (
    COMMUNICATION,
    COMPUTE,
    FAINT,
    INK,
    LABEL_SIZE,
    SMALL_SIZE,
    canvas,
    dress,
    shades,
)


def plot_plan(memory, limit, times, name="the GPU", overlapped=0.0):
    """Memory by kind as a stacked bar against the card's limit, and the parts of a step's time.

    memory: dict kind -> GiB.   limit: GiB.   times: dict part -> milliseconds; a part named "messages: ..." is
    communication.   name: of the GPU.   overlapped: milliseconds of messages that travel while the GPU computes.
    returns: Figure.
    """
    figure, ax = canvas(size=(8.4, 5.2))
    ax.remove()
    upper, lower = figure.subplots(2, 1)
    total = sum(memory.values())
    kinds = {kind: size for kind, size in memory.items() if size >= 0.002 * total}
    colors = [*shades(COMPUTE, max(1, len(kinds) - 2))[::-1], *shades(FAINT, 2)][: len(kinds)]
    stack(upper, kinds, colors, "{:.1f}", 0.05 * max(limit, total))
    upper.axvline(limit, color=INK, linewidth=1.6, linestyle="--")
    gap = 0.008 * max(limit, total)
    side = dict(ha="right", x=limit - gap) if limit > 0.6 * total else dict(ha="left", x=limit + gap)
    upper.text(y=0.62, s=f"{limit:.1f} GiB: {name}", fontsize=SMALL_SIZE, color=INK, **side)
    upper.set_xlim(0, 1.02 * max(limit, total))
    verdict = f"fit, {limit - total:.1f} to spare" if total <= limit else f"are {total - limit:.1f} too many"
    most = max(kinds, key=kinds.get)
    title = f"{total:.1f} GiB {verdict}; the most, {kinds[most] / total:.0%}, goes to {most}"
    dress(upper, title, x="GiB of one GPU's memory", key=True)

    step = sum(times.values())
    own = {part: time for part, time in times.items() if not part.startswith("messages")}
    colors = dict(zip(own, shades(COMPUTE, len(own))[::-1], strict=True))
    stack(lower, times, [colors.get(part, COMMUNICATION) for part in times], "{:.0f}", 0.04 * step)
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


def stack(ax, parts, colors, form, wide):
    """One bar of many parts; one as `wide` as its number carries it."""
    left = 0.0
    for (name, size), color in zip(parts.items(), colors, strict=True):
        ax.barh(0, size, left=left, height=0.8, color=color, edgecolor="white", linewidth=0.8, label=name)
        if size > wide:
            dark = sum(ax.patches[-1].get_facecolor()[:3]) < 1.7
            ax.text(
                left + size / 2, 0, form.format(size), ha="center", va="center", fontsize=LABEL_SIZE,
                color="white" if dark else INK,
            )  # fmt: skip
        left += size
