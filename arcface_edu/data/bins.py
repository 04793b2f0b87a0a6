"""Verification pairs in the .bin files of InsightFace (lfw.bin, cfp_fp.bin, agedb_30.bin ...).

A .bin is a pickle of (2N encoded images, N bools): images 2i and 2i + 1 are pair i, and the bool says whether they show
the same person. A pickle may name any function to be called while it is loaded. So nothing that a file names is ever
looked up here: the few names that these files need are answered by substitutes, any other is refused.
"""

import logging
import pickle
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from arcface_edu.data.images import encode_png, size_of
from arcface_edu.data.pair_list import is_pair_list
from arcface_edu.errors import DataError
from arcface_edu.io import StrPath, write_atomically

log = logging.getLogger(__name__)

Photo = tuple[int, int]  # index of a person, index of one of their photographs


class Pairs(NamedTuple):
    """Verification pairs: images 2i and 2i + 1 are pair i."""

    images: list[bytes]  # 2N encoded images
    is_same: np.ndarray  # (N,) bool


def read_pairs(path: StrPath) -> Pairs:
    """Read a .bin file.

    Python 2 and 3 wrote these files, with images as bytes, as NumPy arrays of such bytes, or decoded as uint8 (H, W, 3)
    RGB arrays, also all in one; the last become PNG, losslessly. Labels are bools, numbers, or the texts "0" and "1".

    Raises:
        DataError: The file holds anything else, or pairs of one kind only.
    """
    try:
        with open(path, "rb") as file:
            images, is_same = _PairsUnpickler(file, encoding="bytes").load()
            is_same = np.array([_label(same) for same in _items(is_same, *NUMBERS)], dtype=bool)
            images = [_encoded(image) for image in _items(images, "u1")]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: name a .bin file of verification pairs.") from None
    except DataError as error:
        _refuse_pair_list(path)
        raise DataError(f"{path} {error}") from None
    except OSError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        _refuse_pair_list(path)
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DataError(
            f"{path} is not a readable file of verification pairs ({what}); copy or write it again."
        ) from None
    if len(images) != 2 * len(is_same):
        raise DataError(f"{path} holds {len(images)} images for {len(is_same)} pairs, not two a pair; write it again.")
    if is_same.all() or not is_same.any():
        kind = "no" if len(is_same) == 0 else "only same-person" if is_same.all() else "only different-person"
        raise DataError(f"{path} holds {kind} pairs; verification needs pairs of both kinds, so write it again.")
    return Pairs(images, is_same)


def _refuse_pair_list(path: StrPath) -> None:
    if is_pair_list(path):
        raise DataError(
            f"{path} is a list of pairs and holds no images: with the folder of its photographs it becomes a .bin by "
            f"`python -m arcface_edu.dataset pairs FOLDER {Path(path).stem}.bin --list {path}`."
        ) from None


def write_pairs(path: StrPath, images: Iterable[bytes], is_same: Iterable[bool]) -> None:
    """Write a .bin file, which InsightFace reads too, of 2N encoded images and N bools."""
    images, is_same = [bytes(image) for image in images], [bool(same) for same in is_same]
    if len(images) != 2 * len(is_same):
        raise DataError(f"{path}: {len(images)} images are not two for each of {len(is_same)} pairs.")
    with write_atomically(path) as file:
        pickle.dump((images, is_same), file, protocol=4)  # 2 would store each byte from 128 up as two


def check_sizes(images: Sequence[bytes], where: str, size: int = 112) -> None:
    """Raise DataError where an encoded image cannot be read or is not square: the faces of a protocol are aligned.

    Only their first bytes are read. A warning counts square ones of another size, which are fitted wherever they are
    embedded.

    Args:
        images: 2N encoded images; 2i and 2i + 1 are pair i.
        where: names the list in the error.
        size: width and height of the networks' input.
    """
    others = []
    for number, encoded in enumerate(images):
        width, height = size_of(encoded, f"{where}, image {number} (pair {number // 2})")
        if width != height:
            raise DataError(
                f"{where}, image {number} has {width}x{height} pixels; protocols take faces aligned to "
                f"{size}x{size}: align them and write the file again."
            )
        others += [width] if width != size else []
    if others:
        log.warning(
            f"{where}: {len(others):,} of {len(images):,} images have another size than {size}x{size}, as "
            f"{others[0]}x{others[0]}, and are fitted into it. A network knows faces in one place: see that the eyes "
            f"and the mouth are where it learned them."
        )


class _PickledArray:
    """Substitute for numpy.dtype and numpy.ndarray: keeps what the file says of them, and does nothing."""

    def __init__(self, name: Any = None, state: Any = None) -> None:
        self.name, self.state = name, state

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self, *kinds: str) -> np.ndarray:
        """Return the NumPy array, if its dtype is one of `kinds`, as "u1"."""
        _, shape, dtype, fortran, data = self.state
        return np.frombuffer(data, dtype.dtype(*kinds)).reshape(shape, order="F" if fortran else "C")

    def dtype(self, *kinds: str) -> np.dtype[Any]:
        """Return the NumPy dtype for which this stands, if it is one of `kinds`."""
        if (name := self.kind) not in kinds:
            raise DataError(f"holds an array of type {name} where {kinds[0]} is meant; write it again.")
        big_endian = isinstance(self.state, tuple) and self.state[1] in (">", b">")
        return np.dtype(f">{name}" if big_endian else f"<{name}")

    @property
    def kind(self) -> str:
        """The name of the dtype for which this stands, as "i8"; "O8" is an array of Python's objects."""
        return (self.name.decode() if isinstance(self.name, bytes) else self.name).lstrip("|<>")


def _dtype(name: Any, *_: Any) -> _PickledArray:
    return _PickledArray(name)


def _reconstruct(*_: Any) -> _PickledArray:
    return _PickledArray()


def _frombuffer(data: bytes, dtype: _PickledArray, shape: Any, order: Any) -> _PickledArray:
    return _PickledArray(state=(1, shape, dtype, order in ("F", b"F"), data))


def _scalar(dtype: _PickledArray, data: bytes) -> float:
    return np.frombuffer(data, dtype.dtype(*NUMBERS))[0].item()


def _encode(text: str, _codec: Any) -> bytes:
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


NUMBERS = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")  # dtypes of labels
OF_NUMPY = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _frombuffer,
}
SUBSTITUTES: dict[str, Any] = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": None,  # only ever an argument of _reconstruct
    **{f"numpy.core.{name}": function for name, function in OF_NUMPY.items()},  # NumPy 1
    **{f"numpy._core.{name}": function for name, function in OF_NUMPY.items()},  # NumPy 2
    "_codecs.encode": _encode,  # how Python 3 writes bytes for Python 2
    "__builtin__.bytes": _bytes,
    "builtins.bytes": _bytes,
}


class _PairsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in SUBSTITUTES:
            raise DataError(f"asks for {module}.{name}, which no file of pairs needs: it may do harm, do not use it.")
        return SUBSTITUTES[f"{module}.{name}"]


def _items(found: Any, *kinds: str) -> Any:
    """Return what can be iterated: a sequence as it is, an array of one of `kinds`, or one of Python's objects."""
    if not isinstance(found, _PickledArray):
        return found
    is_of_objects = found.state[2].kind.startswith("O")
    return found.state[4] if is_of_objects else found.array(*kinds)


def _label(same: Any) -> bool:
    """Return what the label of a pair says, in any of the accepted forms."""
    value = same.decode(errors="replace") if isinstance(same, bytes) else same
    value = {"0": 0, "1": 1}.get(value.strip(), value) if isinstance(value, str) else value
    if isinstance(value, str) or value not in (0, 1):
        raise DataError(
            f"holds {same!r:.40} where the label of a pair is meant, 1 of one person and 0 of two; write it again."
        )
    return bool(value)


def _encoded(image: Any) -> bytes:
    """Return the encoded bytes of any of the accepted forms of an image."""
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, (_PickledArray, np.ndarray)):
        raise DataError(f"holds a {type(image).__name__} where an image is meant; write it again.")
    array = image.array("u1") if isinstance(image, _PickledArray) else image
    if array.ndim == 1:
        return array.tobytes()
    if array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"holds an array of shape {array.shape} where (H, W, 3) is meant; write it again.")
    return encode_png(torch.from_numpy(array.copy()).permute(2, 0, 1))


def count_pairs(photos_per_person: Sequence[int], folds: int = 10) -> int:
    """Return how many pairs `choose_pairs` can give: as many of one person as of two, alike in every fold."""
    photos = np.asarray(photos_per_person, dtype=np.int64)
    same = int((photos * (photos - 1) // 2).sum())
    different = int((photos.sum() ** 2 - (photos**2).sum()) // 2)
    return min(same, different) // folds * folds * 2


def choose_pairs(
    photos_per_person: Sequence[int], pairs: int, seed: int, folds: int = 10
) -> tuple[list[tuple[Photo, Photo]], np.ndarray]:
    """Choose pairs for the ten-fold protocol of LFW: no pair twice, every person about equally often.

    Args:
        photos_per_person: P numbers of photographs.
        pairs: N, a multiple of 2 * folds.
        seed: The same seed chooses the same pairs.
        folds: Contiguous parts of the list, in each first the pairs of one person, then as many of two.

    Returns:
        N pairs ((person, photo), (person, photo)), and is_same bool (N,).

    Raises:
        DataError: There are not that many.
    """
    photos = [int(count) for count in photos_per_person]
    exist = count_pairs(photos, folds)
    if pairs > exist:
        raise DataError(f"{pairs:,} pairs are asked for and {exist:,} exist ({len(photos)} people): ask for fewer.")
    if pairs < 1 or pairs % (2 * folds):
        raise DataError(f"{pairs} pairs do not make {folds} equal folds: ask for a multiple of {2 * folds}.")
    rng, half = random.Random(seed), pairs // 2
    same, different = _same_person(photos, half, rng), _different_people(photos, half, rng)
    chosen: list[tuple[Photo, Photo]] = []
    size = half // folds
    for start in range(0, half, size):
        chosen += same[start : start + size] + different[start : start + size]
    return chosen, np.tile(np.repeat([True, False], size), folds)


def _same_person(photos: list[int], count: int, rng: random.Random) -> list[tuple[Photo, Photo]]:
    """Return `count` pairs of two photographs of one person; every person gives as many, or all there are."""
    available = np.array([n * (n - 1) // 2 for n in photos])
    quota = np.zeros_like(available)
    while quota.sum() < count:
        unfilled = np.flatnonzero(quota < available).tolist()
        quota[rng.sample(unfilled, min(len(unfilled), count - int(quota.sum())))] += 1
    chosen = []
    for person, wanted in enumerate(quota.tolist()):
        for number in rng.sample(range(int(available[person])), wanted):
            second = int((1 + (1 + 8 * number) ** 0.5) / 2)  # pairs in the order (0, 1) (0, 2) (1, 2) (0, 3) ...
            first = number - second * (second - 1) // 2
            chosen.append(((person, first), (person, second)))
    rng.shuffle(chosen)
    return chosen


def _different_people(photos: list[int], count: int, rng: random.Random) -> list[tuple[Photo, Photo]]:
    """Return `count` pairs of photographs of two people, by pairing off all people again and again."""
    people = [person for person, n in enumerate(photos) if n]
    found: dict[tuple[Photo, Photo], None] = {}  # a set that keeps its order
    for _ in range(4 * count // len(people) + 4):
        rng.shuffle(people)
        for one, other in zip(people[::2], people[1::2], strict=False):
            first, second = sorted((person, rng.randrange(photos[person])) for person in (one, other))
            if len(found) < count:
                found[first, second] = None
    # Few pairs are left that are not chosen: the missing ones from a list of all, (photo, later person's photo)
    faces = [(person, photo) for person, n in enumerate(photos) for photo in range(n)]
    later = np.cumsum(photos)  # (P,) first face after each person's
    ends = np.cumsum([len(faces) - later[person] for person, _ in faces])  # (F,) pairs up to and with each face
    for number in rng.sample(range(int(ends[-1])), min(count, int(ends[-1]))) if len(found) < count else ():
        face = int(np.searchsorted(ends, number, side="right"))
        if len(found) < count:
            found[faces[face], faces[len(faces) - int(ends[face] - number)]] = None
    chosen = list(found)
    rng.shuffle(chosen)
    return chosen
