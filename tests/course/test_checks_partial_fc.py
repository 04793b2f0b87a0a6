"""The checks of the exercises on chunks and shards: the right answer passes, each usual mistake is named."""

import pytest
import torch

from arcface_edu.course.checks.partial_fc import check_backward, check_merge


def merge(a, b):
    top = torch.maximum(a[0], b[0])
    return top, a[1] * (a[0] - top).exp() + b[1] * (b[0] - top).exp()


def through_exp(a, b):
    top = torch.maximum(a[0], b[0])
    return top, (a[1] * a[0].exp() + b[1] * b[0].exp()) / top.exp()


def from_the_first(a, b):
    total = a[1] + b[1] * (b[0] - a[0]).exp()
    top = torch.maximum(a[0], b[0])
    return top, total * (a[0] - top).exp()


def test_the_right_merge_passes(capsys):
    assert check_merge(merge) is True
    assert "Right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda a, b: None, "returns nothing"),
        (lambda a, b: torch.maximum(a[0], b[0]), "two things"),
        (lambda a, b: (a[0].max(), a[1]), "shape"),
        (lambda a, b: (a[0] + b[0], a[1] + b[1]), "greater of the two"),
        (lambda a, b: (torch.maximum(a[0], b[0]), a[1] + b[1]), "different maxima"),
        (lambda a, b: (torch.maximum(a[0], b[0]), a[1]), "the first image"),
        (through_exp, "Near ±500"),
        (from_the_first, "300"),
    ],
)
def test_a_wrong_merge_is_told_what_is_wrong(attempt, said, capsys):
    assert check_merge(attempt) is False
    assert said in capsys.readouterr().out


def backward(x, centres, labels, first, top, total, s, mean=True, scale=True, offset=True):
    p = (s * x @ centres.T - top[:, None]).exp() / total[:, None]
    is_target = labels[:, None] == (first if offset else 0) + torch.arange(len(centres))
    error = (s if scale else 1) * (p - is_target.to(p)) / (len(x) if mean else 1)
    return error @ centres, error.T @ x


def test_the_right_backward_passes(capsys):
    assert check_backward(backward) is True
    assert "Right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda *given: None, "returns nothing"),
        (lambda *given: backward(*given)[0], "two tensors"),
        (lambda *given: backward(*given)[::-1], "two tensors"),
        (lambda *given: backward(*given, mean=False), "divide by N"),
        (lambda *given: backward(*given, scale=False), "the scale s is missing"),
        (lambda *given: backward(*given, offset=False), "off by"),
        (lambda *given: (backward(*given)[0], 2 * backward(*given)[1]), "of the centres, of both"),
    ],
)
def test_a_wrong_backward_is_told_what_is_wrong(attempt, said, capsys):
    assert check_backward(attempt) is False
    assert said in capsys.readouterr().out
