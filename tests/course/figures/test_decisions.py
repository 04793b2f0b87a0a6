"""The figures of decisions say what the pairs say, and fit on their page; searches mark right and wrong."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from arcface_edu.course.figures.decisions import plot_reports, plot_threshold
from arcface_edu.course.figures.searches import plot_searches
from arcface_edu.errors import DataError
from arcface_edu.figures.style import DIFFERENT, SAME

DICE = np.random.default_rng(0)
COSINES = np.concatenate([DICE.normal(0.6, 0.15, 500), DICE.normal(0, 0.15, 500)]).clip(-1, 1)
IS_SAME = np.arange(1000) < 500
REPORTS = {1e-1: DICE.uniform(0.9, 0.95, 50), 1e-3: DICE.uniform(0.5, 0.9, 50)}


def title(ax):
    return ax.get_title(loc="left").replace("\n", " ")


def searches():
    photo = np.full((112, 112, 3), 128, np.uint8)
    return plot_searches(
        [photo] * 2, [[photo] * 3] * 2, [["10°", "40°", "90°"]] * 2, [[True, False, False], [False] * 3], "Two searches"
    )


@pytest.mark.parametrize(
    "figure",
    [
        plot_threshold(COSINES, IS_SAME, 70),
        plot_threshold(COSINES, IS_SAME, 20),
        plot_reports(REPORTS, {1e-1: 0.92, 1e-3: 0.7}, 1500),
        searches(),
    ],
)
def test_nothing_is_cut_off(figure):
    FigureCanvasAgg(figure).draw()
    ink, page = figure.get_tightbbox(), figure.bbox_inches
    assert ink.x0 >= -0.01 and ink.y0 >= -0.01 and ink.x1 <= page.x1 + 0.01 and ink.y1 <= page.y1 + 0.01


def test_a_threshold_is_one_point_of_the_roc():
    degrees = 70.0
    figure = plot_threshold(COSINES, IS_SAME, degrees)
    accepted = [sum(c > np.cos(np.radians(degrees)) for c in COSINES[kind]) / 500 for kind in (IS_SAME, ~IS_SAME)]
    point = figure.axes[1].lines[1]
    assert point.get_xdata() == pytest.approx([accepted[1]]) and point.get_ydata() == pytest.approx([accepted[0]])
    wanted = f"{accepted[0]:.1%} of the right pairs get in, and {accepted[1]:.2%} of the wrong"
    assert title(figure.axes[1]) == wanted
    with pytest.raises(DataError, match="one kind"):
        plot_threshold(COSINES, np.ones(1000, bool), 70)


def test_reports_tell_their_reach_at_the_lowest_far_and_fill_what_is_known():
    figure = plot_reports(REPORTS, {1e-1: 0.92, 1e-3: 0.7}, 1500)
    low, high = REPORTS[1e-3].min(), REPORTS[1e-3].max()
    assert title(figure.axes[0]) == f"At FAR 0.001 short lists report a TAR from {low:.0%} to {high:.0%}; it is 70%"
    assert [line.get_fillstyle() for line in figure.axes[0].lines[:2]] == ["full", "none"]  # 150 strangers; 1.5
    with pytest.raises(DataError, match="the same ones"):
        plot_reports(REPORTS, {1e-1: 0.92}, 1500)


def test_searches_frame_and_tick_the_right_ones():
    figure = searches()
    sheet = figure.axes[0].images[0].get_array()
    counts = [np.all(sheet == np.round(255 * np.array(to_rgb(color))), axis=2).sum() for color in (SAME, DIFFERENT)]
    assert counts[1] == 5 * counts[0] > 0
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["Two searches", "10° ✓", "40° ✗", "90° ✗", "10° ✗", "40° ✗", "90° ✗"]
    photo = np.zeros((112, 112, 3), np.uint8)
    for arguments in (([], [], [], []), ([photo], [[photo]], [["1°", "2°"]], [[True]])):
        with pytest.raises(DataError, match="one list of images"):
            plot_searches(*arguments)
