"""Photographs below a folder: one walk finds them and counts every other file by the reason why it is not used.

inspect, pack, train, evaluate and embed all look for photographs here.
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from arcface_edu.data.images import missing_decoders
from arcface_edu.errors import DataError
from arcface_edu.io import StrPath

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"}
IMAGE_SUFFIXES |= {".heic", ".heif", ".hif", ".avif"}  # where a decoder is installed
BESIDE, DEEPER = "beside the folders of people", "deeper than a person's folder"

People: TypeAlias = dict[str, list[str]]  # name -> paths of the person's photographs
Unused: TypeAlias = dict[str, list[str]]  # reason -> paths of the files that are not used


def scan_people(folder: StrPath) -> tuple[People, Unused]:
    """Return the photographs of each folder in `folder`, also of those without any, and the files that are not used.

    People and photographs stand in natural order.

    Raises:
        DataError: It is no folder.
    """
    people: People = {}
    unused: Unused = {}
    for entry in _entries(folder):
        own = people.setdefault(entry.name, []) if entry.is_dir() and not entry.name.startswith(".") else []
        for photo in _walk(entry, (os.path.realpath(folder),), unused):
            if photo == entry.path:
                unused.setdefault(BESIDE, []).append(photo)
            elif os.path.dirname(photo) == entry.path:
                own.append(photo)
            else:
                unused.setdefault(DEEPER, []).append(photo)
    return people, unused


def photographs_in(source: StrPath) -> list[Path]:
    """Return the photographs that a file or folder stands for, subfolders included, in natural order.

    A warning counts the other files by reason.
    """
    source = Path(source)
    if not source.is_dir():
        return [source]
    unused: Unused = {}
    above = (os.path.realpath(source),)
    found = [Path(photo) for entry in _entries(source) for photo in _walk(entry, above, unused)]
    warn_of_unused(source, unused)
    return found


def warn_of_unused(folder: StrPath, unused: Unused) -> None:
    """Log one warning about all files below a folder that are not used: how many, why, and an example of each kind."""
    if not unused:
        return
    reasons = [
        f"{len(paths):,} {reason} ({os.path.relpath(paths[0], folder)}{', ...' if len(paths) > 1 else ''})"
        for reason, paths in unused.items()
    ]
    count = sum(map(len, unused.values()))
    log.warning(f"{folder}: {count:,} file{'s are' if count > 1 else ' is'} not used: {'; '.join(reasons)}.")


def natural_order(name: str) -> tuple[list[int | str], str]:
    """Return a sort key under which s2 comes before s10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], name


def _walk(entry: os.DirEntry[str], above: tuple[str, ...], unused: Unused, hidden: bool = False) -> Iterator[str]:
    """Yield the photographs at and below an entry, and add every other file to `unused`.

    Args:
        above: the real paths of the folders around the entry, to which a link may lead back.
        hidden: whether the name of one of them begins with a dot.
    """
    hidden = hidden or entry.name.startswith(".")
    if entry.is_dir():
        place = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
        if place in above:
            unused.setdefault("links to a folder around them", []).append(entry.path)
            return
        try:
            below = _entries(entry.path)
        except OSError as error:
            unused.setdefault(f"folders that cannot be read: {error.strerror}", []).append(entry.path)
            return
        for one in below:
            yield from _walk(one, (*above, place), unused, hidden)
    elif reason := _reason_against(entry, hidden):
        unused.setdefault(reason, []).append(entry.path)
    else:
        yield entry.path


def _reason_against(entry: os.DirEntry[str], hidden: bool) -> str:
    """Return why a file is no photograph that can be used; "" for one that can."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if hidden:
        return "with a dot before the name"
    if not entry.is_file():
        return "broken links" if entry.is_symlink() else "neither files nor folders"
    if suffix not in IMAGE_SUFFIXES:
        return "not images, by their names"
    return missing_decoders().get(suffix, "")


def _entries(folder: StrPath) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: natural_order(entry.name))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{error.filename} is not a folder: name one that holds a folder of photos per person."
        ) from None
