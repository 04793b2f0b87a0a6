"""Notebook 00's drawings: the head is gone in the test, and the points lie where they were found."""

import numpy as np
import torch

from arcface_edu.course.figures.problem import plot_alignment, plot_train_and_test
from arcface_edu.data.alignment.align import TEMPLATE

FACE = torch.zeros(3, 112, 112, dtype=torch.uint8)


def test_the_head_is_drawn_once_and_the_network_for_every_photograph():
    words = [text.get_text() for text in plot_train_and_test([FACE], [FACE, FACE]).axes[0].texts]
    assert sum(word.startswith("head:") for word in words) == 1
    assert words.count("network") == words.count("embedding") == 3


def test_points_lie_where_they_were_found_and_on_the_template():
    found = TEMPLATE * 1.5 + 20
    figure = plot_alignment(torch.zeros(3, 240, 200, dtype=torch.uint8), found, FACE, TEMPLATE)
    for ax, points in zip(figure.axes, (found, TEMPLATE), strict=True):
        assert len(ax.collections) == 2
        for drawn in ax.collections:
            np.testing.assert_allclose(drawn.get_offsets(), points)
    assert [ax.get_title().split(": ")[1] for ax in figure.axes] == ["200 × 240", "112 × 112"]
