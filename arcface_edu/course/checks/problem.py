"""The check of the exercise on the problem: a threshold from the angles of strangers."""

import torch


def check_threshold(attempt):
    """Does `attempt(different, far)` return an angle below which lies the share `far` of the angles `different`?

    Says what is wrong; returns True if nothing is.
    """
    generator = torch.Generator().manual_seed(0)
    for count, far in ((1000, 0.1), (1000, 0.01), (5000, 0.002)):
        different = 85 + 9 * torch.randn(count, generator=generator)
        said = attempt(different.clone(), far)
        if said is None:
            return _no("The function returns nothing yet: let it return an angle in degrees.")
        accepted = (different < float(said)).sum().item()
        if accepted == round(far * count):
            continue
        if accepted == count - round(far * count):
            return _no("That accepts all but the share wanted: small angles are accepted, so begin at the small end.")
        return _no(
            f"Of {count} pairs of strangers a FAR of {far:g} accepts {far * count:g}; "
            f"below {float(said):.2f}° lie {accepted}."
        )
    print("Right: as many strangers lie below it as the FAR allows, and not one more.")
    return True


def _no(words):
    print(words)
    return False
