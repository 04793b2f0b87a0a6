"""The CSV that says which group each image of a pair set belongs to.

    image,person,skin,age            person,age
    0,17,light,18 to 39              anna,18 to 39
    1,17,light,40 and more           ben,40 and more

Left: image 2i and image 2i + 1 are pair i of the .bin; `person`, any name or number, may be left out. Right: of a .bin
that `dataset pairs --list` made, the people that the list names. Every other column is one way to group.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcface_edu.data.pair_list import read_pair_list
from arcface_edu.errors import DataError

FORM = "wanted is a CSV with the columns image (or person, with --list) and one or more groups"


class Groups(NamedTuple):
    """The groups of the images of a pair set, by what they are grouped by."""

    columns: dict[str, np.ndarray]  # (2N,) names of groups
    people: np.ndarray | None  # (2N,) int64, who is shown; None = not known


def read_groups(path: Path, images: int, pair_list: Path | None = None) -> Groups:
    """Read the groups of a pair set.

    Args:
        path: The CSV.
        images: 2N, how many the set has.
        pair_list: The list in LFW's form that the set was made of, where the CSV names people.

    Raises:
        DataError: The file has another form, misses or does not know somebody, or the list is that of another set.
    """
    rows = _read(path)
    header = list(rows[0])
    if "image" not in header and "person" in header and pair_list is None:
        raise DataError(
            f"{path} names people, and a .bin knows only numbers of images: name the list that the pairs were made of "
            f"with --list, or give the CSV a column image."
        )
    key = "person" if pair_list else "image"
    names = [name for name in header if name not in ("image", "person")]
    if key not in header or not names:
        raise DataError(f"{path} has the columns {', '.join(header)}: {FORM}.")
    of_key = {row[key]: row for row in rows}
    if len(of_key) < len(rows):
        raise DataError(f"{path} has {len(rows) - len(of_key):,} lines too many: each {key} stands in it once.")
    if pair_list:
        wanted = [name for pair in read_pair_list(pair_list).pairs for name, _ in pair]
        if len(wanted) != images:
            raise DataError(f"{pair_list} has {len(wanted) // 2:,} pairs and the .bin {images // 2:,}: name its list.")
    else:
        wanted = [str(number) for number in range(images)]
    _check_same(path, key, of_key, wanted)
    columns = {name: np.array([of_key[one][name] for one in wanted]) for name in names}
    people = [of_key[one]["person"] for one in wanted] if "person" in header else None
    return Groups(columns, None if people is None else np.unique(people, return_inverse=True)[1])


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restkey="", restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV ({getattr(error, 'strerror', None) or error}).") from None
    if not rows:
        raise DataError(f"{path} holds no line below a header: {FORM}.")
    for number, row in enumerate(rows, 2):
        if "" in row or not all(value.strip() for value in row.values()):
            raise DataError(f"{path}, line {number} has not one value for each of the columns {', '.join(rows[0])}.")
    return [{name.strip(): value.strip() for name, value in row.items()} for row in rows]


def _check_same(path: Path, key: str, known: dict[str, Any], wanted: Iterable[str]) -> None:
    """Raise DataError unless the CSV names whoever is in the pairs, and nobody else."""
    in_pairs = dict.fromkeys(wanted)
    unknown = [one for one in known if one not in in_pairs]
    lacking = [one for one in in_pairs if one not in known]
    if unknown or lacking:
        said = f"{unknown[0]} is in no pair" if unknown else f"{lacking[0]} has no group"
        others = len(unknown or lacking) - 1
        more = f" (nor {others:,} more)" if others else ""
        raise DataError(f"{path}: {key} {said}{more}: correct the CSV, or name other pairs.")
