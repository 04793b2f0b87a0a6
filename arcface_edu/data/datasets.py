"""Face data sets by one interface, from MS1MV3's files or from a folder of photographs: `open_faces(path)`."""

import logging
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from arcface_edu.data.folder import FolderFaces
from arcface_edu.data.images import decode, encode_png, fit
from arcface_edu.data.labels import UNREADABLE, labels_of, read_labels
from arcface_edu.data.recordio import RecordReader, find_records, unpack_image
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import StrPath

log = logging.getLogger(__name__)

SYNTHETIC = "synthetic"  # what `rec` is for images that are made up
FEW_IMAGES = 200_000  # up to so many, every label is checked when the set is opened; beyond, of some images
SPOT_CHECKS = 2_000
EXACT = 2**24  # up to here float32, in which RecordIO keeps its labels, counts exactly


class FaceDataset(Protocol):
    """Map-style data set of faces in one format: `faces[i]` -> (uint8 (3, 112, 112) RGB, int label)."""

    num_classes: int

    @property
    def names(self) -> Sequence[str]:
        """The names of the classes, by label."""

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int64; None of a RecordIO set of more than 200,000 images that says how many people it has."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]: ...

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Return the encoded image, the label and the words that name image `index`."""


def open_faces(path: StrPath, hold_out: int = 0, only: Container[str] | None = None) -> FaceDataset:
    """Open the data set in a folder: RecordIO (train.rec, train.idx, property), else one folder of photos per person.

    Args:
        path: The folder, or the .rec file in it.
        hold_out: Leave out the last so many people of a photo folder, for verification.
        only: The names of the people to take from a photo folder; None = all.

    Returns:
        A map-style data set of (uint8 (3, 112, 112) RGB, int label) with `num_classes`, `names`, `labels`, `len`.

    Raises:
        DataError: There is none, or it contradicts itself.
    """
    path = Path(path)
    if not (records := find_records(path)):
        return FolderFaces(path, hold_out, only)
    if hold_out:
        raise DataError(
            f"{path} is packed, and people are held out of photo folders only: pack it with --hold-out {hold_out}."
        )
    return RecordFaces(records)


class RecordFaces:
    """A `FaceDataset` over a .rec file; labels are -1 where a record cannot be read.

    Raises:
        DataError: Counts or labels contradict each other.
        CorruptRecord: When an image is read: it cannot be.
    """

    def __init__(self, records: StrPath) -> None:
        self.folder = Path(records).parent
        self.reader = RecordReader(records)
        self.keys, identities = self._image_keys()
        if len(self.keys) == 0:
            raise DataError(f"{self.reader.path} holds no image: pack or copy the set again.")
        declared = self._read_property()
        if None not in (identities, declared) and declared != identities and self.reader.keys[-1] < EXACT:
            raise DataError(
                f"{self.folder / 'property'} says {declared:,} identities and {self.reader.path} {identities:,}: "
                f"correct the first, or copy the set again."
            )
        counted = declared or identities
        check_all = len(self.keys) <= FEW_IMAGES or counted is None
        spots = np.linspace(0, len(self.keys) - 1, SPOT_CHECKS).astype(int)
        checked = self.keys if check_all else self.keys[spots]
        labels = labels_of(self.reader, checked) if check_all else self._read(checked)
        known = labels[labels < EXACT]
        self.num_classes = 1 + int(known.max(initial=-1)) if counted is None else counted
        readable = labels != UNREADABLE
        sound = (labels >= 0) & (labels < self.num_classes) & (labels == np.trunc(labels))
        for row in np.flatnonzero(readable & ~sound)[:1].tolist():
            self._check_label(float(labels[row]), f"{self.reader.path}, record {checked[row]}")
        self.labels = np.where(readable, labels, -1).astype(np.int64) if check_all else None
        if self.num_classes < 2:
            raise DataError(f"{self.reader.path} holds one identity: training needs at least two.")
        self.known_names = self._read_names()

    @property
    def names(self) -> list[str]:
        """The names of the classes, by label; where the set has none, the labels as words."""
        return self.known_names or [str(label) for label in range(self.num_classes)]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        encoded, label, where = self.encoded(index)
        return fit(decode(encoded, where)), label

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Return the encoded image, the label and the name of the record of image `index`."""
        key = int(self.keys[index])
        where = f"{self.reader.path}, record {key}"
        labels, image = unpack_image(self.reader[key], where)
        label = float(np.ravel(labels)[0])
        self._check_label(label, where)
        return image, int(label), where

    def _image_keys(self) -> tuple[np.ndarray, int | None]:
        """Return the image records' keys and the number of identities by record 0; without it all keys, and None."""
        keys = self.reader.keys
        if len(keys) == 0 or keys[0] != 0:
            return keys, None
        try:
            header, image = unpack_image(self.reader[0], f"{self.reader.path}, record 0")
        except CorruptRecord as error:
            raise DataError(f"{error} Without that record the set cannot be opened.") from None
        if not isinstance(header, np.ndarray) or len(header) < 2 or image:
            return keys, None
        end, last = int(header[0]), int(header[1])
        images = keys[(keys > 0) & (keys < end)]
        if len(images) != end - 1 and end <= EXACT:
            raise DataError(
                f"{self.reader.path.with_suffix('.idx')} lists {len(images):,} of {end - 1:,} images: "
                f"copy it again, or delete it and it is rebuilt from the .rec file."
            )
        return images, last - end

    def _read_property(self) -> int | None:
        """Return the number of identities by the file `property` (`ids,112,112`); None without that file."""
        path = self.folder / "property"
        if not path.exists():
            return None
        text = path.read_text(errors="replace").strip()
        if not (count := text.split(",")[0]).isdecimal() or len(count) > 12 or int(count) == 0:
            raise DataError(f'{path} reads "{text[:40]}" instead of `identities,112,112`: correct or delete it.')
        return int(count)

    def _read_names(self) -> list[str] | None:
        path = self.folder / "identities.txt"  # `dataset pack` writes it
        names = path.read_text("utf-8", errors="surrogateescape").splitlines() if path.exists() else []
        return names if len(names) == self.num_classes else None

    def _read(self, keys: np.ndarray) -> np.ndarray:
        return read_labels(self.reader.path, self.reader.offsets_of(keys))

    def _check_label(self, label: float, where: str) -> None:
        if not 0 <= label < self.num_classes or label != int(label):
            raise DataError(
                f"{where} has label {label:g}, and with {self.num_classes:,} identities labels run from 0 to "
                f"{self.num_classes - 1:,}: correct the count in property, or pack the set again."
            )


class SyntheticFaces:
    """A `FaceDataset` of noise, to measure speed with: nothing is read or decoded, and nothing can be learned."""

    IMAGES = 64  # different ones

    def __init__(self, num_classes: int, num_image: int) -> None:
        self.num_classes, self.num_image = num_classes, num_image
        pixels = torch.randint(256, (self.IMAGES, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator())
        self.images = pixels.permute(0, 3, 1, 2)

    @property
    def names(self) -> list[str]:
        """The labels as words."""
        return [str(label) for label in range(self.num_classes)]

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, as good as random: a step meets the people that a step of a shuffled set does."""
        return np.arange(self.num_image, dtype=np.int64) * 2_654_435_761 % 2**32 % self.num_classes

    def __len__(self) -> int:
        return self.num_image

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(self.num_image)[index]
        return self.images[index % self.IMAGES], index * 2_654_435_761 % 2**32 % self.num_classes

    def encoded(self, index: int) -> tuple[bytes, int, str]:
        """Return the image as PNG, the label and a name."""
        image, label = self[index]
        return encode_png(image), label, f"{SYNTHETIC} image {index}"


def sample_faces(
    faces: FaceDataset, people: int, photos: int, seed: int = 0, among: Sequence[int] | np.ndarray | None = None
) -> tuple[Tensor, np.ndarray]:
    """Read a few photographs of a few people out of a set of any size.

    Of a set too large to know its labels, runs of neighbouring images are read, where those of a person stand together.
    Images that cannot be read are named and left out.

    Args:
        faces: A data set of `open_faces`.
        people: At most so many identities.
        photos: At most so many images of each, and two at least.
        seed: The same seed chooses the same images.
        among: Labels to choose from, None = all.

    Returns:
        Images, uint8 (N, 3, 112, 112), and labels, int64 (N,).

    Raises:
        DataError: Fewer than two people have two images.
    """
    rng = np.random.default_rng(seed)
    if faces.labels is None:
        starts = rng.choice(len(faces) // photos, min(people, len(faces) // photos), replace=False)
        indices = (np.sort(starts)[:, None] * photos + np.arange(photos)).flatten()
    else:
        known = np.unique(faces.labels[faces.labels >= 0] if among is None else among)
        chosen = rng.choice(known, min(people, len(known)), replace=False)
        shuffled = rng.permutation(len(faces))
        order = shuffled[np.argsort(faces.labels[shuffled], kind="stable")]  # person by person, each in random order
        by_person = faces.labels[order]
        number = np.arange(len(order)) - np.searchsorted(by_person, by_person)  # among the person's images
        indices = np.sort(order[(number < photos) & np.isin(by_person, chosen)])
    images, labels = [], []
    for index in tqdm(indices.tolist(), desc="reading faces", unit="image", leave=False):
        try:
            image, label = faces[index]
        except CorruptRecord as error:
            log.warning(f"left out: {error}")
        else:
            images.append(image)
            labels.append(label)
    several = [row for row, count in enumerate(np.bincount(labels)[labels]) if count > 1] if labels else []
    if len({labels[row] for row in several}) < 2:
        raise DataError("angles between people need two photographs each of at least two people; the data holds fewer.")
    return torch.stack([images[row] for row in several]), np.array(labels)[several]
