"""The check of notebook 00 takes every way to choose the threshold, and says what is wrong with the others."""

import pytest
import torch

from arcface_edu.course.checks.problem import check_threshold

WRONG = {
    "returns nothing yet": lambda different, far: None,
    "begin at the small end": lambda different, far: different.sort(descending=True).values[
        round(far * len(different)) - 1
    ],
    "a FAR of 0.1 accepts 100": lambda different, far: different.mean(),
    "lie 99": lambda different, far: different.sort().values[round(far * len(different)) - 1],
}


@pytest.mark.parametrize(
    "right",
    [
        lambda different, far: different.sort().values[round(far * len(different))],
        lambda different, far: different.kthvalue(round(far * len(different)) + 1).values.item(),
        lambda different, far: torch.quantile(different, far).item(),
    ],
)
def test_a_threshold_that_accepts_the_share_is_right(right, capsys):
    assert check_threshold(right) is True
    assert capsys.readouterr().out.startswith("Right")


@pytest.mark.parametrize("sentence", WRONG)
def test_a_wrong_threshold_hears_what_is_wrong(sentence, capsys):
    assert check_threshold(WRONG[sentence]) is False
    assert sentence in capsys.readouterr().out
