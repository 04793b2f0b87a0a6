"""The pictures of the head of many classes: the arithmetic is a head's own, and the titles say true numbers."""

import numpy as np
import pytest

from arcface_edu.course.figures.sharded_head import (
    GIB,
    head_memory,
    plot_memory_bars,
    plot_memory_growth,
    plot_published,
    plot_samples,
    plot_step_time,
    plot_walk,
)
from arcface_edu.heads import MarginSoftmax


def title(ax):
    return ax.get_title(loc="left").replace("\n", " ")


def test_the_table_is_that_of_a_head():
    held = head_memory(1000, dimension=64)
    assert held["weights"] == MarginSoftmax(64, 1000).weight.nbytes


def test_sharing_divides_the_table_and_not_the_logits():
    alone, shared = head_memory(8000, gpus=1, batch=16), head_memory(8000, gpus=8, batch=16)
    assert shared["weights"] == alone["weights"] / 8
    assert shared["logits"] == alone["logits"] == 4 * 16 * 8000
    assert head_memory(8000, gpus=8, batch=16, copies=True) == alone


def test_a_sample_takes_its_share_of_gradient_and_logits():
    full, tenth = head_memory(8000), head_memory(8000, rate=0.1)
    assert tenth["momentum"] == full["momentum"]
    assert tenth["gradient"] == pytest.approx(full["gradient"] / 10)
    assert tenth["logits"] == pytest.approx(full["logits"] / 10)


def test_chunks_hold_no_logits_and_nothing_else_changes():
    full, chunked = head_memory(8000, gpus=8), head_memory(8000, gpus=8, chunks=True)
    assert chunked == full | dict(logits=0)


def test_samples_show_the_batch_and_count_what_was_used():
    (ax,) = plot_samples([[1, 2], [3]], [[1, 2, 5], [3, 5, 9]], 10).axes
    assert title(ax) == "A step uses 3 of 10 centres; 2 steps have used 5"
    assert [len(dots.get_offsets()) for dots in ax.collections] == [1, 2, 2, 1]


def test_growth_crosses_the_limit_where_the_title_says():
    (ax,) = plot_memory_growth([1e5, 1e9], gpus=8, batch=128, rate=0.1, limit=80).axes
    copies = 80 * GIB / sum(head_memory(1, 8, 128, copies=True).values())
    assert f"at {copies / 1e6:.0f}, " in title(ax)


@pytest.mark.parametrize(("classes", "fit"), [(1e4, 5), (1e9, 0)])
def test_bars_count_what_fits(classes, fit):
    (ax,) = plot_memory_bars(classes, gpus=8, batch=128, rate=0.1, limit=80).axes
    assert f"{fit} of 5" in title(ax)
    widths = sum(patch.get_width() for patch in ax.patches if patch.get_y() < 0)
    assert widths == pytest.approx(sum(head_memory(classes, copies=True).values()) / GIB)


def test_the_walk_ends_at_the_log_sum():
    (ax,) = plot_walk([10, 20, 30], [1.0, 3.0, 3.0], [4.0, 5.0, 9.0]).axes
    assert "rose 1 times" in title(ax) and f"{3 + np.log(9):.2f}" in title(ax)


def test_published_and_step_time_say_what_they_show():
    rows = [("data", 1e6, 100, 90, 10, 12), ("partial", 1e6, 200, 220, 5, 5)]
    figure = plot_published(rows)
    memory, speed = figure.axes
    (key,) = figure.legends  # one for both, in one row
    assert [text.get_text() for text in key.get_texts()] == ["a copy each", "shared, a tenth in use"]
    assert "10% in the mean, 20% at worst" in title(memory)
    assert "10% in the mean, 10% at worst" in title(speed)
    (ax,) = plot_step_time([10, 40], {"all": [2, 6], "a tenth": [1, 2]}).axes
    assert "4 times the classes, 3 times the time" in title(ax)
