"""The meter's averages, and metrics.jsonl across interruptions."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from arcface_edu.training.metrics import Meter, MetricsLog, read_metrics
from arcface_edu.training.state import StepResult


def step_of(*micro_batches, norm=None):
    """What a step leaves, from (loss, cosines) of each of its micro-batches."""
    losses, cosines = zip(*micro_batches, strict=True)
    return StepResult([torch.tensor(loss) for loss in losses], [torch.tensor(c) for c in cosines], norm, True)


def test_meter_averages_over_images_not_over_batches():
    meter = Meter(torch.device("cpu"))
    meter.update(step_of((2.0, [1.0, 0.0, -1.0]), (6.0, [math.cos(math.radians(31))])))  # 0, 90, 180 and 31 degrees
    line = meter.compute()
    assert line["loss"] == pytest.approx(3.0)
    assert line["target_angle"] == pytest.approx((0 + 90 + 180 + 31) / 4, abs=1e-3)
    histogram = line["target_angle_histogram"]
    assert sum(histogram) == 4
    assert [i for i, count in enumerate(histogram) if count] == [0, 15, 45, 89]


def test_the_mean_gradient_norm_of_an_interval_is_told_where_there_is_one():
    meter = Meter(torch.device("cpu"))
    meter.update(step_of((2.0, [0.5, 0.5])))
    assert "gradient_norm" not in meter.compute()
    for norm in (1.0, 2.0, 6.0):  # updates, each of one or more backward passes
        meter.update(step_of((2.0, [0.5, 0.5]), norm=torch.tensor(norm)))
    resumed = Meter(torch.device("cpu"))
    resumed.load_state_dict(meter.state_dict())
    assert meter.compute()["gradient_norm"] == resumed.compute()["gradient_norm"] == 3.0
    meter.reset()
    assert "gradient_norm" not in meter.compute()


def test_meter_goes_on_after_an_interruption():
    whole, first, second = (Meter(torch.device("cpu")) for _ in range(3))
    for meter in (whole, first):
        meter.update(step_of((2.0, [0.3, 0.4])))
    second.load_state_dict(first.state_dict())
    for meter in (whole, second):
        meter.update(step_of((1.0, [0.5])))
    keys = ("loss", "target_angle", "target_angle_histogram")
    assert [whole.compute()[key] for key in keys] == [second.compute()[key] for key in keys]


def test_resuming_drops_the_lines_of_steps_that_are_done_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (10, 20, 30):
        log.write(step=step, loss=1.0 / step)
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 40, "lo')  # killed in the middle of a line
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]
    log = MetricsLog(path, up_to_step=20)
    log.write(step=30, loss=0.5)
    log.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(10, 0.1), (20, 0.05), (30, 0.5)]


def test_a_verification_that_is_done_again_is_not_written_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [dict(step=20, loss=0.5), dict(step=20, pairs="lfw"), dict(step=20, pairs="agedb")]
    log = MetricsLog(path)
    for line in lines[:2]:
        log.write(**line)
    log.close()
    log = MetricsLog(path, up_to_step=20)
    for line in [*lines[1:], dict(step=30, loss=0.4), dict(step=30, pairs="lfw")]:
        log.write(**line)
    log.close()
    assert read_metrics(path) == [*lines, dict(step=30, loss=0.4), dict(step=30, pairs="lfw")]


def test_a_new_log_begins_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n')
    MetricsLog(tmp_path / "metrics.jsonl").close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_gets_the_same_numbers_where_it_is_installed(tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append((folder.name, purge_step))

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    log = MetricsLog(tmp_path / "metrics.jsonl", up_to_step=5)
    log.write(step=10, loss=2.5, target_angle_histogram=[1, 2])
    log.write(step=10, pairs="lfw", accuracy=0.9)
    log.close()
    assert seen == [("tensorboard", 6), ("train/loss", 2.5, 10), ("lfw/accuracy", 0.9, 10), "closed"]


@pytest.mark.parametrize("damage", [b"\x80", b"[" * 100_000, b"5", b"{"], ids=["bytes", "deep", "no dict", "cut"])
def test_a_log_is_read_up_to_the_first_damaged_line(tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n' + damage + b'\n{"step": 4}\n')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
