"""Lists of verification pairs in the form of LFW's pairs.txt: text, of which each line names two photographs.

    anna    1    4                photographs 1 and 4 of one person
    anna    2    ben    1         photographs of two people

A header may stand above them: `10    300` are ten folds of 300 pairs of either kind, `500` is 500 of either kind.
Fields are divided by tabs, or else by blanks.
"""

from pathlib import Path
from typing import NamedTuple

from arcface_edu.errors import DataError
from arcface_edu.io import StrPath

Named = tuple[str, int]  # a person, and the number of one of their photographs
FORM = "wanted are lines as `anna 1 4` for one person and `anna 2 ben 1` for two"


class PairList(NamedTuple):
    """Pairs by the names of their photographs."""

    pairs: list[tuple[Named, Named]]
    is_same: list[bool]


def read_pair_list(path: StrPath) -> PairList:
    """Read a list of pairs.

    Raises:
        DataError: There is no such file, a line has another form, or the header says another number of pairs.
    """
    try:
        lines = Path(path).read_text("utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read as a list of pairs ({error.strerror}): {FORM}.") from None
    found, wanted = PairList([], []), None  # the number of pairs by the header
    for number, line in enumerate(lines, 1):
        fields = _fields(line)
        if number == 1 and _is_header(fields):
            wanted = 2 * int(fields[0]) * int(fields[-1] if len(fields) == 2 else 1)
        elif any(fields):
            pair = _pair(fields)
            if pair is None:
                raise DataError(f'{path}, line {number} reads "{line[:60]}": {FORM}.')
            found.pairs.append(pair)
            found.is_same.append(len(fields) == 3)
    if wanted not in (None, len(found.pairs)):
        raise DataError(f"{path} says {wanted:,} pairs in its first line and has {len(found.pairs):,}: copy it again.")
    return found


def is_pair_list(path: StrPath) -> bool:
    """Return whether a file begins as a list of pairs does."""
    with open(path, "rb") as file:
        begin = file.read(2000)
    lines = begin.removeprefix(b"\xef\xbb\xbf").splitlines()
    try:
        fields = [_fields(line.decode()) for line in (lines[:-1] if len(begin) == 2000 else lines) if line.strip()]
    except UnicodeDecodeError:
        return False
    fields = fields[1:] if fields and _is_header(fields[0]) else fields
    return bool(fields) and all(_pair(of_line) is not None for of_line in fields)


def _is_header(fields: list[str]) -> bool:
    return len(fields) in (1, 2) and all(field.isdecimal() for field in fields)


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.strip().split("\t" if "\t" in line.strip() else None)]


def _pair(fields: list[str]) -> tuple[Named, Named] | None:
    numbers = [fields[i] for i in ((1, 2) if len(fields) == 3 else (1, 3))] if len(fields) in (3, 4) else []
    if not numbers or not all(number.isdecimal() and number.isascii() and len(number) < 10 for number in numbers):
        return None
    return (fields[0], int(numbers[0])), (fields[-2] if len(fields) == 4 else fields[0], int(numbers[1]))
