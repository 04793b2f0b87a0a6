"""Error rates by group at one global threshold: what a system with one threshold does to each group.

FMR, the false match rate, is the share of pairs of two people that are accepted; FNMR, the false non-match rate, the
share of same-person pairs that are not. Both are given within each group and between any two.
"""

import logging
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np

from arcface_edu.errors import DataError
from arcface_edu.evaluation.confidence import LEVEL
from arcface_edu.evaluation.finding import Finding, Row, firm_point, span, units
from arcface_edu.evaluation.group_file import Groups
from arcface_edu.evaluation.roc import operating_points
from arcface_edu.evaluation.verification import REPORTED_FARS

log = logging.getLogger(__name__)

FEWEST = 10  # pairs within a group, without which nothing can be said of it
TAILS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
FIRM = 10  # wrong pairs to be expected, without which a rate is hardly known: their scatter is a third


class Rates(NamedTuple):
    """One kind of error, within and between G groups; matrices are symmetric, NaN where there is no such pair."""

    rates: np.ndarray  # (G, G)
    low: np.ndarray  # (G, G), ends of the 95 % interval
    high: np.ndarray
    pairs: np.ndarray  # (G, G) counts
    worst: int  # of the groups by the rate within them
    best: int
    ratio: float  # of those two rates; inf where the best is 0
    ratio_interval: tuple[float, float]


class GroupRates(NamedTuple):
    """What one threshold does to each group."""

    names: list[str]  # G
    fmr: Rates
    fnmr: Rates


def group_rates(
    cosines: np.ndarray,
    is_same: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    people: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> GroupRates:
    """Return FMR and FNMR of every two groups at one threshold, with bootstrap intervals at that threshold.

    Args:
        cosines, is_same: (N,), of pairs.
        groups: (2N,), of the images of the pairs, side by side.
        threshold: Pairs with a larger cosine are accepted.
        people: (2N,) int64, who is shown: then people are drawn; None = pairs are, and intervals are rather too narrow.
        resamples: How often.
        seed: Of the draws.

    Raises:
        DataError: There is one group only, or a group has fewer than ten pairs of either kind within it.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"all images are of one group, {names[0]}: rates are compared between two at least.")
    low, high = np.sort(codes.reshape(-1, 2), axis=1).T
    cells = low * len(names) + high  # (N,), in the upper half of the matrix
    who = np.arange(len(cells) * 2) if people is None else people
    rng = np.random.default_rng(seed)
    found = []
    for kind, chosen, wrong in (
        ("two people", ~is_same, cosines > threshold),
        ("one person", is_same, cosines <= threshold),
    ):
        within = np.bincount(cells[chosen & (low == high)], minlength=len(names) ** 2)[:: len(names) + 1]
        if (within < FEWEST).any():
            few = int(within.argmin())
            raise DataError(
                f"group {names[few]} has {within[few]} pairs of {kind}, and {FEWEST} are the least: add pairs, or join "
                f"it with another group."
            )
        both = who.reshape(-1, 2)[chosen]
        found.append(_rates(cells[chosen], wrong[chosen], both, len(names), people is not None, resamples, rng))
    return GroupRates(names.tolist(), *found)


class EveryPair(NamedTuple):
    """Every two of M images as a pair."""

    cosines: np.ndarray  # (N,), N = M (M - 1) / 2
    is_same: np.ndarray  # (N,) bool
    rows: np.ndarray  # (N, 2) of the two images


def every_pair(embeddings: np.ndarray, people: np.ndarray) -> EveryPair:
    """Compare every image with every other one: embeddings (M, D), people (M,) ints. M^2 numbers are held."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    return EveryPair((unit @ unit.T)[first, second], people[first] == people[second], np.stack([first, second], 1))


def _rates(
    cells: np.ndarray,
    wrong: np.ndarray,
    both: np.ndarray,
    groups: int,
    by_people: bool,
    resamples: int,
    rng: np.random.Generator,
) -> Rates:
    """Return the rates of one kind of error: cells, wrong (n,) of its pairs; both (n, 2), who is in them."""
    size = groups * groups
    pairs, errors = (np.bincount(cells, weight, size) for weight in (None, wrong))
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = errors / pairs
        if by_people:
            drawn = _draw_people(cells, wrong, both, size, resamples, rng)
        else:
            drawn = rng.binomial(pairs, np.nan_to_num(rates), (resamples, size)) / pairs
        known = pairs > 0
        ends = np.full((2, size), np.nan)
        ends[:, known] = np.nanquantile(drawn[:, known], TAILS, axis=0) if known.any() else 0
        # Of no error no bootstrap can say more than none; 3/n is the end of the 95 % interval then.
        ends[1] = np.where(errors == 0, np.minimum(3 / pairs, 1), ends[1])
        within = np.arange(groups) * (groups + 1)
        worst, best = int(rates[within].argmax()), int(rates[within].argmin())
        ratio = np.divide(*rates[within[[worst, best]]])
        ratios = drawn[:, within[worst]] / drawn[:, within[best]]
    ratios = np.where(np.isnan(ratios), 1.0, ratios)  # no error in either
    low, high = np.quantile(ratios, TAILS, method="nearest").tolist()
    square, low_end, high_end, counts = (_symmetric(matrix, groups) for matrix in (rates, *ends, pairs))
    return Rates(square, low_end, high_end, counts, worst, best, 1.0 if np.isnan(ratio) else float(ratio), (low, high))


def _draw_people(
    cells: np.ndarray, wrong: np.ndarray, both: np.ndarray, size: int, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the rates of each resample, (R, size), when people are drawn: a pair counts as often as both of them."""
    people = int(both.max()) + 1
    keys = (cells * people + both.min(1)) * people + both.max(1)
    meetings, of_pair = np.unique(keys, return_inverse=True)  # pairs of the same two people count alike
    cell, one, other = meetings // people**2, meetings // people % people, meetings % people
    pairs, errors = (np.bincount(of_pair, weight) for weight in (None, wrong))
    drawn = np.empty((resamples, size))
    for row in drawn:
        times = rng.multinomial(people, np.full(people, 1 / people))
        weight = np.where(one == other, times[one], times[one] * times[other])
        row[:] = np.bincount(cell, weight * errors, size) / np.bincount(cell, weight * pairs, size)
    return drawn


def _symmetric(flat: np.ndarray, groups: int) -> np.ndarray:
    upper = flat.reshape(groups, groups)
    return np.where(np.tri(groups, k=-1, dtype=bool), upper.T, upper)


def judge_groups(name: str, cosines: np.ndarray, is_same: np.ndarray, groups: Groups) -> list[Finding]:
    """Return a finding for each way to group a pair set, at the threshold of the smallest FAR that is firm over all.

    Args:
        name: Of the pair set.
        cosines, is_same: (N,).
        groups: Of its 2N images.

    Raises:
        DataError: No way to group has pairs enough. (Where one has, the others are named and left out.)
    """
    from arcface_edu.figures.groups import plot_group_rates

    points = operating_points(cosines, is_same, REPORTED_FARS)
    far = firm_point(points)
    threshold, findings, too_few = points[far]["threshold"], [], []
    for by, of_images in groups.columns.items():
        try:
            found = group_rates(cosines, is_same, of_images, threshold["cosine"], groups.people)
        except DataError as error:
            too_few.append(f"{name} by {by}: {error}")
            continue
        over = "people" if groups.people is not None else "pairs, which share people: they are rather too narrow"
        about = (
            f"one threshold for all, {units(threshold)}, with FAR {points[far]['far']:.1e} over all pairs. FMR: pairs "
            f"of two people that are accepted; FNMR: same-person pairs that are not. Intervals are 95 % by bootstrap "
            f"over {over}; where no pair is wrong they end at 3/n."
        )
        rows: list[Row] = []
        notes = []
        for what, rates, kind in (("FMR", found.fmr, "two people"), ("FNMR", found.fnmr, "one person")):
            rows += _rows(what, rates, found.names, kind)
            if note := _too_few(what, rates, found.names):
                notes.append(note)
        headline = f"FMR {rows_ratio(found.fmr)}, FNMR {rows_ratio(found.fnmr)} between the worst group and the best"
        numbers = {
            "groups": found.names, "threshold": threshold, "far": points[far]["far"],
            "bootstrap": "over people" if groups.people is not None else "over pairs",
            **{what: rates_for_program(rates) for what, rates in (("fmr", found.fmr), ("fnmr", found.fnmr))},
        }  # fmt: skip
        figures = {"groups": plot_group_rates(found.names, found.fmr, found.fnmr, by)}
        findings.append(Finding(f"{name} by {by}", "groups", about, headline, rows, notes, numbers, figures))
    if not findings:
        raise DataError(too_few[0])
    for sentence in too_few:
        log.warning(f"left out: {sentence}")
    return findings


def rows_ratio(rates: Rates) -> str:
    """Return the ratio of worst to best as text."""
    return f"{rates.ratio:.1f} to 1" if np.isfinite(rates.ratio) else "without bound"


def _rows(what: str, rates: Rates, names: list[str], kind: str) -> list[Row]:
    rows: list[Row] = []
    for i, j in combinations_with_replacement(range(len(names)), 2):
        if count := int(rates.pairs[i, j]):
            label = f"{what} {names[i]}" if i == j else f"{what} {names[i]} with {names[j]}"
            interval = span((rates.low[i, j], rates.high[i, j]))
            rows.append((label, f"{rates.rates[i, j]:.2%}", interval, "", f"{count:,} pairs of {kind}"))
    low, high = ("no bound" if np.isinf(end) else f"{end:.1f}" for end in rates.ratio_interval)
    told = "" if rates.ratio_interval[0] > 1 else "; may be chance"
    which = f"{names[rates.worst]} to {names[rates.best]}{told}"
    return [*rows, (f"{what} worst to best", rows_ratio(rates), f"{low} to {high}", "", which)]


def _too_few(what: str, rates: Rates, names: list[str]) -> str:
    """Return a warning where a rate, if it were that of all, would let expect fewer than ten wrong pairs; else ""."""
    upper = np.triu(rates.pairs)
    everywhere = np.nansum(np.triu(np.nan_to_num(rates.rates)) * upper) / upper.sum()
    few = [(i, j) for i, j in zip(*np.nonzero(upper), strict=True) if upper[i, j] * everywhere < FIRM]
    if not few:
        return ""
    shown = ", ".join(names[i] if i == j else f"{names[i]} with {names[j]}" for i, j in few)
    needed = f" {FIRM / everywhere:,.0f} pairs would be firm." if everywhere else ""
    return f"Too few pairs for the {what} of {shown}: fewer than {FIRM} errors are to be expected there.{needed}"


def rates_for_program(rates: Rates) -> dict[str, Any]:
    """Return rates as JSON takes them: null for what is not known or has no bound."""

    def plain(values: np.ndarray) -> list[list[float | None]]:
        return [[None if np.isnan(value) else float(value) for value in row] for row in values]

    ends = [None if np.isinf(end) else end for end in (rates.ratio, *rates.ratio_interval)]
    return {
        "rates": plain(rates.rates), "low": plain(rates.low), "high": plain(rates.high),
        "pairs": rates.pairs.astype(int).tolist(), "worst_to_best": ends[0], "worst_to_best_interval": ends[1:],
    }  # fmt: skip
