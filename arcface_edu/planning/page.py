"""A plan in words."""

import torch

from arcface_edu.figures.plan import plot_plan
from arcface_edu.planning import gpus as assumed
from arcface_edu.planning.gpus import GIB, memory_on, sent, time_on, too_much
from arcface_edu.training.schedule import Schedule

WHAT_IT_IS = {
    "weights": "network and this GPU's centres, fp32",
    "gradients": "the network's lie in DDP's packets and stay",
    "optimizer": "momentum, or AdamW's two moments",
    "activations": "of the network, kept for the backward pass",
    "logits": "and all else the head makes; never all logits at once",
    "temporary": "of the backward pass",
    "buffers": "BN's statistics",
    "batch": "images and labels",
    "fragments": f"gaps in PyTorch's allocator, assumed {assumed.FRAGMENTS:.0%}",
    "CUDA, cuDNN, NCCL": "the first two as measured on an H100, NCCL assumed",
}


def page(config, measured, gpu):
    """The whole page but for advice, as text."""
    times, batch = time_on(measured, gpu), measured.gpus * measured.batch
    schedule = Schedule.of(config, config.num_image, measured.gpus)
    hours = schedule.total_steps * times.step / 3600
    return "\n".join(
        [
            f"{measured.gpus} x {gpu.name}, {str(measured.dtype).removeprefix('torch.')}: {batch:,} images a step, "
            f"{schedule.total_steps:,} steps in {config.num_epoch} epochs, rate {schedule.peak_lr:g}",
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


def verdict(measured, gpu):
    over = too_much(measured, gpu) / GIB
    if over > 0:
        return f"but it does not fit: {over:.1f} GiB more than the GPU's {gpu.memory:g}"
    return f"fits: {-over:.1f} GiB of {gpu.memory:g} to spare"


def memory_lines(measured, gpu):
    held = memory_on(measured)
    yield "memory of one GPU at the step's peak, GiB"
    for kind, size in held.items():
        yield f"  {kind:<18} {size / GIB:7.2f}   {WHAT_IT_IS[kind]}"
    total = sum(held.values()) / GIB
    yield f"  {'in all':<18} {total:7.2f}   of {gpu.memory:g}; the tensors alone {measured.peak / GIB:.2f}"


def message_lines(measured):
    if measured.gpus == 1:
        yield "one GPU sends nothing"
        return
    yield "sent each step"
    groups = {}
    for message in measured.messages:
        groups.setdefault((message.phase, message.collective), []).append(message)
    for (phase, collective), some in groups.items():
        whole, own = sum(one.size for one in some), sum(sent(one, measured.gpus) for one in some)
        what = f"{collective:<14} {phase:<14} {len(some):3} of {readable(whole)} together"
        yield f"  {what}, each GPU sends {readable(own)}"


def readable(size):
    """Bytes in the unit that suits them."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:7.2f} {name}"
    return f"{size:7.0f} B "


def time_lines(measured, times, gpu):
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
    if measured.gpus > assumed.MACHINE:
        yield f"  and at {assumed.BETWEEN_MACHINES:g} GB/s from machine to machine, {assumed.MACHINE} GPUs in each"
    yield "  the loader keeps up"


def advice_lines(tries, pays_from, config):
    """What would make it fit, and from where on Partial FC pays."""
    if tries:
        yield "what would make it fit (each tried on fake tensors)"
        for words, spare, rate in tries:
            outcome = f"fits, {spare / GIB:.1f} GiB to spare" if spare >= 0 else f"still {-spare / GIB:.1f} GiB short"
            yield f"  {words:<44} {outcome}, {rate:,.0f} images/s"
    if pays_from is not None:
        here = "it would here" if config.num_classes >= pays_from else "not yet here"
        if config.sample_rate < 1:
            here = "as it does here" if config.num_classes >= pays_from else "which it does not here"
        yield f"Partial FC (sample_rate=0.1) takes 5 % off a step from about {pays_from:,} classes on: {here}."


def picture(measured, gpu):
    """The page's figures as a picture."""
    times = time_on(measured, gpu)
    milliseconds = {
        "network": times.network,
        "head": times.head,
        "update": times.update,
        "messages: head": times.head_messages,
        "messages: gradients": times.gradient_messages,
    }
    return plot_plan(
        {kind: size / GIB for kind, size in memory_on(measured).items()},
        gpu.memory,
        {name: 1e3 * seconds for name, seconds in milliseconds.items() if seconds},
        name=f"one {gpu.name}",
        overlapped=1e3 * times.hidden_messages,
    )
