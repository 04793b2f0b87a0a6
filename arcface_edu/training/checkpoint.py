"""Checkpoints: everything a run needs to go on as if it had never stopped, on as many processes as there are then.

A checkpoint is a folder: tensors as torch.distributed.checkpoint (DCP) writes them, each rank its part, and state.json
with all that is not a tensor. It is written beside and renamed into place.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from arcface_edu.errors import CheckpointError
from arcface_edu.training.distributed import alone, everyones, first_line, is_lost_process

NAME = "step_{:08d}"


def save_checkpoint(folder, step, state, keep=2, background=False):
    """Write `state` as folder/step_<step>/ and remove all but the newest `keep` (0 = none). Every rank has to call it.

    state: a dict of tensors, DTensors, plain values and dicts and lists of those, the same on all ranks but for the
    shards. The name appears only when the folder is whole and on the disk.
    background: only copy the state now, and write while training goes on.
    returns: `Saving`; without background it is finished. Raises CheckpointError, on every rank, when it cannot be
    written; earlier checkpoints stay.
    """
    from torch.distributed import checkpoint as dcp  # a slow import, which the help text need not wait for

    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which one process knows
    path, tensors = Path(folder) / NAME.format(step), {}
    saving = Saving(path, keep)
    with saving.failing_in_words():
        tree = split_tensors(state, "run", tensors)
        saving.prepare(json.dumps(tree))
        how = dict(storage_writer=dcp.FileSystemWriter(str(saving.beside)), no_dist=alone())
        if background:
            saving.future = dcp.async_save(tensors, process_group=messages_of_the_background(), **how)
        else:
            dcp.save(tensors, **how)
    if not background:
        saving.finish()
        if not alone():
            dist.barrier()
    return saving


class Saving:
    """A checkpoint on its way to the disk."""

    def __init__(self, path, keep):
        self.path, self.beside, self.keep = path, path.with_suffix(".tmp"), keep
        self.leads = alone() or dist.get_rank() == 0
        self.future = None  # of what is written in the background
        self.finished = False

    def prepare(self, text):
        """The folder, and state.json in it, from rank 0; the others come after."""
        problem = None
        if self.leads:
            try:
                for left in self.path.parent.glob("*.tmp"):  # by a run that was killed while writing
                    shutil.rmtree(left)
                self.beside.mkdir(parents=True)
                write_and_sync(self.beside / "state.json", text)
            except OSError as error:
                problem = str(error)
        if problem := everyones(problem)[0]:
            raise OSError(problem)

    def finish(self, wait=True):
        """Give it its name and remove older ones, once it is whole. Without `wait`, nothing happens before that."""
        if self.finished or (self.future and not wait and not self.future.done()):
            return
        self.finished = True
        with self.failing_in_words():
            if self.future:
                self.future.result()
            if self.leads:
                if self.path.exists():  # from before the run went back to an earlier one
                    remove(self.path)
                self.beside.rename(self.path)
                for old in list_checkpoints(self.path.parent)[: -self.keep] if self.keep else ():
                    remove(old)

    @contextlib.contextmanager
    def failing_in_words(self):
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            yield
        except (OSError, RuntimeError, CheckpointException) as error:
            shutil.rmtree(self.beside, ignore_errors=True)
            failures = getattr(error, "failures", None)  # DCP brings every rank's
            reason = next(iter(failures.values()))[0] if failures else error
            if is_lost_process(reason):  # the disk is not to blame
                raise reason from error
            raise CheckpointError(
                f"{self.path} could not be written ({first_line(reason)}); free some space or choose another output=. "
                f"What was saved before stays, and resume=True goes on from there."
            ) from error


def messages_of_the_background():
    """A group of all ranks for the thread that writes: in the trainer's own, its messages would mix with the step's."""
    return None if alone() else group_beside(dist.group.WORLD)


@functools.cache
def group_beside(_world):
    return dist.new_group(backend="gloo")


def write_and_sync(path, text):
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def remove(path):
    """Half removed, a folder must not look like a checkpoint."""
    doomed = path.with_name(f"{path.name}-removed.tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)


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
    return sorted(path for path in Path(folder).glob("step_*") if re.fullmatch(r"step_\d{8,}", path.name))


def load_latest(folder, head=None, say=print):
    """The newest checkpoint that every rank can read, or None if there is none at all.

    A damaged one is named and passed over for the one before it. Raises CheckpointError when all are damaged.
    """
    paths = everyones(list_checkpoints(folder))[0]  # rank 0's view: others may see a shared disk a moment later
    for path in reversed(paths):
        state, problem = None, None
        try:
            state = load_checkpoint(path, head)
        except CheckpointError as error:
            problem = str(error)
        problem = next(filter(None, everyones(problem)), None)
        if not problem:
            return state
        say(f"{problem} Trying the one before it.")
    if paths:
        raise CheckpointError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; start anew, resume=False."
        )
    return None


def load_checkpoint(path, head=None):
    """The state in a checkpoint, on the CPU. Only tensors and plain values are admitted, never code.

    head: a PartialFC that is to have it; of tables with a row per class only its own rows are read, into DTensors.
    """
    from torch.distributed import checkpoint as dcp

    from arcface_edu.training.safe_reader import SafeReader

    try:
        tree = json.loads((Path(path) / "state.json").read_text())
        reader, tensors, tables = SafeReader(str(path)), {}, set(join_tensors(tree, None).get("tables", []))
        for name, stored in reader.read_metadata().state_dict_metadata.items():
            shape, dtype = stored.size, stored.properties.dtype
            if name in tables and hasattr(head, "sharded") and shape[0] == head.num_classes:
                tensors[name] = head.sharded(torch.empty(len(head.weight), *shape[1:], dtype=dtype))
            else:
                tensors[name] = torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(
                tensors, storage_reader=reader, no_dist=True
            )  # each rank for itself: one may fail where others do not
        return join_tensors(tree, tensors)
    # Pickle, zip, JSON, torch and DCP each have their own ways to say that a file is broken.
    except (Exception, dcp.api.CheckpointException) as error:
        failures = getattr(error, "failures", None)
        reason = next(iter(failures.values()))[0] if failures else error
        raise CheckpointError(f"the checkpoint {path} cannot be read ({first_line(reason)}).") from error


def split_tensors(value, name, tensors):
    """A tree for JSON of a state; its tensors go into the dict `tensors` under their paths."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):  # as a list of pairs: JSON would turn the number of a parameter into text
        return {"dict": [[key, split_tensors(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [split_tensors(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]}
    return value


def join_tensors(tree, tensors):
    """The way back from `split_tensors`; with tensors=None they are left out."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value] if tensors is not None else None
    if kind == "list":
        return [join_tensors(item, tensors) for item in value]
    return {key: join_tensors(item, tensors) for key, item in value}


def gather_state(parts, device):
    """The state dicts of a run's parts (a dict of modules, optimizer ...) and of every rank's random generators.

    `tables` names what has a row per class, spread over ranks: DTensors if there are several.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state["rng"] = torch.stack(everyones(torch.get_rng_state()))  # (ranks, bytes)
    if device.type != "cpu":
        state["device_rng"] = torch.stack(everyones(torch.get_device_module(device).get_rng_state()))
    state["tables"] = []
    head, optimizer = parts["head"], parts["optimizer"]
    if hasattr(head, "sharded"):
        number = [p is head.weight for group in optimizer.param_groups for p in group["params"]].index(True)
        moments = dict(state["optimizer"]["state"].get(number, {}))
        for key, value in moments.items():
            if value.ndim:
                moments[key] = head.sharded(value)
                state["tables"].append(f"run.optimizer.state.{number}.{key}")
        if moments:
            state["optimizer"]["state"][number] = moments
        state["tables"].append("run.head.weight")
    return state


def restore_state(parts, saved, device, path, rank=0):
    """The way back from `gather_state`; a part that does not fit is named with what differs.

    The optimizer gets its moments back; decay, momentum and shares of the rate are those of the config, as the rate is.
    """
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
    if rank < len(saved["rng"]):  # a rank that was not there before keeps the generator it has
        torch.set_rng_state(saved["rng"][rank].clone())  # of a view, torch 2.15 would read the wrong memory
        if device.type != "cpu" and "device_rng" in saved:
            torch.get_device_module(device).set_rng_state(saved["device_rng"][rank].clone())


def lay_out_like_weights(optimizer):
    """Moments in the memory order of their weights (channels last, say): fused optimizers read both side by side."""
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                moments[key] = torch.empty_like(parameter).copy_(value)


def run_identity(config, num_classes):
    """What must stay the same for a run to go on."""
    return dict(
        network=config.network,
        embedding_size=config.embedding_size,
        num_classes=num_classes,
        head="softmax" if config.loss == "softmax" else "margin softmax",
        # AdamW that steps by rows counts steps by rows
        optimizer=config.optimizer + (" by rows" if config.optimizer == "adamw" and config.sample_rate < 1 else ""),
    )


def check_same_run(saved, mine, path):
    """A checkpoint goes on only with the network and the classes that it was made with (dicts of `run_identity`)."""
    for key, value in mine.items():
        if saved.get(key) != value:
            raise CheckpointError(
                f"the checkpoint in {path} was made with {key}={saved.get(key)!r}, this run has {value!r}; "
                f"set it back, or choose another output=, or resume=False to begin anew."
            )
