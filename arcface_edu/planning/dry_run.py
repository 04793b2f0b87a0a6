"""A run without data: everything of a config is built as one of its ranks, takes two steps and is saved, on fakes."""

import json
from unittest import mock

from torch import nn

from arcface_edu.errors import ArcfaceError, TrainingError
from arcface_edu.planning.measure import STEPS, build_on_fakes, complete, fake_batch
from arcface_edu.planning.stand_ins import fake_world
from arcface_edu.planning.watchers import nbytes
from arcface_edu.training import checkpoint_state
from arcface_edu.training.launch import first_line
from arcface_edu.training.precision import choose_device, choose_dtype
from arcface_edu.training.schedule import Schedule


def dry_run(config):
    """Build, step twice and save `config` as rank 0 of config.dry_run_gpus.  returns: the report, as text.

    Raises ConfigError for what the config lacks, TrainingError for what goes wrong, with the place.
    """
    gpus = config.dry_run_gpus
    complete(config, gpus)
    dtype = choose_dtype(config, choose_device(config.device))
    schedule = Schedule.of(config, config.num_image, gpus)
    lines, doing = [], "building the network"
    try:
        with fake_world(gpus, config.batch_size) as world:
            state = build_on_fakes(config, dtype, world)
            doing = "the first step"
            images, labels = fake_batch(config)
            lines.append(f"  {'images':<22} {shape(images)}")
            watched = [
                part.register_forward_hook(lambda _, __, out, name=name: lines.append(f"  {name:<22} {shape(out)}"))
                for name, part in parts_of(state.model)
            ]
            state.step([(images, labels)] * config.gradient_acc)
            for hook in watched:
                hook.remove()
            lines.append(f"  {'centres':<22} {shape(state.head.weight)}, of {config.num_classes:,} on all {gpus}")
            doing = "the second step"
            for _ in range(1, STEPS):
                loss = state.step([(images, labels)] * config.gradient_acc).losses[-1]
            lines.append(f"  {'loss':<22} {shape(loss)}")
            doing = "the checkpoint"
            saved = checkpoint_lines(state, gpus)
    except ArcfaceError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise TrainingError(f"the dry run went wrong at {doing}: {first_line(error)}") from error
    return "\n".join(
        [
            f"dry run of {config.network} as rank 0 of {gpus}, {str(dtype).removeprefix('torch.')}: "
            f"{config.num_image:,} images of {config.num_classes:,} people, {schedule.total_steps:,} steps of "
            f"{schedule.total_batch:,} images, rate {schedule.peak_lr:g}",
            *lines,
            *saved,
            "two steps and a checkpoint, nothing wrong; `python -m arcface_edu.plan` says what it takes.",
        ]
    )


def parts_of(model):
    """(name, module) of the network's parts; of a list of blocks the last: the list itself may never be called."""
    for name, part in [*model.named_children(), ("embeddings", model)]:
        yield name, part[-1] if isinstance(part, (nn.Sequential, nn.ModuleList)) else part


def checkpoint_lines(state, gpus):
    """What a checkpoint would hold, part by part: the trainer's own state, made but not written."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily  # slow imports
    from torch.distributed import tensor as dtensor

    def mesh(*args, init_device_mesh=dtensor.init_device_mesh):
        with unset_fake_temporarily():  # it reads its own table of ranks
            return init_device_mesh(*args)

    tensors, parts = {}, {}
    with (
        mock.patch.object(checkpoint_state, "all_gather_object", lambda thing: [thing] * gpus),
        mock.patch.object(dtensor, "init_device_mesh", mesh),
    ):
        state = checkpoint_state.gather_state(state.parts(), state.device)
    json.dumps(checkpoint_state.split_tensors(state, "run", tensors))  # as state.json is written
    for name, tensor in tensors.items():
        parts.setdefault(name.split(".")[1], []).append(tensor)
    lines = ["a checkpoint would hold"]
    for part, some in [*parts.items(), ("in all", list(tensors.values()))]:
        whole = sum(map(nbytes, some))
        own = sum(nbytes(tensor.to_local() if hasattr(tensor, "to_local") else tensor) for tensor in some)
        lines.append(f"  {part:<22} {len(some):4} tensors, {whole / 1e6:10.2f} MB, {own / 1e6:.2f} on one rank")
    return lines


def shape(tensor):
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
