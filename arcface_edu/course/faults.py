"""Shards of unequal length, and the cure: a task of `arcface_edu.course.workers`."""

import datetime
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World

PATIENCE = 3  # seconds until a collective that a rank does not join is given up


def uneven(world: World, batches: int = 4) -> dict[str, Any]:
    """Shards of unequal length: the last rank has one batch fewer, and the others wait for it"""
    mine = batches - (world.rank == world.size - 1)
    short = dist.new_group(timeout=datetime.timedelta(seconds=PATIENCE))
    result: dict[str, Any] = dict(batches=all_gather_object(mine))
    print(f"batches of each rank: {result['batches']}")

    done, error, seconds = train(build_linear(short), mine, world)
    result.update(plain=all_gather_object(done), waited=seconds, error=error)
    print(f"plain DDP          steps taken: {result['plain']}; rank 0 gave up after {seconds:.0f} seconds:")
    print(f"                   {error}")

    ddp = build_linear(None)
    with ddp.join():  # a finished rank contributes zeros until all are done
        done, error, _ = train(ddp, mine, world)
    weights = torch.cat([parameter.detach().flatten() for parameter in ddp.parameters()])
    same = all(torch.equal(weights, other) for other in all_gather_object(weights))
    result.update(joined=all_gather_object(done), same_weights=same, error_joined=error)
    print(f"with model.join()  steps taken: {result['joined']}; the same weights on every rank: {same}")
    return result


def build_linear(group: Any) -> DistributedDataParallel:
    torch.manual_seed(0)
    return DistributedDataParallel(nn.Linear(16, 4), process_group=group)


def train(ddp: DistributedDataParallel, batches: int, world: World) -> tuple[int, str, float]:
    """Train, and return the steps taken, the first words of the error or "", and the seconds of the last step."""
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(world.rank)
    for step in range(batches):
        began = time.perf_counter()
        try:
            ddp(torch.randn(8, 16, generator=generator)).square().mean().backward()
        except RuntimeError as error:
            return step, str(error).split("]")[-1].strip()[:90], time.perf_counter() - began
        optimizer.step()
        optimizer.zero_grad()
    return batches, "", 0.0
