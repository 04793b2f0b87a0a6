"""What a path names: the folder of a run, a model folder (as `export --hub` writes it), or a file of weights.

The name of a network that comes with the package, as drawn_crowd, names it too.

    model, network = load_model("runs/drawn_faces")     the network of any of the three, in eval mode
    run = open_run("runs/drawn_faces")                  also its config, class centres and log
    source = resolve("runs/drawn_faces")                only where its weights, its config and its data lie

This is the only place that answers the question: every command, `init=` and the notebooks ask here.
"""

import contextlib
import functools
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from easydict import EasyDict
from torch import Tensor, nn

from arcface_edu.errors import CheckpointError
from arcface_edu.io import StrPath, parse_json
from arcface_edu.models import build_model
from arcface_edu.models.weights import StateDict, check_fit, fill, read_state, resolve_architecture

log = logging.getLogger(__name__)

PRETRAINED = Path(__file__).parent / "pretrained"  # a model folder for each network that comes with the package
RUN_WEIGHTS, MODEL_WEIGHTS, CONFIG = "model.pt", "model.safetensors", "config.json"
KEYS = {  # of a config that somebody else may have written: which values are taken
    "network": lambda value: isinstance(value, str),
    "embedding_size": lambda value: isinstance(value, int) and 0 < value <= 65536,
    "rec": lambda value: isinstance(value, str),
}


class Source(NamedTuple):
    """Where a network comes from."""

    path: Path  # as it was named
    weights: Path  # the file
    config: dict[str, Any]  # of the folder's config.json; {} of a bare file
    is_run: bool  # a run's folder; a model folder, which others may fetch, stays as it is

    @property
    def name(self) -> str:
        """The name of the folder, or that of the file without its ending."""
        return self.path.stem if self.path == self.weights else self.path.resolve().name

    @property
    def results_folder(self) -> Path:
        """The folder for what `evaluate` finds out."""
        return self.path / "evaluation" if self.is_run else Path("evaluation") / self.name

    @property
    def data(self) -> Path | None:
        """The folder of a run's training data, or the .rec file that its config names; None if it is gone."""
        return find_data(self.path, self.config)


class Run(NamedTuple):
    """A network with its weights, in eval mode, and all that its run says of itself."""

    model: nn.Module
    network: str
    config: EasyDict  # {} of a model folder and of a bare file
    data: Path | None  # the folder of its training data, or the .rec file; None if it is gone
    centres: Tensor | None  # (C, D), or (C, K, D), class centres of the run's newest checkpoint
    log: list[dict[str, Any]]  # the lines of metrics.jsonl


def locate(path: StrPath) -> Path:
    """Return the file or folder that a path names, or that a name alone stands for.

    The name of a network that comes with the package stands for it, unless a folder here or in runs/ has that name.
    Which of them it is, and what it has seen, is logged once.
    """
    path = Path(path)
    shipped = PRETRAINED / path
    if str(path) != path.name or not (shipped / MODEL_WEIGHTS).is_file():
        return path
    for own in (path, Path("runs") / path):
        if own.exists():
            _log_once(f"{path}: {own.resolve()}, not the network of this name that comes with the package")
            return own
    trained = read_config(shipped / CONFIG)["training_config"]
    _log_once(
        f"{path}: the network that comes with the package. It was trained on {trained['num_image']:,} drawings of "
        f"{trained['num_classes']:,} people who do not exist, and has seen no photograph: to learn with, not for use "
        f"on people."
    )
    return shipped


@functools.cache
def _log_once(sentence: str) -> None:
    log.info(sentence)


def resolve(path: StrPath) -> Source:
    """Return where the weights and the config lie that a path names.

    Raises:
        CheckpointError: Nothing is there, or no weights yet, or its config.json is broken.
    """
    path = locate(path)
    weights = weights_file(path)
    config = read_config(path / CONFIG) if path != weights else {}
    return Source(path, weights, config, is_run(path))


def weights_file(path: StrPath) -> Path:
    """Return the file of weights that a path names: itself, or the one in the folder of a run or of a model.

    Raises:
        CheckpointError: Nothing is there, or no weights yet.
    """
    path = locate(path)
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: name the folder of a run, as runs/drawn_faces, or of a model, a file of "
            f"weights (.pt, .pth, .safetensors, .onnx), or a network that comes with the package: "
            f"{', '.join(sorted(file.parent.name for file in PRETRAINED.glob('*/' + MODEL_WEIGHTS)))}."
        )
    if not path.is_dir():
        return path
    found = next((path / name for name in (RUN_WEIGHTS, MODEL_WEIGHTS) if (path / name).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{path} holds neither {RUN_WEIGHTS} nor {MODEL_WEIGHTS}: let the run finish, or name a file of weights."
        )
    return found


def is_run(path: StrPath) -> bool:
    """Return whether a path is a run's folder; a model folder and a file are none."""
    path = Path(path)
    return path.is_dir() and ((path / RUN_WEIGHTS).is_file() or not (path / MODEL_WEIGHTS).is_file())


def read_config(path: Path) -> dict[str, Any]:
    """Return the config.json of a run or of a model folder; {} if there is none.

    Raises:
        CheckpointError: It is not JSON, or holds values that no config has.
    """
    remedy = "restore it, or name the file of weights itself."
    try:
        config = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): {remedy}") from None
    if not isinstance(config, dict) or not all(fits(config[key]) for key, fits in KEYS.items() if config.get(key)):
        raise CheckpointError(f"{path} is not the config of a run or a model: {remedy}")
    return config


def find_data(path: Path, config: dict[str, Any]) -> Path | None:
    """Return what a run's config names as `rec`, seen from where the run may have been started; None if it is gone."""
    rec = config.get("rec")
    candidates = [base / rec for base in (Path(), *path.resolve().parents)] if rec else []
    with contextlib.suppress(OSError):  # a name that no file can have
        return next((place for place in candidates if place.exists()), None)
    return None


def load_model(
    source: StrPath | Source, network: str | None = None, embedding_size: int | None = None
) -> tuple[nn.Module, str]:
    """Return a network with its weights, in eval mode, and its name.

    Args:
        source: a file (.pt, .pth, .safetensors, .onnx), or the folder of a run or of a model.
        network, embedding_size: as for `build_model`; None = as the folder's config or else the shapes say.

    Returns:
        The module, (B, 3, 112, 112) float RGB in [-1, 1] -> (B, D) float32, and the network's name; an ONNX graph's
        is that of its file.

    Raises:
        CheckpointError: It cannot be read, or fits no network, or not the one that was named.
        ConfigError: There is no such network, or the file takes a package that is not installed.
    """
    source = source if isinstance(source, Source) else resolve(source)
    if source.weights.suffix == ".onnx":
        from arcface_edu.models.onnx_graph import OnnxGraph  # an extra, and a slow import

        return OnnxGraph(source.weights), source.weights.name
    return _build_and_fill(read_state(source.weights), source.weights, source.config, network, embedding_size)


def _build_and_fill(
    state: StateDict, path: Path, config: dict[str, Any], network: str | None, embedding_size: int | None
) -> tuple[nn.Module, str]:
    network, embedding_size = network or config.get("network"), embedding_size or config.get("embedding_size")
    network, embedding_size = resolve_architecture(state, path, network, embedding_size)
    model = build_model(network, embedding_size)
    return fill(model, state, path, f"{network} with {embedding_size} dimensions"), network


def load_into(model: nn.Module, path: StrPath, name: str = "the network of its config") -> nn.Module:
    """Load the weights that a path names into `model`, called `name` in errors, and return it in eval mode.

    Raises:
        CheckpointError: There are no weights, or those of another network.
    """
    weights = weights_file(path)
    return fill(model, read_state(weights), weights, name)


def architecture_of(path: StrPath, network: str | None = None, embedding_size: int | None = None) -> tuple[str, int]:
    """Return the network and the embedding size of the weights that a path names, and fill no network.

    Args:
        network, embedding_size: what the weights have to fit; None = as their shapes say.

    Raises:
        CheckpointError, ConfigError: as `load_model`.
    """
    weights = weights_file(path)
    state = read_state(weights, logging.DEBUG)  # whoever loads them into a network says what was done to them
    network, embedding_size = resolve_architecture(state, weights, network, embedding_size)
    with torch.device("meta"):  # shapes without memory
        model = build_model(network, embedding_size)
    check_fit(model, state, weights, f"{network} with {embedding_size} dimensions")
    return network, embedding_size


def open_run(path: StrPath, network: str | None = None, embedding_size: int | None = None) -> Run:
    """Return a run with its network, config, class centres and log. The model.pt in a run's folder stands for the run.

    A run that was cut short is opened from its newest checkpoint; a model folder or a bare file has no centres and no
    log.

    Raises:
        CheckpointError, ConfigError: as `load_model`.
    """
    from arcface_edu.training.checkpoint import load_latest  # a slow import, which other commands need not wait for
    from arcface_edu.training.metrics import read_metrics

    path = locate(path)
    if path.name == RUN_WEIGHTS and (path.parent / CONFIG).is_file():
        path = path.parent
    if not is_run(path):
        return Run(*load_model(path, network, embedding_size), EasyDict(), None, None, [])
    config, saved = read_config(path / CONFIG), load_latest(path / "checkpoints") or {}
    if "model" in saved and not (path / RUN_WEIGHTS).exists():
        model, network = _build_and_fill(saved["model"], path, config, network, embedding_size)
    else:
        model, network = load_model(path, network, embedding_size)
    centres = saved["head"]["weight"] if "head" in saved else None
    log = read_metrics(path / "metrics.jsonl")
    return Run(model, network, EasyDict(config), find_data(path, config), centres, log)
