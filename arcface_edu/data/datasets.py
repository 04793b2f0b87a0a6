"""Face data sets by one interface, from MS1MV3's files or from a folder of photographs: `open_faces(path)`."""

import struct
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from arcface_edu.data.folder import FolderFaces
from arcface_edu.data.images import decode, fit
from arcface_edu.data.recordio import IMAGE_HEADER, RecordReader, unpack_image
from arcface_edu.errors import CorruptRecord, DataError

FEW_IMAGES = 200_000  # up to so many, every label is checked when the set is opened; beyond, of some images
SPOT_CHECKS = 2_000
EXACT = 2**24  # up to here float32, in which RecordIO keeps its labels, counts exactly


def open_faces(path, hold_out=0):
    """The data set in a folder: RecordIO (train.rec, train.idx, property), else one folder of photos per person.

    returns: a map-style data set of (uint8 (3, 112, 112) RGB, int label) with `num_classes`, `names`, `labels`, `len`.
    hold_out: leave out the last so many people of a photo folder, for verification.   raises: DataError.
    """
    path = Path(path)
    if not (path / "train.rec").exists():
        return FolderFaces(path, hold_out)
    if hold_out:
        raise DataError(
            f"{path} is packed, and people are held out of photo folders only: pack it with --hold-out {hold_out}."
        )
    return RecordFaces(path)


class RecordFaces:
    """Map-style data set over train.rec: `faces[i]` -> (uint8 (3, 112, 112) RGB, int label).

    num_classes; names: of the classes; labels: int64 (N,), -1 where a record cannot be read; None for sets of more than
    200,000 images. Raises DataError if counts or labels contradict each other, CorruptRecord for a broken record.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.reader = RecordReader(self.folder / "train.rec")
        self.keys, identities = self._image_keys()
        if len(self.keys) == 0:
            raise DataError(f"{self.reader.path} holds no image: pack or copy the set again.")
        declared = self._read_property()
        if None not in (identities, declared) and declared != identities and self.reader.keys[-1] < EXACT:
            raise DataError(
                f"{self.folder / 'property'} says {declared:,} identities and {self.reader.path} {identities:,}: "
                f"correct the first, or copy the set again."
            )
        self.num_classes = declared or identities
        self.labels = None
        if len(self.keys) <= FEW_IMAGES or self.num_classes is None:
            self.labels = self._check_labels(self.keys)
        else:
            self._check_labels(self.keys[np.linspace(0, len(self.keys) - 1, SPOT_CHECKS).astype(int)])
        if self.num_classes < 2:
            raise DataError(f"{self.reader.path} holds one identity: training needs at least two.")
        self.names = self._read_names()

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, index):
        encoded, label, where = self.encoded(index)
        return fit(decode(encoded, where)), label

    def encoded(self, index):
        """(encoded image, int label, words that name the record) of image `index`."""
        key = int(self.keys[index])
        where = f"{self.reader.path}, record {key}"
        label, image = unpack_image(self.reader[key], where)
        label = label if np.ndim(label) == 0 else label[0]
        self._check_label(label, where)
        return image, int(label), where

    def _image_keys(self):
        """(keys of the image records, number of identities) as record 0 has them; without it all records, and None."""
        keys = self.reader.keys
        if len(keys) == 0 or keys[0] != 0:
            return keys, None
        try:
            header, image = unpack_image(self.reader[0], f"{self.reader.path}, record 0")
        except CorruptRecord as error:
            raise DataError(f"{error} Without that record the set cannot be opened.") from None
        if np.ndim(header) == 0 or len(header) < 2 or image:
            return keys, None
        end, last = int(header[0]), int(header[1])
        images = keys[(keys > 0) & (keys < end)]
        if len(images) != end - 1 and end <= EXACT:
            raise DataError(
                f"{self.reader.path.with_suffix('.idx')} lists {len(images):,} of {end - 1:,} images: "
                f"copy it again, or delete it and it is rebuilt from the .rec file."
            )
        return images, last - end

    def _read_property(self):
        """Number of identities from the file `property` (`ids,112,112`); None without that file."""
        path = self.folder / "property"
        if not path.exists():
            return None
        text = path.read_text(errors="replace").strip()
        if not (count := text.split(",")[0]).isdecimal() or int(count) == 0:
            raise DataError(f'{path} reads "{text[:40]}" instead of `identities,112,112`: correct or delete it.')
        return int(count)

    def _read_names(self):
        path = self.folder / "identities.txt"  # `dataset pack` writes it
        names = path.read_text("utf-8", errors="surrogateescape").splitlines() if path.exists() else []
        return names if len(names) == self.num_classes else [str(label) for label in range(self.num_classes)]

    def _check_labels(self, keys):
        """Labels of the records, int64 (N,); if nothing says how many identities there are, these do."""
        labels = {key: self._label(key) for key in keys.tolist()}
        if self.num_classes is None:
            self.num_classes = 1 + int(max((x for x in labels.values() if x is not None and x < EXACT), default=-1))
        for key, label in labels.items():
            if label is not None:
                self._check_label(label, f"{self.reader.path}, record {key}")
        return np.array([-1 if label is None else label for label in labels.values()], dtype=np.int64)

    def _label(self, key):
        """Label of a record, read without its image; None if it cannot be read."""
        try:
            head = self.reader.head(key, IMAGE_HEADER.size + 4)
            flag, label, _, _ = IMAGE_HEADER.unpack_from(head)
            return label if flag == 0 else struct.unpack_from("<f", head, IMAGE_HEADER.size)[0]
        except (CorruptRecord, struct.error):
            return None

    def _check_label(self, label, where):
        if not 0 <= label < self.num_classes or label != int(label):
            raise DataError(
                f"{where} has label {label:g}, and with {self.num_classes:,} identities labels run from 0 to "
                f"{self.num_classes - 1:,}: correct the count in property, or pack the set again."
            )


def sample_faces(faces, people, photos, seed=0, among=None):
    """uint8 (N, 3, 112, 112) and labels int64 (N,): up to `photos` images, two at least, of up to `people` identities.

    faces: of `open_faces`.   among: labels to choose from, None = all.   raises: DataError (fewer than two people).
    Of a set too large to know its labels, runs of neighbouring images are taken, where those of a person stand
    together. Images that cannot be read are named and left out.
    """
    dice = np.random.default_rng(seed)
    if faces.labels is None:
        starts = dice.choice(len(faces) // photos, min(people, len(faces) // photos), replace=False)
        places = (np.sort(starts)[:, None] * photos + np.arange(photos)).flatten()
    else:
        known = np.unique(faces.labels[faces.labels >= 0] if among is None else among)
        chosen = dice.choice(known, min(people, len(known)), replace=False)
        shuffled = dice.permutation(len(faces))
        order = shuffled[np.argsort(faces.labels[shuffled], kind="stable")]  # person by person, each in random order
        by_person = faces.labels[order]
        number = np.arange(len(order)) - np.searchsorted(by_person, by_person)  # among the person's images
        places = np.sort(order[(number < photos) & np.isin(by_person, chosen)])
    images, labels = [], []
    for place in tqdm(places.tolist(), desc="reading faces", unit="image", leave=False):
        try:
            image, label = faces[place]
        except CorruptRecord as error:
            tqdm.write(f"left out: {error}")
        else:
            images.append(image)
            labels.append(label)
    several = [place for place, count in enumerate(np.bincount(labels)[labels]) if count > 1] if labels else []
    if len({labels[place] for place in several}) < 2:
        raise DataError("angles between people need two photographs each of at least two people; the data holds fewer.")
    return torch.stack([images[place] for place in several]), np.array(labels)[several]
