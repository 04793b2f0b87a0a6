"""The picture on README's top is drawn of what it is given."""

import numpy as np
import pytest

from arcface_edu.course.figures.hero import plot_hero
from arcface_edu.errors import DataError

FACE = np.full((3, 112, 112), 128, np.uint8)
PEOPLE = [[FACE] * 3] * 2
DEGREES = np.array([40.0, 50.0, 60.0, 80.0, 90.0, 100.0])
IS_SAME = np.array([True] * 3 + [False] * 3)


def words(figure):
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts)


def test_it_says_how_far_its_examples_are_apart_and_how_wide_the_margin_is():
    figure = plot_hero(PEOPLE, DEGREES, IS_SAME, ((FACE, FACE, 50.0), (FACE, FACE, 90.0)))
    assert "one person: 50°" in words(figure) and "two people: 90°" in words(figure)
    assert "m = 28.6°" in words(figure)
    assert "6 pairs" in figure.axes[-1].get_xlabel()
    figure.canvas.draw()


def test_both_kinds_of_pairs_are_needed():
    with pytest.raises(DataError, match="pairs of two"):
        plot_hero(PEOPLE, DEGREES, np.ones(6, bool), ((FACE, FACE, 50.0), (FACE, FACE, 90.0)))
