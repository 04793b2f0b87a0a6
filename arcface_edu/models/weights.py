"""Weights from a file into the network they belong to. A file is data: nothing in it is ever run.

Read are state dicts as torch.save writes them (plain, under DistributedDataParallel's or torch.compile's prefix, or
within a trainer's whole checkpoint), safetensors, and ONNX graphs, which can embed but not be trained on.
"""

import hashlib
import pickle
from pathlib import Path

import torch

from arcface_edu.errors import CheckpointError, ConfigError, from_extra
from arcface_edu.models import NETWORKS, build_model

WRAPPINGS = ("state_dict_backbone", "state_dict", "model", "backbone")  # under which checkpoints keep the network's
PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
LAST_LAYER = ("features.bias", "features.layers.3.bias", "feature.3.bias")  # of IResNet, MobileFaceNet, ViT
IN_FOLDERS = ("model.pt", "model.safetensors")  # of a run, and as `export --hub` writes it


def load_model(source, network=None, embedding_size=None):
    """The network whose weights are in `source`, in eval mode, and its name.

    source: a file (.pt, .pth, .safetensors, .onnx), or the folder of a run or of a published model.
    network, embedding_size: as for `build_model`; None = read from the shapes.   raises: CheckpointError, ConfigError.
    An ONNX graph comes as a module that takes and gives what the networks do; its name is that of its file.
    """
    path = weights_file(source)
    if path.suffix == ".onnx":
        from arcface_edu.models.onnx_graph import OnnxGraph  # an extra, and a slow import

        return OnnxGraph(path), path.name
    state = read_state(path)
    network, embedding_size = built_as(state, path, network, embedding_size)
    model = build_model(network, embedding_size)
    return fill(model, state, path, f"{network} with {embedding_size} dimensions"), network


def load_into(model, source, name="the network of its config"):
    """`model` with the weights of `source`, as `load_model` takes it, in eval mode.   raises: CheckpointError.

    name: of the network, for the sentence that says what does not fit.
    """
    path = weights_file(source)
    return fill(model, read_state(path), path, name)


def look_into(source, network=None, embedding_size=None):
    """(network, embedding_size) that the weights in `source` belong to, of which no network is filled.

    network, embedding_size: what they have to fit; None = read from the shapes.   raises: CheckpointError, ConfigError.
    """
    path = weights_file(source)
    state = read_state(path)
    network, embedding_size = built_as(state, path, network, embedding_size)
    with torch.device("meta"):  # shapes without memory
        model = build_model(network, embedding_size)
    check_fit(model, state, path, f"{network} with {embedding_size} dimensions")
    return network, embedding_size


def built_as(state, path, network=None, embedding_size=None):
    """(network, embedding_size), read from the shapes where they are None."""
    network = network or guess_network(state)
    if network is None:
        raise CheckpointError(
            f"{path} fits none of the networks {', '.join(NETWORKS)}: name the one it was trained as, with "
            f"--network or network=, to see what differs."
        )
    return network, embedding_size or embedding_size_of(state)


def weights_file(source):
    """The file of weights that a path names: itself, or the one in the folder of a run or of a published model."""
    source = Path(source)
    path = next((source / name for name in IN_FOLDERS if (source / name).is_file()), source)
    if path.is_dir():
        raise CheckpointError(
            f"{source} holds neither {' nor '.join(IN_FOLDERS)}: let the run finish, or name a file of weights."
        )
    if not path.exists():
        raise CheckpointError(
            f"there is no {path}: name the folder of a run, as runs/drawn_faces, or a file of weights."
        )
    return path


def is_published(folder):
    """Whether a path is the folder of a published model, as `export --hub` writes it, and not that of a run."""
    of_run, published = (Path(folder) / name for name in IN_FOLDERS)
    return published.is_file() and not of_run.is_file()


def fill(model, state, path, name="the network of its config"):
    """`model` with the tensors of a state dict, in eval mode; `path` and `name` are for the sentence if they differ."""
    check_fit(model, state, path, name)
    model.load_state_dict(state)
    return model.eval()


def check_fit(model, state, path, name):
    """Raise CheckpointError if a state dict has not just the tensors of `model`: says what differs, and what fits."""
    ours = model.state_dict()
    other_shape = [key for key in ours if key in state and state[key].shape != ours[key].shape]
    if other_shape or ours.keys() != state.keys():
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


def read_state(path):
    """dict name -> tensor in a file of weights, without the wrappings that trainers put around it."""
    path = Path(path)
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX graph, which can embed but not be trained: name the weights it is of."
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for name in WRAPPINGS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors: save the network's `state_dict()`.")
    for prefix in PREFIXES:
        if all(str(name).startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_torch(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        why = "it is broken, or holds objects whose loading could run code"
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    raise CheckpointError(
        f"{path} cannot be read as weights ({why}); wanted is a state dict as torch.save writes it."
    ) from None


def _read_safetensors(path):
    with from_extra("export", path):
        from safetensors import SafetensorError
        from safetensors.torch import load
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as weights ({error}): fetch the file again.") from None


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
    """The networks end in a BatchNorm over the embedding; 512 where there is none of its names."""
    return next((len(state[name]) for name in LAST_LAYER if name in state and state[name].ndim == 1), 512)


def hash_of(path):
    """SHA-256 of a file, in hex: two people with the same one speak of the same weights."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _some(names, limit=3):
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
