"""What an operation is taken to read, write and compute."""

from types import SimpleNamespace

import pytest
import torch
from torch.profiler import record_function

from arcface_edu.planning.trackers import OperationTracker

A, B = torch.ones(30, 50), torch.ones(30, 50)
TABLE, ROWS = torch.ones(1000, 50), torch.arange(10)
SIZE = 30 * 50 * 4


@pytest.mark.parametrize(
    ("do", "flops", "moved"),
    [
        (lambda: A + B, 0, 3 * SIZE),
        (lambda: A.clone().mul_(B), 0, 2 * SIZE + 3 * SIZE),
        (lambda: A + A, 0, 2 * SIZE),  # read once
        (lambda: A @ B.T, 2 * 30 * 50 * 30, 2 * SIZE + 30 * 30 * 4),  # the transposed view is free
        (lambda: torch._foreach_mul_([A, B], 1.0), 0, 4 * SIZE),
        (lambda: TABLE[ROWS], 0, 2 * (10 * 8 + 10 * 50 * 4)),  # not the whole table
        (lambda: TABLE.index_put_((ROWS,), TABLE.new_empty(10, 50)), 0, 2 * (10 * 8 + 10 * 50 * 4)),
        (lambda: torch.empty(1000), 0, 0),
    ],
)
def test_traffic_and_arithmetic_are_those_of_the_closed_form(do, flops, moved):
    with OperationTracker(SimpleNamespace(in_head=False)) as work:
        do()
    assert sum(op.flops for op in work.operations) == flops
    assert sum(op.moved for op in work.operations) == moved


def test_phases_are_those_that_the_step_names():
    with OperationTracker(SimpleNamespace(in_head=True)) as work:
        with record_function("forward: head"), record_function("anything else"):
            A + B
        with record_function("update"):
            A + B
        A + B
    assert [(op.part, op.phase) for op in work.operations] == [
        ("head", "forward: head"),
        ("update", "update"),
        ("head", ""),
    ]
