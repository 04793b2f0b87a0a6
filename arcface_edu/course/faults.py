"""What goes wrong between processes without a word, or for ever: tasks of `arcface_edu.course.workers`."""

import datetime
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.config import load_config
from arcface_edu.data.images import decode, to_input
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.models import build_model
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World
from arcface_edu.training.parallel import average_bn_statistics, wrap_parallel

PATIENCE = 3  # seconds until a message that nobody answers is given up


def bn(world: World, batches: int = 30, batch: int = 8) -> dict[str, Any]:
    """BN: each rank's running statistics are those of its own images, and only rank 0 writes them down"""
    people = torch.cat([draw_faces(person) for person in range(40, 40 + 2 * world.size)])
    mine, new_face = people[world.rank :: world.size], draw_faces(60)  # dealt out, so that all see all people
    torch.manual_seed(0)
    model = build_model("r10", 128)
    ddp = wrap_parallel(model, load_config(), torch.device("cpu"))  # as the trainer does
    generator = torch.Generator().manual_seed(world.rank)
    with torch.no_grad():
        for _ in range(batches):  # nothing is learnt: the weights stay as they are, statistics gather
            ddp(mine[torch.randint(len(mine), (batch,), generator=generator)])
    own = degrees_apart(model, new_face)
    average_bn_statistics(model)
    averaged = degrees_apart(model, new_face)
    print("a new face, embedded by rank 0 and by the last rank:")
    print(f"  each with its own statistics        {own:5.1f} degrees apart")
    print(f"  with statistics averaged over ranks {averaged:5.1f} degrees apart")
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    same_weights = all(torch.equal(weights, other) for other in all_gather_object(weights))
    print(f"the same weights on every rank: {same_weights}")
    return dict(own=own, averaged=averaged, same_weights=same_weights)


def draw_faces(person: int, photos: int = 12) -> Tensor:
    """Photographs of one drawn person, (photos, 3, 112, 112) float in [-1, 1]."""
    return to_input(torch.stack([decode(photo) for photo in draw_person(0, person, photos)]))


def degrees_apart(model: nn.Module, images: Tensor) -> float:
    """Mean angle between the embeddings of rank 0 and of the last rank, each by the running statistics it has."""
    first, *_, last = all_gather_object(embed_with_own_statistics(model, images))
    return (2 * ((first - last).norm(dim=1) / 2).asin()).rad2deg().mean().item()


@torch.no_grad()
def embed_with_own_statistics(model: nn.Module, images: Tensor) -> Tensor:
    """Unit embeddings (N, D) in double precision, by the running statistics of this rank."""
    model.eval()
    embeddings = F.normalize(model(images).double())
    model.train()
    return embeddings


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
    with ddp.join():  # a rank that is through answers the others' messages with zeros
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
    """(steps taken, what went wrong in its first words, seconds of the last step)"""
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
