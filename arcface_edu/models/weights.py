"""Weights from a file into the network they belong to. A file is data: nothing in it is ever run.

Read are state dicts as torch.save writes them and safetensors, also those of other trainers: within a whole checkpoint,
under prefixes, beside a head, in half precision. What was done to them is logged. What a path names, runs.py finds out.
"""

import contextlib
import hashlib
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_edu.errors import CheckpointError, ConfigError
from arcface_edu.io import parse_json
from arcface_edu.models import NETWORKS, build_model

log = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]

# Under which checkpoints keep the network's tensors
WRAPPINGS = ("state_dict_backbone", "state_dict", "model_state_dict", "model", "backbone", "network", "net")
# What DistributedDataParallel, torch.compile and trainers put before every name
PREFIXES = re.compile(r"((module|_orig_mod|model|backbone|network|net)\.)*")
# How the first part of a name looks that belongs to the head, which no network here has
HEAD = re.compile(
    r"head|classif|margin|loss|criterion|arcface|cosface|metric|logit|softmax|partial_fc|^(weight|kernel)$"
)
LAST_LAYER = ("features.bias", "features.layers.3.bias", "feature.3.bias")  # of IResNet, MobileFaceNet, ViT
SAFETENSORS = {  # types of tensors, by their names in that format
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
COUNT = "num_batches_tracked"  # of a BatchNorm, which computes nothing with it: files without it are accepted


def read_state(path: Path, level: int = logging.INFO) -> StateDict:
    """Return the tensors in a file of weights by their names, without what trainers put around and beside them.

    Args:
        level: at which it is logged what was done to the file's tensors.

    Raises:
        CheckpointError: The file is no state dict of tensors, or loading it would run code.
    """
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX graph, which can embed but not be trained: name the weights it is of."
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    done, keys = [], []
    while isinstance(content, Mapping) and (
        key := next((key for key in WRAPPINGS if isinstance(content.get(key), Mapping)), "")
    ):
        keys.append(key)
        content = content[key]
    if not isinstance(content, Mapping) or not content or not all(_is_plain(value) for value in content.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors: save the network's `state_dict()`.")
    if keys:
        done.append(f"took the tensors under {'.'.join(keys)}")
    state, prefix, left_out = _without_wrappings({str(name): value for name, value in content.items()}, path)
    if prefix:
        done.append(f"without the prefix `{prefix}`")
    if left_out:
        done.append(f"left out, as of a head: {_some(left_out)}")
    if not any(name.endswith(COUNT) for name in state):
        done.append(f"it has no {COUNT}, which start at 0")
    kinds = {value.dtype for value in state.values() if value.is_floating_point()} - {torch.float32}
    if kinds:
        done.append(f"{', '.join(sorted(str(kind).removeprefix('torch.') for kind in kinds))} becomes float32")
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    if done:
        log.log(level, f"{path}: {'; '.join(done)}.")
    return state


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _without_wrappings(state: StateDict, path: Path) -> tuple[StateDict, str, list[str]]:
    """Return the backbone's tensors, the prefix that their names had, and the full names of all others.

    A part that all names share is a prefix, and so are the known ones. Of the tensors by their prefixes, the largest
    group is the backbone; those beside it, and those called like a head within it, belong to something else.
    """
    prefix, left_out = "", []
    while True:
        first = {name.partition(".")[0] for name in state}
        shared = f"{first.pop()}." if len(first) == 1 and all("." in name for name in state) else ""
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            known = PREFIXES.match(name)
            of_name = shared or (known.group() if known else "")
            groups.setdefault(of_name, {})[name.removeprefix(of_name)] = value
        backbone = max(groups, key=lambda of_name: len(groups[of_name]))
        within = groups.pop(backbone)
        for of_name, others in groups.items():
            if others.keys() == within.keys():
                raise CheckpointError(
                    f"{path} holds a network twice, under {prefix}{backbone} and {prefix}{of_name}: save the one."
                )
            left_out += [f"{prefix}{of_name}{name}" for name in others]
        heads = [name for name in within if HEAD.search(name.partition(".")[0].lower())]
        heads = heads if len(heads) < len(within) else []
        prefix += backbone
        left_out += [f"{prefix}{name}" for name in heads]
        state = {name: value for name, value in within.items() if name not in heads}
        if not backbone and not groups and not heads:
            return state, prefix, left_out


def _read_torch(path: Path) -> object:
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript program, which would have to be run: load it where it was made, and save its "
            f"`state_dict()`."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        why = "it is broken, or holds objects whose loading could run code"
    except Exception as error:  # a damaged file raises nearly anything
        if isinstance(error, OSError) and error.filename:  # it could not be opened
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    raise CheckpointError(
        f"{path} cannot be read as weights ({why}); wanted is a state dict as torch.save writes it."
    ) from None


def _is_torchscript(path: Path) -> bool:
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())
    return False


def _read_safetensors(path: Path) -> object:
    """Read the format by hand, so that it takes no extra: the header's length, the header in JSON, the tensors."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    state = {}
    try:
        for name, about in parse_json(content[8:start]).items():
            if name != "__metadata__":
                first, last = about["data_offsets"]
                if not 0 <= first <= last <= len(content) - start:
                    raise ValueError(f"{name} lies beyond its end")
                values = bytearray(content[start + first : start + last])
                dtype = SAFETENSORS[about["dtype"]]
                flat = torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)
                state[name] = flat.view(about["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path} cannot be read as weights ({error}): fetch the file again.") from None
    return state


def guess_network(state: StateDict) -> str | None:
    """Return the name of the network with just these tensors, or None."""
    shapes = _shapes(state)
    for network in _candidates(state):
        try:
            with torch.device("meta"):  # shapes without memory
                model = build_model(network, embedding_size_of(state))
        except (ConfigError, RuntimeError):
            continue
        if _shapes(model.state_dict()) == shapes:
            return network
    return None


def _candidates(state: StateDict) -> list[str]:
    """Return the networks to compare with: r2060, which takes seconds to build, has 18,583 tensors."""
    return [network for network in NETWORKS if network != "r2060" or len(state) > 10_000]


def _shapes(state: StateDict) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items() if not name.endswith(COUNT)}


def embedding_size_of(state: StateDict) -> int:
    """Return the length of the last BatchNorm, which is over the embedding; 512 where there is none of its names."""
    return next((max(1, len(state[name])) for name in LAST_LAYER if name in state and state[name].ndim == 1), 512)


def resolve_architecture(
    state: StateDict, path: Path, network: str | None = None, embedding_size: int | None = None
) -> tuple[str, int]:
    """Return the network and the embedding size of a state dict: as given, or else as its shapes say.

    Raises:
        CheckpointError: The tensors are those of no network.
    """
    network = network or guess_network(state)
    embedding_size = embedding_size or embedding_size_of(state)
    if network is None:
        raise CheckpointError(
            f"{path} fits none of the networks {', '.join(NETWORKS)}; {_nearest(state, embedding_size)}. Name the one "
            f"it was trained as, with --network or network=, to see all that differs."
        )
    return network, embedding_size


def _nearest(state: StateDict, embedding_size: int) -> str:
    """Return how the tensors differ from those of the network that has the most of them."""
    models: dict[str, nn.Module] = {}
    for network in _candidates(state):
        with torch.device("meta"):
            models[network] = build_model(network, embedding_size)
    ours = {network: _shapes(model.state_dict()).items() for network, model in models.items()}
    common = {network: len(shapes & _shapes(state).items()) for network, shapes in ours.items()}
    network = max(common, key=lambda network: (common[network], -len(ours[network])))
    if not common[network]:
        return f"its first tensors are {_some([f'{name} {tuple(value.shape)}' for name, value in state.items()])}"
    return f"the nearest is {network} with {embedding_size} dimensions; {_differences(models[network], state)}"


def fill(model: nn.Module, state: StateDict, path: Path, name: str = "the network of its config") -> nn.Module:
    """Load a state dict into `model` and return it in eval mode.

    Args:
        path, name: of the weights and of the network, for the sentence that says what does not fit.

    Raises:
        CheckpointError: The tensors are not those of `model`.
    """
    check_fit(model, state, path, name)
    model.load_state_dict({**model.state_dict(), **state})
    return model.eval()


def check_fit(model: nn.Module, state: StateDict, path: Path, name: str) -> None:
    """Raise CheckpointError unless a state dict has just the tensors of `model`: says what differs, and what fits."""
    same_shapes = _shapes(model.state_dict()) == _shapes(state)  # but for BN's counts, which may be missing
    if same_shapes and state.keys() <= model.state_dict().keys():
        return
    if not same_shapes and (fits := guess_network(state)):
        raise CheckpointError(f"{path} does not fit {name}; it fits {fits} with {embedding_size_of(state)}.")
    raise CheckpointError(f"{path} does not fit {name}; {_differences(model, state)}.")


def _differences(model: nn.Module, state: StateDict) -> str:
    ours = model.state_dict()
    other_shape = [key for key in ours if key in state and state[key].shape != ours[key].shape]
    shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(ours[key].shape)}" for key in other_shape]
    differ = (
        ("missing", [key for key in ours if key not in state and not key.endswith(COUNT)]),
        ("unknown", [key for key in state if key not in ours]),
        ("of another shape", shapes),
    )
    return "; ".join(f"{what}: {_some(keys)}" for what, keys in differ if keys)


def hash_of(*paths: Path) -> str:
    """Return the SHA-256 of a file, or of several in a row, in hex: the same for two people with the same weights."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
