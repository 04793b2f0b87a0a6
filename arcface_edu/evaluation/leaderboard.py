"""The row by which face networks are compared, between the published ones."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

HEAD = ("Datasets", "backbone", "IJBC(1e-05)", "IJBC(1e-04)", "agedb30", "cfp_fp", "lfw")
PUBLISHED = (
    ("MS1MV3", "r50", 94.79, 96.46, 98.35, 98.96, 99.83),
    ("MS1MV3", "r100", 95.31, 96.81, 98.48, 99.06, 99.85),
    ("MS1MV3 (arcface_torch README)", "r50", 94.47, 96.37, None, None, None),
    ("MS1MV3 (arcface_torch README)", "r100", 95.02, 96.85, None, None, None),
)
PAIR_SETS = {"agedb30": "agedb_30", "cfp_fp": "cfp_fp", "lfw": "lfw"}  # column -> name of the .bin


class Leaderboard(NamedTuple):
    """Our row among the published ones."""

    rows: list[list[str]]  # of as many texts as HEAD
    ours: int  # the number of our row
    reasons: list[str]  # why there is no number, for each dash in it

    def as_dicts(self) -> list[dict[str, str]]:
        """Return each row as a dict, for a program."""
        return [dict(zip(HEAD, row, strict=True)) for row in self.rows]

    def as_text(self) -> str:
        """Return the table as Markdown, and a line for each missing number."""
        return "\n".join([markdown(HEAD, self.rows), *(f"no number for {reason}" for reason in self.reasons)])


def build_leaderboard(
    trained_on: str, network: str, accuracies: Mapping[str, float], ijbc: Mapping[float, float]
) -> Leaderboard:
    """Put our row among the published ones.

    Args:
        trained_on: name of the training data.
        accuracies: name of a pair set -> accuracy in [0, 1].
        ijbc: FAR -> TAR of IJB-C, or {}.
    """
    ours: list[str | float | None] = [trained_on, network]
    reasons = []
    ours += [100 * ijbc[far] if ijbc else None for far in (1e-5, 1e-4)]
    if not ijbc:
        reasons.append("IJBC: no IJB-C folder was named (--ijb)")
    for column, name in PAIR_SETS.items():
        ours.append(100 * accuracies[name] if name in accuracies else None)
        if name not in accuracies:
            reasons.append(f"{column}: no {name}.bin was found or named (--pairs)")
    rows = [[_text(cell) for cell in row] for row in (*PUBLISHED[:2], ours, *PUBLISHED[2:])]
    return Leaderboard(rows, 2, reasons)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts as Markdown, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def _text(cell: str | float | None) -> str:
    return "-" if cell is None else cell if isinstance(cell, str) else f"{cell:.2f}"
