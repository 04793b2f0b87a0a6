"""Where what is judged comes from: a run's folder or a file of weights, pairs beside its data or named, photographs."""

import json
from pathlib import Path

import numpy as np

from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.folder import held_out_pairs
from arcface_edu.errors import DataError
from arcface_edu.evaluation.verification import embed
from arcface_edu.models.weights import IN_FOLDERS, is_published

KEYS = {  # of a config that somebody else may have written: what is taken for a value
    "network": lambda value: isinstance(value, str),
    "embedding_size": lambda value: isinstance(value, int) and 0 < value <= 65536,
    "rec": lambda value: isinstance(value, str),
}


def find_weights(subject):
    """(file of weights, config or {}, folder for results) of a file, or of the folder of a run or a published model."""
    if subject.is_file():
        return subject, {}, Path("evaluation") / subject.stem
    weights = next((subject / name for name in IN_FOLDERS if (subject / name).is_file()), None)
    if weights is None:
        holds_none = f"holds no {' and no '.join(IN_FOLDERS)}: let the run finish"
        raise DataError(
            f"{subject} {holds_none if subject.is_dir() else 'does not exist'}; name a run's or a model's folder, or a "
            f"file of weights (.pt, .pth, .safetensors, .onnx)."
        )
    # What others may fetch stays as it is.
    results = Path("evaluation") / subject.resolve().name if is_published(subject) else subject / "evaluation"
    return weights, read_config(subject / "config.json", weights), results


def read_config(path, weights):
    """dict of a config.json, {} where there is none.   weights: what else could be named, for the sentence."""
    try:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): restore it, or name {weights} itself.") from None
    if not isinstance(config, dict) or not all(fits(config[key]) for key, fits in KEYS.items() if config.get(key)):
        raise DataError(f"{path} is not the config of a run or a model: restore it, or name {weights} itself.")
    return config


def find_data(subject, config):
    """The folder of a run's training data, seen from where the run may have been started; None if it is gone."""
    places = [base / config["rec"] for base in (Path(), *subject.resolve().parents)] if config.get("rec") else []
    return next((place for place in places if place.is_dir()), None)


def pair_sets(named, data, config):
    """Yield (name, 2N encoded images, is_same (N,)) of the files and folders named, else of those beside a run's data.

    raises: DataError (a folder without pairs, two files of one name).
    """
    places = named or ([data] if data else [])
    files = [file for place in places for file in (sorted(place.glob("*.bin")) if place.is_dir() else [place])]
    names = [file.stem for file in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two files of pairs are called {min(twice)}: rename one, their results would be mixed up.")
    if named and not files:
        raise DataError(f"there are no .bin files of pairs in {', '.join(map(str, named))}: name others with --pairs.")
    yield from ((file.stem, *read_pairs(file)) for file in files)
    if not files and data and config.get("hold_out"):
        yield "held_out", *held_out_pairs(data, config["hold_out"], config.get("draw_pairs"), config.get("seed", 0))


def embed_people(model, gallery, probes, batch_size):
    """Embeddings and labels of two data sets, (G, D), (G,), (P, D), (P,); people are the same when named alike."""
    arrays, number = [], {}
    for place in (gallery, probes):
        faces = open_faces(place)
        labels = [faces.encoded(i)[:2] for i in range(len(faces))]
        names = faces.names or [str(label) for label in range(faces.num_classes)]
        arrays.append(
            embed(model, [image for image, _ in labels], batch_size=batch_size, progress=f"embedding {place}")
        )
        arrays.append(np.array([number.setdefault(names[label], len(number)) for _, label in labels]))
    return arrays
