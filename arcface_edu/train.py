"""Train a network with the ArcFace loss.

    python -m arcface_edu.train                              the default run: drawn faces, minutes on two cores
    python -m arcface_edu.train rec=my_photos/               your own data: a folder per person, or RecordIO
    python -m arcface_edu.train rec=my_photos/ --align       photographs as they come: detect and align the faces first
    python -m arcface_edu.train my_config.py batch_size=64   a config of your own; any key can be set behind it
    python -m arcface_edu.train rec=my_photos/ init=WEIGHTS  the same from a trained network: a run's folder or a file
    python -m arcface_edu.train resume=True                  go on where a stopped run was
    python -m arcface_edu.train CONFIG dry_run=True          needs no data: build, step and save it on fake tensors
    torchrun --nproc_per_node=8 -m arcface_edu.train ...     the same on many processes, one for each GPU
    python -m arcface_edu.train --keys                       every key: default, meaning, limits
    python -m arcface_edu.train --configs                    every config: data, network, epochs, schedule, year

A run lives in its `output` folder (runs/<config>): config.json, metrics.jsonl, checkpoints/, model.pt and figures/.
"""

import argparse
import contextlib
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor
from torch.profiler import record_function
from tqdm import tqdm

from arcface_edu.aligning import aligned_config, warn_if_unaligned
from arcface_edu.cli import cli_main, command_parser, parse_args
from arcface_edu.config import load_config
from arcface_edu.config_schema import keys_table
from arcface_edu.data.augment import augment_photo, draw_photo
from arcface_edu.data.datasets import FaceDataset
from arcface_edu.data.folder import FolderFaces
from arcface_edu.data.loader import Batch, ShuffledBatches, augment, draw_mirrored, load
from arcface_edu.errors import DataError, TrainingError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.run_report import report, verification_line
from arcface_edu.evaluation.verification import verify_pairs
from arcface_edu.io import save_torch_atomically, write_json_atomically
from arcface_edu.recipes import configs_table, recipe_line
from arcface_edu.runs import load_into
from arcface_edu.signals import StopRequest, listen_for_stop
from arcface_edu.training import cpu
from arcface_edu.training.checkpoint import Checkpointer
from arcface_edu.training.collectives import (
    StepSync,
    all_gather_object,
    assert_same_on_all_ranks,
    local_rank_zero_first,
    patient_start,
)
from arcface_edu.training.launch import SINGLE_PROCESS, World, join_world, mark_started, take_local_rank, was_restarted
from arcface_edu.training.metrics import Meter, MetricsLog, NoLog, read_metrics
from arcface_edu.training.pair_sets import PairSet, check_pair_images
from arcface_edu.training.parallel import average_bn_statistics
from arcface_edu.training.precision import autocast, choose_device, choose_dtype
from arcface_edu.training.prepare import describe_data, fit_to_weights, prepare
from arcface_edu.training.profiling import profiling
from arcface_edu.training.run_folder import check_room, exclusive
from arcface_edu.training.schedule import Schedule, check_linear_rule, set_lr
from arcface_edu.training.state import NonFiniteLoss, TrainState, build_state

log = logging.getLogger(__name__)

AT_ONCE = "all is saved, and resume=True goes on from there."  # where a signal ends a run between two steps


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    options = parse_args(build_parser(), argv)
    take_local_rank(options.local_rank)
    if options.keys or options.configs:
        print(keys_table() if options.keys else configs_table())
        return
    words = options.words
    source = [words.pop(0)] if words and "=" not in words[0] else []
    if not source:  # your own data wants its batch and learning rate fitted to it; the drawn faces' are measured
        keys = {word.split("=")[0] for word in words}
        source = ["fine_tune" if "init" in keys else "own_data" if "rec" in keys else "drawn_faces"]
    config = load_config(source[0], words)
    if config.dry_run:
        from arcface_edu.planning.dry_run import dry_run  # a slow import

        print(dry_run(config))
        return
    if options.align:
        config = aligned_config(config)
    with join_world(config.timeout_seconds) as world, explain_out_of_memory(config):
        train(config, world)


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("train", __doc__)
    words = "a config's name or path, then keys to set"
    parser.add_argument("words", nargs="*", metavar="CONFIG | key=value", help=words)
    align = "detect and align the faces of rec=photos/ first, into a folder beside the run's, with a contact sheet"
    parser.add_argument("--align", action="store_true", help=align)
    parser.add_argument("--keys", action="store_true", help="print every key with its default, meaning and limits")
    parser.add_argument("--configs", action="store_true", help="print the configs there are: data, network, epochs ...")
    # Of `python -m torch.distributed.launch`, which torchrun has replaced.
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    return parser


def train(config: Any, world: World = SINGLE_PROCESS) -> dict[str, Any]:
    """Train a config's network: data, state, loop with checkpoints and verification, results.

    Args:
        config: As `load_config` returns it; what it leaves open is filled in from the data, in a copy.
        world: The place of this process among those of the run. Each calls this function and takes every step.

    Returns:
        The result of `verify_pairs` for each pair set, by name.
    """
    started = time.perf_counter()
    device = choose_device(config.device, world.local_rank)
    dtype = choose_dtype(config, device)
    if device.type == "cpu":
        cpu.set_up(world)

    resume = was_restarted() or config.resume
    config = fit_to_weights(EasyDict(config, resume=resume))  # what cannot be meant is told before the folder is made
    with exclusive(config.output, world, config.timeout_seconds), listen_for_stop() as stop:
        with patient_start(world, config.timeout_seconds):  # a rank that opens much data is waited for
            # Data
            with local_rank_zero_first(world):  # rank 0 may have to draw the faces that the others then find
                config, output, faces, pair_sets = prepare(config, world)
            mark_started()
            assert_same_on_all_ranks(describe_data(config, faces))
            check_pair_images(pair_sets, world)
            schedule = Schedule.of(config, len(faces), world.size)

            # State
            state, meter = build_state(config, faces.num_classes, device, dtype, world), Meter(device)
            progress, checkpointer = state.progress, Checkpointer(output, config, state, meter, schedule)
            restored = config.resume and checkpointer.restore()
            if config.init and not restored:
                load_into(state.model, config.init)
            check_room(output, state, config.keep_checkpoints, world)
        metrics = open_metrics(output, config, progress.global_step, world)
        log_start(config, output, faces, schedule, state, world)

        # Loop
        skipped, cores, stopping = SkippedRecords(config.max_corrupt), cpu.CrowdedCores(), False
        reading = contextlib.closing(load_batches(config, faces, schedule, progress.step, world, device))
        recording = profiling(config, output, world, schedule.total_steps - progress.step)
        bars = open_bar(schedule, progress.step, world)
        with stop.noted(), bars as bar, recording as profiler_step, reading as batches:
            while progress.step < schedule.total_steps and not stopping:
                if schedule.is_verification_due(progress.step, config.verbose):  # also at once after a resume there
                    checkpointer.wait()
                    with stop.raised(AT_ONCE):
                        verify(state, pair_sets, metrics, world)
                set_lr(state.optimizer, schedule.lr(progress.updates))
                with meter.waiting_for_data():
                    step_batches = [next(batches) for _ in range(config.gradient_acc)]
                sync = StepSync(bool(stop), step_batches)
                with explain_out_of_memory(config), keep_non_finite(output, state, world):
                    micro_batches = to_device(step_batches, progress.step, config, world, device)
                    result = state.step(micro_batches, sync, head_only=progress.step < schedule.head_steps)
                meter.update(result)
                bar.update()
                with record_function("agree"):
                    stopping = sync.stop
                    skipped.report(step_batches, sync)
                if progress.step == 1:
                    check_first_loss(result.losses, state.head.expected_first_loss())
                profiler_step()

                if progress.step % config.frequent == 0 or progress.step == schedule.total_steps:
                    write_training_line(metrics, meter, schedule, state, bar)
                    cores.look()
                # Last of all, so that a checkpoint never stands before lines of its step that the log does not have.
                checkpointer.poll()
                if stopping or schedule.is_save_due(progress.step, config.save_every, config.verbose):
                    checkpointer.save()
        checkpointer.wait()
        if stopping:
            metrics.close()
            exit_as_stopped(stop, progress.step, schedule)

        # Results
        with stop.raised(AT_ONCE):
            if world.is_main:
                save_torch_atomically(state.model.state_dict(), output / "model.pt")
            results = verify(state, pair_sets, metrics, world)
            metrics.close()
            if world.is_main:
                lines = read_metrics(output / "metrics.jsonl")
                report(output, lines, results, pair_sets, time.perf_counter() - started)
    return results


def open_metrics(output: Path, config: Any, global_step: int, world: World) -> MetricsLog | NoLog:
    """Write config.json and open metrics.jsonl behind the lines up to that step; ranks other than 0 write nothing."""
    if not world.is_main:
        return NoLog()
    write_json_atomically(output / "config.json", config)
    return MetricsLog(output / "metrics.jsonl", up_to_step=global_step)


def log_start(
    config: Any, output: Path, faces: FaceDataset, schedule: Schedule, state: TrainState, world: World
) -> None:
    """Log what is trained, on what and for how long; warn of a rate that does not fit the batch, of unaligned faces."""
    if advice := check_linear_rule(config, world.size):
        log.warning(advice)
    if world.is_main and not state.progress.step and isinstance(faces, FolderFaces):
        warn_if_unaligned(faces.paths, f"python -m arcface_edu.train rec={config.rec} --align")
    log.info(recipe_line(config))
    step, head = state.progress.step, state.head
    log.info(
        f"{'resuming' if step else 'training'} {config.network} "
        f"({sum(p.numel() for p in state.model.parameters()) / 1e6:.1f} M parameters) "
        f"{f'from {config.init} ' if config.init and not step else ''}in {output} on "
        f"{f'{world.size} processes, ' if world.size > 1 else ''}{state.device.type} in "
        f"{str(state.dtype).removeprefix('torch.')}: {len(faces):,} images of {head.num_classes:,} people, "
        f"{schedule.total_steps:,} steps of {schedule.total_batch} images "
        f"({config.num_epoch} epochs){f' from step {step:,}' if step else ''}, learning rate {schedule.peak_lr:g}, "
        f"first loss about {head.expected_first_loss():.1f}"
        f"{f', the head alone for the first {schedule.head_steps:,} steps' if schedule.head_steps > step else ''}"
    )


def load_batches(
    config: Any, faces: Any, schedule: Schedule, step: int, world: World, device: torch.device
) -> Generator[Batch, None, None]:
    """Yield this rank's micro-batches from `step` to the end of the run: uint8 images, on the CPU."""
    shuffled = ShuffledBatches(
        len(faces),
        config.batch_size,
        schedule.steps_per_epoch * config.gradient_acc,
        schedule.total_steps * config.gradient_acc,
        config.seed,
        start=step * config.gradient_acc,
        rank=world.rank,
        world_size=world.size,
    )
    return load(faces, shuffled, config.num_workers, device)


def to_device(
    batches: list[Batch], step: int, config: Any, world: World, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (B, 3, 112, 112), float in [-1, 1], augmented, and labels (B,), on the device."""
    sizes = (len(batches), world.size, config.batch_size, step, config.seed)
    mirrored = draw_mirrored(*sizes)  # (parts, ranks, B) bool
    numbers = draw_photo(*sizes) if config.augment == "photo" else None  # (parts, ranks, B, R)
    for part, batch in enumerate(batches):
        own = part, world.rank, slice(len(batch.images))
        images = augment(batch.images.to(device, non_blocking=True), mirrored[own].to(device))
        if numbers is not None:
            images = augment_photo(images, numbers[own])
        yield images, batch.labels.to(device, non_blocking=True)


def open_bar(schedule: Schedule, step: int, world: World) -> tqdm:
    """Return the progress bar of a run, which rank 0 shows."""
    look = dict(unit="step", dynamic_ncols=True, smoothing=0.05)
    return tqdm(total=schedule.total_steps, initial=step, disable=not world.is_main, **look)


def write_training_line(
    metrics: MetricsLog | NoLog, meter: Meter, schedule: Schedule, state: TrainState, bar: tqdm
) -> None:
    """Write the averages since the last line to metrics.jsonl and to the progress bar; every rank calls it."""
    line, progress = meter.compute(), state.progress
    lr, epoch = schedule.lr(progress.updates - 1), progress.step / schedule.steps_per_epoch
    metrics.write(step=progress.global_step, epoch=epoch, lr=lr, **line)
    meter.reset()
    bar.set_postfix_str(
        f"loss {line['loss']:.2f}, target {line['target_angle']:.1f} deg, "
        f"{line['images_per_second']:.0f} images/s, {line['waiting']:.0%} waiting for data"
    )


def verify(state: TrainState, pair_sets: list[PairSet], metrics: MetricsLog | NoLog, world: World) -> dict[str, Any]:
    """Verify on every pair set, and write a line each to metrics.jsonl; every rank calls it.

    Each rank embeds its part of the images, and all return the same results: those of `verify_pairs`, by name.
    """
    average_bn_statistics(state.model)
    results = {}
    for pairs in pair_sets:
        share = -(-len(pairs.images) // world.size)
        own = pairs.images[world.rank * share : (world.rank + 1) * share] or pairs.images[:1]  # left without: any
        with autocast(state.device, state.dtype):
            embeddings = embed_images(
                state.model, own, progress=f"verifying on {pairs.name}" if world.is_main else None
            )
        gathered = torch.cat(all_gather_object(embeddings))[: len(pairs.images)]  # (2N, D)
        results[pairs.name] = verify_pairs(gathered, pairs.is_same)
        metrics.write(step=state.progress.global_step, pairs=pairs.name, **verification_line(results[pairs.name]))
    return results


def exit_as_stopped(stop: StopRequest, step: int, schedule: Schedule) -> None:
    """End a run that was asked to stop, with the exit status of the signal; every rank calls it."""
    by_rank = all_gather_object((stop.name, stop.status))
    name, status = next((name, status) for name, status in by_rank if name)
    log.info(
        f"stopped by {name} after step {step:,} of {schedule.total_steps:,}; all is saved, "
        f"and resume=True goes on from there."
    )
    raise SystemExit(status)


class SkippedRecords:
    """The records that could not be read so far, on all ranks.

    Args:
        limit: How many are skipped before the run gives up.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0

    def report(self, batches: list[Batch], sync: StepSync) -> None:
        """Name the records that any rank skipped in a step; every rank calls it, and all raise the same DataError."""
        if not sync.unreadable:
            return
        by_rank = all_gather_object([(batch.fatal, batch.broken) for batch in batches])
        for rank, found in enumerate(by_rank):
            for fatal, _ in found:
                if fatal:
                    raise DataError(f"rank {rank} found: {fatal}" if len(by_rank) > 1 else fatal)
        for sentence in (line for found in by_rank for _, lines in found for line in lines):
            self.count += 1
            log.info(f"skipped ({self.count} of at most {self.limit}): {sentence}")
            if self.count > self.limit:
                raise DataError(
                    f"more than {self.limit} records could not be read, the last: {sentence} `python -m "
                    f"arcface_edu.dataset inspect` lists them all; max_corrupt= allows more."
                )


def check_first_loss(losses: list[Tensor], expected: float) -> None:
    """Warn if the first loss is not that of random class centres: wrong labels or a wrong scale make another."""
    measured = torch.stack(losses).mean().item()
    if abs(measured - expected) > max(1.0, 0.2 * expected):
        log.warning(
            f"the first loss is {measured:.1f}, but about {expected:.1f} is expected of random class centres; "
            f"look at the labels, the scale and the margin."
        )


@contextlib.contextmanager
def keep_non_finite(output: Path, state: TrainState, world: World) -> Iterator[None]:
    """Save the batch and the weights behind a loss that is not finite, and end the run with what to try."""
    try:
        yield
    except NonFiniteLoss as error:
        step = state.progress.step
        path = output / f"non_finite_step_{step}{f'_rank_{world.rank}' if world.size > 1 else ''}.pt"
        weights = dict(model=state.model.state_dict(), head=dict(state.head.named_parameters()))
        save_torch_atomically(dict(images=error.images, labels=error.labels, loss=error.loss, **weights), path)
        raise TrainingError(
            f"{error} at step {step}; its batch and the weights are in {path}. "
            f"Try a smaller lr, warmup_epoch=1, fp16=False, or a smaller margin; "
            f"resume=True goes on from the last checkpoint."
        ) from None


@contextlib.contextmanager
def explain_out_of_memory(config: Any) -> Iterator[None]:
    """Turn the error of a full GPU into a sentence that says which keys to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is full at batch_size={config.batch_size}. Try half of it with "
            f"gradient_acc={2 * config.gradient_acc}, which learns the same but for BN; gradient_checkpointing=True; "
            f"more processes; or with many classes sample_rate=0.1. `python -m arcface_edu.plan` with the same words "
            f"says what it takes."
        ) from error


if __name__ == "__main__":
    main()
