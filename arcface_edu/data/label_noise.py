"""Wrong labels of three kinds, made on purpose: what they do can then be held against a known truth.

flip     a photograph gets the label of another person, at random
split    one person becomes two classes, half of the photographs in each
merge    two people become one class
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_edu.data.datasets import FaceDataset
from arcface_edu.data.recordio import write_face_records
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.io import StrPath, replace_when_done

KINDS = ("flip", "split", "merge")
TRUTH = "truth.npz"  # beside a set with wrong labels: who is shown


class NoisySet(NamedTuple):
    """A data set with wrong labels that was written to a folder."""

    folder: Path
    people: np.ndarray  # (N,) int64, who is shown, in the order of the set


def corrupt_labels(labels: np.ndarray, kind: str, share: float, seed: int = 0) -> np.ndarray:
    """Return labels of which a share is wrong, (N,) int64, numbered from 0 without a gap.

    Args:
        labels: (N,) ints, who is shown.
        kind: One of KINDS.
        share: Of flip that of the photographs with a wrong label; of split that of the people who become two; of merge
            that of the people who share a class with another.
        seed: The same seed chooses the same ones.

    Raises:
        ConfigError: There is no such kind, or the share is not one.
        DataError: There are fewer than two people, or somebody who is to be split has one photograph.
    """
    if kind not in KINDS:
        raise ConfigError(f"{kind} is no kind of wrong labels; take {', '.join(KINDS)}.")
    if not 0 <= share <= 1:
        raise ConfigError(f"a share of wrong labels is {share:g}; give 0 to 1, as 0.2 for 20 %.")
    people, wrong = np.unique(labels, return_inverse=True)
    if len(people) < 2:
        raise DataError("all photographs are of one person: wrong labels need another.")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    if kind == "flip":
        chosen = rng.choice(len(wrong), round(share * len(wrong)), replace=False)
        wrong[chosen] = (wrong[chosen] + rng.integers(1, len(people), len(chosen))) % len(people)
    elif kind == "split":
        for new, person in enumerate(rng.permutation(len(people))[: round(share * len(people))], len(people)):
            photos = rng.permutation(np.flatnonzero(wrong == person))
            if len(photos) < 2:
                raise DataError(f"person {people[person]} has one photograph and cannot be split in two classes.")
            wrong[photos[: len(photos) // 2]] = new
    else:
        pairs = rng.permutation(len(people))[: round(share * len(people)) // 2 * 2].reshape(-1, 2)
        for first, second in pairs:
            wrong[wrong == second] = first
    return np.unique(wrong, return_inverse=True)[1].astype(np.int64)


def write_relabelled(folder: StrPath, faces: FaceDataset, labels: np.ndarray) -> np.ndarray:
    """Write the images of a data set under other labels as a new RecordIO set; -1 leaves an image out.

    Args:
        folder: Where.
        faces: Whose encoded images are taken as they are.
        labels: (N,) ints; classes are numbered anew, without a gap.

    Returns:
        The index in `faces` of each image of the new set, (M,) int64.
    """
    classes = np.unique(labels[labels >= 0])
    rows = [np.flatnonzero(labels == label) for label in classes]
    write_face_records(folder, ([faces.encoded(int(i))[0] for i in of_class] for of_class in rows))
    return np.concatenate(rows)


def write_noisy(folder: Path, faces: FaceDataset, kind: str, share: float, seed: int = 0) -> NoisySet:
    """Write a data set with wrong labels, and who is shown as truth.npz; what is there already is opened.

    Raises:
        ConfigError, DataError: As `corrupt_labels`, or the labels of the data are not known.
    """
    if faces.labels is None:
        raise DataError("the labels of so large a set are not all read: take a smaller one.")
    labels = corrupt_labels(faces.labels, kind, share, seed)
    truth = folder / TRUTH
    if not truth.exists():
        order = write_relabelled(folder, faces, labels)
        with replace_when_done(truth) as beside:
            np.savez(beside, people=faces.labels[order])
    with np.load(truth) as saved:
        return NoisySet(folder, saved["people"])
