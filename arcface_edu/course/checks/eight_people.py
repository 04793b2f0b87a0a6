"""Checks of the exercises on eight people: each prints what is still wrong."""

import math
from collections.abc import Callable
from typing import Any

from arcface_edu.course.checks import fail
from arcface_edu.course.eight_people import room, warm_up


def check_room(attempt: Callable[[float, float], Any]) -> bool:
    """Check that `attempt(gap, m)` is the room of a face under ArcFace, (gap - m) / 2; print what is wrong.

    Args:
        attempt: The angle between two centres and the margin, degrees -> degrees.

    Returns:
        Whether the attempt is right.
    """
    for gap, m in ((45.0, 0.0), (45.0, 17.0), (74.9, 28.6), (45.0, 57.3)):
        said = attempt(gap, m)
        if said is None:
            return fail("The function returns nothing yet: let it return an angle in degrees.")
        wanted = room(gap, (1.0, math.radians(m), 0.0))
        if abs(said - wanted) < 1e-6:
            continue
        if math.isclose(said, gap - m) and m:
            return fail(
                "That is the room of a face whose rival stands still. Moving towards the other centre costs twice."
            )
        if math.isclose(said, gap / 2) and m:
            return fail("That is the middle between the two centres, the boundary without a margin.")
        if math.isclose(said, max(0.0, wanted)):
            return fail("Do not stop at 0: a room below 0 says by how much the margin is too large.")
        if math.isclose(said, math.radians(wanted)) or math.isclose(said, (gap - math.radians(m)) / 2):
            return fail("Degrees and radians are mixed: gap and m come in degrees, and the room is in degrees.")
        if math.isclose(said, (gap + m) / 2):
            return fail("The sign of m is wrong: a margin takes room away.")
        return fail(
            f"With centres {gap:g}° apart and a margin of {m:g}° it says θ = {said:.2f}°. There θ + m and "
            f"gap − θ should be equal; they are {said + m:.2f}° and {gap - said:.2f}°."
        )
    print("Right: at θ = (gap − m) / 2 a face with its margin on is as near to its own centre as to the other.")
    return True


def check_warm_up(attempt: Callable[[float], Any]) -> bool:
    """Check that `attempt(done)` is a warm-up of ArcFace's margin; print what is wrong.

    m2 grows evenly from 0 to 1.3 radians at half time and stays there.

    Args:
        attempt: The share of the training that is done, in [0, 1] -> (1, m2, 0).

    Returns:
        Whether the attempt is right.
    """
    wanted = warm_up(1.3, until=0.5)
    for done in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0):
        said = attempt(done)
        if said is None:
            return fail("The function returns nothing yet: let it return three numbers, (m1, m2, m3).")
        if not isinstance(said, (tuple, list)) or len(said) != 3:
            return fail(f"At {done:.0%} it returns {said!r}; a margin is three numbers, (m1, m2, m3).")
        m1, m2, m3 = said
        if m1 != 1 or m3 != 0:
            return fail(
                f"At {done:.0%} it returns ({m1:g}, {m2:g}, {m3:g}): ArcFace has m1 = 1, m3 = 0, and moves m2 only."
            )
        if abs(m2 - wanted(done)[1]) < 1e-6:
            continue
        if done == 0:
            return fail(f"It begins with m2 = {m2:g}. Nothing is learnt yet: begin with no margin, 0.")
        if m2 > 1.3:
            return fail(f"At {done:.0%} m2 is {m2:g}, above its full 1.3: let it stay there.")
        if done >= 0.5:
            return fail(f"At {done:.0%} m2 is {m2:g}: from half time on it should be the full 1.3.")
        return fail(f"At {done:.0%} m2 is {m2:g}; growing evenly to 1.3 at half time it would be {wanted(done)[1]:g}.")
    print("Right: no margin at first, 1.3 from half time on, and no jump between.")
    return True
