"""The check of the exercise on chunks: the right answer passes, each usual mistake is named."""

import pytest
import torch

from arcface_edu.course.checks.partial_fc import check_merge


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
