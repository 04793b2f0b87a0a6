"""Weights from a file into the network they belong to. A file is data: nothing in it is ever run."""

import hashlib
import pickle

import torch

from arcface_edu.errors import CheckpointError, ConfigError
from arcface_edu.models import NETWORKS, build_model

WRAPPINGS = ("state_dict_backbone", "state_dict", "model", "backbone")  # under which checkpoints keep the network's
PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name


def load_model(path, network=None, embedding_size=None):
    """The network whose weights are in `path` (.pt, .pth), in eval mode, and its name.

    network, embedding_size: as for `build_model`; None = read from the shapes.   raises: CheckpointError, ConfigError.
    """
    state = read_state(path)
    if network is None:
        network = guess_network(state)
        if network is None:
            raise CheckpointError(
                f"{path} fits none of the networks {', '.join(NETWORKS)}: name the one it was trained as with "
                f"--network, to see what differs."
            )
    embedding_size = embedding_size or embedding_size_of(state)
    return fill(
        build_model(network, embedding_size), state, path, f"{network} with {embedding_size} dimensions"
    ), network


def fill(model, state, path, name="the network of its config"):
    """`model` with the tensors of a state dict, in eval mode; `path` and `name` are for the sentence if they differ."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        fits = guess_network(state)
        lines = str(error).splitlines()[1:3]
        raise CheckpointError(
            f"{path} does not fit {name}; "
            + (f"it fits {fits} with {embedding_size_of(state)}." if fits else f"{' '.join(map(str.strip, lines))}")
        ) from None
    return model.eval()


def read_state(path):
    """dict name -> tensor in a checkpoint, without the wrappings that trainers put around it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as weights ({what[:120]}); wanted is a state dict as torch.save writes it."
        ) from None
    for name in WRAPPINGS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors: save the network's `state_dict()`.")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def guess_network(state):
    """The name of the network with just these tensors, or None."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for network in NETWORKS:
        try:
            with torch.device("meta"):  # shapes without memory
                model = build_model(network, embedding_size_of(state))
        except (ConfigError, RuntimeError):
            continue
        if {name: tuple(value.shape) for name, value in model.state_dict().items()} == shapes:
            return network
    return None


def embedding_size_of(state):
    """The networks end in a BatchNorm over the embedding: the length of the last vector among their tensors."""
    vectors = [len(value) for value in state.values() if value.ndim == 1 and len(value)]
    return vectors[-1] if vectors else 512


def hash_of(path):
    """SHA-256 of a file, in hex: two people with the same one speak of the same weights."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
