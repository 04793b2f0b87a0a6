"""Intervals: what is computed, sent and waited for."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from arcface_edu.training.profiling import (
    RECORDED,
    close_gaps,
    kernel_table,
    length,
    merge,
    outside,
    overlap,
    read_timeline,
)

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=12).map(
    lambda found: np.array([(begin, begin + long) for begin, long in found], dtype=float).reshape(-1, 2)
)


def moments(intervals):
    """The half-open unit moments that intervals with whole ends cover."""
    return {moment for begin, end in intervals for moment in range(int(begin), int(end))}


@given(spans, spans)
def test_intervals_are_sets_of_moments(a, b):
    first, second = merge(a), merge(b)
    assert moments(first) == moments(a)
    assert (first[1:, 0] > first[:-1, 1]).all()
    assert moments(overlap(first, second)) == moments(a) & moments(b)
    assert moments(outside(first, second)) == moments(b) - moments(a)
    assert length(first) == len(moments(a))


def test_small_gaps_close():
    np.testing.assert_array_equal(close_gaps(np.array([[0.0, 1.0], [1.5, 2.0], [4.0, 5.0]]), 1), [[0, 2], [4, 5]])


def write_trace(path, events):
    named = ("cat", "name", "ts", "dur")
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": [dict(zip(named, event, strict=True), ph="X") for event in events]}, file)


def test_a_trace_becomes_intervals_from_the_end_of_the_first_message_on(tmp_path):
    write_trace(
        tmp_path / "cpu.json.gz",
        [
            ("user_annotation", "ProfilerStep#7", 1000, 10000),
            ("user_annotation", "agree", 1000, 1000),
            ("user_annotation", "backward", 3000, 4000),
            ("cpu_op", "aten::mm", 3000, 3000),
            ("cpu_op", "autograd::engine", 2500, 8000),  # wraps operators, and waits
            ("user_annotation", "gloo:all_reduce", 5000, 4000),
        ],
    )
    timeline = read_timeline(tmp_path / "cpu.json.gz")
    assert timeline["phases"] == [("agree", -8, -7), ("backward", -6, -2)]
    expected = dict(steps=[[-8, 2]], compute=[[-6, -3]], communication=[[-4, 0]], hidden=[[-4, -3]])
    expected["waiting"] = [[-8, -6], [0, 2]]
    for kind, intervals in expected.items():
        np.testing.assert_allclose(timeline[kind], intervals)


def test_on_a_gpu_kernels_count_and_not_what_launches_them(tmp_path):
    write_trace(
        tmp_path / "gpu.json.gz",
        [
            ("user_annotation", "ProfilerStep#7", 0, 10000),
            ("user_annotation", "agree", 0, 0),
            ("cpu_op", "aten::mm", 0, 9000),
            ("kernel", "gemm", 2000, 2000),
            ("kernel", "ncclDevKernel_AllReduce", 3000, 3000),
        ],
    )
    timeline = read_timeline(tmp_path / "gpu.json.gz")
    np.testing.assert_allclose(timeline["compute"], [[-4, -2]])
    np.testing.assert_allclose(timeline["communication"], [[-3, 0]])
    np.testing.assert_allclose(timeline["waiting"], [[-6, -4], [0, 4]])


def averages(device, *events):
    """What `key_averages()` of a profile gives: (name, milliseconds of a step, calls of a step) on a device."""
    return [
        SimpleNamespace(
            key=name,
            is_user_annotation=name in ("backward", "ProfilerStep#7"),
            device_type=device,
            self_cpu_time_total=1000 * RECORDED * ms,
            self_device_time_total=1000 * RECORDED * ms,
            count=RECORDED * calls,
        )
        for name, ms, calls in events
    ]


CPU, CUDA = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA
ON_CPU = averages(CPU, ("aten::mkldnn_convolution", 6, 10), ("aten::native_batch_norm", 1, 10), ("backward", 99, 1))


def test_the_table_of_kernels_sums_them_by_kind():
    lines = kernel_table([*ON_CPU, *averages(CPU, ("aten::convolution_backward", 3, 5))]).splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["convolution", "9.00", "90.0%", "15"],
        ["batch", "norm", "1.00", "10.0%"],
    ]
    assert "aten::mkldnn_convolution 6.00 ms" in lines[1]


def test_where_a_gpu_computes_its_kernels_are_counted():
    kernels = averages(CUDA, ("void cudnn::bn_fw_tr_1C11_kernel_NHWC<...>", 3, 1), ("ampere_bf16_s16816gemm_128", 1, 1))
    lines = kernel_table([*ON_CPU, *kernels]).splitlines()
    assert [line[:20].strip() for line in lines[1:]] == ["batch norm", "matrix product"]
    assert "75.0%" in lines[1]


def test_what_no_pattern_knows_is_named():
    assert "other" in (table := kernel_table(averages(CPU, ("aten::unheard_of", 1, 1)))) and "aten::unheard_of" in table
