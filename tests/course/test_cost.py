"""The cost model of notebook 04 against the planner whose numbers it takes, and against closed forms."""

import pytest

from arcface_edu.course.cost import Cost, cost_of, milliseconds, published_rows, rate, speeds, step_of
from arcface_edu.course.published_runs import PUBLISHED, plan_published
from arcface_edu.planning.gpus import GPUS, time_on

SIMPLE = Cost(forward=0.001, backward=0.002, head=0.0005, update=0.01, gradient=75e6)  # 0.1 s over 1 GB/s at 75 %


@pytest.mark.slow
@pytest.mark.filterwarnings("error::FutureWarning")  # a collective by a name of old would bring it into notebook 04
def test_at_eight_gpus_it_is_the_planners_step():
    row = next(row for row in PUBLISHED if row.network == "r50" and row.classes == 93_431)
    times = time_on(plan_published(row), GPUS["v100"])
    step = step_of(cost_of("r50"), "DDP", 8, 128, GPUS["v100"].link)
    assert step.compute == pytest.approx(times.network + times.head + times.update)
    assert step.waiting == 0
    assert step.hidden == pytest.approx(times.hidden_messages, rel=1e-3)  # the planner's has what is frozen left out


def test_ddp_waits_for_what_outlasts_the_backward_pass():
    step = step_of(SIMPLE, "DDP", ranks=4, batch=10, bandwidth=1)  # 0.15 s of messages, 0.02 s to hide them
    assert step == pytest.approx((0.01 + 10 * 0.0035, 0.13, 0.02))
    assert step_of(SIMPLE, "DDP", 4, 100, 1) == pytest.approx((0.36, 0, 0.15))


def test_data_parallel_waits_for_weights_gradients_and_the_head_of_all():
    step = step_of(SIMPLE, "DataParallel", ranks=4, batch=10, bandwidth=1)
    assert step == pytest.approx((0.045, 0.2 + 3 * 10 * 0.0005, 0))


def test_alone_nobody_waits_and_ddp_is_never_slower():
    for way in ("DDP", "DataParallel"):
        assert rate(SIMPLE, way, 1, 10, 1) == pytest.approx(10 / 0.045)
    counts, rates, steps = speeds(SIMPLE, 8, 32, 2.0)
    assert counts == list(range(1, 65))
    assert all(ddp >= dp for ddp, dp in zip(rates["DDP"], rates["DataParallel"], strict=True))
    assert steps["DDP"].compute == pytest.approx(1000 * (0.01 + 32 * 0.0035))


def test_the_published_runs_have_few_classes_and_no_sampling():
    assert [(row.network, row.classes, row.speed) for row in published_rows()] == [
        ("r50", 125_000, 4824),
        ("r50", 93_431, 6112),
        ("r100", 93_431, 3867),
    ]


def test_milliseconds_of_a_gpu_and_of_a_message():
    times = milliseconds(SIMPLE, batch=10, bandwidth=1)
    assert times == pytest.approx(dict(forward=10, backward=20, loss=5, update=10, message=100))
