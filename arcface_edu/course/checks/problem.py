"""The check of the exercise on the problem: a threshold from the angles of strangers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from arcface_edu.course.checks import fail


def check_threshold(attempt: Callable[[Tensor, float], Any]) -> bool:
    """Check that below the angle `attempt(different, far)` lies the share `far` of the angles; print what is wrong.

    Args:
        attempt: (N,) angles of pairs of different people and a FAR -> an angle, all in degrees.

    Returns:
        Whether the attempt is right.
    """
    generator = torch.Generator().manual_seed(0)
    for count, far in ((1000, 0.1), (1000, 0.01), (5000, 0.002)):
        different = 85 + 9 * torch.randn(count, generator=generator)
        said = attempt(different.clone(), far)
        if said is None:
            return fail("The function returns nothing yet: let it return an angle in degrees.")
        accepted = (different < float(said)).sum().item()
        if accepted == round(far * count):
            continue
        if accepted == count - round(far * count):
            return fail("That accepts all but the share wanted: small angles are accepted, so begin at the small end.")
        return fail(
            f"Of {count} pairs of strangers a FAR of {far:g} accepts {far * count:g}; "
            f"below {float(said):.2f}° lie {accepted}."
        )
    print("Right: as many strangers lie below it as the FAR allows, and not one more.")
    return True
