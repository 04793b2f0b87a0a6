"""The geometry's pictures: their curves are the margin's, their titles say true numbers, their keys hide nothing."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from arcface_edu.course.figures.geometry import (
    logit_at,
    plot_arc_and_chord,
    plot_boundaries,
    plot_gradients,
    plot_probability,
    plot_turn,
    probability,
    seen_angle,
    slope_at,
    turn_of,
)
from arcface_edu.course.figures.margin_toys import (
    CUBE,
    even_points,
    own_up_to,
    owners,
    plot_margin_circle,
    plot_pulls,
    plot_sphere,
)
from arcface_edu.errors import DataError
from arcface_edu.figures.style import METHODS

ARCFACE, PLAIN = (1.0, 0.5, 0.0), (1.0, 0.0, 0.0)
MARGINS = {"norm-softmax": PLAIN, "SphereFace": (1.35, 0.0, 0.0), "CosFace": (1.0, 0.0, 0.35), "ArcFace": ARCFACE}


def title(ax):
    return ax.get_title(loc="left").replace("\n", " ")


def curves(ax, color):
    return [line for line in ax.get_lines() if to_rgb(line.get_color()) == to_rgb(color)]


def test_logits_slopes_and_angles_are_the_formulas():
    degrees = np.array([20.0, 60.0, 100.0])
    theta = np.radians(degrees)
    np.testing.assert_allclose(logit_at(degrees, ARCFACE), np.cos(theta + 0.5))
    np.testing.assert_allclose(slope_at(degrees, ARCFACE, "exact"), np.sin(theta + 0.5) / np.sin(theta))
    np.testing.assert_allclose(slope_at(degrees, ARCFACE, "straight-through"), 1)
    np.testing.assert_allclose(seen_angle(degrees, ARCFACE), degrees + math.degrees(0.5))
    assert turn_of(ARCFACE) == pytest.approx(180 - math.degrees(0.5))
    assert turn_of((1.0, 0.0, 0.35)) == 180


def test_the_probability_is_that_of_a_softmax():
    logits = 8 * np.array([math.cos(0.7), 0, 0, 0])
    assert probability(math.cos(0.7), 8, 4) == pytest.approx(np.exp(logits[0]) / np.exp(logits).sum())


def test_boundaries_tell_the_gap():
    figure = plot_boundaries(MARGINS)
    gaps = [title(ax).split("gap: ")[1] for ax in figure.axes]
    assert gaps == ["none", "0° to 23°", "20° to 49°", "29° everywhere"]


def test_arcface_is_worth_the_same_everywhere():
    right = plot_arc_and_chord(arc=0.5).axes[-1]
    (line,) = curves(right, METHODS["ArcFace"])
    np.testing.assert_allclose(line.get_ydata(), math.degrees(0.5), atol=0.1)  # near 0° the arccos is cut off
    (line,) = curves(right, METHODS["CosFace"])
    assert line.get_ydata()[0] == pytest.approx(math.degrees(math.acos(0.65)), abs=0.1)


def test_probabilities_fall_with_the_angle_and_the_number_of_classes():
    left, right = plot_probability((8, 64), (10, 1000, 100_000)).axes
    assert "1,000 classes" in title(left)
    for line in [*left.get_lines(), *right.get_lines()]:
        assert (np.diff(line.get_ydata()) <= 0).all()
    few, *_, many = right.get_lines()
    assert (few.get_ydata() >= many.get_ydata()).all()


def test_straight_through_pulls_to_the_end_and_exact_to_the_turn():
    left, right = plot_gradients(MARGINS).axes
    exact, through = curves(right, METHODS["ArcFace"])
    assert through.get_linestyle() == "--"
    assert np.nanmax(exact.get_xdata()[np.isfinite(exact.get_ydata())]) < turn_of(ARCFACE)
    assert np.isfinite(through.get_ydata()).all()
    (factor,) = curves(left, METHODS["ArcFace"])
    at = np.searchsorted(factor.get_xdata(), 90)
    assert factor.get_ydata()[at] == pytest.approx(math.cos(0.5), abs=0.01)


def test_the_key_of_the_gradients_names_both_styles():
    figure = plot_gradients(MARGINS)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == [*MARGINS, "exact", "straight-through"]


def test_arrows_are_where_the_pull_is():
    axes = plot_pulls(scale=64, classes=10_000, rings=(60, 80)).axes
    arrows = [len([text for text in ax.texts if text.arrow_patch is not None]) for ax in axes]
    assert arrows == [8, 16, 16]  # without a margin, a face at 60° is no longer pulled
    assert "from 54° on" in axes[1].get_title()


def test_the_turn_names_its_angle_and_draws_each_way():
    left, right = plot_turn(ARCFACE, {"one": [170, 175], "two": [170, 160]}).axes
    assert title(left) == "At 151.4° the line begins, 0.12 lower"
    _, line, step = left.get_lines()
    assert line.get_xdata().min() > turn_of(ARCFACE) and max(line.get_ydata()) < -1.11
    assert np.ptp(step.get_xdata()) == 0
    assert [list(line.get_ydata()) for line in right.get_lines()] == [[170, 175], [170, 160]]


@pytest.mark.parametrize("plot", [plot_boundaries, plot_gradients, lambda _: plot_turn(ARCFACE, {})])
def test_nothing_to_draw_is_said(plot):
    with pytest.raises(DataError, match="nothing to draw"):
        plot({})


def test_the_circle_says_what_the_loss_sees_and_who_wins():
    left, right = plot_margin_circle(angle=30, s=16, m2=0.5).axes
    assert title(left) == "It is at 30° (●); the loss sees 59° (○)"
    own, other = 16 * math.cos(math.radians(30) + 0.5), 16 * math.sin(math.radians(30))
    assert title(right) == f"p = {1 / (1 + math.exp(other - own)):.3f}; it wins up to 31°"


def test_the_scale_moves_no_boundary_and_the_margin_does():
    assert own_up_to(PLAIN) == pytest.approx(45, abs=0.02)
    assert own_up_to(ARCFACE) == pytest.approx(45 - math.degrees(0.5) / 2, abs=0.02)
    assert own_up_to((1.0, 0.0, 2.0)) == 0
    wins = {title(plot_margin_circle(s=s).axes[1]).split("; ")[1] for s in (1, 64)}
    assert wins == {"it wins up to 31°"}


def test_without_a_margin_the_sphere_is_shared_out_and_with_one_it_is_not():
    points = even_points(500)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    owner = owners(points, CUBE, PLAIN)
    np.testing.assert_allclose((points * CUBE[owner]).sum(1), (points @ CUBE.T).max(1))
    kept = owners(points, CUBE, ARCFACE)
    angles = np.sort(np.degrees(np.arccos(points @ CUBE.T)), axis=1)
    np.testing.assert_array_equal(kept >= 0, angles[:, 0] + math.degrees(0.5) <= angles[:, 1])
    assert "100%" in plot_sphere(m2=0).axes[0].get_title()
    assert "gives the rest to nobody" in plot_sphere(m2=0.5).axes[0].get_title()


def test_the_sphere_turns_and_shows_the_near_side():
    def centres(**view):
        return sorted(
            tuple(np.round([*line.get_xdata(), *line.get_ydata()], 3))
            for line in plot_sphere(**view).axes[0].get_lines()
        )

    assert centres(azimuth=0, elevation=0) == sorted((x, y) for x in (-0.577, 0.577) for y in (-0.577, 0.577))
    assert centres(azimuth=90, elevation=0) == centres(azimuth=0, elevation=0)
    assert centres(azimuth=30, elevation=10) != centres(azimuth=0, elevation=0)


def test_nothing_is_cut_off():
    for figure in (plot_boundaries(MARGINS), plot_margin_circle(), plot_sphere(), plot_pulls()):
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        for ax in figure.axes:
            box = ax.get_tightbbox()
            assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
