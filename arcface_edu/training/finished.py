"""A run, or a file of weights, opened again to be looked at: the network, and what the run knows of itself."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from easydict import EasyDict

from arcface_edu.errors import CheckpointError
from arcface_edu.models import build_model
from arcface_edu.models.weights import fill, is_published, load_model
from arcface_edu.training.checkpoint import load_latest
from arcface_edu.training.metrics import read_metrics


class Trained(NamedTuple):
    """A network with its weights, in eval mode, and of a run also its config, class centres (C, D) and log."""

    model: torch.nn.Module
    config: EasyDict | None
    centres: torch.Tensor | None
    log: list  # dicts of metrics.jsonl


def open_trained(path, network=None):
    """The network of a run's folder (or of the model.pt in it), of a published model's, or of a file of weights.

    network: of the weights; None = the one whose shapes they have.
    Class centres are those of the run's newest checkpoint.   raises: CheckpointError.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"there is no {path}: name the folder of a run, as runs/drawn_faces, or a file of weights."
        )
    if is_published(path):
        return Trained(load_model(path, network)[0], None, None, [])
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").exists() or not (path.is_dir() or path.name == "model.pt"):
        if path.is_dir():
            raise CheckpointError(f"{path} is no run: no config.json in it. Name the folder that `output` named.")
        return Trained(load_model(path, network)[0], None, None, [])
    try:
        config = EasyDict(json.loads((folder / "config.json").read_text()))
        built_as = config.network, config.embedding_size
    except (json.JSONDecodeError, AttributeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is not the config of a run ({error}).") from None
    saved = load_latest(folder / "checkpoints") or {}
    if (folder / "model.pt").exists():
        model, _ = load_model(folder / "model.pt", *built_as)
    elif "model" in saved:
        model = fill(build_model(*built_as), saved["model"], folder)
    else:
        raise CheckpointError(f"{folder} holds neither model.pt nor a checkpoint: the run has not come that far yet.")
    centres = saved["head"]["weight"] if "head" in saved else None
    return Trained(model, config, centres, read_metrics(folder / "metrics.jsonl"))
