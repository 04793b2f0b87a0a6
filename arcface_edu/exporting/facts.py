"""What goes with an exported network: its preprocessing, where it comes from, and faces to prove it on."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from arcface_edu.data.bins import choose_pairs
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_person
from arcface_edu.models.weights import embedding_size_of

PREPROCESSING = dict(color="RGB", size="112x112", mean="127.5", std="127.5")  # (pixel - mean) / std
OF_THIS_MACHINE = ("output", "device", "resume", "num_workers")  # keys of a run that mean nothing elsewhere


def onnx_metadata(model: nn.Module, network: str, sha256: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Return what an ONNX file says of itself: preprocessing, network, hash of its weights, config of its run or {}."""
    size = embedding_size_of(model.state_dict())
    facts = dict(network=network, embedding_size=str(size), embedding="of the image alone, not normalised")
    return PREPROCESSING | facts | dict(weights_sha256=sha256, training_config=json.dumps(public(config)))


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config as others may read it: data and weights by name, without paths of this machine."""
    config = config.get("training_config", config)  # that of a model folder is public already
    kept = {key: value for key, value in config.items() if key not in OF_THIS_MACHINE}
    for key in ("rec", "init"):
        if kept.get(key):
            kept[key] = name_of(kept[key])
    if kept.get("val_targets"):
        kept["val_targets"] = [name_of(target) for target in kept["val_targets"]]
    return kept


def name_of(path: object) -> str:
    """Return the last part of a path of any operating system."""
    return re.split(r"[/\\]", str(path).rstrip("/\\"))[-1]


def drawn_pairs(people: int = 40, photos: int = 8, pairs: int = 600, seed: int = 0) -> tuple[list[bytes], np.ndarray]:
    """Return 2N encoded faces and is_same (N,) of drawn people that no run on drawn faces has trained on."""
    chosen, is_same = choose_pairs([photos] * people, pairs, seed)
    drawn = [draw_person(seed, UNSEEN + person, photos) for person in range(people)]
    return [drawn[person][photo] for pair in chosen for person, photo in pair], is_same
