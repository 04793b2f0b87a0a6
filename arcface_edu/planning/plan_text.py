"""A plan as text."""

from collections.abc import Iterator
from typing import Any

import torch

from arcface_edu.planning import gpus as assumed
from arcface_edu.planning.advice import Attempt
from arcface_edu.planning.gpus import GIB, Gpu, StepTime, bytes_sent, excess_memory, memory_on, time_on
from arcface_edu.planning.measure import MeasuredStep
from arcface_edu.planning.trackers import Message
from arcface_edu.training.schedule import Schedule

NOTES = {  # on each kind of memory
    "weights": "network and this GPU's centres, fp32",
    "gradients": "the network's lie in DDP's buckets and stay",
    "optimizer": "momentum, or AdamW's two moments",
    "activations": "of the network, kept for the backward pass",
    "logits": "and all else the head makes; never all logits at once",
    "temporary": "of the backward pass",
    "buffers": "BN's statistics",
    "batch": "images and labels",
    "fragments": f"gaps in PyTorch's allocator, assumed {assumed.FRAGMENTS:.0%}",
    "CUDA, cuDNN, NCCL": "the first two as measured on an H100, NCCL assumed",
}


def plan_text(config: Any, measured: MeasuredStep, gpu: Gpu) -> str:
    """Return the whole plan but for the advice.

    Args:
        config: Complete, as it was measured.
        measured: The step of one of its ranks.
        gpu: On which it is to run.
    """
    times, batch = time_on(measured, gpu), measured.gpus * measured.batch
    schedule = Schedule.of(config, config.num_image, measured.gpus)
    hours = schedule.total_steps * times.step / 3600
    return "\n".join(
        [
            f"{measured.gpus} x {gpu.name}, {str(measured.dtype).removeprefix('torch.')}: {batch:,} images a step, "
            f"{schedule.total_steps:,} steps in {config.num_epoch} epochs, learning rate {schedule.peak_lr:g}",
            f"{batch / times.step:,.0f} images/s, {hours:,.1f} hours, {verdict(measured, gpu)}",
            "",
            f"network   {config.network}: {measured.parameters:,} parameters, "
            f"{measured.multiply_adds / 1e9:.3f} G multiply-adds an image",
            f"centres   {measured.centres:,} x {config.embedding_size}, {measured.own_centres:,} on each GPU, "
            f"{config.sample_rate:.0%} of them in a step",
            "",
            *memory_lines(measured, gpu),
            "",
            *message_lines(measured),
            "",
            *time_lines(measured, times, gpu),
        ]
    )


def verdict(measured: MeasuredStep, gpu: Gpu) -> str:
    excess = excess_memory(measured, gpu) / GIB
    if excess > 0:
        return f"but it does not fit: {excess:.1f} GiB more than the GPU's {gpu.memory:g}"
    return f"fits: {-excess:.1f} GiB of {gpu.memory:g} to spare"


def memory_lines(measured: MeasuredStep, gpu: Gpu) -> Iterator[str]:
    held = memory_on(measured)
    yield "memory of one GPU at the step's peak, GiB"
    for kind, size in held.items():
        yield f"  {kind:<18} {size / GIB:7.2f}   {NOTES[kind]}"
    total = sum(held.values()) / GIB
    yield f"  {'in all':<18} {total:7.2f}   of {gpu.memory:g}; the tensors alone {measured.peak / GIB:.2f}"


def message_lines(measured: MeasuredStep) -> Iterator[str]:
    if measured.gpus == 1:
        yield "one GPU sends nothing"
        return
    yield "sent each step"
    groups: dict[tuple[str, str], list[Message]] = {}
    for message in measured.messages:
        groups.setdefault((message.phase, message.collective), []).append(message)
    for (phase, collective), messages in groups.items():
        whole = sum(message.size for message in messages)
        own = sum(bytes_sent(message, measured.gpus) for message in messages)
        what = f"{collective:<14} {phase:<14} {len(messages):3} of {readable(whole)} together"
        yield f"  {what}, each GPU sends {readable(own)}"


def readable(size: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:7.2f} {name}"
    return f"{size:7.0f} B "


def time_lines(measured: MeasuredStep, times: StepTime, gpu: Gpu) -> Iterator[str]:
    yield "time of a step, ms"
    for name, seconds, note in (
        ("network", times.network, "forward and backward"),
        ("head", times.head, "forward and backward, fp32"),
        ("update", times.update, "clipping and optimizer"),
        ("head's messages", times.head_messages, "waited for"),
        ("gradients", times.gradient_messages, "what outlasts the backward pass that hides the rest"),
        ("in all", times.step, ""),
    ):
        yield f"  {name:<18} {1e3 * seconds:7.1f}   {note}".rstrip()
    peak = gpu.single if measured.dtype == torch.float32 else gpu.half
    yield "assumed (docs/plan.md holds it against published runs)"
    yield (
        f"  an operation takes what binds it, {peak:g} TFLOP/s ({gpu.single:g} in fp32) or {gpu.bandwidth:,} GB/s, at "
        f"{assumed.NETWORK_SHARE:.0%} in the network, {assumed.HEAD_SHARE:.0%} in head and update"
    )
    if measured.gpus > 1:
        yield f"  messages travel at {assumed.LINK_SHARE:.0%} of {gpu.link:g} GB/s from GPU to GPU"
    if measured.gpus > assumed.GPUS_PER_MACHINE:
        yield (
            f"  and at {assumed.BETWEEN_MACHINES:g} GB/s from machine to machine, "
            f"{assumed.GPUS_PER_MACHINE} GPUs in each"
        )
    yield "  the loader keeps up"


def advice_lines(tries: list[Attempt], pays_from: int | None, config: Any) -> Iterator[str]:
    """Yield what would make it fit, and from where on Partial FC pays."""
    if tries:
        yield "what would make it fit (each tried on fake tensors)"
        for keys, spare, rate in tries:
            outcome = f"fits, {spare / GIB:.1f} GiB to spare" if spare >= 0 else f"still {-spare / GIB:.1f} GiB short"
            yield f"  {keys:<44} {outcome}, {rate:,.0f} images/s"
    if pays_from is not None:
        here = "it would here" if config.num_classes >= pays_from else "not yet here"
        if config.sample_rate < 1:
            here = "as it does here" if config.num_classes >= pays_from else "which it does not here"
        yield f"Partial FC (sample_rate=0.1) takes 5 % off a step from about {pays_from:,} classes on: {here}."
