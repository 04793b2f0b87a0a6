"""The checks of notebook 03 let right answers pass, and say of typical wrong ones what is wrong."""

import math

import pytest

from arcface_edu.course.checks.eight_people import check_room, check_warm_up


def test_right_answers_pass(capsys):
    assert check_room(lambda gap, m: (gap - m) / 2) is True
    assert check_warm_up(lambda done: (1, 1.3 * min(1, 2 * done), 0)) is True
    assert capsys.readouterr().out.count("Right") == 2


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda gap, m: None, "returns nothing yet"),
        (lambda gap, m: gap - m if m else gap / 2, "costs twice"),
        (lambda gap, m: gap / 2, "without a margin"),
        (lambda gap, m: max(0, (gap - m) / 2), "Do not stop at 0"),
        (lambda gap, m: (gap - math.radians(m)) / 2, "mixed"),
        (lambda gap, m: (gap + m) / 2, "sign of m"),
        (lambda gap, m: gap / 3, "should be equal"),
    ],
)
def test_a_wrong_room_is_told_why(attempt, says, capsys):
    assert check_room(attempt) is False
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda done: None, "returns nothing yet"),
        (lambda done: 1.3 * done, "three numbers"),
        (lambda done: (1, 0, min(1.3, 2.6 * done)), "moves m2 only"),
        (lambda done: (1, 1.3, 0), "begin with no margin"),
        (lambda done: (1, 2.6 * done, 0), "let it stay"),
        (lambda done: (1, 1.3 * done, 0), "would be"),
        (lambda done: (1, 2.6 * done if done < 0.5 else 1.0, 0), "from half time on"),
        (lambda done: (1, 5.2 * done**2 if done < 0.5 else 1.3, 0), "growing evenly"),
    ],
)
def test_a_wrong_schedule_is_told_why(attempt, says, capsys):
    assert check_warm_up(attempt) is False
    assert says in capsys.readouterr().out
