"""Verification pairs in the .bin files of InsightFace (lfw.bin, cfp_fp.bin, agedb_30.bin ...).

A .bin is a pickle of (2N encoded images, N bools): images 2i and 2i + 1 are pair i, and the bool says whether they show
the same person. A pickle may name any function to be called while it is loaded. So nothing that a file names is ever
looked up here: the few names that these files need are answered by stand-ins, any other is refused.
"""

import pickle
import random

import numpy as np
import torch

from arcface_edu.data.images import encode_png
from arcface_edu.data.recordio import written_beside
from arcface_edu.errors import DataError


def read_pairs(path):
    """(images, is_same) of a .bin file: a list of 2N encoded images (bytes), and bool (N,).

    Python 2 and 3 wrote these files, with images as bytes, as NumPy arrays of such bytes, or decoded as uint8 (H, W, 3)
    RGB arrays; the last become PNG, losslessly. Raises DataError for whatever else is in the file.
    """
    try:
        with open(path, "rb") as file:
            images, is_same = _PairsUnpickler(file, encoding="bytes").load()
            is_same = is_same.array("b1") if isinstance(is_same, _Stored) else is_same
            is_same = np.array([bool(same) for same in is_same], dtype=bool)
            images = [_encoded(image) for image in images]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: name a .bin file of verification pairs.") from None
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    except OSError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DataError(
            f"{path} is not a readable file of verification pairs ({what}); copy or write it again."
        ) from None
    if len(images) != 2 * len(is_same):
        raise DataError(f"{path} holds {len(images)} images for {len(is_same)} pairs, not two a pair; write it again.")
    if is_same.all() or not is_same.any():
        kind = "no" if len(is_same) == 0 else "only same-person" if is_same.all() else "only different-person"
        raise DataError(f"{path} holds {kind} pairs; verification needs pairs of both kinds, so write it again.")
    return images, is_same


def write_pairs(path, images, is_same):
    """Write a .bin file that the reference reads too.   images: 2N encoded images (bytes); is_same: N bools."""
    images, is_same = [bytes(image) for image in images], [bool(same) for same in is_same]
    if len(images) != 2 * len(is_same):
        raise DataError(f"{path}: {len(images)} images are not two for each of {len(is_same)} pairs.")
    with written_beside(path) as file:
        pickle.dump((images, is_same), file, protocol=4)  # 2 would store each byte from 128 up as two


class _Stored:
    """Stand-in for numpy.dtype and numpy.ndarray: keeps what the file says of them, and does nothing."""

    def __init__(self, name=None, state=None):
        self.name, self.state = name, state

    def __setstate__(self, state):
        self.state = state

    def array(self, kind):
        """The NumPy array, if its dtype is `kind` ("u1" or "b1")."""
        _, shape, dtype, fortran, data = self.state
        name = dtype.name.decode() if isinstance(dtype.name, bytes) else dtype.name
        if name.lstrip("|") != kind:
            raise DataError(f"holds an array of type {name} where {kind} is meant; write it again.")
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _dtype(name, *_):
    return _Stored(name)


def _reconstruct(*_):
    return _Stored()


def _frombuffer(data, dtype, shape, order):
    return _Stored(state=(1, shape, dtype, order in ("F", b"F"), data))


def _scalar(_dtype, data):
    return data != b"\0"


def _encode(text, _codec):
    return text.encode("latin1")


def _bytes():
    return b""


STAND_INS = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": None,  # only ever an argument of _reconstruct
    **{
        f"numpy.{core}.{name}": stand_in  # NumPy 1 and 2
        for core in ("core", "_core")
        for name, stand_in in {
            "multiarray._reconstruct": _reconstruct,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _frombuffer,
        }.items()
    },
    "_codecs.encode": _encode,  # how Python 3 writes bytes for Python 2
    "__builtin__.bytes": _bytes,
    "builtins.bytes": _bytes,
}


class _PairsUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if f"{module}.{name}" not in STAND_INS:
            raise DataError(f"asks for {module}.{name}, which no file of pairs needs: it may do harm, do not use it.")
        return STAND_INS[f"{module}.{name}"]


def _encoded(image):
    """Any of the accepted images -> encoded bytes."""
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, _Stored):
        raise DataError(f"holds a {type(image).__name__} where an image is meant; write it again.")
    array = image.array("u1")
    if array.ndim == 1:
        return array.tobytes()
    if array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"holds an array of shape {array.shape} where (H, W, 3) is meant; write it again.")
    return encode_png(torch.from_numpy(array.copy()).permute(2, 0, 1))


def count_pairs(photos_per_person, folds=10):
    """How many pairs `choose_pairs` can give at most: as many of one person as of two, alike in every fold."""
    photos = np.asarray(photos_per_person, dtype=np.int64)
    same = int((photos * (photos - 1) // 2).sum())
    different = int((photos.sum() ** 2 - (photos**2).sum()) // 2)
    return min(same, different) // folds * folds * 2


def choose_pairs(photos_per_person, pairs, seed, folds=10):
    """Pairs for the ten-fold protocol of LFW: no pair twice, every person about equally often.

    photos_per_person: (P,) ints; pairs: N, a multiple of 2 * folds.
    returns: N ((person, photo), (person, photo)), and is_same bool (N,): contiguous folds, in each first the pairs of
    one person, then as many of two. Raises DataError if there are not that many.
    """
    photos = [int(count) for count in photos_per_person]
    exist = count_pairs(photos, folds)
    if pairs > exist:
        raise DataError(f"{pairs:,} pairs are asked for and {exist:,} exist ({len(photos)} people): ask for fewer.")
    if pairs < 1 or pairs % (2 * folds):
        raise DataError(f"{pairs} pairs do not make {folds} equal folds: ask for a multiple of {2 * folds}.")
    dice, half = random.Random(seed), pairs // 2
    same, different = _same_person(photos, half, dice), _different_people(photos, half, dice)
    chosen, size = [], half // folds
    for start in range(0, half, size):
        chosen += same[start : start + size] + different[start : start + size]
    return chosen, np.tile(np.repeat([True, False], size), folds)


def _same_person(photos, count, dice):
    """`count` pairs of two photographs of one person; a person gives as many as the others, or all there are."""
    left = np.array([n * (n - 1) // 2 for n in photos])
    share = np.zeros_like(left)
    while share.sum() < count:
        able = np.flatnonzero(share < left).tolist()
        share[dice.sample(able, min(len(able), count - int(share.sum())))] += 1
    chosen = []
    for person, wanted in enumerate(share.tolist()):
        for number in dice.sample(range(int(left[person])), wanted):
            second = int((1 + (1 + 8 * number) ** 0.5) / 2)  # pairs in the order (0, 1) (0, 2) (1, 2) (0, 3) ...
            first = number - second * (second - 1) // 2
            chosen.append(((person, first), (person, second)))
    dice.shuffle(chosen)
    return chosen


def _different_people(photos, count, dice):
    """`count` pairs of photographs of two people: again and again, everybody meets somebody."""
    people = [person for person, n in enumerate(photos) if n]
    chosen = {}  # a set that keeps its order
    for _ in range(4 * count // len(people) + 4):
        dice.shuffle(people)
        for meeting in zip(people[::2], people[1::2], strict=False):
            pair = tuple(sorted((person, dice.randrange(photos[person])) for person in meeting))
            if len(chosen) < count:
                chosen[pair] = None
    # Hardly any pair left that has not met yet: the missing ones from a list of all, (photo, later person's photo)
    faces = [(person, photo) for person, n in enumerate(photos) for photo in range(n)]
    later = np.cumsum(photos)  # (P,) first face after each person's
    ends = np.cumsum([len(faces) - later[person] for person, _ in faces])  # (F,) pairs up to and with each face
    for number in dice.sample(range(int(ends[-1])), min(count, int(ends[-1]))) if len(chosen) < count else ():
        face = int(np.searchsorted(ends, number, side="right"))
        if len(chosen) < count:
            chosen[faces[face], faces[len(faces) - int(ends[face] - number)]] = None
    chosen = list(chosen)
    dice.shuffle(chosen)
    return chosen
