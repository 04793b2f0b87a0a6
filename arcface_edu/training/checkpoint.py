"""Checkpoints: everything that a run needs to go on as if it had never stopped, on any number of processes.

A checkpoint is a folder: tensors as torch.distributed.checkpoint (DCP) writes them, each rank its part, and state.json
with all that is not a tensor. It is written beside and renamed into place.
"""

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from arcface_edu.errors import CheckpointError
from arcface_edu.training.checkpoint_state import (
    check_same_run,
    gather_state,
    join_tensors,
    restore_state,
    run_identity,
    split_tensors,
)
from arcface_edu.training.collectives import all_gather_object, is_distributed
from arcface_edu.training.launch import first_line, is_lost_process
from arcface_edu.training.parallel import average_bn_statistics

if TYPE_CHECKING:
    from arcface_edu.training.metrics import Meter
    from arcface_edu.training.schedule import Schedule
    from arcface_edu.training.state import TrainState

log = logging.getLogger(__name__)

NAME = "step_{:08d}"


class Checkpointer:
    """The checkpoints of a run: written when asked, in the background where the config says so, and restored from.

    Every rank has one, and calls each method at the same step.
    """

    def __init__(self, output: Path, config: Any, state: "TrainState", meter: "Meter", schedule: "Schedule") -> None:
        self.output, self.state, self.steps_per_epoch = output, state, schedule.steps_per_epoch
        self.keep, self.background = config.keep_checkpoints, config.async_save
        self.parts = state.parts() | dict(meter=meter)
        self.run = run_identity(config, state.head.num_classes)
        self.pending: PendingSave | None = None

    def restore(self) -> bool:
        """Take up the newest checkpoint, if there is one.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: None can be read, or it belongs to another run.
        """
        saved = load_latest(self.output / "checkpoints", self.state.head)
        if saved is None:
            log.info("%s holds no checkpoint yet: resume=True begins anew.", self.output)
            return False
        check_same_run(saved["run"], self.run, self.output)
        restore_state(self.parts, saved, self.state.device, self.output)
        self.state.progress.load_state_dict(saved, self.steps_per_epoch)
        return True

    @record_function("save")
    def save(self) -> None:
        """Write a checkpoint of this moment, or begin to; one that is still being written is finished first."""
        self.wait()
        average_bn_statistics(self.state.model)
        state = self.state.progress.state_dict(self.steps_per_epoch) | dict(run=self.run)
        state |= gather_state(self.parts, self.state.device)
        step = self.state.progress.global_step
        self.pending = save_checkpoint(self.output / "checkpoints", step, state, self.keep, self.background)

    def poll(self) -> None:
        """Give a checkpoint its name if it has been written by now."""
        if self.pending:
            self.pending.finish(wait=False)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk."""
        if self.pending:
            self.pending.finish()


def save_checkpoint(
    folder: Path | str, step: int, state: dict[str, Any], keep: int = 2, background: bool = False
) -> "PendingSave":
    """Write `state` as folder/step_<step>/ and remove all but the newest checkpoints; every rank calls it.

    The name appears only when the folder is whole and on the disk.

    Args:
        folder: Of a run's checkpoints.
        step: The global step.
        state: Tensors, DTensors, plain values, and dicts and lists of those; the same on all ranks but for the shards.
        keep: How many to keep; 0 = all.
        background: Only copy the state now, and write it while training goes on.

    Returns:
        The save; without `background` it is finished.

    Raises:
        CheckpointError: On every rank, when it cannot be written; earlier checkpoints stay.
    """
    from torch.distributed import checkpoint as dcp  # a slow import, which the help text need not wait for

    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as a single process has it
    tensors: dict[str, Tensor] = {}
    save = PendingSave(Path(folder) / NAME.format(step), keep)
    with save.as_checkpoint_error():
        tree = split_tensors(state, "run", tensors)
        save.prepare(json.dumps(tree))
        writer = dcp.FileSystemWriter(str(save.beside))
        if background:
            save.future = dcp.async_save(
                tensors, storage_writer=writer, process_group=background_group(), no_dist=not is_distributed()
            )
        else:
            dcp.save(tensors, storage_writer=writer, no_dist=not is_distributed())
    if not background:
        save.finish()
        if is_distributed():
            dist.barrier()
    return save


class PendingSave:
    """A checkpoint on its way to the disk."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self.beside, self.keep = path, path.with_suffix(".tmp"), keep
        self.is_main = not is_distributed() or dist.get_rank() == 0
        self.future: Any = None  # of what is written in the background
        self.finished = False

    def prepare(self, text: str) -> None:
        """Make the folder, with state.json in it, on rank 0; the other ranks wait for it."""
        problem = None
        if self.is_main:
            try:
                for left in self.path.parent.glob("*.tmp"):  # by a run that was killed while writing
                    shutil.rmtree(left)
                self.beside.mkdir(parents=True)
                write_and_sync(self.beside / "state.json", text)
            except OSError as error:
                problem = str(error)
        if problem := all_gather_object(problem)[0]:
            raise OSError(problem)

    def finish(self, wait: bool = True) -> None:
        """Give the checkpoint its name and remove older ones, once it is whole; without `wait`, only if it is whole."""
        if self.finished or (self.future and not wait and not self.future.done()):
            return
        self.finished = True
        with self.as_checkpoint_error():
            if self.future:
                self.future.result()
            if self.is_main:
                if self.path.exists():  # from before the run went back to an earlier one
                    remove(self.path)
                self.beside.rename(self.path)
                for old in list_checkpoints(self.path.parent)[: -self.keep] if self.keep else ():
                    remove(old)

    @contextlib.contextmanager
    def as_checkpoint_error(self) -> Iterator[None]:
        """Turn what goes wrong within it into a CheckpointError, and remove what was written so far."""
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            yield
        except (OSError, RuntimeError, CheckpointException) as error:
            shutil.rmtree(self.beside, ignore_errors=True)
            reason = dcp_reason(error)
            if is_lost_process(reason):  # the disk is not to blame
                raise reason from error
            raise CheckpointError(
                f"{self.path} could not be written ({first_line(reason)}); free some space or choose another output=. "
                f"What was saved before stays, and resume=True goes on from there."
            ) from error


def dcp_reason(error: BaseException) -> BaseException:
    """Return what lies behind an error of torch.distributed.checkpoint, which brings the failures of every rank."""
    failures = getattr(error, "failures", None)
    return next(iter(failures.values()))[0] if failures else error


def background_group() -> Any:
    """Return a group for the thread that writes: in the default one its messages would mix with the step's."""
    return new_group_beside(dist.group.WORLD) if is_distributed() else None


@functools.cache
def new_group_beside(_world: dist.ProcessGroup) -> Any:
    return dist.new_group(backend="gloo")


def write_and_sync(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Remove a checkpoint; half removed, a folder must not look like one."""
    doomed = path.with_name(f"{path.name}-removed.tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)


def list_checkpoints(folder: Path | str) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step_*") if re.fullmatch(r"step_\d{8,}", path.name))


def load_latest(folder: Path | str, head: Any = None) -> dict[str, Any] | None:
    """Return the state in the newest checkpoint that every rank can read, or None if there is no checkpoint.

    A damaged one is named in a warning, and the one before it is read instead.

    Args:
        folder: Of a run's checkpoints.
        head: As for `load_checkpoint`.

    Raises:
        CheckpointError: All are damaged.
    """
    paths = all_gather_object(list_checkpoints(folder))[0]  # rank 0's view: others may see a shared disk a moment later
    for path in reversed(paths):
        state, problem = None, None
        try:
            state = load_checkpoint(path, head)
        except CheckpointError as error:
            problem = str(error)
        problem = next(filter(None, all_gather_object(problem)), None)
        if not problem:
            return state
        log.warning("%s Trying the one before it.", problem)
    if paths:
        raise CheckpointError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; start anew, resume=False."
        )
    return None


def load_checkpoint(path: Path | str, head: Any = None) -> dict[str, Any]:
    """Return the state in a checkpoint, on the CPU. Only tensors and plain values are admitted, never code.

    Args:
        path: The folder of the checkpoint.
        head: The head that is to have it. If it is sharded, only its own rows of the tables with a row per class are
            read, into DTensors.

    Raises:
        CheckpointError: It cannot be read.
    """
    from torch.distributed import checkpoint as dcp

    from arcface_edu.training.safe_reader import SafeReader

    try:
        tree = json.loads((Path(path) / "state.json").read_text())
        reader, tensors, tables = SafeReader(str(path)), {}, set(join_tensors(tree, None).get("tables", []))
        metadata: Any = reader.read_metadata()
        for name, stored in metadata.state_dict_metadata.items():
            shape, dtype = stored.size, stored.properties.dtype
            if name in tables and head is not None and head.is_sharded and shape[0] == head.num_classes:
                tensors[name] = head.as_dtensor(torch.empty(len(head.weight), *shape[1:], dtype=dtype))
            else:
                tensors[name] = torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(tensors, storage_reader=reader, no_dist=True)  # one rank may fail where others do not
        return join_tensors(tree, tensors)
    # Pickle, zip, JSON, torch and DCP each have their own ways to say that a file is broken.
    except (Exception, dcp.api.CheckpointException) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({first_line(dcp_reason(error))}).") from error
