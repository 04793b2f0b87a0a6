"""Checks of the exercises on a training run: the learning rate of a step, and what is wrong with five runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from arcface_edu.config import load_config
from arcface_edu.training.schedule import Schedule

GPUS = 8
PATIENTS = dict(A="far too high", B="margin 1.5", C="labels shuffled", D="rate too low", E="rate too high")
LOOK_AT = dict(
    A="its angle looks splendid. And its loss, beside that of one who knows nobody at this angle?",
    B="apart from its loss it is as in health. What adds to a loss and changes no gradient?",
    C="its loss comes down to the dashed line and its angle stays at 90°. What can nobody learn?",
    D="it learns, slowly. Is its gradient longer or shorter than in health?",
    E="it hardly learns, with a gradient a tenth as long as in health. What makes weights long?",
)


def behind_letters(courses: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[np.ndarray]]:
    """Return the runs of a clinic under letters instead of names; the healthy one comes first, under its own.

    Args:
        courses: For each run by name, (loss, angle, norm, ...), each of the first three (S,).

    Returns:
        (loss, angle, norm) for each letter.
    """
    names = dict(healthy="healthy") | PATIENTS
    return {letter: courses[name][:3] for letter, name in names.items()}


def check_diagnoses(answers: Mapping[str, str]) -> bool:
    """Check the names given to the runs behind letters; print what to look at where one is wrong.

    Args:
        answers: For each letter, a name of PATIENTS.

    Returns:
        Whether all are right.
    """
    wrong = [letter for letter, name in PATIENTS.items() if answers.get(letter) != name]
    strange = [name for name in answers.values() if name and name not in PATIENTS.values()]
    if not any(answers.values()):
        print("Nothing is diagnosed yet: write a name for each letter.")
    elif strange:
        print(f'Not yet: "{strange[0]}" is none of the patients: {", ".join(sorted(PATIENTS.values()))}.')
    elif wrong:
        right = len(PATIENTS) - len(wrong)
        print(f"{right} of {len(PATIENTS)} are right. Look at {wrong[0]} again: {LOOK_AT[wrong[0]]}")
    else:
        print("Right, all five.")
    return not wrong


# The last values of the six runs: loss above ignorance, target angle in degrees, norm of the gradient.
LAST = {
    "healthy": (-5.6, 67, 4.2),
    "rate too high": (-1.1, 87, 0.31),
    "far too high": (0.3, 14, 0.028),
    "rate too low": (-3.6, 74, 56),
    "labels shuffled": (0.2, 90, 1.4),
    "margin 1.5": (19.6, 68, 4.3),
}


def check_doctor(doctor: Callable[[float, float, float], Any]) -> bool:
    """Check that `doctor` diagnoses the six runs and others like them; print the first that it does not.

    Args:
        doctor: Loss above ignorance, target angle in degrees, norm of the gradient -> a name of LAST.

    Returns:
        Whether all is right.
    """
    for name, (above, angle, gradient) in LAST.items():
        for shift, factor in ((0, 1), (0.3, 1.3), (-0.3, 0.8)):
            values = above + shift, min(angle + 4 * shift, 90), gradient * factor
            try:
                found = doctor(*values)
            except Exception as error:  # whatever a learner's function raises is said to the learner
                print(f"Not yet: your function stops with {type(error).__name__}: {error}.")
                return False
            if found != name:
                told = "{:+.1f} against ignorance, {:.0f} degrees, gradient {:.2g}".format(*values)
                print(f"Not yet: {told} is {name!r}, and your function says {found!r}.")
                return False
    print("Right: six diseases, and others like them. Now try it on a run of your own.")
    return True


def check_rate(rate: Callable[[int], Any]) -> bool:
    """Check rate(step) against the schedule of `ms1mv3_r50` on 8 GPUs; print what is wrong.

    Args:
        rate: A step -> its learning rate.

    Returns:
        Whether it is right.
    """
    config = load_config("ms1mv3_r50")
    right = Schedule.of(config, config.num_image, GPUS)
    first, second, third = right.decay_steps or ()
    try:
        said = {step: rate(step) for step in (0, first - 1, first, second - 1, second, third, right.total_steps - 1)}
    except Exception as error:  # whatever a learner's function raises is said to the learner
        print(f"Not yet: your function stops with {type(error).__name__}: {error}.")
        return False
    if not all(isinstance(value, (int, float)) for value in said.values()):
        print(f"Not yet: rate(0) gives {said[0]!r}; it should be a number.")
        return False
    wrong = [step for step, value in said.items() if abs(value - right.lr(step)) > 1e-9]
    if not wrong:
        print(
            f"Right: {right.peak_lr:g}, and from the steps {first:,}, {second:,} and {third:,} on a tenth of what it "
            f"was."
        )
        return True
    print(f"Not yet: {diagnose(said, right)}")
    return False


def diagnose(said: Mapping[int, float], right: Schedule) -> str:
    """Return a sentence on the first thing that is wrong with the learning rates `said`, by step."""
    first, second, _ = right.decay_steps or ()
    peak = right.peak_lr
    if abs(said[0] - 0.1) < 1e-9:
        return f"the 0.1 of the config is meant for 512 images a step; {GPUS} GPUs take {right.total_batch:,}."
    if abs(said[0] - peak) > 1e-9:
        return f"rate(0) is {said[0]:g}, but there is no warm-up (warmup_epoch = -1): it begins at its peak, {peak:g}."
    if abs(said[first - 1] - peak) > 1e-9:
        return (
            f"at step {first - 1:,}, the last before the first drop, the rate is {said[first - 1]:g}; it should still "
            f"be {peak:g}. decay_epoch counts epochs; how many steps of {right.total_batch:,} images has an epoch?"
        )
    if abs(said[first] - peak / 10) > 1e-9:
        return f"at step {first:,} epoch 10 is over and the rate should be {peak / 10:g}, not {said[first]:g}."
    if abs(said[second] - peak / 100) > 1e-9:
        return f"the drops add up: from step {second:,} on it is {peak / 100:g} (x 0.1 twice), not {said[second]:g}."
    step = next(step for step in said if abs(said[step] - right.lr(step)) > 1e-9)
    return f"at step {step:,} the rate is {said[step]:g} and should be {right.lr(step):g}."
