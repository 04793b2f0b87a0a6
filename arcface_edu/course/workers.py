"""What processes do for one another, small enough to read: each function here is run by all of them together.

    torchrun --nproc_per_node=2 -m arcface_edu.course.workers all_reduce   gradients averaged by hand, and by DDP
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers rpc          one process asks another for a logit
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers shuffle      who sees which images, the rank forgotten
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers head         class centres that nobody keeps together
    torchrun --nproc_per_node=4 -m arcface_edu.course.workers ring         a sum made of sends to the next rank alone
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers buckets      when gradients travel, on a timeline
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers accumulate   messages of a step of several backward passes
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers bn           statistics that only rank 0 writes down
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers uneven       a rank that is through before the others

Rank 0 tells what happened; its last line is the same as JSON, for a notebook to read.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import rpc
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.cli import cli_main
from arcface_edu.course import faults, traffic
from arcface_edu.course.tasks import largest_difference, run_task
from arcface_edu.data.loader import ShuffledBatches
from arcface_edu.heads import MarginSoftmax
from arcface_edu.models import build_model
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World

BATCH = 8  # images per process
PEOPLE, DIMENSION = 20, 128


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    help_of_sum = "sum: what it is like to forget the division"
    operation = {"--operation": dict(choices=("mean", "sum"), default="mean", help=help_of_sum)}
    run_task("arcface_edu.course.workers", __doc__, TASKS, argv, all_reduce=operation)


class Learner(nn.Module):
    """Network and head in one: a batch in, its mean loss out. On every rank the same, since it follows from a seed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = build_model("r10", DIMENSION)
        self.head = MarginSoftmax(DIMENSION, PEOPLE)
        # BN in training normalises over the batch at hand: then a part's gradient is no part of the whole's.
        self.network.eval()

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.network(images), labels)


def draw_batch(size: int) -> tuple[Tensor, Tensor]:
    """images (size, 3, 112, 112) in [-1, 1] and labels (size,)"""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(size, 3, 112, 112, generator=generator) * 2 - 1
    return images, torch.randint(PEOPLE, (size,), generator=generator)


def gradients(module: nn.Module) -> Tensor:
    """All gradients of a module in one row, (P,)."""
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def all_reduce(world: World, operation: str = "mean") -> dict[str, Any]:
    """c10d: average gradients over processes by hand, as DDP does"""
    images, labels = draw_batch(BATCH * world.size)
    mine = slice(BATCH * world.rank, BATCH * (world.rank + 1))

    by_hand = Learner()
    by_hand(images[mine], labels[mine]).backward()  # each rank: the gradient of its own images
    alone = gradients(by_hand)
    messages = 0
    for parameter in by_hand.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)  # in place: the sum over ranks, on every rank
            if operation == "mean":
                parameter.grad /= world.size
            messages += 1

    by_ddp = DistributedDataParallel(Learner())
    by_ddp(images[mine], labels[mine]).backward()  # the same, in few big messages while backward still goes on

    one_process = Learner()
    one_process(images, labels).backward()  # all images in one place

    whole = gradients(one_process)
    before = largest_difference(alone, whole)
    to_ddp = largest_difference(gradients(by_hand), gradients(by_ddp))
    to_one_process = largest_difference(gradients(by_hand), whole)
    print(f"{messages} all-reduces, one for each tensor; {len(whole):,} numbers in all.")
    print("Largest difference between two gradients, as a share of the largest number in them:")
    print(f"  the images of this rank alone - of all ranks   {before:.1e}")
    print(f"  averaged by hand - by DDP                      {to_ddp:.1e}")
    print(f"  averaged by hand - by one process              {to_one_process:.1e}")
    equal = max(to_ddp, to_one_process) < 1e-5  # float32 adds in another order
    differences = dict(before=before, to_ddp=to_ddp, to_one_process=to_one_process)
    machine = int(os.environ["GROUP_RANK"])  # the place of this process's torchrun among all of them
    places = all_gather_object((world.rank, machine, world.local_rank))
    found = dict(messages=messages, numbers=len(whole), differences=differences, places=places)
    return dict(operation=operation, equal=equal, **found)


def remote_calls(world: World) -> dict[str, Any]:
    """RPC: read class centres that another process holds, and have it compute a logit"""
    with warnings.catch_warnings():  # init_rpc itself calls torch in a way that torch 2.15 warns of
        warnings.filterwarnings("ignore", "You are using a Backend")
        rpc.init_rpc(f"rank{world.rank}", rank=world.rank, world_size=world.size)
    result = {}
    if world.is_main:  # the others only serve: what is asked of them runs in threads of theirs
        owner = f"rank{world.size - 1}"
        centres = rpc.remote(owner, draw_centres)  # made there, kept there; here is a reference to them
        embedding, label = torch.linspace(-1, 1, DIMENSION), 3
        logit, computed_on = rpc.rpc_sync(owner, logit_at_the_owner, args=(centres, embedding, label))
        table = centres.to_here()  # (PEOPLE, DIMENSION): now they do travel
        expected = 64 * F.cosine_similarity(embedding, table[label], dim=0)
        print(f"An embedding of {embedding.nbytes:,} bytes went to {computed_on}, which holds the centres.")
        print(f"  its logit, as it came back                   {logit:.6f}")
        print(f"  computed here, of centres read from there    {expected:.6f}  ({table.nbytes:,} bytes)")
        equal = torch.equal(table, draw_centres()) and torch.isclose(logit, expected).item()
        result = dict(computed_on=computed_on, logit=logit.item(), equal=equal)
        result.update(bytes_asked=embedding.nbytes, bytes_read=table.nbytes)
    rpc.shutdown()  # waits until nobody has a question left
    return result


def draw_centres() -> Tensor:
    return torch.randn(PEOPLE, DIMENSION, generator=torch.Generator().manual_seed(2))


def logit_at_the_owner(centres: Any, embedding: Tensor, label: int) -> tuple[Tensor, str]:
    """Runs where the centres are.  centres: the reference to them.  returns: s * cosine, this process's name."""
    centre = centres.local_value()[label]
    return 64 * F.cosine_similarity(embedding, centre, dim=0), rpc.get_worker_info().name


def shuffle(world: World, images: int = 960) -> dict[str, Any]:
    """Sampling: the images of an epoch, when each process takes its own slice and when all forget their rank"""
    seen = {}
    for way, rank in (("own slice", world.rank), ("rank forgotten", 0)):
        steps = images // (BATCH * world.size)
        batches = ShuffledBatches(images, BATCH, steps, steps, seed=5, rank=rank, world_size=world.size)
        mine = {number for batch in batches for number in batch}
        seen[way] = len(set.union(*all_gather_object(mine)))
        print(f"{way:15s} {world.size} x {len(mine)} images drawn in an epoch, {seen[way]} different ones of {images}")
    return dict(images=images, different=seen)


def head_apart(world: World, steps: int = 30) -> dict[str, Any]:
    """Centres outside DDP: each process steps its own, and soon they are no longer the same"""
    degrees: dict[str, list[float]] = {}
    for way in ("inside DDP", "outside DDP"):
        torch.manual_seed(3)
        head = MarginSoftmax(DIMENSION, PEOPLE)
        call = DistributedDataParallel(head) if way == "inside DDP" else head
        optimizer = torch.optim.SGD(head.parameters(), lr=1e-4)
        generator = torch.Generator().manual_seed(world.rank)  # each rank has images of its own
        degrees[way] = []  # after every step: mean angle between a centre on rank 0 and the same on the last rank
        for _ in range(steps):
            embeddings = torch.randn(BATCH, DIMENSION, generator=generator)
            call(embeddings, torch.randint(PEOPLE, (BATCH,), generator=generator)).backward()
            optimizer.step()
            optimizer.zero_grad()
            first, *_, last = all_gather_object(F.normalize(head.weight.detach().double()))
            angles = (2 * ((first - last).norm(dim=1) / 2).asin()).rad2deg()  # exact also where they are small
            degrees[way].append(round(angles.mean().item(), 2))
        print(f"{way:12s} a centre on rank 0 and on the last rank, after {steps} steps: {degrees[way][-1]:.1f} degrees")
    return dict(degrees_apart=degrees)


TASKS = dict(all_reduce=all_reduce, rpc=remote_calls, shuffle=shuffle, head=head_apart)
TASKS |= {task.__name__: task for task in (traffic.ring, traffic.buckets, traffic.accumulate, faults.bn, faults.uneven)}

if __name__ == "__main__":
    main()
