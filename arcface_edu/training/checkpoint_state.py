"""What is in a checkpoint: the state of every part of a run, taken apart for the disk and put together again."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_edu.errors import CheckpointError
from arcface_edu.heads import MARGINS
from arcface_edu.training.collectives import all_gather_object, is_distributed


def split_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a tree for JSON of a state, and put its tensors into the dict `tensors` under their paths."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):  # as a list of pairs: JSON would turn the number of a parameter into text
        return {"dict": [[key, split_tensors(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [split_tensors(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]}
    return value


def join_tensors(tree: Any, tensors: dict[str, Tensor] | None) -> Any:
    """Return the state that `split_tensors` took apart; with tensors=None they are left out."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value] if tensors is not None else None
    if kind == "list":
        return [join_tensors(item, tensors) for item in value]
    return {key: join_tensors(item, tensors) for key, item in value}


def gather_state(parts: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the state dicts of a run's parts (modules, optimizer ...) and of every rank's random generators.

    `tables` in it names the tensors with a row per class, sharded over the ranks: DTensors if there are several.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state["rng"] = torch.stack(all_gather_object(torch.get_rng_state()))  # (ranks, bytes)
    if device.type != "cpu":
        state["device_rng"] = torch.stack(all_gather_object(torch.get_device_module(device).get_rng_state()))
    state["tables"] = []
    head, optimizer = parts["head"], parts["optimizer"]
    if head.is_sharded:
        number = [p is head.weight for group in optimizer.param_groups for p in group["params"]].index(True)
        moments = dict(state["optimizer"]["state"].get(number, {}))
        for key, value in moments.items():
            if value.ndim:
                moments[key] = head.as_dtensor(value)
                state["tables"].append(f"run.optimizer.state.{number}.{key}")
        if moments:
            state["optimizer"]["state"][number] = moments
        state["tables"].append("run.head.weight")
    return state


def restore_state(parts: dict[str, Any], saved: dict[str, Any], device: torch.device, path: Path) -> None:
    """Load into a run's parts what `gather_state` has returned.

    The optimizer gets its moments back; its settings (weight decay, momentum, learning rate) are those of the config.

    Raises:
        CheckpointError: A part does not fit; it says what differs.
    """
    rank = dist.get_rank() if is_distributed() else 0
    groups = parts["optimizer"].param_groups
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    for moments in saved["optimizer"]["state"].values():
        moments.update({key: value.to_local() for key, value in moments.items() if hasattr(value, "to_local")})
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError) as error:
            detail = " ".join(str(error).split())[:240]
            raise CheckpointError(
                f"the checkpoint in {path} holds another {name} than this config builds ({detail}); "
                f"set the config back, or choose another output=."
            ) from error
    for group, own in zip(parts["optimizer"].param_groups, settings, strict=True):
        group.update(own)
    lay_out_like_weights(parts["optimizer"])
    if rank < len(saved["rng"]):  # a rank that was not there before keeps the state that it has
        torch.set_rng_state(saved["rng"][rank].clone())  # of a view, torch 2.15 would read the wrong memory
        if device.type != "cpu" and "device_rng" in saved:
            torch.get_device_module(device).set_rng_state(saved["device_rng"][rank].clone())


def lay_out_like_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their weights (channels last, say): fused optimizers read both side by side."""
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                moments[key] = torch.empty_like(parameter).copy_(value)


def run_identity(config: Any, num_classes: int) -> dict[str, Any]:
    """Return what must stay the same for a run to go on."""
    return dict(
        network=config.network,
        embedding_size=config.embedding_size,
        num_classes=num_classes,
        head="margin softmax"
        if config.loss in MARGINS
        else " ".join([config.loss, *sorted(map(str, config.head_options.items()))]),
        # AdamW that steps by rows counts steps by rows
        optimizer=config.optimizer + (" by rows" if config.optimizer == "adamw" and config.sample_rate < 1 else ""),
    )


def check_same_run(saved: dict[str, Any], mine: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError unless a checkpoint was made with this network and these classes (see `run_identity`)."""
    for key, value in mine.items():
        if saved.get(key) != value:
            raise CheckpointError(
                f"the checkpoint in {path} was made with {key}={saved.get(key)!r}, this run has {value!r}; "
                f"set it back, or choose another output=, or resume=False to begin anew."
            )
