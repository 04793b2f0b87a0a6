"""A run without data: everything of a config is built as one of its ranks, takes two steps and is saved, on fakes."""

import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

from torch import Tensor, nn

from arcface_edu.errors import ArcfaceError, TrainingError
from arcface_edu.planning.fake_ops import fake_world
from arcface_edu.planning.measure import STEPS, build_on_fakes, fake_batch
from arcface_edu.planning.trackers import nbytes
from arcface_edu.training import checkpoint_state
from arcface_edu.training.launch import first_line
from arcface_edu.training.precision import choose_device, choose_dtype
from arcface_edu.training.prepare import complete_without_data
from arcface_edu.training.schedule import Schedule
from arcface_edu.training.state import TrainState


def dry_run(config: Any) -> str:
    """Build, step twice and save a config's run as rank 0 of its `dry_run_gpus`, and return the report.

    Raises:
        ConfigError: The config lacks something.
        TrainingError: Something goes wrong; it names the place.
    """
    gpus = config.dry_run_gpus
    config = complete_without_data(config, gpus)
    dtype = choose_dtype(config, choose_device(config.device))
    schedule = Schedule.of(config, config.num_image, gpus)
    lines: list[str] = []
    doing = "building the network"
    try:
        with fake_world(gpus, config.batch_size) as world:
            state = build_on_fakes(config, dtype, world)
            doing = "the first step"
            images, labels = fake_batch(config)
            shapes = {"images": shape_of(images)}
            for name, part in parts_of(state.model):
                part.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: shape_of(out)}))
            for _ in range(STEPS):
                loss = state.step([(images, labels)] * config.gradient_acc).losses[-1]
                doing = "the second step"
            shapes["centres"] = f"{shape_of(state.head.weight)}, of {config.num_classes:,} on all {gpus}"
            shapes["loss"] = shape_of(loss)
            lines += [f"  {name:<22} {shape}" for name, shape in shapes.items()]
            doing = "the checkpoint"
            lines += checkpoint_lines(state, gpus)
    except ArcfaceError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise TrainingError(f"the dry run went wrong at {doing}: {first_line(error)}") from error
    return "\n".join(
        [
            f"dry run of {config.network} as rank 0 of {gpus}, {str(dtype).removeprefix('torch.')}: "
            f"{config.num_image:,} images of {config.num_classes:,} people, {schedule.total_steps:,} steps of "
            f"{schedule.total_batch:,} images, learning rate {schedule.peak_lr:g}",
            *lines,
            "two steps and a checkpoint, nothing wrong; `python -m arcface_edu.plan` says what it takes.",
        ]
    )


def parts_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the network's parts by name; of a list of blocks the last one, as the list itself may never be called."""
    for name, part in [*model.named_children(), ("embeddings", model)]:
        yield name, part[-1] if isinstance(part, (nn.Sequential, nn.ModuleList)) else part


def checkpoint_lines(state: TrainState, gpus: int) -> list[str]:
    """Return what a checkpoint would hold, part by part: the trainer's own state, made but not written."""
    tensors: dict[str, Tensor] = {}
    with mock.patch.object(checkpoint_state, "all_gather_object", lambda value: [value] * gpus):
        saved = checkpoint_state.gather_state(state.parts(), state.device)
    json.dumps(checkpoint_state.split_tensors(saved, "run", tensors))  # as state.json is written
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        parts.setdefault(name.split(".")[1], []).append(tensor)
    lines = ["a checkpoint would hold"]
    for part, held in [*parts.items(), ("in all", list(tensors.values()))]:
        whole = sum(map(nbytes, held))
        own = sum(nbytes(tensor.to_local() if hasattr(tensor, "to_local") else tensor) for tensor in held)
        lines.append(f"  {part:<22} {len(held):4} tensors, {whole / 1e6:10.2f} MB, {own / 1e6:.2f} on one rank")
    return lines


def shape_of(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
