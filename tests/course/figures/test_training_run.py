"""Figures of a training run: formats with their reach, schedules, a run so far, and runs side by side."""

import numpy as np
import pytest
import torch

from arcface_edu.course.figures.training_run import plot_clinic, plot_number_formats, plot_run, plot_schedules, reach
from arcface_edu.errors import DataError


def title(ax):
    return ax.get_title(loc="left").replace("\n", " ")


def test_the_reach_of_a_format_is_where_it_really_ends():
    for dtype in (torch.float16, torch.bfloat16):
        smallest, normal, largest = (2.0**power for power in reach(dtype))
        as_kept = torch.tensor([smallest, smallest / 4, largest, largest * 4], dtype=torch.float64).to(dtype)
        assert as_kept[0] > 0 and as_kept[1] == 0
        assert as_kept[2].isfinite() and as_kept[3].isinf()
        assert normal > smallest


def test_the_title_counts_what_fp16_loses():
    gradients = 2.0 ** np.array([-30.0, -20, -10, -10])
    assert "25.00% zero and 0.00% infinite, and blurs 25.0%" in title(plot_number_formats(gradients).axes[0])
    assert "0.00% zero and 50.00% infinite, and blurs 0.0%" in title(plot_number_formats(gradients, 27).axes[0])
    real = torch.tensor(gradients).half()
    assert (real == 0).sum() == 1


def test_each_schedule_is_a_line_of_its_own():
    ax = plot_schedules({"a": ([0, 1, 2], [0.1, 0.05, 0]), "b": ([0, 1], [0.2, 0.02])}).axes[0]
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert ax.get_yscale() == "log"


def test_a_run_so_far_shows_loss_angle_and_histogram():
    counts = np.zeros((2, 90), int)
    counts[0, 45] = counts[1, 30] = 64
    lines = [
        dict(step=10 * i, loss=20 - 8 * i, target_angle=91 - 30 * i, target_angle_histogram=counts[i].tolist())
        for i in range(2)
    ]
    titles = [title(ax) for ax in plot_run(lines).axes]
    assert "falls from 20.0 to 12.0" in titles[0]
    assert "91° becomes 61°" in titles[2]


def test_runs_side_by_side_share_their_scales_and_show_the_first():
    healthy, sick = (np.array([9.0, 5, 1]), np.array([90.0, 70, 50]), np.array([10.0, 3, 1])), np.ones((3, 3))
    axes = plot_clinic({"healthy": healthy, "A": sick}, lambda angles: angles / 10).axes
    assert len(axes) == 6
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["healthy", "A"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    grey, own, ignorance = (line.get_ydata() for line in axes[1].lines)
    assert grey[0] > grey[-1] and np.allclose(own, 1) and np.allclose(ignorance, 0.1)


@pytest.mark.parametrize("draw", [lambda: plot_number_formats([0.0]), lambda: plot_schedules({}), lambda: plot_run([])])
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(DataError):
        draw()
