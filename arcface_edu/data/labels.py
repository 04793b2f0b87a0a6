"""The labels of a .rec file without its images: read by threads, and once, for they are kept in a file beside it.

The layout that im2rec writes says nowhere how many people there are: of that, every label has to be read. Of 42 million
records this takes minutes; `labels.npy` holds what was found, with the size and the date of the .rec file.
"""

import hashlib
import logging
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from arcface_edu.data.recordio import MAGIC, MAX_LENGTH, RecordReader
from arcface_edu.errors import DataError
from arcface_edu.io import write_atomically

log = logging.getLogger(__name__)

WORTH_KEEPING = 200_000  # labels; fewer are read in less than a second
THREADS = 8  # that wait for the disk
CHUNK = 1 << 16  # records of one thread's task
UNREADABLE = -np.inf  # stands where a record has no label that can be read
WORDS = 9  # of a record, up to the first of several labels


def labels_of(reader: RecordReader, keys: np.ndarray) -> np.ndarray:
    """Return the label of each record, float32 (N,), or UNREADABLE; from `labels.npy` if that is there.

    Args:
        reader: Of the .rec file.
        keys: (N,) int64, ascending; keys of the reader.
    """
    offsets = reader.offsets_of(keys)
    if len(keys) < WORTH_KEEPING:
        return read_labels(reader.path, offsets)
    kind, facts = layout(reader.path, offsets)
    own_name = "labels.npy" if reader.path.stem == "train" else f"{reader.path.stem}.labels.npy"
    places = [reader.path.with_name(own_name), in_cache(reader.path)]
    for place in places:
        if (kept := load_kept(place, kind, facts)) is not None:
            return kept
    labels = read_labels(reader.path, offsets)
    for place in places:
        try:
            with write_atomically(place) as file:
                np.save(file, np.array((*facts, labels), dtype=kind))
        except (DataError, OSError):
            continue
        return labels
    log.warning(f"neither {places[0]} nor {places[1]} can be written: every start reads the labels again.")
    return labels


def read_labels(path: Path, offsets: np.ndarray) -> np.ndarray:
    """Read the label of the record at each offset: (N,) int64 bytes -> (N,) float32, or UNREADABLE."""
    labels = np.full(len(offsets), UNREADABLE, dtype=np.float32)
    if path.stat().st_size < 4 * WORDS:
        return labels
    words = np.memmap(path, "<u4", mode="r", shape=path.stat().st_size // 4)  # records begin at multiples of 4

    def read(begin: int) -> int:
        part = offsets[begin : begin + CHUNK]
        whole = (part % 4 == 0) & (part // 4 + WORDS <= len(words))
        # numpy lets go of the interpreter while it copies: as many threads as these wait for the disk at once.
        rows = words[part[whole, None] // 4 + np.arange(WORDS)]  # (n, 9): magic, length, flag, label, 4 of ids, labels
        magic, length, count = rows[:, 0], rows[:, 1] & MAX_LENGTH, rows[:, 2]
        found = rows.view("<f4")[np.arange(len(rows)), np.where(count == 0, 3, WORDS - 1)]
        found[(magic != MAGIC) | (length < np.where(count == 0, 24, 28))] = UNREADABLE
        labels[begin : begin + CHUNK][whole] = found
        return len(part)

    bar = tqdm(total=len(offsets), desc="reading labels", unit="image", disable=len(offsets) < WORTH_KEEPING)
    with ThreadPoolExecutor(THREADS) as pool, bar:
        for done in pool.map(read, range(0, len(offsets), CHUNK)):
            bar.update(done)
    return labels


def layout(path: Path, offsets: np.ndarray) -> tuple[np.dtype, tuple[int, int, int]]:
    """Return the type of what is kept, and the facts by which it is known to belong to a .rec file and its index."""
    stat = path.stat()
    fields = [("size", "<i8"), ("date", "<i8"), ("index", "<i8"), ("labels", "<f4", (len(offsets),))]
    return np.dtype(fields), (stat.st_size, stat.st_mtime_ns, zlib.crc32(offsets.tobytes()))


def load_kept(place: Path, kind: np.dtype, facts: tuple[int, int, int]) -> np.ndarray | None:
    """Return the labels that were kept, mapped from the disk; None unless they are of this very file."""
    try:
        kept = np.load(place, mmap_mode="r", allow_pickle=False)
    except Exception:  # numpy, zip and pickle each have their own ways to say that a file is damaged, or not there
        return None
    if kept.dtype != kind or kept.shape != () or tuple(int(kept[name]) for name in ("size", "date", "index")) != facts:
        return None
    return kept["labels"]


def in_cache(path: Path) -> Path:
    """Return where the labels of a .rec file go whose folder cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "arcface_edu" / f"labels-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}.npy"
