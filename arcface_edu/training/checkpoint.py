"""Checkpoints: everything a run needs to go on as if it had never stopped, written beside and renamed into place."""

import os
import re
from pathlib import Path

import torch

from arcface_edu.errors import CheckpointError

NAME = "step_{:08d}.pt"


def save_checkpoint(folder, step, state, keep=2):
    """Write `state` as folder/step_<step>.pt and remove all but the newest `keep` (0 = none).

    The name appears only when the file is whole and on the disk. Raises CheckpointError when it cannot be written;
    earlier checkpoints stay.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_atomically(state, folder / NAME.format(step))
    if keep:
        for old in list_checkpoints(folder)[:-keep]:
            old.unlink()


def save_atomically(state, path):
    """torch.save that leaves either the old file or the new one, never half of one."""
    beside = Path(f"{path}.tmp")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} could not be written ({error}); free some space or choose another output=. "
            f"What was saved before stays, and resume=True goes on from there."
        ) from error


def list_checkpoints(folder):
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step_*.pt") if re.fullmatch(r"step_\d{8,}\.pt", path.name))


def load_latest(folder, say=print):
    """The newest checkpoint that can be read, or None if there is none at all.

    A damaged file is named and passed over for the one before it. Raises CheckpointError when all are damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            say(f"{error} Trying the one before it.")
    if paths:
        raise CheckpointError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; start anew, resume=False."
        )
    return None


def load_checkpoint(path):
    """The state in a checkpoint file, on the CPU. Only tensors and plain values are admitted, never code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own ways to say that a file is broken
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the checkpoint {path} cannot be read ({reason[:160]}).") from error


def gather_state(parts, device):
    """The state dicts of a run's parts (a dict of modules, optimizer ...) and of the random generators."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state["rng"] = torch.get_rng_state()
    if device.type != "cpu":
        state["device_rng"] = torch.get_device_module(device).get_rng_state()
    return state


def restore_state(parts, saved, device, path):
    """The way back from `gather_state`; a part that does not fit is named with what differs."""
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError) as error:
            detail = " ".join(str(error).split())[:240]
            raise CheckpointError(
                f"the checkpoint in {path} holds another {name} than this config builds ({detail}); "
                f"set the config back, or choose another output=."
            ) from error
    torch.set_rng_state(saved["rng"])
    if device.type != "cpu" and "device_rng" in saved:
        torch.get_device_module(device).set_rng_state(saved["device_rng"])


def run_identity(config, num_classes):
    """What must stay the same for a run to go on."""
    return dict(
        network=config.network,
        embedding_size=config.embedding_size,
        num_classes=num_classes,
        head="softmax" if config.loss == "softmax" else "margin softmax",
        optimizer=config.optimizer,
    )


def check_same_run(saved, mine, path):
    """A checkpoint goes on only with the network and the classes that it was made with (dicts of `run_identity`)."""
    for key, value in mine.items():
        if saved.get(key) != value:
            raise CheckpointError(
                f"the checkpoint in {path} was made with {key}={saved.get(key)!r}, this run has {value!r}; "
                f"set it back, or choose another output=, or resume=False to begin anew."
            )
