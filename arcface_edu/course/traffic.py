"""What travels between processes, by hand and counted: tasks of `arcface_edu.course.workers`."""

import tempfile
from collections.abc import Iterator
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


def ring(world: World, numbers: int = 1_000_000) -> dict[str, Any]:
    """A sum over all ranks, made of sends to the next rank alone; the bytes of each are counted"""
    tensor = torch.rand(numbers, generator=torch.Generator().manual_seed(world.rank))
    by_ring, by_c10d = tensor.clone(), tensor.clone()
    sent = sum(ring_all_reduce(by_ring, world))
    dist.all_reduce(by_c10d)
    equal = torch.allclose(by_ring, by_c10d, rtol=1e-6)

    ones = torch.ones(world.size)  # a chunk of one number for each rank: how many ranks are in it so far
    rounds = [ones.tolist()] + [ones.tolist() for _ in ring_all_reduce(ones, world)]
    contributions = [list(step) for step in zip(*all_gather_object(rounds), strict=True)]  # (steps + 1, ranks, chunks)

    collected = 2 * (world.size - 1) * tensor.nbytes
    print(f"{world.size} ranks sum {tensor.nbytes:,} bytes in {len(rounds) - 1} steps; as all_reduce does: {equal}")
    print(f"  each rank sends {sent:,} bytes, {sent / tensor.nbytes:.2f} times the tensor")
    print(f"  were one rank to collect and return, {collected:,} bytes would pass through it")
    return dict(equal=equal, bytes=tensor.nbytes, sent=all_gather_object(sent), contributions=contributions)


def ring_all_reduce(tensor: Tensor, world: World) -> Iterator[int]:
    """Sum a tensor (P,) over all ranks in place, in 2 (N - 1) steps.  yields: the bytes this rank has sent in each.

    In the first N - 1 steps a chunk goes round and gathers what each rank has of it; in the others its sum goes round.
    """
    chunks = tensor.tensor_split(world.size)  # views into the tensor
    following, preceding = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    for step in range(2 * (world.size - 1)):
        leaving, arriving = (chunks[(world.rank - step - later) % world.size] for later in (0, 1))
        message = torch.empty_like(arriving)
        sending = cast(dist.Work, dist.isend(leaving, following))
        dist.recv(message, preceding)
        sending.wait()  # all send at once: a plain send, one after the other, could wait for ever
        if step < world.size - 1:
            arriving += message
        else:
            arriving.copy_(message)
        yield leaving.nbytes


def buckets(world: World, batch: int = 16) -> dict[str, Any]:
    """DDP: gradients that travel while the backward pass goes on, and gradients that wait for its end; recorded"""
    timelines, messages = {}, {}
    images = draw_images(world, batch)
    for way, megabytes in ((ONE, 1000), (SEVERAL, 1)):
        config = load_config("drawn_faces", [f"ddp_bucket_mb={megabytes}"])
        ddp = wrap_parallel(build("r10"), config, torch.device("cpu"))
        line, messages[way] = record(ddp, images, count_messages(ddp))
        timelines[way] = [in_plain_lists(line) for line in all_gather_object(line)]
        travels, hidden = (length(line[kind]) for kind in ("communication", "hidden"))
        print(f"{way:15s} messages a step: {messages[way]}; on their way for {travels:.0f} ms,", end=" ")
        print(f"for {hidden:.0f} of them while rank 0 computes")
    return dict(messages=messages, timelines=timelines)


def in_plain_lists(timeline: dict[str, Any]) -> dict[str, Any]:
    return {kind: spans if kind == "phases" else spans.tolist() for kind, spans in timeline.items()}


def record(ddp: nn.Module, images: Tensor, sent: list[int], skipped: int = 2) -> tuple[dict[str, Any], int]:
    """(timeline of one step, see `read_timeline`; its number of messages). The first steps are unlike all others."""
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
