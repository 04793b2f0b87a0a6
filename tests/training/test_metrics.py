"""The meter's averages, and metrics.jsonl across interruptions."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from arcface_edu.training.metrics import Meter, MetricsLog, read_metrics


def test_meter_averages_over_images_not_over_batches():
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(2.0), torch.tensor([1.0, 0.0, -1.0]))  # 0, 90, 180 degrees
    meter.add(torch.tensor(6.0), torch.tensor([math.cos(math.radians(31))]))
    line = meter.line()
    assert line["loss"] == pytest.approx(3.0)
    assert line["target_angle"] == pytest.approx((0 + 90 + 180 + 31) / 4, abs=1e-3)
    histogram = line["target_angle_histogram"]
    assert sum(histogram) == 4
    assert [i for i, count in enumerate(histogram) if count] == [0, 15, 45, 89]


def test_the_mean_gradient_norm_of_an_interval_is_told_where_there_is_one():
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(2.0), torch.tensor([0.5, 0.5]))
    meter.add_norm(None)
    assert "gradient_norm" not in meter.line()
    for norm in (1.0, 2.0, 6.0):  # updates, each of one or more backward passes
        meter.add(torch.tensor(2.0), torch.tensor([0.5, 0.5]))
        meter.add_norm(torch.tensor(norm))
    resumed = Meter(torch.device("cpu"))
    resumed.load_state_dict(meter.state_dict())
    assert meter.line()["gradient_norm"] == resumed.line()["gradient_norm"] == 3.0
    meter.reset()
    assert "gradient_norm" not in meter.line()


def test_meter_goes_on_after_an_interruption():
    whole, first, second = (Meter(torch.device("cpu")) for _ in range(3))
    for meter in (whole, first):
        meter.add(torch.tensor(2.0), torch.tensor([0.3, 0.4]))
    second.load_state_dict(first.state_dict())
    for meter in (whole, second):
        meter.add(torch.tensor(1.0), torch.tensor([0.5]))
    keys = ("loss", "target_angle", "target_angle_histogram")
    assert [whole.line()[key] for key in keys] == [second.line()[key] for key in keys]


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
