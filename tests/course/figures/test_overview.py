"""The drawings name what the package does, and nothing in them sticks out."""

from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import arcface_edu
from arcface_edu.course.figures.overview import STEPS, plot_pipeline, plot_sharded_head
from arcface_edu.course.figures.problem import plot_train_and_test

FACE = torch.zeros(3, 112, 112, dtype=torch.uint8)


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("plot", [plot_pipeline, plot_sharded_head, lambda: plot_train_and_test([FACE], [FACE, FACE])])
def test_every_word_is_on_the_card_and_large_enough(plot):
    figure = plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for text in figure.axes[0].texts:
        if text.get_text():
            box = text.get_window_extent()
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > 3, text
            assert text.get_fontsize() >= 9


def test_the_pipeline_leads_to_files_that_exist():
    package = Path(arcface_edu.__file__).parent
    for name, _, where, *_ in STEPS:
        assert (package / where).exists(), where
        assert {name, where} <= set(words(plot_pipeline()))


def test_every_rank_has_the_embeddings_of_all_and_centres_of_its_own():
    figure = plot_sharded_head()
    colors = [patch.get_facecolor() for patch in figure.axes[0].patches]
    own = [text for text in words(figure) if text.startswith("centres")]
    assert len(own) == len(set(own)) == 3
    networks = sum(text.endswith(": network") for text in words(figure))
    # Each rank's colour: once as its own images, then once on every rank.
    assert sorted(colors.count(color) for color in set(colors))[-3:].count(1 + networks) == 3
