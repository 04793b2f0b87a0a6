"""MXNet RecordIO by index, without mxnet: the format of MS1MV2, MS1MV3, Glint360K and WebFace.

    with RecordWriter("faces/train.rec") as writer:      # faces/train.idx is written beside it
        writer.write(1, pack_image(label, jpeg, id=1))
    label, jpeg = unpack_image(RecordReader("faces/train.rec")[1])

A record in the .rec file is   magic word (u32) | flag and length (u32) | payload | zeros up to a multiple of 4.
The magic word lets a reader that is lost in the file find the next record, so no payload may hold it at a multiple of
4: there the payload is cut in two and the word dropped (flag: 0 whole, 1 first part, 2 middle part, 3 last part); the
reader puts it back.
The .idx file is text, one `key TAB offset` a line. Source: dmlc-core `recordio.cc`, MXNet `recordio.py`.
"""

import logging
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import StrPath, write_atomically, write_text_atomically

log = logging.getLogger(__name__)

MAGIC = 0xCED7230A
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
PART_HEADER = struct.Struct("<II")  # magic word; flag in the top 3 bits, length in the 29 below
IMAGE_HEADER = struct.Struct("<IfQQ")  # IRHeader of MXNet: flag, label, id, id2
MAX_LENGTH = 2**29 - 1


class RecordReader:
    """Records of a .rec file by key: `reader[key] -> bytes`; `reader.keys` int64 (N,), ascending.

    The file is memory-mapped when the first record is asked for: a copy pickled into a DataLoader worker maps it anew.
    A missing .idx is rebuilt by a scan over the records. A record that cannot be read raises CorruptRecord.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._opened: mmap.mmap | bytes | None = None
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist: name the .rec file of a RecordIO set.")
        index = self.path.with_suffix(".idx")
        if index.is_file():
            keys, offsets = _read_index(index)
        else:
            keys, offsets = self._scan()
            log.warning(f"{index} is missing: found {len(keys):,} records by scanning.")
        order = np.argsort(keys, kind="stable")
        self.keys, self._offsets = keys[order], offsets[order]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, key: int) -> bytes:
        offset = self._offset(key)
        flag, payload, end = self._part(key, offset)
        if flag == 0:
            return payload
        if flag != 1:
            raise self._corrupt(key, offset, "no record begins here")
        parts = [payload]
        while flag in (1, 2):
            flag, payload, end = self._part(key, end)
            parts.append(payload)
            if flag in (0, 1):
                raise self._corrupt(key, offset, "its last part is missing")
        return MAGIC_BYTES.join(parts)

    def offsets_of(self, keys: np.ndarray) -> np.ndarray:
        """Return where records begin in the file: (N,) int64 keys of this reader -> (N,) int64 bytes."""
        return self._offsets if keys is self.keys else self._offsets[np.searchsorted(self.keys, keys, "right") - 1]

    def head(self, key: int, size: int) -> bytes:
        """Return the first `size` bytes of a record's first part, without reading the rest."""
        _, payload, _ = self._part(key, self._offset(key), size)
        return payload

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    @property
    def _map(self) -> mmap.mmap | bytes:
        if self._opened is None:
            with open(self.path, "rb") as file:  # an empty file cannot be mapped
                empty = os.fstat(file.fileno()).st_size == 0
                self._opened = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._opened

    def _offset(self, key: int) -> int:
        row = np.searchsorted(self.keys, key, side="right") - 1
        if row < 0 or self.keys[row] != key:
            raise KeyError(key)
        return int(self._offsets[row])

    def _part(self, key: int, offset: int, size: int = MAX_LENGTH) -> tuple[int, bytes, int]:
        """Return (flag, payload cut to `size` bytes, offset of the next part) of the part at `offset`."""
        try:
            magic, word = PART_HEADER.unpack_from(self._map, offset)
        except struct.error:
            raise self._corrupt(key, offset, "the file ends before it") from None
        if magic != MAGIC:
            raise self._corrupt(key, offset, "no record begins here")
        length = word & MAX_LENGTH
        start = offset + PART_HEADER.size
        payload = self._map[start : start + min(length, size)]
        if len(payload) < min(length, size):
            raise self._corrupt(key, offset, "the file ends inside it")
        return word >> 29, payload, start + _padded(length)

    def _corrupt(self, key: int, offset: int, what: str) -> CorruptRecord:
        return CorruptRecord(
            f"{self.path}, record {key} at byte {offset:,}: {what}; copy the .rec and .idx files again."
        )

    def _scan(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (keys, offsets) of all records, int64 (N,) each.

        The keys are the ids in the image headers where these count up from 0 or 1, else the positions in the file.
        """
        size = self.path.stat().st_size
        offsets: list[int] = []
        ids: list[int] = []
        offset = 0
        with tqdm(total=size, desc=f"finding records in {self.path.name}", unit="B", unit_scale=True, delay=2) as bar:
            while offset < size:
                flag, head, end = self._part(len(offsets), offset, IMAGE_HEADER.size)
                if end > size:
                    raise self._corrupt(len(offsets), offset, "the file ends inside it")
                if flag in (0, 1):
                    offsets.append(offset)
                    ids.append(IMAGE_HEADER.unpack(head)[2] if len(head) == IMAGE_HEADER.size else -1)
                bar.update(end - offset)
                offset = end
        count = len(offsets)
        counted = sorted(ids) in (list(range(count)), list(range(1, count + 1)))
        return np.array(ids if counted else range(count), dtype=np.int64), np.array(offsets, dtype=np.int64)


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (keys, offsets) of an .idx file, int64 (N,) each."""
    try:
        table = np.loadtxt(path, dtype=np.int64, ndmin=2) if path.stat().st_size else np.empty((0, 2), np.int64)
    except ValueError:
        table = np.empty((0, 0), np.int64)
    if table.shape[1] != 2 or (table < 0).any():
        raise DataError(
            f"{path} is not an index of `key TAB offset` lines: delete it, and it is rebuilt from the .rec file."
        )
    return table[:, 0], table[:, 1]


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4


class RecordWriter:
    """Writes a .rec file and its .idx: `with RecordWriter("train.rec") as writer: writer.write(key, payload)`.

    Both take their names at the end: a run that breaks off leaves nothing half-written.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._offset = 0

    def __enter__(self) -> "RecordWriter":
        with ExitStack() as files:
            self._index = files.enter_context(write_atomically(self.path.with_suffix(".idx")))
            self._records = files.enter_context(write_atomically(self.path))
            for file in (self._records, self._index):
                files.callback(file.flush)  # called first: a full disk shows before either file takes its name
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, traceback)

    def write(self, key: int, payload: bytes) -> None:
        """Append one record of less than 2**29 bytes."""
        if len(payload) > MAX_LENGTH:
            raise DataError(
                f"{self.path}, record {key}: {len(payload):,} bytes are too many, RecordIO holds up to {MAX_LENGTH:,}."
            )
        *cuts, last = _split(payload)
        self._index.write(f"{key}\t{self._offset}\n".encode())
        for number, part in enumerate(cuts):
            self._write_part(1 if number == 0 else 2, part)
        self._write_part(3 if cuts else 0, last)

    def _write_part(self, flag: int, part: bytes) -> None:
        padding = bytes(_padded(len(part)) - len(part))
        self._offset += self._records.write(PART_HEADER.pack(MAGIC, flag << 29 | len(part)) + part + padding)


def _split(payload: bytes) -> list[bytes]:
    """Return the parts of a payload between the magic words at its multiples of 4."""
    if MAGIC_BYTES not in payload:  # nearly always
        return [payload]
    words = np.frombuffer(payload, "<u4", count=len(payload) // 4)
    cuts = [-4, *(4 * np.flatnonzero(words == MAGIC)).tolist(), len(payload)]
    return [payload[first + 4 : last] for first, last in pairwise(cuts)]


def pack_image(label: ArrayLike, image: bytes, id: int) -> bytes:
    """Return the payload of an image record.

    Args:
        label: A number, or several (flag > 0).
        image: The encoded image; b"" in the records that describe the set.
        id: The key of the record.
    """
    labels = np.asarray(label, dtype="<f4")
    if labels.ndim == 0:
        return IMAGE_HEADER.pack(0, label, id, 0) + image
    return IMAGE_HEADER.pack(labels.size, 0, id, 0) + labels.tobytes() + image


def unpack_image(payload: bytes, where: str = "record") -> tuple[float | np.ndarray, bytes]:
    """Return the label of an image record, float32 (flag,) where the header counts several, and the encoded image.

    Args:
        payload: Of the record.
        where: Names the record in the error.

    Raises:
        CorruptRecord: The payload is too short.
    """
    if len(payload) < IMAGE_HEADER.size:
        raise CorruptRecord(
            f"{where}: {len(payload)} bytes are too few for an image record; copy or pack the set again."
        )
    flag, label, _, _ = IMAGE_HEADER.unpack_from(payload)
    if flag == 0:
        return label, payload[IMAGE_HEADER.size :]
    end = IMAGE_HEADER.size + 4 * flag
    if len(payload) < end:
        raise CorruptRecord(
            f"{where}: its header announces {flag} labels and they are not there; copy or pack the set again."
        )
    return np.frombuffer(payload[IMAGE_HEADER.size : end], "<f4"), payload[end:]


def find_records(path: StrPath) -> Path | None:
    """Return the .rec file that a path names: itself, or that in a folder, train.rec or the only one; else None.

    Raises:
        DataError: The folder holds several, and none is train.rec.
    """
    path = Path(path)
    if path.suffix in (".rec", ".idx") and not path.is_dir():
        return path.with_suffix(".rec")
    if (path / "train.rec").exists():
        return path / "train.rec"
    found = sorted(path.glob("*.rec"))
    if len(found) > 1:
        raise DataError(f"{path} holds {', '.join(file.name for file in found)}: name one of them, as rec={found[0]}.")
    return found[0] if found else None


def write_face_records(folder: StrPath, people: Iterable[Sequence[bytes]], total: int | None = None) -> tuple[int, int]:
    """Write train.rec, train.idx and property in the layout of the InsightFace sets.

    Images are the records 1 ... n; record 0 holds [n + 1, n + 1 + identities], the keys of the records that follow: one
    per identity with [first, last + 1] of its images. These are float32, exact up to 16,777,216.

    Args:
        folder: Where to write them.
        people: Per identity, in label order, its encoded 112x112 images.
        total: How many identities that will be, for a progress bar.

    Returns:
        The numbers of identities and of images.
    """
    folder = Path(folder)
    starts = [1]  # key of each identity's first image
    with RecordWriter(folder / "train.rec") as records:
        for label, photos in enumerate(tqdm(people, total=total, unit="id", disable=total is None)):
            if not photos:
                raise DataError(
                    f"{records.path}: identity {label} has no photograph; leave it out and count on without a gap."
                )
            for key, photo in enumerate(photos, starts[-1]):
                records.write(key, pack_image(label, photo, key))
            starts.append(starts[-1] + len(photos))
        end, identities = starts[-1], len(starts) - 1
        records.write(0, pack_image([end, end + identities], b"", 0))
        for key, span in enumerate(pairwise(starts), end):
            records.write(key, pack_image(span, b"", key))
    write_text_atomically(folder / "property", f"{identities},112,112")
    return identities, end - 1
