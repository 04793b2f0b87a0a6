"""Who a run tells apart: written into its folder, and held against the data when the run goes on.

A label is a number, and the same number may mean another person once a folder has come or gone. So a run keeps the
names of its people, of those that it holds out as well; of a packed set without names it keeps a hash of some records.
"""

import logging
import zlib
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from arcface_edu.data.datasets import FaceDataset, RecordFaces
from arcface_edu.data.folder import FolderFaces, list_people
from arcface_edu.data.recordio import find_records
from arcface_edu.errors import CheckpointError, CorruptRecord, DataError
from arcface_edu.io import parse_json
from arcface_edu.training.checkpoint import list_checkpoints

log = logging.getLogger(__name__)

FILE = "people.json"
SAMPLES = 64  # records of a packed set that are hashed

REMEDY = "resume=False begins anew, with the people of today."


class RunPeople(TypedDict):
    """The people of a run."""

    people: list[str] | None  # by label; None of a set without names
    held_out: list[str]
    num_classes: int
    num_image: int
    content: int | None  # a hash of some records of a packed set


def are_names(value: Any) -> bool:
    """Return whether a value of JSON is a list of texts."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


FORM: dict[str, Callable[[Any], bool]] = {
    "people": lambda value: value is None or are_names(value),
    "held_out": are_names,
    "num_classes": lambda value: isinstance(value, int),
    "num_image": lambda value: isinstance(value, int),
    "content": lambda value: value is None or isinstance(value, int),
}


def describe_people(faces: FaceDataset) -> RunPeople:
    """Return what says whether another data set has the same people under the same labels."""
    names: list[str] | None = None
    held_out: list[str] = []
    content = None
    if isinstance(faces, FolderFaces):
        names, held_out = list(faces.people), list(faces.held_out)
    elif isinstance(faces, RecordFaces):
        names, content = faces.known_names, hash_of_records(faces)
    return RunPeople(
        people=names, held_out=held_out, num_classes=faces.num_classes, num_image=len(faces), content=content
    )


def hash_of_records(faces: RecordFaces) -> int:
    """Return a hash of the first kilobytes of some records, evenly spaced."""
    total = 0
    for row in np.linspace(0, len(faces) - 1, SAMPLES).astype(int).tolist():
        try:
            head = faces.reader.head(int(faces.keys[row]), 4096)
        except CorruptRecord:
            head = b""
        total = zlib.crc32(head, total)
    return total


def saved_people(output: Path) -> RunPeople | None:
    """Return the people of the run that goes on in a folder, as `read_people`; None where nothing was saved yet."""
    return read_people(output) if list_checkpoints(output / "checkpoints") else None


def read_people(output: Path) -> RunPeople | None:
    """Return the people of the run in a folder; None if there is no such run, or one from before this was kept.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = output / FILE
    if not path.exists():
        return None
    try:
        saved = parse_json(path.read_text("utf-8", errors="surrogateescape"))
        if not all(fits(saved[key]) for key, fits in FORM.items()):
            raise ValueError("it holds other values than names and counts")
        return RunPeople(**{key: saved[key] for key in FORM})  # type: ignore[typeddict-item]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}), so that it is unknown whose labels the checkpoints hold; remove it to go on "
            f"if the data are as they were, or set resume=False."
        ) from None


def people_to_judge(output: Path, folder: Path) -> set[str] | None:
    """Return the names of those whom a run trained on or held out; None = all (they are packed, or unknown).

    A folder of photographs is judged with the people of the run: whoever has come since then is neither trained on nor
    held out.

    Args:
        output: The folder of the run.
        folder: Holds a folder of photographs per person.

    Raises:
        DataError: Somebody has gone from it, so that the last people are no longer those that were held out.
    """
    saved = read_people(output)
    if saved is None or saved["people"] is None or find_records(folder):
        return None
    names, now = saved["people"] + saved["held_out"], list_people(folder)
    if gone := [name for name in names if name not in now]:
        raise DataError(
            f"the run in {output} trained on or held out {few(gone)}, who are no longer in {folder}: put them back "
            f"under that name, or name what to judge by, as --pairs."
        )
    return set(names)


def same_people_in(folder: Path, saved: RunPeople, hold_out: int | None, output: Path) -> set[str] | None:
    """Return the names of the people to take from a folder of photographs, so that a run goes on with its people.

    Whoever has come since then is left out and named. None = all, where the run's names are not known.

    Args:
        folder: Holds a folder of photographs per person.
        saved: The people of the run.
        hold_out: How many the config wants held out; None = as many as before.
        output: The folder of the run.

    Raises:
        CheckpointError: Somebody has gone, or others are to be held out.
    """
    if saved["people"] is None:
        return None
    before, held_out = saved["people"] + saved["held_out"], saved["held_out"]
    now = list_people(folder)
    if gone := [name for name in before if name not in now]:
        raise CheckpointError(
            f"the run in {output} began with {few(gone)} in {folder}, and they are no longer there: "
            f"put the folder back under that name, or choose another output=. {REMEDY}"
        )
    if hold_out not in (None, len(held_out)):
        raise CheckpointError(
            f"the run in {output} holds out {few(held_out) or 'nobody'}, which hold_out={hold_out} would change; "
            f"set hold_out={len(held_out)} or leave it out, or choose another output=. {REMEDY}"
        )
    if come := [name for name in now if name not in set(before)]:
        log.warning(f"{few(come)} came to {folder} after the run in {output} began: left out. {REMEDY}")
    return set(before)


def check_same_people(saved: RunPeople, faces: FaceDataset, output: Path) -> None:
    """Raise CheckpointError unless the data set has the people of the run, each under the same label."""
    now = describe_people(faces)
    if saved["people"] is not None and now["people"] is not None:
        pairs = enumerate(zip_longest(saved["people"], now["people"]))
        other = [f"label {label} was {was} and is {name}" for label, (was, name) in pairs if was != name]
        if other or saved["held_out"] != now["held_out"]:
            what = few(other) or f"held out were {few(saved['held_out']) or 'nobody'}"
            raise CheckpointError(f"the run in {output} began with other people: {what}; set rec back. {REMEDY}")
    elif saved["content"] != now["content"] and saved["num_classes"] == now["num_classes"]:
        raise CheckpointError(
            f"the run in {output} began with other images than rec holds now, and without names nothing says whether "
            f"their labels mean the same people: set rec back, or remove {output / FILE} if they do. {REMEDY}"
        )
    if len(faces) != saved["num_image"]:
        log.info(f"the run in {output} began with {saved['num_image']:,} images; now there are {len(faces):,}.")


def few(names: list[str], limit: int = 5) -> str:
    """Return names for a sentence, the first ones of many."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"
