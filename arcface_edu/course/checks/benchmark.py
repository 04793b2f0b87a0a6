"""Checks of the exercises of notebook 07: TAR at a FAR."""

from collections.abc import Callable
from typing import Any

import numpy as np


def check_tar_at_far(tar: Callable[[np.ndarray, np.ndarray, float], Any]) -> bool:
    """Check that `tar` computes the TAR at a FAR that is never above the wanted one; print what is wrong.

    A pair is accepted when its score is above that of the best stranger who must stay outside.

    Args:
        tar: The attempt: (S,) cosines of same-identity pairs, (D,) of the others, and a FAR -> TAR in [0, 1].

    Returns:
        Whether the attempt is right.
    """
    wrong = find_fault(tar)
    print(wrong or "Right: that is how every TAR at FAR in every paper is counted, up to how a FAR between two is met.")
    return wrong is None


def find_fault(tar: Callable[[np.ndarray, np.ndarray, float], Any]) -> str | None:
    """Return a sentence about the first thing that is wrong, or None."""
    same, different = np.array([0.9, 0.8, 0.5, 0.3]), np.array([0.1, 0.6, 0.2, 0.4])
    found = tar(same.copy(), different.copy(), 0.25)
    if found is None:
        return "tar returns nothing yet: let it return the share of same-person pairs that come in."
    if np.ndim(found) or not 0 <= found <= 1:
        return f"tar is one share between 0 and 1, and yours is {found}."
    words = "For same = 0.9 0.8 0.5 0.3 and different = 0.1 0.6 0.2 0.4"
    if not np.isclose(found, 0.75):
        reasons = {
            0.25: "these are the strangers' cosines turned round: a high cosine is what comes in",
            1.0: "is your threshold at the wrong end? The 25 % of lowest cosine are no danger: sort from high to low",
            0.5: "you let no stranger in, but FAR 0.25 allows one of the four: 0.6 may come in, 0.4 must stay outside",
        }
        reason = reasons.get(float(np.round(found, 6)), "0.6 may come in, 0.4 must stay outside")
        return f"{words}, at FAR 0.25, three of the four come in: TAR 0.75. Yours is {found:.3g}; {reason}."
    if not np.isclose(found := tar(same.copy(), different.copy(), 0.0), 0.5):
        return f"{words}, at FAR 0 not even 0.6 may come in: TAR 0.5. Yours is {found:.3g}."
    if not np.isclose(found := tar(same.copy(), different.copy(), 0.4), 0.75):
        return (
            f"{words}, FAR 0.4 is one stranger and a half: half a stranger cannot come in, and two would be FAR 0.5, "
            f"more than allowed. So it is one, TAR 0.75. Yours is {found:.3g}: round down."
        )
    found = tar(np.array([0.9, 0.4]), different.copy(), 0.25)
    if not np.isclose(found, 0.5):
        return (
            f"Same-person pair and stranger both have cosine 0.4, and that stranger must stay outside: then the pair "
            f"does, too. TAR is 0.5, yours {found:.3g}: accept what is above (>), not what is equal."
        )
    rng = np.random.default_rng(0)
    same, different = rng.normal(0.5, 0.2, 300), rng.normal(0, 0.2, 8000)
    for far in (0.125, 0.0625, 0.015625):  # exact in binary: no rounding on the way to a count
        allowed = int(far * len(different))
        outside = sorted(different, reverse=True)[allowed]
        wanted = np.mean([score > outside for score in same])
        if not np.isclose(found := tar(same.copy(), different.copy(), far), wanted):
            return (
                f"On 300 and 8,000 random cosines at FAR {far:g}, {allowed} strangers may come in and TAR is "
                f"{wanted:.4f}; yours is {found:.4f}. The threshold comes from the strangers alone: the cosine of the "
                f"best one who stays outside, not one between two."
            )
    return None
