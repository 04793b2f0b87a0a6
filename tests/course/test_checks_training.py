"""Checks of notebook 06: each usual mistake gets its own sentence, and the right answer passes."""

import pytest

from arcface_edu.config import load_config
from arcface_edu.course.checks.training import PATIENTS, behind_letters, check_diagnoses, check_doctor, check_rate
from arcface_edu.training.schedule import Schedule

STEPS = 5_179_510 // 1024  # of an epoch
DROPS = (10, 16, 22)


def right(step):
    return 0.2 * 0.1 ** sum(step >= drop * STEPS for drop in DROPS)


WRONG = {
    "should be a number": lambda step: None,
    "stops with ZeroDivisionError": lambda step: 1 / 0,
    "meant for 512": lambda step: right(step) / 2,
    "no warm-up": lambda step: right(step) * min(1, (step + 1) / 1000),
    "decay_epoch counts epochs": lambda step: 0.2 * 0.1 ** sum(step >= drop for drop in DROPS),
    "epoch 10 is over": lambda step: right(step - 1),
    "the drops add up": lambda step: 0.2 if step < 10 * STEPS else 0.02,
    "it should still be 0.2": lambda step: 0.2 * 0.1 ** sum(step >= drop * 40_464 // 8 - 100 for drop in DROPS),
    "the rate is 0.002 and should be 0.0002": lambda step: max(right(step), 0.002),
}


def test_the_right_rate_passes(capsys):
    assert check_rate(right) is True
    assert "Right: 0.2" in capsys.readouterr().out


@pytest.mark.parametrize("sentence", WRONG)
def test_a_mistake_is_named(sentence, capsys):
    assert check_rate(WRONG[sentence]) is False
    assert sentence in capsys.readouterr().out


def test_the_check_and_this_test_mean_the_same_schedule():
    config = load_config("ms1mv3_r50")
    schedule = Schedule.of(config, config.num_image, 8)
    assert all(abs(schedule.lr(step) - right(step)) < 1e-12 for step in range(0, schedule.total_steps, 997))


def test_five_diagnoses(capsys):
    assert check_diagnoses(PATIENTS) is True
    swapped = PATIENTS | dict(C=PATIENTS["A"], A=PATIENTS["C"])
    for answers, words in (
        (dict.fromkeys("ABCDE", ""), "Nothing is diagnosed"),
        (dict(A="flu"), '"flu" is none'),
        (swapped, "3 of 5 are right. Look at A"),
        (dict(B="margin 1.5"), "1 of 5"),
    ):
        assert check_diagnoses(answers) is False
        assert words in capsys.readouterr().out.splitlines()[-1]


def test_letters_hide_names_and_the_healthy_run_comes_first():
    courses = {name: (name, "angle", "norm", "error") for name in ["rate too low", "healthy", *PATIENTS.values()]}
    shown = behind_letters(courses)
    assert list(shown) == ["healthy", *"ABCDE"]
    assert shown["healthy"] == ("healthy", "angle", "norm") and shown["A"][0] == PATIENTS["A"]


def doctor(above, angle, gradient):
    if above > 5:
        return "margin 1.5"
    if above > -0.5:
        return "far too high" if angle < 45 else "labels shuffled"
    return "rate too low" if gradient > 15 else "rate too high" if gradient < 1 else "healthy"


def test_a_doctor_is_asked_about_every_run(capsys):
    assert check_doctor(doctor) is True
    assert "Right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda *values: None, "is 'healthy', and your function says None"),
        (lambda *values: "healthy", "is 'rate too high', and your function says 'healthy'"),
        (lambda above, angle, gradient: doctor(above, 90, gradient), "is 'far too high'"),
        (lambda above: "healthy", "stops with TypeError"),
    ],
)
def test_a_wrong_doctor_is_shown_the_run(answer, sentence, capsys):
    assert check_doctor(answer) is False
    assert sentence in capsys.readouterr().out
