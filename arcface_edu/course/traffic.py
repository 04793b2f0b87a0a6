"""What travels between processes, recorded and counted: tasks of `arcface_edu.course.workers`."""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import profile, record_function, schedule

from arcface_edu.config import load_config
from arcface_edu.course.tasks import largest_difference
from arcface_edu.models import build_model
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World
from arcface_edu.training.parallel import sync_gradients, wrap_parallel
from arcface_edu.training.profiling import length, read_timeline

ONE, SEVERAL = "one bucket", "buckets of 1 MB"


def buckets(world: World, batch: int = 16) -> dict[str, Any]:
    """DDP: gradients that travel while the backward pass goes on, and gradients that wait for its end; recorded"""
    timelines, messages = {}, {}
    images = draw_images(world, batch)
    for way, megabytes in ((ONE, 1000), (SEVERAL, 1)):
        config = load_config("drawn_faces", [f"ddp_bucket_mb={megabytes}"])
        ddp = wrap_parallel(build("r10"), config, torch.device("cpu"))
        line, messages[way] = record(ddp, images, count_messages(ddp))
        timelines[way] = [in_plain_lists(line) for line in all_gather_object(line)]
        # Over all ranks, as the picture's title counts it.
        travels, hidden = (sum(map(length, all_gather_object(line[kind]))) for kind in ("communication", "hidden"))
        print(f"{way:15s} {messages[way]} messages a step, on their way for {travels / world.size:.0f} ms,", end=" ")
        print(f"{hidden / travels:.0%} of that while the rank computes")
    return dict(messages=messages, timelines=timelines)


def in_plain_lists(timeline: dict[str, Any]) -> dict[str, Any]:
    return {kind: spans if kind == "phases" else spans.tolist() for kind, spans in timeline.items()}


def record(ddp: nn.Module, images: Tensor, sent: list[int], skipped: int = 2) -> tuple[dict[str, Any], int]:
    """Return the timeline of one step, as `read_timeline`, and its number of messages; the first steps are skipped."""
    optimizer = torch.optim.SGD(ddp.parameters(), lr=1e-3)

    def step() -> None:
        with record_function("forward: network"):
            loss = ddp(images).square().mean()
        with record_function("backward"):
            loss.backward()
        with record_function("update"):
            optimizer.step()
            optimizer.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json.gz"
        plan = schedule(wait=skipped, warmup=1, active=1, repeat=1)
        with profile(schedule=plan, on_trace_ready=lambda seen: seen.export_chrome_trace(str(trace))) as recorder:
            for _ in range(skipped + 2):
                sent.clear()
                step()
                recorder.step()
        return read_timeline(trace), len(sent)


def accumulate(world: World, micro_batches: int = 4) -> dict[str, Any]:
    """A step of several backward passes: with a message after each, and with `no_sync` until the last"""
    gradients, messages, megabytes = {}, {}, {}
    for way in ("after each", "after the last"):
        ddp = DistributedDataParallel(build("r10"))
        sent = count_messages(ddp)
        for number, images in enumerate(draw_images(world, micro_batches * 2).chunk(micro_batches)):
            is_last = number == micro_batches - 1
            with sync_gradients([ddp], enabled=is_last or way == "after each"):  # else within ddp.no_sync()
                (ddp(images).square().mean() / micro_batches).backward()
        gradients[way] = torch.cat([p.grad.flatten() for p in ddp.parameters() if p.grad is not None])
        messages[way], megabytes[way] = len(sent), sum(sent) / 1e6
        print(f"gradients travel {way:14s}  {messages[way]:3} messages, {megabytes[way]:6.1f} MB a step")
    difference = largest_difference(*gradients.values())
    print(f"largest difference between the two gradients: {difference:.0e} of the largest number in them")
    return dict(messages=messages, megabytes=megabytes, difference=difference)


def count_messages(ddp: nn.Module) -> list[int]:
    """Return a list to which every message of a DistributedDataParallel adds its bytes; it averages as before."""
    sent: list[int] = []

    def hook(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.buffer().nbytes)
        return default_hooks.allreduce_hook(group, bucket)

    cast(DistributedDataParallel, ddp).register_comm_hook(None, hook)
    return sent


def build(network: str) -> nn.Module:
    """Build the same network on all ranks, its BN at rest."""
    torch.manual_seed(0)
    return build_model(network).eval()


def draw_images(world: World, count: int) -> Tensor:
    """Draw noise in [-1, 1], (count, 3, 112, 112), another on each rank."""
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(world.rank)) * 2 - 1
