"""The form in which every judgement is reported: rows to print, numbers for programs, pictures."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from arcface_edu.evaluation.confidence import Interval
from arcface_edu.evaluation.roc import OperatingPoint, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("", "", "95 % interval", "threshold: cosine, °, L2²", "")  # of a finding's rows

Row = tuple[str, str, str, str, str]
PairSet = tuple[str, list[bytes], np.ndarray]  # name, 2N encoded images, is_same (N,)


class Finding(NamedTuple):
    """What one data set says."""

    name: str
    kind: str  # "pairs", "groups", "ijb" or "search"
    about: str
    headline: str  # its one number
    rows: list[Row]  # texts under COLUMNS
    notes: list[str]
    numbers: dict[str, Any]  # the rows, for a program
    figures: dict[str, "Figure"]  # by the names of their files


def spread(mean: float, std: float) -> str:
    """Return a mean and its standard deviation as text, in percent."""
    return f"{mean:.2%} ± {std:.2%}"


def span(interval: Interval) -> str:
    """Return an interval as text, in percent."""
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def units(threshold: Threshold) -> str:
    """Return a threshold as text in its three units."""
    return f"{threshold['cosine']:.3f}  {threshold['degrees']:.1f}°  {threshold['squared_l2']:.3f}"


def for_program(points: dict[float, OperatingPoint], intervals: dict[float, Interval]) -> dict[str, Any]:
    """Return operating points with their intervals as JSON takes them."""
    return {f"{far:g}": {**point, "interval": intervals[far]} for far, point in points.items()}


def firm_point(points: dict[float, OperatingPoint]) -> float:
    """Return the smallest FAR that enough pairs measure; where none does, the largest."""
    return min((far for far, point in points.items() if not point["few"]), default=max(points))
