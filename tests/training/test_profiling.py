"""Intervals: what is computed, sent and waited for."""

import gzip
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from arcface_edu.training.profiling import close_gaps, length, merge, outside, overlap, read_timeline

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
