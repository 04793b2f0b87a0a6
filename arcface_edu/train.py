"""Train a network with the ArcFace loss.

    python -m arcface_edu.train                              the default run: drawn faces, minutes on two cores
    python -m arcface_edu.train rec=my_photos/               your own data: a folder per person, or RecordIO
    python -m arcface_edu.train my_config.py batch_size=64   a config of your own; any key can be set behind it
    python -m arcface_edu.train rec=my_photos/ init=WEIGHTS  the same from a trained network: a run's folder or a file
    python -m arcface_edu.train resume=True                  go on where a stopped run was
    python -m arcface_edu.train CONFIG dry_run=True          needs no data: build, step and save it on fake tensors
    torchrun --nproc_per_node=8 -m arcface_edu.train ...     the same on many processes, one for each GPU

Every key is explained in arcface_edu/configs/base.py. A run lives in its `output` folder (runs/<config>): config.json,
metrics.jsonl, checkpoints/, model.pt and figures/.
"""

import argparse
import contextlib
import json
import time
from functools import partial

import torch
from torch.profiler import record_function
from tqdm import tqdm

from arcface_edu.cli import cli_main
from arcface_edu.config import load_config
from arcface_edu.data.loader import ShuffledBatches, augment, draw_mirrored, load
from arcface_edu.errors import DataError, TrainingError
from arcface_edu.models.weights import load_into
from arcface_edu.training import cpu
from arcface_edu.training.checkpoint import (
    check_same_run,
    gather_state,
    load_latest,
    restore_state,
    run_identity,
    save_atomically,
    save_checkpoint,
)
from arcface_edu.training.distributed import (
    ALONE,
    average_bn_statistics,
    begun_before,
    everyones,
    everyones_later,
    join_world,
    one_by_one,
    remember_beginning,
    same_everywhere,
)
from arcface_edu.training.learner import build_learner
from arcface_edu.training.metrics import Meter, MetricsLog, NoLog
from arcface_edu.training.optim import Schedule, check_linear_rule, set_rate
from arcface_edu.training.precision import autocast, choose_device, choose_dtype
from arcface_edu.training.prepare import describe_data, prepare
from arcface_edu.training.profiling import profiling
from arcface_edu.training.report import evaluate_all, report
from arcface_edu.training.stopping import listen_for_stop


@cli_main
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="*", metavar="CONFIG | key=value", help="a config's name or path, then keys to set"
    )
    words = parser.parse_args(argv).words
    source = [words.pop(0)] if words and "=" not in words[0] else []
    if not source:  # your own data wants its batch and rate fitted to it; the drawn faces' are measured
        named = {word.split("=")[0] for word in words}
        source = ["fine_tune" if "init" in named else "own_data" if "rec" in named else "drawn_faces"]
    config = load_config(source[0], words)
    if config.dry_run:
        from arcface_edu.planning.dry_run import dry_run  # a slow import

        print(dry_run(config))
        return
    with join_world(config.timeout_seconds) as world, full_memory_in_words(config):
        train(config, world)


def train(config, world=ALONE):
    """The whole run: data, network, loop, checkpoints, verification, figures.  returns: results per pair file.

    world: the processes that share it, each of which calls this. All take every step together.
    """
    began = time.perf_counter()
    device = choose_device(config.device, world.local_rank)
    if device.type == "cpu":
        cpu.settle(world)
    dtype = choose_dtype(config, device)

    # Data. What the config leaves open is filled in: counts and batch from it, the network from weights to start from.
    resume = begun_before()  # all ranks answer together, so not where one goes first
    with one_by_one(world):  # the first may have to draw the faces that the others then find
        config, output, faces, pair_sets = prepare(config, world, resume=resume)
    remember_beginning()
    same_everywhere(describe_data(config, faces))
    schedule = Schedule.of(config, len(faces), world.size)
    if careful := check_linear_rule(config, world.size):
        print(careful)

    learner = build_learner(config, faces.num_classes, device, dtype, world)
    model, head = learner.model, learner.head
    meter = Meter(device)

    # Where the run stands: `step` is the place in the schedule, `updates` leaves out the steps that the scaler skipped.
    # `taken` only ever grows: it differs from `step` once another total batch has changed the number of steps.
    run = run_identity(config, faces.num_classes)
    parts = learner.parts() | dict(meter=meter)
    step = updates = taken = 0
    if config.resume and (saved := load_latest(output / "checkpoints", head, say=tqdm.write)):
        check_same_run(saved["run"], run, output)
        restore_state(parts, saved, device, output, world.rank)
        # With more or fewer processes, an epoch may have another number of steps; the place in the epochs stays.
        stretch = schedule.steps_per_epoch / saved["steps_per_epoch"]
        step, updates = round(saved["step"] * stretch), round(saved["updates"] * stretch)
        taken = saved.get("taken", saved["step"])
    elif config.resume:
        print(f"{output} holds no checkpoint yet: resume=True begins anew.")
    if config.init and not taken:  # a checkpoint knows more
        load_into(model, config.init)
    log = NoLog()
    if world.leads:
        log = MetricsLog(output / "metrics.jsonl", up_to_step=taken)
        (output / "config.json").write_text(json.dumps(config, indent=1))

    @record_function("save")
    def save():
        average_bn_statistics(model)
        state = dict(step=step, taken=taken, updates=updates, steps_per_epoch=schedule.steps_per_epoch, run=run)
        state.update(gather_state(parts, device))
        return save_checkpoint(output / "checkpoints", taken, state, config.keep_checkpoints, config.async_save)

    expected = head.expected_first_loss()
    print(
        f"{'resuming' if step else 'training'} {config.network} "
        f"({sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters) "
        f"{f'from {config.init} ' if config.init and not step else ''}in {output} on "
        f"{f'{world.size} processes, ' if world.size > 1 else ''}{device.type} in "
        f"{str(dtype).removeprefix('torch.')}: {len(faces):,} images of {faces.num_classes:,} people, "
        f"{schedule.total_steps:,} steps of {schedule.total_batch} images "
        f"({config.num_epoch} epochs){f' from step {step:,}' if step else ''}, rate {schedule.peak:g}, "
        f"first loss about {expected:.1f}"
        f"{f', the head alone for the first {schedule.head_steps:,} steps' if schedule.head_steps > step else ''}"
    )

    # The loop.
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
    batches = load(faces, shuffled, config.num_workers, device)
    broken, saving = 0, None
    look = dict(unit="step", dynamic_ncols=True, smoothing=0.05, disable=not world.leads)
    progress = tqdm(total=schedule.total_steps, initial=step, **look)
    stopping = False
    recording = profiling(config, output, world, schedule.total_steps - step)
    with listen_for_stop() as stop, progress, recording as recorded_a_step, full_memory_in_words(config):
        while step < schedule.total_steps and not stopping:
            set_rate(learner.optimizer, schedule.rate(updates))
            asked = time.perf_counter()
            with record_function("waiting for data"):
                step_batches = [next(batches) for _ in range(config.gradient_acc)]
            meter.waited += time.perf_counter() - asked

            # What one rank alone has noticed, all have to know: one that stopped or skipped alone would leave the
            # others waiting for ever. It travels in one small message while the step is computed, as do the sizes of
            # the batches, which differ where records could not be read.
            unread = any(batch.broken or batch.fatal for batch in step_batches)
            noticed = everyones_later([bool(stop.name), unread, *(len(batch.labels) for batch in step_batches)])
            mirrored = draw_mirrored(config.gradient_acc, world.size, config.batch_size, step, config.seed)
            for number in range(config.gradient_acc):
                images = step_batches[number].images.to(device, non_blocking=True)  # (B, 3, 112, 112) uint8
                labels = step_batches[number].labels.to(device, non_blocking=True)  # (B,)
                flips = mirrored[number, world.rank, : len(images)].to(device)  # (B,) bool
                learner.ready_for(len(images), head_only=step < schedule.head_steps)
                with learner.averaging(now=number == config.gradient_acc - 1):  # gradients travel once a step
                    sizes = partial(noticed, 2 + number)
                    loss = learner.loss(augment(images, flips), labels, sizes)  # (), mean over the images of all ranks
                    is_finite = on_its_way(torch.isfinite(loss))
                    # A mean of micro-batches' means is the mean of the big batch.
                    learner.backward(loss / config.gradient_acc)
                if not is_finite():  # asked only now, when an accelerator has the backward pass to do meanwhile
                    stop_as_non_finite(output, step, loss, images, labels, model, head, world)
                meter.add(loss.detach(), head.target_cosine)
                if step == 0:
                    compare_first_loss(loss.item(), expected)

            if moved := learner.update():
                meter.add_norm(learner.gradient_norm)
            updates += moved
            step, taken = step + 1, taken + 1
            progress.update()
            with record_function("agree"):
                stopping, unread = any(noticed(0)), any(noticed(1))
            if unread:
                broken = report_broken(step_batches, broken, config.max_corrupt)
            recorded_a_step()

            if step % config.frequent == 0 or step == schedule.total_steps:
                line = meter.line()
                log.write(step=taken, epoch=step / schedule.steps_per_epoch, lr=schedule.rate(updates - 1), **line)
                meter.reset()
                progress.set_postfix_str(
                    f"loss {line['loss']:.2f}, target {line['target_angle']:.1f} deg, "
                    f"{line['images_per_second']:.0f} images/s, {line['waiting']:.0%} waiting for data"
                )
            if config.verbose and step % config.verbose == 0 and step < schedule.total_steps:
                with autocast(device, dtype):
                    evaluate_all(model, pair_sets, log, taken, world)
            # Last of all, so that a checkpoint never stands before lines of its step that the log does not have yet.
            at_epoch_end = step % schedule.steps_per_epoch == 0
            if at_epoch_end or stopping or (config.save_every and step % config.save_every == 0):
                if saving:
                    saving.finish()
                saving = save()
            elif saving:
                saving.finish(wait=False)

    if saving:
        saving.finish()
    if stopping:
        log.close()
        name, status = next((name, status) for name, status in everyones((stop.name, stop.status)) if name)
        print(
            f"stopped by {name} after step {step:,} of {schedule.total_steps:,}; all is saved, "
            f"and resume=True goes on from there."
        )
        raise SystemExit(status)

    # What it has learnt.
    with autocast(device, dtype):
        results = evaluate_all(model, pair_sets, log, taken, world)
    log.close()
    if world.leads:
        save_atomically(model.state_dict(), output / "model.pt")
        report(output, results, pair_sets, seconds=time.perf_counter() - began)
    return results


@contextlib.contextmanager
def full_memory_in_words(config):
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is full at batch_size={config.batch_size}. Try half of it with "
            f"gradient_acc={2 * config.gradient_acc}, which learns the same but for BN; gradient_checkpointing=True; "
            f"more processes; or with many classes sample_rate=0.1. `python -m arcface_edu.plan` with the same words "
            f"says what it takes."
        ) from error


def report_broken(batches, broken, limit):
    """Name the records that any rank skipped; too many are an error, on all.  returns: how many there have been."""
    everyones_batches = everyones([(batch.fatal, batch.broken) for batch in batches])
    for rank, found in enumerate(everyones_batches):
        for fatal, _ in found:
            if fatal:
                raise DataError(f"rank {rank} found: {fatal}" if len(everyones_batches) > 1 else fatal)
    for sentence in (line for found in everyones_batches for _, lines in found for line in lines):
        broken += 1
        tqdm.write(f"skipped ({broken} of at most {limit}): {sentence}")
        if broken > limit:
            raise DataError(
                f"more than {limit} records could not be read, the last: {sentence} `python -m arcface_edu.dataset "
                f"inspect` lists them all; max_corrupt= allows more."
            )
    return broken


def compare_first_loss(measured, expected):
    """Against random class centres any network has a known loss; another one means wrong labels or a wrong scale."""
    if abs(measured - expected) > max(1.0, 0.2 * expected):
        tqdm.write(
            f"careful: the first loss is {measured:.1f}, but about {expected:.1f} is expected of random class centres; "
            f"look at the labels, the scale and the margin."
        )


def on_its_way(tensor):
    """A function that gives the number in `tensor`, having waited for nothing that was asked of the device after it."""
    if tensor.device.type != "cuda":
        return tensor.item
    number, sent = tensor.to("cpu", non_blocking=True), torch.Event(tensor.device)
    sent.record()

    def arrived():
        sent.synchronize()
        return number.item()

    return arrived


def stop_as_non_finite(output, step, loss, images, labels, model, head, world):
    """Keep what produced the loss, from before it could reach the weights, and say what to try. Each rank does so.

    The loss is that of all ranks' images, so that it is not finite on all or on none.
    """
    path = output / f"non_finite_step_{step}{f'_rank_{world.rank}' if world.size > 1 else ''}.pt"
    weights = dict(model=model.state_dict(), head=dict(head.named_parameters()))
    state = dict(images=images, labels=labels, loss=loss.detach(), **weights)
    save_atomically(state, path)
    raise TrainingError(
        f"the loss is {loss.item()} at step {step}; its batch and the weights are in {path}. "
        f"Try a smaller lr, warmup_epoch=1, fp16=False, or a smaller margin; "
        f"resume=True goes on from the last checkpoint."
    )


if __name__ == "__main__":
    main()
