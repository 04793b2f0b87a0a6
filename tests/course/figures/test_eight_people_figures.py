"""Planes, spheres and strangers: each face stands where its embedding points, and each title says what is so."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Text

from arcface_edu.course.figures import eight_people
from arcface_edu.course.figures.eight_people import (
    draw_sphere,
    look_from,
    plot_lengths,
    plot_planes,
    plot_spheres,
    plot_strangers,
    turn_sphere,
)
from arcface_edu.errors import DataError

DICE = np.random.default_rng(0)
TURNS = np.radians([0, 30, 120, 200])
CENTRES = np.stack([np.cos(TURNS), np.sin(TURNS)], 1)
LABELS = np.repeat(np.arange(4), 5)
PLANE = (2 * CENTRES[LABELS], CENTRES)
BALL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 0]])
SPHERE = (3 * BALL[LABELS], BALL)
FACES = [DICE.integers(0, 256, (112, 112, 3), dtype=np.uint8) for _ in range(4)]


def faces_in(figure):
    return figure.findobj(AnnotationBbox)


def all_figures():
    yield plot_planes({"softmax": PLANE, "ArcFace": PLANE}, LABELS, FACES, note="step 3")
    yield plot_planes({"softmax": PLANE, "ArcFace": PLANE, "s = 1": PLANE}, LABELS, FACES, columns=2)
    yield plot_spheres({"softmax": SPHERE, "ArcFace": SPHERE}, LABELS, FACES)
    yield plot_lengths(*PLANE[:1], LABELS, CENTRES, ("with length", "without"))
    yield plot_strangers(PLANE[0], LABELS, CENTRES, FACES, FACES, "Strangers fall to somebody")


@pytest.mark.parametrize("number", range(5))
def test_nothing_is_cut_off_or_too_small(number):
    figure = next(itertools.islice(all_figures(), number, None))
    FigureCanvasAgg(figure).draw()
    ink, page = figure.get_tightbbox(), figure.bbox_inches
    assert ink.x0 >= -0.01 and ink.y0 >= -0.01 and ink.x1 <= page.x1 + 0.01 and ink.y1 <= page.y1 + 0.01
    assert all(text.get_fontsize() >= 9 for text in figure.findobj(Text) if text.get_text() and text.get_visible())


def test_titles_name_the_closest_two():
    figure = plot_planes({"ArcFace": PLANE, "softmax": PLANE}, LABELS)
    assert [ax.get_title() for ax in figure.axes] == ["ArcFace: closest two 30°", "softmax: closest two 30°"]
    assert not faces_in(figure)
    (ax,) = plot_spheres({"ArcFace": SPHERE}, LABELS).axes
    assert ax.get_title() == "ArcFace: closest two 90°"


def test_every_person_stands_in_the_key_once():
    assert len(faces_in(plot_planes({"a": PLANE, "b": PLANE, "c": PLANE}, LABELS, FACES))) == 4  # a strip
    assert len(faces_in(plot_planes({"a": PLANE, "b": PLANE, "c": PLANE}, LABELS, FACES, columns=2))) == 4  # a cell


def test_the_eye_sees_what_lies_before_it():
    np.testing.assert_allclose(look_from(BALL[:3], 0, 0), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(look_from(BALL[:3], 90, 0), [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(look_from(BALL[:3], 0, 90), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    turned = look_from(DICE.normal(size=(9, 3)), 33, -41)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1)


def test_the_far_side_is_pale():
    ax = Figure().add_subplot()
    draw_sphere(ax, *(SPHERE[0], LABELS, BALL), azimuth=0, elevation=0)
    assert {cloud.get_alpha() for cloud in ax.collections if len(cloud.get_offsets()) == 5} == {0.18, 0.8}
    near = [cloud for cloud in ax.collections if len(cloud.get_offsets()) and cloud.get_alpha() == 0.8]
    np.testing.assert_allclose(near[0].get_offsets(), np.zeros((5, 2)), atol=1e-12)  # person 0 looks at us


def test_a_drag_takes_the_sphere_with_it():
    figure = plot_spheres({"ArcFace": SPHERE, "softmax": SPHERE}, LABELS)
    diameter = eight_people.CELL / figure.get_size_inches()[0]
    assert turn_sphere(figure, diameter, 0, 0, 20) == (-180, 20)  # once across: to the other side
    azimuth, elevation = turn_sphere(figure, 0.02, 0.02, 10, 20)
    assert azimuth < 10 and elevation < 20  # what was in the middle goes right and up with the hand
    before, after = (look_from(np.array([1.0, 0, 0]), *eye) for eye in ((10, 20), (azimuth, elevation)))
    assert after[0] > before[0] and after[1] > before[1]
    assert turn_sphere(figure, 0, 5, 0, 0)[1] == -90


def test_lengths_are_kept_on_the_left_and_dropped_on_the_right():
    left, right = plot_lengths(PLANE[0], LABELS, CENTRES, ("a", "b")).axes
    np.testing.assert_allclose(np.concatenate([cloud.get_offsets() for cloud in left.collections]), PLANE[0])
    points = np.concatenate([cloud.get_offsets() for cloud in right.collections])
    assert (abs(np.linalg.norm(points, axis=1) - 1) < 0.1).all()


def test_strangers_have_the_colour_of_the_nearest_known_person():
    close = CENTRES[[1, 1, 3]] + 0.05
    ax = plot_strangers(close, np.array([0, 0, 1]), CENTRES, FACES, FACES[:2]).axes[0]
    first, second = ax.collections
    assert len({tuple(color) for color in first.get_facecolors()}) == 1
    np.testing.assert_allclose(first.get_offsets()[:, 0], np.degrees(np.arctan2(close[0, 1], close[0, 0])))
    assert tuple(first.get_facecolors()[0]) != tuple(second.get_facecolors()[0])
    assert len(faces_in(ax.figure)) == 6


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: plot_planes({}, LABELS), "nothing to draw"),
        (lambda: plot_planes({"a": SPHERE}, LABELS), "are meant"),
        (lambda: plot_spheres({"a": PLANE}, LABELS), "are meant"),
        (lambda: plot_strangers(*SPHERE[:1], LABELS, CENTRES, FACES, FACES), "2-D is meant"),
        (lambda: plot_strangers(PLANE[0], LABELS, CENTRES, FACES, FACES[:2]), "stranger 3 has no face"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, says):
    with pytest.raises(DataError, match=says):
        draw()
