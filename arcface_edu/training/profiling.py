"""profile=True: what each rank does in a few steps, as chrome traces, as a picture and as a table of numbers.

The traces open in https://ui.perfetto.dev or chrome://tracing.
"""

import contextlib
import gzip
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arcface_edu.errors import ConfigError
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World

log = logging.getLogger(__name__)

SKIPPED, WARMUP, RECORDED = 5, 2, 3  # the first steps fill caches and buckets, and are unlike all others
PHASES = ("waiting for data", "agree", "forward: network", "forward: head", "backward", "update", "save")

# What a kernel of a GPU or an operator of a CPU does, by its name; the first pattern that is found in it counts.
KINDS = {
    "communication": r"nccl|gloo|c10d",
    "batch norm": r"batch_?norm|\bbn_|bn_(fw|bw)",
    "convolution": r"conv|fprop|dgrad|wgrad|winograd",
    "attention": r"flash|attention|fmha|softmax",
    "matrix product": r"gemm|nvjet|cutlass|::(mm|addmm|addmm_|bmm|baddbmm|linear|matmul)$|mkldnn_linear",
    "optimizer": r"multi_tensor|_foreach|_fused_(sgd|adam)",
    "sum, maximum, norm": r"reduce|::(sum|mean|amax|max|vector_norm|linalg_vector_norm|_log_softmax)",
    "copy, fill": r"memcpy|memset|copy|nchw|nhwc|::(cat|fill_|zero_|clone|contiguous|index|index_select)$|fillfunctor",
    "elementwise": r"elementwise|triton_|prelu|::(add|sub|mul|div|exp2|neg|reciprocal|threshold|where|clamp)",
}


@contextlib.contextmanager
def profiling(config: Any, output: Path, world: World, steps: int) -> Iterator[Callable[[], None]]:
    """Record a few of the next `steps` steps where the config asks for it.

    Writes profile/rank_<r>.json.gz of every rank and profile/timeline.png; rank 0 logs where the time went.

    Yields:
        A function to call after each step; without a profile it does nothing.

    Raises:
        ConfigError: Too few steps are left.
    """
    if not config.profile:
        yield lambda: None
        return
    if steps < SKIPPED + WARMUP + RECORDED:
        raise ConfigError(f"profile=True needs {SKIPPED + WARMUP + RECORDED} steps, but only {steps} are left to do.")
    from torch import profiler as torch_profiler  # slow to import

    folder = output / "profile"
    folder.mkdir(exist_ok=True)
    trace = folder / f"rank_{world.rank}.json.gz"

    def finish(recorded: Any) -> None:
        recorded.export_chrome_trace(str(trace))
        timelines = all_gather_object(read_timeline(trace))
        if world.is_main:
            from arcface_edu.figures.style import save
            from arcface_edu.figures.timeline import plot_timeline  # matplotlib, which a rank does without

            save(plot_timeline(timelines), folder / "timeline.png")
            for rank, line in enumerate(timelines):
                log.info("rank %d: %s", rank, step_times(line))
            log.info("what rank 0 computes in a step:\n%s", kernel_table(recorded.key_averages()))
            log.info("traces and a picture of %d steps are in %s/", RECORDED, folder)

    plan = torch_profiler.schedule(wait=SKIPPED, warmup=WARMUP, active=RECORDED, repeat=1)
    with torch_profiler.profile(schedule=plan, on_trace_ready=finish) as recorder:
        yield recorder.step


def read_timeline(trace: Path) -> dict[str, Any]:
    """Read a rank's steps from its chrome trace, in milliseconds from the end of its first message on.

    Returns:
        A dict of `phases`, a list of (name, begin, end), and of (K, 2) arrays of intervals: `compute` (operators, or
        kernels of a GPU), `communication` (collectives on their way), `hidden` (both), `waiting` (neither), `steps`.
    """
    with gzip.open(trace, "rt") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    on_gpu = any(event["cat"] == "kernel" for event in events)

    def spans(wanted: Callable[[dict[str, Any]], bool]) -> np.ndarray:
        found = [(event["ts"], event["ts"] + event["dur"]) for event in events if wanted(event)]
        return merge(np.array(found, dtype=float).reshape(-1, 2) / 1000)

    def travels(event: dict[str, Any]) -> bool:
        if event["cat"] == "kernel":
            return "nccl" in event["name"].lower()
        return event["cat"] == "user_annotation" and event["name"].startswith("gloo:")

    def computes(event: dict[str, Any]) -> bool:
        if on_gpu:
            return event["cat"] == "kernel" and not travels(event)
        return event["cat"] == "cpu_op" and event["name"].startswith("aten::")

    marked = [e for e in events if e["cat"] == "user_annotation" and e["name"] in PHASES]
    phases = sorted((e["ts"] / 1000, (e["ts"] + e["dur"]) / 1000, e["name"]) for e in marked)
    # A collective is over for all ranks at the same moment: the picture's clock, as each machine may have its own.
    first_message = min(filter(travels, events), key=lambda event: event["ts"], default=None)
    zero = (first_message["ts"] + first_message["dur"]) / 1000 if first_message else phases[0][0]
    # Python between two operators is part of the work, too.
    compute, communication = close_gaps(spans(computes), 0.1), spans(travels)
    steps = spans(lambda event: event["cat"] == "user_annotation" and event["name"].startswith("ProfilerStep"))
    waiting = outside(merge(np.concatenate([compute, communication])), steps)
    return dict(
        phases=[(name, begin - zero, end - zero) for begin, end, name in phases],
        compute=compute - zero,
        communication=communication - zero,
        hidden=overlap(compute, communication) - zero,
        waiting=waiting - zero,
        steps=steps - zero,
    )


def step_times(timeline: dict[str, Any]) -> str:
    """Return the milliseconds of a step, on average, by what they were spent on, as a sentence."""
    count = len(timeline["steps"])
    kinds = ("compute", "communication", "waiting")
    words = ", ".join(f"{kind} {length(timeline[kind]) / count:.1f} ms" for kind in kinds)
    whole, hidden = length(timeline["steps"]) / count, length(timeline["hidden"]) / count
    return f"a step takes {whole:.1f} ms: {words}; {hidden:.1f} ms of communication while it computes"


def kernel_table(averages: Any) -> str:
    """Return a table of where the time of a step goes: a line for each kind of kernel, the longest first.

    Args:
        averages: `key_averages()` of a profile of `RECORDED` steps. Where it holds kernels of a GPU, these are counted,
            otherwise the operators of the CPU, each without those that it calls.
    """
    own = [event for event in averages if not event.is_user_annotation and "ProfilerStep" not in event.key]
    on_gpu = any(event.device_type == torch.autograd.DeviceType.CUDA for event in own)
    kinds: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for event in own:
        if on_gpu and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = next((kind for kind, name in KINDS.items() if re.search(name, event.key, re.IGNORECASE)), "other")
        kinds[kind].append((microseconds / 1000 / RECORDED, event.count // RECORDED, event.key))
    times = {kind: sum(ms for ms, _, _ in events) for kind, events in kinds.items()}
    whole = sum(times.values())
    lines = [f"{'':20}{'ms':>8}{'share':>7}{'calls':>7}  most of it"]
    for kind, ms in sorted(times.items(), key=lambda item: -item[1]):
        (most, _, name), calls = max(kinds[kind]), sum(count for _, count, _ in kinds[kind])
        lines.append(f"{kind:20}{ms:8.2f}{ms / whole:7.1%}{calls:7}  {name[:60]} {most:.2f} ms")
    return "\n".join(lines)


def merge(spans: np.ndarray) -> np.ndarray:
    """Return (K, 2) intervals in any order as sorted ones that do not touch."""
    if not len(spans):
        return spans
    spans = spans[spans[:, 0].argsort()]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.r_[True, spans[1:, 0] > ends[:-1]]  # begins after all before it have ended
    return np.stack([spans[first, 0], ends[np.r_[np.flatnonzero(first)[1:] - 1, len(spans) - 1]]], axis=1)


def close_gaps(spans: np.ndarray, gap: float) -> np.ndarray:
    """Join merged intervals that are closer than `gap`."""
    return merge(spans + np.array([0, gap])) - np.array([0, gap]) if len(spans) else spans


def outside(spans: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the parts of the intervals `whole` that none of the merged `spans` covers."""
    holes = np.stack([np.r_[-np.inf, spans[:, 1]], np.r_[spans[:, 0], np.inf]], axis=1)
    return overlap(whole, holes)


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return what two sets of merged intervals have in common, merged."""
    begins = np.maximum(first[:, None, 0], second[None, :, 0]).ravel()
    ends = np.minimum(first[:, None, 1], second[None, :, 1]).ravel()
    common = np.stack([begins, ends], axis=1)
    return merge(common[ends > begins])


def length(spans: np.ndarray) -> float:
    return float((spans[:, 1] - spans[:, 0]).sum())
