"""A folder of photographs as training data: one folder per person, named as you like, with the photos in it.

    photos/anna/1.jpg  photos/anna/2.png  photos/ben/img_7.jpg ...

People stand in natural order (s2 before s10); `hold_out=N` keeps the last N of them for verification. Training, `pack`
and `pairs` all split here, so that nobody is ever on both sides.
"""

import os
import re
import sys
from pathlib import Path

import numpy as np

from arcface_edu.data.bins import choose_pairs, count_pairs
from arcface_edu.data.images import JPEG, decode, encode_jpeg, fit
from arcface_edu.errors import CorruptRecord, DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".avif"}
DEFAULT_PAIRS = 6000  # as in LFW


class FolderFaces:
    """Map-style data set: `faces[i]` -> (uint8 (3, 112, 112) RGB, int label).

    num_classes; names: of the classes; labels: int64 (N,); people: name -> paths of its photographs.
    Raises DataError if there are not at least two people to train on, CorruptRecord for a photo that cannot be read.
    """

    def __init__(self, folder, hold_out=0):
        self.people, _ = split_people(folder, hold_out)
        self.names = list(self.people)
        self.num_classes = len(self.names)
        if self.num_classes < 2:
            rest = f" beside the {hold_out} held out" if hold_out else ""
            raise DataError(f"{folder} holds one identity{rest} ({self.names[0]}): training needs at least two.")
        if empty := [name for name, photos in _scan(folder).items() if not photos]:
            print(f"arcface_edu: {folder}: left out, having no photo: {_some(empty)}.", file=sys.stderr)
        self.paths = [photo for photos in self.people.values() for photo in photos]
        self.labels = np.repeat(np.arange(self.num_classes), [len(photos) for photos in self.people.values()])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        encoded, label, where = self.encoded(index)
        return fit(decode(encoded, where)), label

    def encoded(self, index):
        """(bytes of the file, int label, path) of image `index`."""
        path = self.paths[index]
        return read_photo(path), int(self.labels[index]), path


def list_people(folder):
    """dict name -> list of photo paths of everybody in the folder who has a photo, all in natural order."""
    people = {name: photos for name, photos in _scan(folder).items() if photos}
    if not people:
        raise DataError(
            f"{folder} holds no photo: give each person a folder of their own in it, with their photos inside."
        )
    return people


def split_people(folder, hold_out=0):
    """(people to train on, people held out), each as `list_people`; held out are the last `hold_out`."""
    people = list(list_people(folder).items())
    if not 0 <= hold_out < len(people):
        raise DataError(
            f"{folder} holds {len(people)} people: {hold_out} of them cannot be held out; choose a smaller number."
        )
    kept = len(people) - hold_out
    return dict(people[:kept]), dict(people[kept:])


def held_out_pairs(folder, hold_out, pairs=None, seed=0):
    """(2N encoded 112x112 images, is_same bool (N,)) of the last `hold_out` people (0: of all), in ten folds.

    At most `pairs` (default 6,000): as many as exist. Photos that cannot be read are named and left out.
    """
    people = split_people(folder, hold_out)[1] if hold_out else list_people(folder)
    broken = []
    photos = [photos for _, photos in face_jpegs(people, broken)]
    tell_broken(broken)
    exist = count_pairs([len(of_person) for of_person in photos])
    if exist == 0:
        raise DataError(
            f"{folder}: the photos of {len(photos)} held-out people do not make ten pairs of one person and ten of "
            f"two, the least that ten folds need; hold out more people, or add photos."
        )
    wanted = min(exist, DEFAULT_PAIRS if pairs is None else max(20, pairs // 20 * 20))
    chosen, is_same = choose_pairs([len(of_person) for of_person in photos], wanted, seed)
    return [photos[person][photo] for pair in chosen for person, photo in pair], is_same


def face_jpegs(people, broken, quality=95):
    """Yield (name, list of 112x112 JPEGs) for each of `people`, except those with no readable photo.

    A JPEG of that size stays as it is, byte for byte. broken: list to which a sentence is added per unreadable file.
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
            as_it_is = encoded.startswith(JPEG) and image.shape[1:] == (112, 112)
            faces.append(encoded if as_it_is else encode_jpeg(fit(image), quality))
        if faces:
            yield name, faces
        else:
            broken.append(f"{name}: none of the photos can be read, so this identity is left out.")


def photographs_in(place, left_out):
    """Paths of the photographs that a file or folder stands for, those in the folders within it too, in natural order.

    left_out: list to which a sentence is added for each file whose name is not that of an image.
    """
    place = Path(place)
    if not place.is_dir():
        return [place]

    def refused(error):
        left_out.append(f"{error.filename}: cannot be read ({error.strerror}); left out.")

    found = [Path(folder) / name for folder, _, names in os.walk(place, onerror=refused) for name in names]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(place).parts)]
    found.sort(key=lambda path: [natural_order(part) for part in path.parts])
    photographs = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    left_out += [
        f"{path}: no image, by its name; left out." for path in found if path.suffix.lower() not in IMAGE_SUFFIXES
    ]
    return photographs


def tell_broken(broken, limit=10):
    """Name unreadable files on stderr, up to `limit`."""
    for sentence in broken[:limit]:
        print(f"arcface_edu: {sentence}", file=sys.stderr)
    if len(broken) > limit:
        print(f"arcface_edu: ... and {len(broken) - limit:,} more that cannot be read.", file=sys.stderr)


def read_photo(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CorruptRecord(f"{path}: cannot be read ({error.strerror}); replace or remove it.") from None


def _scan(folder):
    """dict name -> photo paths for each folder in `folder`; hidden files and those that are no images do not count."""
    try:
        people = [person for person in _entries(folder) if person.is_dir()]
        return {person.name: [file.path for file in _entries(person.path) if _is_photo(file)] for person in people}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{error.filename} is not a folder: name one that holds a folder of photos per person."
        ) from None


def _is_photo(entry):
    return Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def _entries(folder):
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not entry.name.startswith(".")), key=lambda e: natural_order(e.name)
        )


def natural_order(name):
    """Sort key under which s2 comes before s10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], name


def _some(names, limit=10):
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
