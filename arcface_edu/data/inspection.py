"""What a data folder or a .bin file holds: each image is read once, counted and measured; broken ones are named."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor
from tqdm import tqdm

from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.images import decode, fit
from arcface_edu.errors import CorruptRecord

SHEET_ROWS, SHEET_COLUMNS = 8, 8

Tag = TypeVar("Tag")


class Inspection(NamedTuple):
    """What was found: lines to print, sentences about broken images, and some images for a contact sheet."""

    lines: list[str]
    broken: list[str]
    rows: list[list[Tensor]]  # uint8 (3, 112, 112), one identity or one pair a row
    titles: list[str]  # of the rows


class ImageSizes:
    """Counts the sizes of the images that `readable` yields, and collects sentences about the broken ones."""

    def __init__(self) -> None:
        self.sizes: Counter[str] = Counter()
        self.broken: list[str] = []

    def readable(self, read: Callable[[int], tuple[bytes, Tag, str]], count: int) -> Iterator[tuple[Tag, Tensor]]:
        """Yield (tag, uint8 (3, H, W) image) of all images that can be read.

        Args:
            read: Returns for an index below `count` the encoded image, its tag, and the words that name it.
            count: Number of images.
        """
        for index in tqdm(range(count), unit="img", leave=False):
            try:
                encoded, tag, where = read(index)
                image = decode(encoded, where)
            except CorruptRecord as error:
                self.broken.append(str(error))
            else:
                self.sizes[f"{image.shape[2]}x{image.shape[1]}"] += 1
                yield tag, image

    def lines(self) -> list[str]:
        frequent = ", ".join(f"{size} ({times:,})" for size, times in self.sizes.most_common(5))
        others = " and others" if len(self.sizes) > 5 else ""
        return [f"width x height:      {frequent or 'none'}{others}", f"broken:              {len(self.broken):,}"]


def inspect_faces(path: Path) -> Inspection:
    """Inspect a folder of photographs or of train.rec."""
    faces, sizes = open_faces(path), ImageSizes()
    photos = np.zeros(faces.num_classes, dtype=int)
    rows: dict[int, list[Tensor]] = {}
    for label, image in sizes.readable(faces.encoded, len(faces)):
        photos[label] += 1
        if label in rows or len(rows) < SHEET_ROWS:
            row = rows.setdefault(label, [])
            row += [fit(image)] if len(row) < SHEET_COLUMNS else []
    lines = [
        f"{path}: {len(faces):,} images of {faces.num_classes:,} identities",
        *sizes.lines(),
        f"photos per identity: {photos.min():,} least, {np.median(photos):g} median, {photos.max():,} most",
    ]
    return Inspection(lines, sizes.broken, list(rows.values()), [faces.names[label] for label in rows])


def inspect_pairs(path: Path) -> Inspection:
    """Inspect a .bin file."""
    (images, is_same), sizes = read_pairs(path), ImageSizes()
    shown = np.linspace(0, len(is_same) - 1, min(SHEET_ROWS, len(is_same))).astype(int).tolist()
    rows: dict[int, list[Tensor]] = {pair: [] for pair in shown}

    def read(index: int) -> tuple[bytes, int, str]:
        return images[index], index, f"{path}, image {index}"

    for index, image in sizes.readable(read, len(images)):
        if index // 2 in rows:
            rows[index // 2].append(fit(image))
    counted = f"{path}: {len(is_same):,} pairs, {is_same.sum():,} of one person and {(~is_same).sum():,} of two"
    titles = ["same" if is_same[pair] else "different" for pair in shown]
    return Inspection([counted, *sizes.lines()], sizes.broken, list(rows.values()), titles)
