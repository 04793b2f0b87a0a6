"""The angle statistics of ArcFace's Table 3, against plain loops and geometry known by heart."""

import math

import numpy as np
import pytest
import torch

from arcface_edu import angle_statistics
from arcface_edu.errors import DataError
from arcface_edu.evaluation import angle_stats
from arcface_edu.evaluation.angle_stats import (
    angle_matrix,
    angles_between,
    angles_to_nearest_other,
    closest_group,
    nearest_angles,
    nearest_random_density,
    random_angle_density,
    statistics_table,
)


def clusters(classes=12, photos=7, dimension=16, seed=0):
    """(embeddings (N, D) of varying length, labels (N,) in no order, centres (C, D))."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dimension))
    labels = rng.permutation(np.repeat(np.arange(classes), photos))
    embeddings = centres[labels] + 0.7 * rng.standard_normal((len(labels), dimension))
    return embeddings * rng.uniform(0.1, 9, (len(labels), 1)), labels, centres


def degrees(u, v):
    return math.degrees(math.acos(u @ v / math.sqrt((u @ u) * (v @ v))))


def plain_statistics(embeddings, labels, centres):
    """Word for word as the paper defines them, class by class."""
    classes = sorted(set(labels.tolist()))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = {c: unit[labels == c].mean(0) for c in classes}

    def to_nearest(vectors):
        return [
            min(degrees(vector, other) for j, other in enumerate(vectors) if j != i) for i, vector in enumerate(vectors)
        ]

    return dict(
        w_ec=np.mean([degrees(centres[c], means[c]) for c in classes]),
        w_inter=np.mean(to_nearest(centres)),
        intra=np.mean([degrees(x, means[c]) for x, c in zip(embeddings, labels.tolist(), strict=True)]),
        inter=np.mean(to_nearest(list(means.values()))),
    )


@pytest.mark.parametrize("chunk", [1, 5, 1024])
def test_statistics_are_the_papers_by_plain_loops(chunk, monkeypatch):
    monkeypatch.setattr(angle_stats, "CHUNK", chunk)
    embeddings, labels, centres = clusters()
    assert angle_statistics(embeddings, labels, centres) == pytest.approx(plain_statistics(embeddings, labels, centres))
    without = angle_statistics(embeddings, labels)
    assert without == {key: pytest.approx(plain_statistics(embeddings, labels, centres)[key]) for key in without}
    assert without.keys() == {"intra", "inter"}


def test_a_square_of_known_angles():
    # Two people on the axes, each with two photographs 10 degrees to either side; centres turned by 3 degrees.
    at = lambda *turns: np.array([[math.cos(math.radians(t)), math.sin(math.radians(t))] for t in turns])  # noqa: E731
    statistics = angle_statistics(at(-10, 10, 80, 100), np.array([0, 0, 1, 1]), at(3, 93))
    assert statistics == pytest.approx(dict(w_ec=3, w_inter=90, intra=10, inter=90))


def test_neither_length_nor_precision_of_the_embeddings_matters():
    embeddings, labels, centres = clusters()
    lengths = np.random.default_rng(1).uniform(1e-3, 1e3, (len(labels), 1))
    expected = angle_statistics(embeddings, labels, centres)
    assert angle_statistics(embeddings * lengths, labels, 7 * centres) == pytest.approx(expected)
    single = angle_statistics(torch.tensor(embeddings, dtype=torch.float32), labels, torch.tensor(centres).float())
    assert single == pytest.approx(expected, abs=1e-4)


def test_classes_without_embeddings_count_among_the_centres_only():
    embeddings, labels, centres = clusters()
    some = labels < 5
    found, plain = angle_statistics(embeddings[some], labels[some], centres), plain_statistics(*clusters())
    assert found["w_inter"] == pytest.approx(plain["w_inter"])
    assert found["w_ec"] == pytest.approx(plain_statistics(embeddings[some], labels[some], centres)["w_ec"])


def test_angles_are_exact_near_zero_and_180():
    tiny = 1e-6  # radians; an arccos in float64 is off by a percent here
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(tiny), math.sin(tiny)], [-math.cos(tiny), math.sin(tiny)]], dtype=torch.float64)
    expected = [math.degrees(tiny), 180 - math.degrees(tiny)]
    np.testing.assert_allclose(angles_between(first, second), expected, rtol=1e-9)


@pytest.mark.parametrize("chunk", [7, 1024])
def test_nearest_neighbours_by_the_whole_matrix(chunk, monkeypatch):
    monkeypatch.setattr(angle_stats, "CHUNK", chunk)
    embeddings, labels, centres = clusters()
    matrix = np.array([[degrees(a, b) for b in centres] for a in centres]) + np.diag(np.full(len(centres), np.inf))
    found, rows = nearest_angles(torch.tensor(centres))
    np.testing.assert_allclose(found, matrix.min(1))
    assert rows.tolist() == matrix.argmin(1).tolist()
    others = [
        min(degrees(x, centres[j]) for j in range(12) if j != own) for x, own in zip(embeddings, labels, strict=True)
    ]
    found = angles_to_nearest_other(torch.tensor(embeddings), torch.tensor(centres), labels)
    np.testing.assert_allclose(found, others)
    off_diagonal = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(angle_matrix(torch.tensor(centres))[off_diagonal], matrix[off_diagonal])


def test_the_closest_group_takes_pairs_from_the_closest_on():
    #         0 - 1 at 10 degrees, 2 - 3 at 20, 4 nearest to 0 at 30, 5 - 6 at 40
    nearest, degrees_ = np.array([1, 0, 3, 2, 0, 6, 5]), np.array([10.0, 10, 20, 20, 30, 40, 40])
    assert closest_group(nearest, degrees_, 4) == [0, 1, 2, 3]
    assert closest_group(nearest, degrees_, 5) == [0, 1, 2, 3, 4]
    assert closest_group(nearest, degrees_, 6) == [0, 1, 2, 3, 4]  # half a pair says nothing
    assert closest_group(nearest, degrees_, 99) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("dimension", [2, 3, 8, 128])
def test_random_angles_are_as_the_formula_says(dimension):
    rng = np.random.default_rng(dimension)
    first, second = torch.tensor(rng.standard_normal((2, 20_000, dimension)))
    drawn = angles_between(first, second)
    at = np.linspace(0, 180, 3601)
    density = random_angle_density(at, dimension)
    below = np.cumsum(density) * (at[1] - at[0])
    assert below[-1] == pytest.approx(1, abs=1e-3)
    for quantile in (10, 50, 90):  # 20,000 draws: a standard error of 0.35 % at most
        assert np.interp(np.percentile(drawn, quantile), at, below) == pytest.approx(quantile / 100, abs=0.015)
    if dimension == 3:
        np.testing.assert_allclose(density, np.radians(np.sin(np.radians(at)) / 2), atol=1e-15)


def test_the_nearest_of_random_directions_is_as_the_formula_says():
    rng = np.random.default_rng(0)
    nearest = [nearest_angles(torch.tensor(rng.standard_normal((50, 6))))[0].mean() for _ in range(60)]
    at = np.linspace(0, 180, 3601)
    density = nearest_random_density(at, 6, 50)
    assert np.sum(density) * (at[1] - at[0]) == pytest.approx(1, abs=1e-3)
    expected = np.average(at, weights=density)
    assert np.mean(nearest) == pytest.approx(expected, abs=4 * np.std(nearest) / math.sqrt(60))


def test_the_table_has_a_dash_where_nothing_is_known():
    table = statistics_table({"ours": dict(intra=1.0, inter=2.25), "paper's": angle_stats.PAPER["ArcFace"]})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == ["degrees", "ours", "paper's"] and rows[1] == ["---"] * 3
    assert [row[1:] for row in rows[2:]] == [["–", "14.29"], ["–", "71.61"], ["1.00", "38.45"], ["2.25", "65.83"]]
    assert len(statistics_table({"unseen": dict(intra=1.0, inter=2.25)}).splitlines()) == 4


def broken(change):
    embeddings, labels, centres = clusters()
    return change(embeddings, labels, centres)


def with_nan(embeddings, row=3):
    embeddings = embeddings.copy()
    embeddings[row, 0] = np.nan
    return embeddings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e, y, c: (with_nan(e), y, c), "embedding in row 3 is not finite"),
        (lambda e, y, c: (e, y, with_nan(c, 5)), "class centre in row 5 is not finite"),
        (lambda e, y, c: (np.zeros_like(e), y, c), "embedding in row 0 has no length"),
        (lambda e, y, c: (e, np.full_like(y, 4), c), "of one class"),
        (lambda e, y, c: (e, y[:-1], c), r"labels are int64 \(83,\) for 84 embeddings"),
        (lambda e, y, c: (e, y.astype(float), c), "one integer each"),
        (lambda e, y, c: (e, y, c[:-1]), "label 11 has no centre: there are 11"),
        (lambda e, y, c: (e, y - 1, c), "label -1 has no centre"),
        (lambda e, y, c: (e, y, c[:, :-1]), "16 dimensions and class centres 15"),
        (lambda e, y, c: (e[0], y, c), r"given is torch.float64 \(16,\)"),
        (lambda e, y, c: (y[:, None], y, c), "row of floats"),
        (
            lambda e, y, c: (np.array([[1.0, 0], [-1, 0], [0, 1]]), np.array([0, 0, 1])),
            "mean embedding in row 0 has no length",
        ),
    ],
)
def test_what_cannot_be_judged_is_named(change, says):
    with pytest.raises(DataError, match=says):
        angle_statistics(*broken(change))
