"""A folder of photographs as training data: one folder per person, named as you like, with the photos in it.

    photos/anna/1.jpg  photos/anna/2.png  photos/ben/img_7.jpg ...

People stand in natural order (s2 before s10); `hold_out=N` keeps the last N of them for verification. Training, `pack`
and `pairs` all split here, so that nobody is ever on both sides.
"""

import logging
import os
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from arcface_edu.data.bins import Pairs, choose_pairs, count_pairs
from arcface_edu.data.images import JPEG, decode, encode_jpeg, fit
from arcface_edu.data.pair_list import Named, read_pair_list
from arcface_edu.data.photographs import DEEPER, People, Unused, scan_people, warn_of_unused
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import StrPath

log = logging.getLogger(__name__)

DEFAULT_PAIRS = 6000  # as in LFW


class FolderFaces:
    """A `FaceDataset` over a folder; `people`, and `held_out`: name -> paths of the person's photographs.

    Args:
        folder: Holds a folder of photographs per person.
        hold_out: Leave out the last so many people, for verification.
        only: The names of the people to take; None = all.

    Raises:
        DataError: There are not at least two people to train on.
        CorruptRecord: When an image is read: it cannot be.
    """

    def __init__(self, folder: StrPath, hold_out: int = 0, only: Container[str] | None = None) -> None:
        scanned, unused = scan_people(folder)
        self.people, self.held_out = _split(folder, _with_photos(folder, scanned, unused, only), hold_out)
        warn_of_unused(folder, unused)
        self.names = list(self.people)
        self.num_classes = len(self.names)
        if self.num_classes < 2:
            rest = f" beside the {hold_out} held out" if hold_out else ""
            raise DataError(f"{folder} holds one identity{rest} ({self.names[0]}): training needs at least two.")
        if empty := [name for name, photos in scanned.items() if not photos]:
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


def list_people(folder: StrPath, only: Container[str] | None = None) -> People:
    """Return everybody in the folder who has a photo (and is in `only`), people and photos in natural order."""
    return _with_photos(folder, *scan_people(folder), only)


def split_people(folder: StrPath, hold_out: int = 0, only: Container[str] | None = None) -> tuple[People, People]:
    """Return the people to train on, and the last `hold_out` ones, who are held out."""
    return _split(folder, list_people(folder, only), hold_out)


def _with_photos(folder: StrPath, scanned: People, unused: Unused, only: Container[str] | None = None) -> People:
    """Return the people who have a photo; DataError where nobody has, as in a folder above the folders of people."""
    if people := {name: photos for name, photos in scanned.items() if photos and (only is None or name in only)}:
        return people
    deeper = [os.path.relpath(photo, folder) for photo in unused.get(DEEPER, [])]
    if deeper:
        above = [str(Path(folder, name)) for name in dict.fromkeys(Path(photo).parts[0] for photo in deeper)]
        raise DataError(
            f"{folder} holds photos only deeper than a folder for each person, as {deeper[0]}: name the folder that "
            f"the people's folders are in, as {' or '.join(above[:3])}, or move the photos up."
        )
    raise DataError(f"{folder} holds no photo: give each person a folder of their own in it, with their photos inside.")


def _split(folder: StrPath, of_people: People, hold_out: int) -> tuple[People, People]:
    people = list(of_people.items())
    if not 0 <= hold_out < len(people):
        raise DataError(
            f"{folder} holds {len(people)} people: {hold_out} of them cannot be held out; choose a smaller number."
        )
    kept = len(people) - hold_out
    return dict(people[:kept]), dict(people[kept:])


def held_out_pairs(
    folder: StrPath, hold_out: int, pairs: int | None = None, seed: int = 0, only: Container[str] | None = None
) -> Pairs:
    """Return verification pairs of the last `hold_out` people (0: of all), in ten folds, as 112x112 images.

    Args:
        folder: Holds a folder of photographs per person.
        hold_out: Number of people.
        pairs: At most so many (default 6,000); fewer if fewer exist.
        seed: The same seed chooses the same pairs.
        only: The names of the people to take; None = all.

    Raises:
        DataError: Not even two pairs a fold exist. (Photos that cannot be read are named and left out.)
    """
    people = split_people(folder, hold_out, only)[1] if hold_out else list_people(folder, only)
    return pairs_of_people(people, folder, pairs, seed)


def pairs_of_people(people: People, folder: StrPath, pairs: int | None = None, seed: int = 0) -> Pairs:
    """Return verification pairs of some people in a folder; otherwise as `held_out_pairs`."""
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
                faces.append(face_jpeg(path, quality)[0])
            except CorruptRecord as error:
                broken.append(str(error))
        if faces:
            yield name, faces
        else:
            broken.append(f"{name}: none of the photos can be read, so this identity is left out.")


def face_jpeg(path: StrPath, quality: int = 95) -> tuple[bytes, tuple[int, int]]:
    """Return a photograph as a 112x112 JPEG, and the (width, height) that it had. One of that size stays as it is."""
    encoded = read_photo(path)
    image = decode(encoded, path)
    height, width = image.shape[1:]
    keep = encoded.startswith(JPEG) and height == width == 112
    return encoded if keep else encode_jpeg(fit(image), quality), (width, height)


def listed_pairs(folder: StrPath, pair_list: StrPath) -> Pairs:
    """Return the verification pairs that a list in LFW's form names, in its order, as 112x112 images.

    Photograph 4 of anna is anna/anna_0004 or anna/4 below `folder`, with any ending of an image.

    Raises:
        DataError: The list cannot be read, or a photograph that it names.
    """
    pairs, is_same = read_pair_list(pair_list)
    people = {name: {Path(photo).stem: photo for photo in photos} for name, photos in scan_people(folder)[0].items()}
    encoded: dict[Named, bytes] = {}
    sizes, missing = [], []
    for name, number in dict.fromkeys(photo for pair in pairs for photo in pair):
        stems = (f"{name}_{number:04d}", f"{name}_{number}", f"{number}", f"{number:04d}")
        path = next((people[name][stem] for stem in stems if stem in people.get(name, {})), None)
        if path is None:
            missing.append(f"{name}/{stems[0]} or {name}/{stems[2]}")
            continue
        encoded[name, number], size = face_jpeg(path)
        sizes += [size] if size != (112, 112) else []
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing):,} photographs that {pair_list} names, as {missing[0]} (.jpg or any other): "
            f"add them, or take their lines out."
        )
    if sizes:
        log.warning(
            f"{folder}: {len(sizes):,} of {len(encoded):,} photographs have another size than 112x112, as "
            f"{sizes[0][0]}x{sizes[0][1]}, and are fitted into it. `python -m arcface_edu.dataset align` puts faces "
            f"where a network knows them."
        )
    return Pairs([encoded[photo] for pair in pairs for photo in pair], np.array(is_same, dtype=bool))


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
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        what = getattr(error, "strerror", None) or error
        raise CorruptRecord(f"{path}: cannot be read ({what}); replace or remove it.") from None
