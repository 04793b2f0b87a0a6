"""Groups of drawn people, and crowds in which they are of unequal size.

A drawn person's parameters are known, so their groups are too. They are groups of drawings: they say what a network
does with few examples of a kind, and nothing of how real people differ.
"""

import csv
import io
from collections.abc import Callable, Sequence
from itertools import count, islice
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from arcface_edu.data.synthetic.parameters import make_person
from arcface_edu.errors import DataError

# attribute: (names of its two groups, whether a person is of the second)
GROUPS: dict[str, tuple[tuple[str, str], Callable[[SimpleNamespace], bool]]] = {
    "skin": (("light", "dark"), lambda p: p.melanin >= 0.5),
    "age": (("under 40", "40 and more"), lambda p: p.age >= 40),
    "glasses": (("without", "with"), lambda p: p.glasses > 0),
    "beard": (("without", "with"), lambda p: max(p.beard, p.goatee, p.moustache) > 0),
    "hair": (("short", "long"), lambda p: p.hair_length >= 0.3),
}


class Mix(NamedTuple):
    """How large the two groups of an attribute are among the people to train on."""

    attribute: str
    shares: tuple[float, float]

    @classmethod
    def parse(cls, text: str) -> "Mix":
        """Return the mix that a text like skin=0.9,0.1 means.

        Raises:
            DataError: There is no such attribute, or its shares are not two that sum to 1.
        """
        attribute, _, numbers = text.partition("=")
        if attribute not in GROUPS:
            raise DataError(f"--mix {text}: {attribute} is no attribute of drawn people; take {', '.join(GROUPS)}.")
        try:
            shares = [float(number) for number in numbers.split(",")]
        except ValueError:
            shares = []
        if len(shares) != 2 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            first, second = GROUPS[attribute][0]
            raise DataError(
                f"--mix {text}: give the shares of {first} and {second}, from 0 to 1 with the sum 1, as "
                f"{attribute}=0.9,0.1."
            )
        return cls(attribute, (shares[0], shares[1]))


def groups_of(seed: int, person: int) -> dict[str, str]:
    """Return the group of identity number `person` of the population `seed`, for each attribute."""
    p = make_person(seed, person)
    return {attribute: names[is_second(p)] for attribute, (names, is_second) in GROUPS.items()}


def choose_people(seed: int, start: int, wanted: int, mix: Mix | None) -> list[int]:
    """Return the numbers of so many people: the first ones from `start` on, of each group as many as its share.

    A person is thus in every crowd that has room for their group: crowds of other shares share people.

    Args:
        seed: Of the population.
        start: The lowest number.
        wanted: How many people.
        mix: None = the numbers from `start` on as they come.
    """
    if mix is None:
        return list(range(start, start + wanted))
    second = round(wanted * mix.shares[1])
    is_second = GROUPS[mix.attribute][1]
    found: list[int] = []
    for of_second, room in ((False, wanted - second), (True, second)):
        numbers = (n for n in count(start) if bool(is_second(make_person(seed, n))) == of_second)
        found += islice(numbers, room)
    return sorted(found)


def groups_table(seed: int, people: Sequence[int]) -> str:
    """Return the CSV that `evaluate --groups` reads: for each image of a pair set the person and their groups.

    Args:
        seed: Of the population.
        people: (2N,), who is shown.
    """
    of_person = {person: groups_of(seed, person) for person in np.unique(people).tolist()}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "person", *GROUPS])
    rows.writerows([image, person, *of_person[person].values()] for image, person in enumerate(people))
    return text.getvalue()
