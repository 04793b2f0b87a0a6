"""A few photographs of a few people out of a set of any size, the same ones for the same seed."""

import numpy as np
import torch
from tqdm import tqdm

from arcface_edu.errors import CorruptRecord, DataError


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
