"""Error rates of groups as matrices."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from arcface_edu.evaluation.groups import Rates
from arcface_edu.figures.style import DIFFERENT, INK, SAME, SMALL_SIZE, dress, panels


def plot_group_rates(names: list[str], fmr: Rates, fnmr: Rates, by: str = "") -> Figure:
    """Draw FMR and FNMR within groups and between them, with the counts of pairs.

    Args:
        names: Of the G groups.
        fmr, fnmr: As `group_rates` returns them.
        by: What the groups are groups of, for the title.
    """
    side = 1.6 + 0.95 * len(names)
    figure, axes = panels(1, 2, (max(7.2, 2 * side), max(3.4, side)))
    for ax, rates, color, title in (
        (axes[0], fmr, DIFFERENT, "two people taken for one (FMR)"),
        (axes[1], fnmr, SAME, "one person taken for two (FNMR)"),
    ):
        shown = np.ma.masked_invalid(rates.rates)
        top = max(float(shown.max()), 1e-9)
        ax.imshow(shown, cmap=LinearSegmentedColormap.from_list("", ["white", color]), vmin=0, vmax=1.3 * top)
        for (row, column), rate in np.ndenumerate(rates.rates):
            count = int(rates.pairs[row, column])
            text = f"{rate:.2%}\n{count:,} pairs" if count else "no pair"
            ax.text(column, row, text, ha="center", va="center", fontsize=SMALL_SIZE, color=INK)
        dress(ax, title)
        ax.grid(False)
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names, rotation=90 if len(max(names, key=len)) > 6 else 0, va="center")
    worst = names[fmr.worst]
    if fmr.ratio < 1.05:
        said = "One threshold treats strangers of every group alike"
    elif np.isfinite(fmr.ratio):
        said = (
            f"Strangers of group {worst} are taken for one another {fmr.ratio:.1f} times as often as the best group's"
        )
    else:
        said = f"Strangers of group {worst} are confused; of group {names[fmr.best]}, none"
    if fmr.ratio_interval[0] <= 1 < fmr.ratio:
        said += " (may be chance)"
    figure.suptitle(f"By {by}: {said[0].lower()}{said[1:]}" if by else said, x=0.01, ha="left", fontsize=12, color=INK,
                    wrap=True)  # fmt: skip
    return figure
