"""Pictures of many processes: the schematic steps, the ring, how speed grows."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba

from arcface_edu.course.figures.data_parallel import (
    data_parallel_step,
    ddp_step,
    plot_dp_ddp_timelines,
    plot_ring,
    plot_scaling,
)
from arcface_edu.figures import style

TIMES = dict(forward=2.0, backward=4.0, loss=0.5, update=1.0, message=1.0)


def title(figure, panel=0):
    return figure.axes[panel].get_title(loc="left").replace("\n", " ")


def texts(figure):
    FigureCanvasAgg(figure).draw()
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def end(spans):
    return max(span.end for span in spans)


def never_two_at_once(spans):
    return all(a.end <= b.begin for a, b in itertools.pairwise(spans))


def test_a_step_of_data_parallel_hides_nothing_and_updates_on_one_gpu():
    spans = data_parallel_step(3, **TIMES)
    assert end(spans) == pytest.approx(1 + 2 + 3 * 0.5 + 4 + 1 + 1)
    for rank in range(3):
        mine = sorted((span for span in spans if span.rank == rank), key=lambda span: span.begin)
        assert never_two_at_once(mine)
    assert [span.rank for span in spans if span.words in ("update", "head of all 3")] == [0, 0]


def test_a_step_of_ddp_waits_for_its_last_bucket_alone():
    spans = ddp_step(4, **TIMES, buckets=4)
    assert end(spans) == pytest.approx(2 + 0.5 + 4 + 2 * 3 / 4 / 4 + 1)
    assert end(ddp_step(4, **TIMES, buckets=1)) == pytest.approx(2 + 0.5 + 4 + 2 * 3 / 4 + 1)
    slow = ddp_step(2, **(TIMES | dict(message=40.0)), buckets=4)  # then all that counts is what travels
    assert end(slow) == pytest.approx(2 + 0.5 + 1 + 40 + 1)
    buckets = [span for span in slow if span.kind == "communication" and span.rank == 1]
    assert never_two_at_once(buckets)
    assert end(ddp_step(1, **TIMES, buckets=4)) == pytest.approx(7.5)


def test_the_timelines_say_that_they_are_computed_and_of_what():
    figure = plot_dp_ddp_timelines(TIMES, "r50 on a V100", buckets=4)
    assert figure.axes[0].get_xlabel() == "milliseconds, computed, not measured: r50 on a V100"
    assert texts(figure).count("backward") == 6
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["GPU 0", "GPU 1", "GPU 2", "rank 0", "rank 1", "rank 2"]
    assert "update" not in texts(plot_dp_ddp_timelines(TIMES | dict(update=0.01), ""))  # too short for its name
    ax = style.canvas()[1]
    assert plot_dp_ddp_timelines(TIMES, "", ranks=2, ax=ax) is ax.figure


def test_a_ring_frames_what_has_just_arrived():
    before = [[1, 1], [1, 1]]
    figure = plot_ring([before, [[1, 2], [2, 1]], [[2, 2], [2, 2]]])
    assert texts(figure) == [str(n) for n in (1, 1, 1, 1, 1, 2, 2, 1, 2, 2, 2, 2)]
    framed = [sum(patch.get_edgecolor() == to_rgba(style.COMMUNICATION) for patch in ax.patches) for ax in figure.axes]
    assert framed == [0, 2, 2]
    assert [ax.get_title() for ax in figure.axes] == ["before", "step 1", "step 2"]


def test_scaling_tells_the_speed_and_the_share_of_waiting():
    counts = [1, 2, 4, 8]
    rates = {"DataParallel": [100, 120, 150, 160], "DDP": [100, 200, 390, 750]}
    steps = {"DataParallel": (100.0, 300.0, 0.0), "DDP": (100.0, 25.0, 60.0)}
    figure = plot_scaling(counts, rates, steps, 4)
    assert title(figure, 0) == "4 ranks: 390 images/s by DDP"
    assert title(figure, 1) == "20% of a step under DDP is waiting"
    key = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert key == ["no waiting", "DataParallel", "DDP"]
    ideal, *_ = figure.axes[0].get_lines()
    assert ideal.get_ydata().tolist() == [100, 200, 400, 800]
    hidden = [bar for bar in figure.axes[1].patches if bar.get_facecolor()[:3] == to_rgb(style.COMMUNICATION)]
    assert max(bar.get_width() for bar in hidden) == 60
    assert max(bar.get_x() + bar.get_width() for bar in hidden) == 100  # it ends with the backward pass
