"""A run, or a file of weights, opened again to be looked at: the network, and what the run knows of itself."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from easydict import EasyDict

from arcface_edu.errors import CheckpointError
from arcface_edu.models import build_model
from arcface_edu.models.iresnet import NETWORKS
from arcface_edu.training.checkpoint import load_latest
from arcface_edu.training.distributed import first_line
from arcface_edu.training.metrics import read_metrics


class Trained(NamedTuple):
    """A network with its weights, in eval mode, and of a run also its config, class centres (C, D) and log."""

    model: torch.nn.Module
    config: EasyDict | None
    centres: torch.Tensor | None
    log: list  # dicts of metrics.jsonl


def open_trained(path, network=None):
    """The network of a run's folder (or of the model.pt in it), or of a file of weights under the published names.

    network: of the weights; None = the residual network whose shapes they have.
    Class centres are those of the run's newest checkpoint.   raises: CheckpointError.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"there is no {path}: name the folder of a run, as runs/drawn_faces, or a file of weights."
        )
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").exists() or not (path.is_dir() or path.name == "model.pt"):
        if path.is_dir():
            raise CheckpointError(f"{path} is no run: no config.json in it. Name the folder that `output` named.")
        weights = read_weights(path)
        return Trained(fill(network_of(weights, path, network), weights, path), None, None, [])
    try:
        config = EasyDict(json.loads((folder / "config.json").read_text()))
        model = build_model(config.network, config.embedding_size)
    except (json.JSONDecodeError, AttributeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is not the config of a run ({error}).") from None
    saved = load_latest(folder / "checkpoints") or {}
    weights = read_weights(folder / "model.pt") if (folder / "model.pt").exists() else saved.get("model")
    if weights is None:
        raise CheckpointError(f"{folder} holds neither model.pt nor a checkpoint: the run has not come that far yet.")
    centres = saved["head"]["weight"] if "head" in saved else None
    return Trained(fill(model, weights, folder), config, centres, read_metrics(folder / "metrics.jsonl"))


def read_weights(path):
    """The state dict in a file. Only tensors are admitted, never code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        wrong = not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values())
        reason = "it holds no dict of tensors by name" if wrong or not state else None
    except OSError:
        raise
    except Exception as error:  # pickle, zip and torch have their own ways to say that a file is broken
        reason = first_line(error)
    if reason:
        raise CheckpointError(
            f"{path} is no file of weights ({reason}); name a model.pt or the backbone.pth of a release."
        )
    return state


def network_of(state, path, network):
    """The network that weights of these shapes belong to, still with random ones."""
    size = next((value.shape[0] for value in reversed(state.values()) if value.ndim), 1)
    for name in [network] if network else NETWORKS:
        with torch.device("meta"):
            wanted = {key: value.shape for key, value in build_model(name, size).state_dict().items()}
        if network or wanted == {key: value.shape for key, value in state.items()}:
            return build_model(name, size)
    raise CheckpointError(
        f"{path} holds the weights of none of {', '.join(NETWORKS)}; name the network with --network."
    )


def fill(model, weights, path):
    """`model` with these weights, in eval mode."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} holds the weights of another network ({detail}).") from None
    return model.eval()
