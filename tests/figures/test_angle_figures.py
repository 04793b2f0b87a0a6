"""The figures of angles say what the data says, and fit on their page."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import random_angle_density
from arcface_edu.figures.angles import (
    join_lines,
    plot_angle_history,
    plot_nearest_centres,
    plot_norms,
    plot_own_and_other,
    plot_own_centre,
    plot_pair_angles,
    plot_pairs_by_run,
)
from arcface_edu.figures.identities import plot_closest

STEPS = np.arange(10, 210, 10)
HISTOGRAMS = np.zeros((20, 90), int)
HISTOGRAMS[np.arange(20), 45 - np.arange(20)] = 64  # from 90 ... 92 degrees to 52 ... 54
DICE = np.random.default_rng(0)
PAIRS = (np.cos(np.radians([40.0, 50, 80, 100])), np.array([True, True, False, False]), 0.5)
MAP = np.array([[0, 41, 90.0], [41, 0, 88], [90, 88, 0]])


def faces(count):
    return [DICE.integers(0, 256, (112, 112, 3), dtype=np.uint8) for _ in range(count)]


def title(figure, panel=0):
    return figure.axes[panel].get_title(loc="left").replace("\n", " ")


def key(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def all_figures():
    yield plot_angle_history(STEPS, HISTOGRAMS, name="ArcFace")
    yield plot_own_centre({"ArcFace": DICE.normal(35, 5, 99), "softmax": DICE.normal(50, 9, 99)})
    yield plot_nearest_centres({"ArcFace": DICE.normal(68, 2, 500), "softmax": DICE.normal(60, 3, 500)}, 128)
    yield plot_own_and_other(DICE.normal(35, 5, 99), DICE.normal(65, 2, 99), "ArcFace")
    yield plot_norms(DICE.normal(11, 2, 500), DICE.normal(35, 5, 500), "ArcFace")
    yield plot_pairs_by_run({"ArcFace": PAIRS, "softmax": PAIRS}, 128)
    yield plot_closest(MAP, faces(3), 500)


@pytest.mark.parametrize("number", range(7))
def test_nothing_is_cut_off_or_too_small_and_no_key_lies_over_data(number):
    figure = next(itertools.islice(all_figures(), number, None))
    FigureCanvasAgg(figure).draw()
    ink, page = figure.get_tightbbox(), figure.bbox_inches
    assert ink.x0 >= -0.01 and ink.y0 >= -0.01 and ink.x1 <= page.x1 + 0.01 and ink.y1 <= page.y1 + 0.01
    assert all(text.get_fontsize() >= 9 for text in figure.findobj(Text) if text.get_text() and text.get_visible())
    for ax in figure.axes:
        if ax.get_legend():
            assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1
            assert ax.get_legend().get_window_extent().y1 <= ax._left_title.get_window_extent().y0 + 1
    assert plt.get_fignums() == []


def test_the_history_tells_where_it_begins_and_ends():
    figure = plot_angle_history(STEPS, HISTOGRAMS, name="ArcFace")
    assert title(figure) == "ArcFace: step by step, faces come in towards their own class centre: from 91° to 53°"
    (mean,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(mean.get_xydata(), np.stack([STEPS, 91 - 2 * np.arange(20)], 1))
    assert "drift away from" in title(plot_angle_history(STEPS, HISTOGRAMS[::-1]))


def test_lines_are_joined_without_losing_a_count():
    steps, shares = join_lines(STEPS, HISTOGRAMS * np.arange(1, 21)[:, None], 3)
    assert steps.tolist() == [70, 140, 200] and shares.sum(1) == pytest.approx(1)
    assert shares[0, 45 - np.arange(7)] == pytest.approx(np.arange(1, 8) / 28)  # weighted by the images of each line


def test_heads_are_compared_in_their_colours():
    own = {"softmax": np.array([50.0, 54]), "ArcFace": np.array([30.0, 34])}
    figure = plot_own_centre(own)
    assert title(figure) == "Faces lie 32° from their own class centre under ArcFace, 52° under softmax"
    assert key(figure) == ["softmax: mean 52.0°", "ArcFace: mean 32.0°"]
    assert title(plot_own_centre({"ArcFace": own["ArcFace"]})).startswith("Faces lie 32°")
    assert "hardly differs: 52° to 53°" in title(plot_own_centre({"a": own["softmax"], "b": own["softmax"] + 1}))
    figure = plot_own_and_other(np.array([30, 40, 70.0]), np.array([60, 60, 60.0]))
    assert title(figure) == "66.7% of the faces lie nearest to the centre of their own class"


def test_nearest_centres_stand_beside_random_ones():
    figure = plot_nearest_centres({"ArcFace": np.full(500, 70.0)}, 128)
    # 500 random directions in 128-D, drawn once with numpy: their nearest neighbours are 74.6 degrees away on average.
    drawn = np.random.default_rng(0).standard_normal((500, 128))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    mean = np.degrees(np.arccos((drawn @ drawn.T - 2 * np.eye(500)).max(1))).mean()
    said = float(key(figure)[1].split("mean ")[1].rstrip("°"))
    assert said == pytest.approx(mean, abs=0.3)
    at_random = "; of random directions it would be 75°"
    assert title(figure) == f"The nearest other class centre is 70° away under ArcFace{at_random}"
    three = {"a": np.full(500, 60.0), "b": np.full(500, 80.0), "c": np.full(500, 70.0)}
    says = "The nearest other class centre is 80° away under b, 60° away under a"
    assert title(plot_nearest_centres(three, 128)) == says + at_random


def test_histograms_are_shares_per_degree_whatever_their_bins():
    for angles in (DICE.normal(60, 12, 4000), DICE.normal(60, 4, 4000), DICE.normal(60, 1, 4000)):
        (area, outline) = plot_own_centre({"ArcFace": angles}).axes[0].patches
        values, edges, _ = outline.get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(100)
        assert np.array_equal(values, area.get_data().values)


def test_norms_say_what_length_tells():
    norms = np.linspace(5, 15, 400)
    assert "the longer an embedding, the nearer" in title(plot_norms(norms, 60 - norms, "ArcFace"))
    assert "The longer an embedding, the further" in title(plot_norms(norms, 30 + norms))
    assert "says little" in title(plot_norms(norms, DICE.permutation(norms)))


def test_random_directions_are_drawn_into_pairs():
    figure = plot_pair_angles(*PAIRS, dimension=16, name="softmax")
    assert title(figure).startswith("softmax: same-person pairs sit 45°")
    assert key(figure)[-1] == "random directions in 16-D"
    curve = figure.axes[0].get_lines()[0].get_xydata()
    np.testing.assert_allclose(curve[:, 1], 200 * random_angle_density(curve[:, 0], 16))
    panels = plot_pairs_by_run({"ArcFace": PAIRS, "softmax": PAIRS}).axes
    assert len(panels) == 2 and panels[0].get_xlim() == panels[1].get_xlim()


def test_the_map_names_every_angle_and_marks_the_nearest():
    figure = plot_closest(MAP, faces(3), 500)
    assert title(figure) == "The two closest of 500 people are 41° apart; bold: each one's nearest"
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["41°", "90°", "41°", "88°", "90°", "88°"]
    assert [text.get_fontweight() == "bold" for text in texts] == [True, False, True, False, False, True]
    assert len(figure.axes[0].get_images()) == 1 + 2 * 3


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: plot_angle_history([10], HISTOGRAMS[:1]), "at least two lines"),
        (lambda: plot_angle_history(STEPS, HISTOGRAMS[:3]), "one is meant for each"),
        (lambda: plot_angle_history(STEPS, 0 * HISTOGRAMS), "none empty"),
        (lambda: plot_own_centre({}), "no angles"),
        (lambda: plot_nearest_centres({"ArcFace": []}, 8), "no angles"),
        (lambda: plot_own_and_other([1.0], []), "as many of both"),
        (lambda: plot_norms([1.0], [2.0]), "at least ten"),
        (lambda: plot_pairs_by_run({}), "no pairs"),
        (lambda: plot_closest(MAP, faces(2)), "2 faces and angles of shape"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, says):
    with pytest.raises(DataError, match=says):
        draw()
