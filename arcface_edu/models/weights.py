"""Weights from a file into the network they belong to. A file is data: nothing in it is ever run.

Read are state dicts as torch.save writes them (plain, under DistributedDataParallel's or torch.compile's prefix, or
within a trainer's whole checkpoint) and safetensors. What a path names, runs.py finds out.
"""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_edu.errors import CheckpointError, ConfigError, from_extra
from arcface_edu.models import NETWORKS, build_model

StateDict = Mapping[str, Tensor]

WRAPPINGS = ("state_dict_backbone", "state_dict", "model", "backbone")  # under which checkpoints keep the network's
PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
LAST_LAYER = ("features.bias", "features.layers.3.bias", "feature.3.bias")  # of IResNet, MobileFaceNet, ViT


def read_state(path: Path) -> StateDict:
    """Return the tensors in a file of weights by their names, without the wrappings that trainers put around them.

    Raises:
        CheckpointError: The file is no state dict of tensors, or loading it would run code.
        ConfigError: It takes the package safetensors.
    """
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX graph, which can embed but not be trained: name the weights it is of."
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for name in WRAPPINGS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors: save the network's `state_dict()`.")
    for prefix in PREFIXES:
        if all(str(name).startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        why = "it is broken, or holds objects whose loading could run code"
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    raise CheckpointError(
        f"{path} cannot be read as weights ({why}); wanted is a state dict as torch.save writes it."
    ) from None


def _read_safetensors(path: Path) -> object:
    with from_extra("export", str(path)):
        from safetensors import SafetensorError
        from safetensors.torch import load
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as weights ({error}): fetch the file again.") from None


def guess_network(state: StateDict) -> str | None:
    """Return the name of the network with just these tensors, or None."""
    shapes = {name: value.shape for name, value in state.items()}
    for network in NETWORKS:
        if network == "r2060" and len(state) < 10_000:  # which takes seconds to build, and has 18,583 tensors
            continue
        try:
            with torch.device("meta"):  # shapes without memory
                model = build_model(network, embedding_size_of(state))
        except (ConfigError, RuntimeError):
            continue
        if {name: value.shape for name, value in model.state_dict().items()} == shapes:
            return network
    return None


def embedding_size_of(state: StateDict) -> int:
    """Return the length of the last BatchNorm, which is over the embedding; 512 where there is none of its names."""
    return next((len(state[name]) for name in LAST_LAYER if name in state and state[name].ndim == 1), 512)


def resolve_architecture(
    state: StateDict, path: Path, network: str | None = None, embedding_size: int | None = None
) -> tuple[str, int]:
    """Return the network and the embedding size of a state dict: as given, or else as its shapes say.

    Raises:
        CheckpointError: The tensors are those of no network.
    """
    network = network or guess_network(state)
    if network is None:
        raise CheckpointError(
            f"{path} fits none of the networks {', '.join(NETWORKS)}: name the one it was trained as, with "
            f"--network or network=, to see what differs."
        )
    return network, embedding_size or embedding_size_of(state)


def fill(model: nn.Module, state: StateDict, path: Path, name: str = "the network of its config") -> nn.Module:
    """Load a state dict into `model` and return it in eval mode.

    Args:
        path, name: of the weights and of the network, for the sentence that says what does not fit.

    Raises:
        CheckpointError: The tensors are not those of `model`.
    """
    check_fit(model, state, path, name)
    model.load_state_dict(state)
    return model.eval()


def check_fit(model: nn.Module, state: StateDict, path: Path, name: str) -> None:
    """Raise CheckpointError unless a state dict has just the tensors of `model`: says what differs, and what fits."""
    ours = model.state_dict()
    other_shape = [key for key in ours if key in state and state[key].shape != ours[key].shape]
    if not other_shape and ours.keys() == state.keys():
        return
    if fits := guess_network(state):
        raise CheckpointError(f"{path} does not fit {name}; it fits {fits} with {embedding_size_of(state)}.")
    shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(ours[key].shape)}" for key in other_shape]
    differ = (
        ("missing", [key for key in ours if key not in state]),
        ("unknown", [key for key in state if key not in ours]),
        ("of another shape", shapes),
    )
    found = "; ".join(f"{what}: {_some(keys)}" for what, keys in differ if keys)
    raise CheckpointError(f"{path} does not fit {name}; {found}.")


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex: two people with the same one speak of the same weights."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
