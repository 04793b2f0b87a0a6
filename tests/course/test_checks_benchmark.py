"""The check of notebook 07 accepts what is right and says what is wrong with the rest."""

import numpy as np
import pytest

from arcface_edu.course.checks.benchmark import check_tar_at_far
from arcface_edu.evaluation.roc import tar_at_far


def right(same, different, far):
    outside = np.sort(different)[::-1][int(far * len(different))]
    return (same > outside).mean()


def by_counting(same, different, far):
    """The slow, plain way: lower the threshold stranger by stranger."""
    tar = 0.0
    for threshold in sorted(different, reverse=True):
        if np.sum(different > threshold) <= far * len(different):
            tar = sum(score > threshold for score in same) / len(same)
    return tar


def of_the_package(same, different, far):
    scores = np.concatenate([same, different])
    return tar_at_far(scores, np.arange(len(scores)) < len(same), [far])[far]


@pytest.mark.parametrize("tar", [right, by_counting])
def test_right_answers_pass(tar, capsys):
    assert check_tar_at_far(tar) is True
    assert "Right" in capsys.readouterr().out


def test_where_a_whole_number_of_strangers_may_come_in_it_is_the_packages(capsys):
    rng = np.random.default_rng(1)
    same, different = rng.normal(0.4, 0.2, 200), rng.normal(0, 0.2, 1024)
    for far in (0.5, 0.125, 2**-9):
        assert right(same, different, far) == of_the_package(same, different, far)
    assert check_tar_at_far(of_the_package) is False  # it takes the nearest FAR: two strangers for one and a half
    assert "round down" in capsys.readouterr().out


WRONG = {
    "returns nothing yet": lambda same, different, far: None,
    "one share between 0 and 1": lambda same, different, far: 100 * right(same, different, far),
    "one share between 0 and 1, and yours is [": lambda same, different, far: same > 0.4,
    "wrong end": lambda same, different, far: (same > np.sort(different)[int(far * len(different))]).mean(),
    "you let no stranger in": lambda same, different, far: (same > different.max()).mean(),
    "turned round": lambda same, different, far: 1 - right(same, different, far),
    "not even 0.6 may come in": lambda same, different, far: right(same, different, max(far, 0.25)),
    "round down": lambda same, different, far: right(same, different, np.ceil(far * len(different)) / len(different)),
    "accept what is above (>)": lambda same, different, far: (
        same >= np.sort(different)[::-1][int(far * len(different))]
    ).mean(),
    "from the strangers alone": lambda same, different, far: (
        right(same, different, far)
        if len(same) < 10
        else (same > np.quantile(np.concatenate([same, different]), 1 - far)).mean()
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_answers_fail_with_a_telling_sentence(sentence, capsys):
    assert check_tar_at_far(WRONG[sentence]) is False
    assert sentence in capsys.readouterr().out
