"""A folder of photographs as training data: one folder per person, named as you like, with the photos in it.

    photos/anna/1.jpg  photos/anna/2.png  photos/ben/img_7.jpg ...

People stand in natural order (s2 before s10); `hold_out=N` keeps the last N of them for verification. Training, `pack`
and `pairs` all split here, so that nobody is ever on both sides.
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from torch import Tensor

from arcface_edu.data.bins import Pairs, choose_pairs, count_pairs
from arcface_edu.data.images import JPEG, decode, encode_jpeg, fit
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import StrPath

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".avif"}
DEFAULT_PAIRS = 6000  # as in LFW

People: TypeAlias = dict[str, list[str]]  # name -> paths of the person's photographs


class FolderFaces:
    """A `FaceDataset` over a folder; `people`: name -> paths of the person's photographs.

    Raises:
        DataError: There are not at least two people to train on.
        CorruptRecord: When an image is read: it cannot be.
    """

    def __init__(self, folder: StrPath, hold_out: int = 0) -> None:
        self.people, _ = split_people(folder, hold_out)
        self.names = list(self.people)
        self.num_classes = len(self.names)
        if self.num_classes < 2:
            rest = f" beside the {hold_out} held out" if hold_out else ""
            raise DataError(f"{folder} holds one identity{rest} ({self.names[0]}): training needs at least two.")
        if empty := [name for name, photos in _scan(folder).items() if not photos]:
            more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
            log.warning(f"{folder}: left out, having no photo: {', '.join(empty[:10])}{more}.")
        self.paths = [photo for photos in self.people.values() for photo in photos]
        self.labels = np.repeat(np.arange(self.num_classes), [len(photos) for photos in self.people.values()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        encoded, label, where = self.encoded(index)
        return fit(decode(encoded, where)), label

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Return the bytes of the file, the label and the path of image `index`."""
        path = self.paths[index]
        return read_photo(path), int(self.labels[index]), path


def list_people(folder: StrPath) -> People:
    """Return everybody in the folder who has a photo, people and photos in natural order."""
    people = {name: photos for name, photos in _scan(folder).items() if photos}
    if not people:
        raise DataError(
            f"{folder} holds no photo: give each person a folder of their own in it, with their photos inside."
        )
    return people


def split_people(folder: StrPath, hold_out: int = 0) -> tuple[People, People]:
    """Return the people to train on, and the last `hold_out` ones, who are held out."""
    people = list(list_people(folder).items())
    if not 0 <= hold_out < len(people):
        raise DataError(
            f"{folder} holds {len(people)} people: {hold_out} of them cannot be held out; choose a smaller number."
        )
    kept = len(people) - hold_out
    return dict(people[:kept]), dict(people[kept:])


def held_out_pairs(folder: StrPath, hold_out: int, pairs: int | None = None, seed: int = 0) -> Pairs:
    """Return verification pairs of the last `hold_out` people (0: of all), in ten folds, as 112x112 images.

    Args:
        folder: Holds a folder of photographs per person.
        hold_out: Number of people.
        pairs: At most so many (default 6,000); fewer if fewer exist.
        seed: The same seed chooses the same pairs.

    Raises:
        DataError: Not even two pairs a fold exist. (Photos that cannot be read are named and left out.)
    """
    people = split_people(folder, hold_out)[1] if hold_out else list_people(folder)
    broken: list[str] = []
    photos = [photos for _, photos in face_jpegs(people, broken)]
    warn_of_broken(broken)
    counts = [len(of_person) for of_person in photos]
    exist = count_pairs(counts)
    if exist == 0:
        raise DataError(
            f"{folder}: the photos of {len(photos)} held-out people do not make ten pairs of one person and ten of "
            f"two, the least that ten folds need; hold out more people, or add photos."
        )
    wanted = min(exist, DEFAULT_PAIRS if pairs is None else max(20, pairs // 20 * 20))
    chosen, is_same = choose_pairs(counts, wanted, seed)
    return Pairs([photos[person][photo] for pair in chosen for person, photo in pair], is_same)


def face_jpegs(people: People, broken: list[str], quality: int = 95) -> Iterator[tuple[str, list[bytes]]]:
    """Yield (name, 112x112 JPEGs) for each person, except those with no readable photo.

    A JPEG of that size stays as it is, byte for byte. A sentence is added to `broken` per unreadable file.
    """
    for name, paths in people.items():
        faces = []
        for path in paths:
            try:
                encoded = read_photo(path)
                image = decode(encoded, path)
            except CorruptRecord as error:
                broken.append(str(error))
                continue
            keep = encoded.startswith(JPEG) and image.shape[1:] == (112, 112)
            faces.append(encoded if keep else encode_jpeg(fit(image), quality))
        if faces:
            yield name, faces
        else:
            broken.append(f"{name}: none of the photos can be read, so this identity is left out.")


def photographs_in(source: StrPath, broken: list[str]) -> list[Path]:
    """Return the photographs that a file or folder stands for, subfolders included, in natural order.

    A sentence is added to `broken` for each file whose name is not that of an image.
    """
    source = Path(source)
    if not source.is_dir():
        return [source]

    def on_error(error: OSError) -> None:
        broken.append(f"{error.filename}: cannot be read ({error.strerror}); left out.")

    found = [Path(folder) / name for folder, _, names in os.walk(source, onerror=on_error) for name in names]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    found.sort(key=lambda path: [natural_order(part) for part in path.parts])
    broken += [f"{path}: no image, by its name; left out." for path in found if not _is_image_name(path)]
    return [path for path in found if _is_image_name(path)]


def warn_of_broken(broken: list[str], limit: int = 10) -> None:
    """Log a warning for each unreadable file, up to `limit` of them."""
    for sentence in broken[:limit]:
        log.warning(sentence)
    if len(broken) > limit:
        log.warning(f"... and {len(broken) - limit:,} more that cannot be read.")


def read_photo(path: StrPath) -> bytes:
    """Return the bytes of a photograph's file; CorruptRecord if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CorruptRecord(f"{path}: cannot be read ({error.strerror}); replace or remove it.") from None


def _scan(folder: StrPath) -> People:
    """Return the photos of each folder in `folder`; hidden files and those that are no images do not count."""
    try:
        return {
            person.name: [file.path for file in _entries(person.path) if _is_image_name(file.name) and file.is_file()]
            for person in _entries(folder)
            if person.is_dir()
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{error.filename} is not a folder: name one that holds a folder of photos per person."
        ) from None


def _is_image_name(path: StrPath) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _entries(folder: StrPath) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: natural_order(entry.name))


def natural_order(name: str) -> tuple[list[int | str], str]:
    """Return a sort key under which s2 comes before s10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], name
