"""A head whose classes are spread over processes, small enough to read: all processes run each task together.

    torchrun --nproc_per_node=2 -m arcface_edu.course.shards softmax   the sharded softmax: two all-reduces, by hand
    torchrun --nproc_per_node=2 -m arcface_edu.course.shards sample    a tenth of the centres in a step, whose they are

Rank 0 tells what happened; its last line is the same as JSON, for a notebook to read.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.cli import cli_main
from arcface_edu.course.tasks import largest_difference, run_task
from arcface_edu.heads import PartialFC, target_logit
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World
from arcface_edu.training.row_optim import RowSGD

BATCH = 8  # images per process
PEOPLE, DIMENSION = 1001, 128  # that many do not divide evenly
MARGIN, SCALE = (1.0, 0.5, 0.0), 64.0


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    run_task("arcface_edu.course.shards", __doc__, TASKS, argv)


def sharded_softmax(embeddings: Tensor, labels: Tensor, centres: Tensor, first_class: int) -> Tensor:
    """Loss of N images against all classes, of which each process holds some; the backward pass included.

    embeddings: (N, D) and labels: (N,) of all processes' images, the same everywhere; they get their gradient.
    centres: (c, D), of the classes first_class, first_class + 1, ...; no other process sees them.
    returns: scalar, the mean loss.
    """
    cosine = F.normalize(embeddings) @ F.normalize(centres).T  # (N, c)
    is_true = labels[:, None] == first_class + torch.arange(len(centres))  # (N, c)
    logits = SCALE * torch.where(is_true, target_logit(cosine, MARGIN), cosine)

    with torch.no_grad():
        top = logits.amax(1)  # (N,)
        dist.all_reduce(top, dist.ReduceOp.MAX)  # the first message: what all can subtract
        exps = (logits - top[:, None]).exp()
        sums = torch.stack([exps.sum(1), (logits * is_true).sum(1)])  # one rank has the true logit
        dist.all_reduce(sums)  # the second message
        total, true = sums
        error = exps / total[:, None] - is_true.float()  # d loss / d logits
    logits.backward(error / len(labels))  # back through margin and cosine: nothing of it leaves the process
    dist.all_reduce(grad_of(embeddings))  # each rank knows what its own classes want of an embedding
    return (top + total.log() - true).mean()


def softmax(world: World) -> dict[str, Any]:
    """the sharded softmax by hand, beside one process that holds everything and beside PartialFC"""
    embeddings, labels = draw_batch(BATCH * world.size)
    mine = slice(BATCH * world.rank, BATCH * (world.rank + 1))

    head = PartialFC(DIMENSION, PEOPLE, margin=MARGIN, scale=SCALE)
    own = embeddings[mine].clone().requires_grad_()
    loss = head(own, labels[mine])
    loss.backward()
    package = loss, torch.cat(all_gather_object(grad_of(own) / world.size)), grad_of(head.weight)  # DDP would divide

    centres, everything = head.weight.detach().clone().requires_grad_(), embeddings.clone().requires_grad_()
    by_hand = sharded_softmax(everything, labels, centres, head.first_class), grad_of(everything), grad_of(centres)

    table = torch.cat(all_gather_object(head.weight.detach())).requires_grad_()  # (PEOPLE, D), for the comparison alone
    images = embeddings.clone().requires_grad_()
    logits = F.normalize(images) @ F.normalize(table).T
    marked = F.one_hot(labels, PEOPLE).bool()
    loss = F.cross_entropy(SCALE * torch.where(marked, target_logit(logits, MARGIN), logits), labels)
    loss.backward()
    rows = slice(head.first_class, head.first_class + len(centres))
    one_process = loss, grad_of(images), grad_of(table)[rows]

    parts = "loss", "gradient of embeddings", "gradient of centres"
    holds = all_gather_object([rows.start, rows.stop - 1])
    for rank, (first, last) in enumerate(holds):
        print(f"rank {rank} holds classes {first} to {last}")
    print(f"loss {by_hand[0]:.6f}; largest difference, as a share of the largest number:")
    apart = {}
    for name, other in (("one process", one_process), ("PartialFC", package)):
        worst = [max(all_gather_object(largest_difference(a, b))) for a, b in zip(by_hand, other, strict=True)]
        print(
            f"  by hand - {name:12s}" + ",".join(f"  {part} {one:.0e}" for part, one in zip(parts, worst, strict=True))
        )
        apart[name] = worst
    numbers = 3 * len(labels)
    print(f"The softmax sent {numbers} numbers, 3 for each of {len(labels)} images; the table holds {table.numel():,}.")
    equal = max(map(max, apart.values())) < 1e-5  # float32 adds in another order
    return dict(equal=equal, loss=loss.item(), apart=apart, holds=holds, numbers_sent=numbers, table=table.numel())


def sample(world: World) -> dict[str, Any]:
    """which centres take part in one step at a sample rate of 0.1, and which of them it moves"""
    embeddings, labels = draw_batch(BATCH * world.size)
    mine = slice(BATCH * world.rank, BATCH * (world.rank + 1))
    head = PartialFC(DIMENSION, PEOPLE, margin=MARGIN, scale=SCALE, sample_rate=0.1)
    optimizer = RowSGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    before = head.weight.detach().clone()
    head(embeddings[mine].requires_grad_(), labels[mine]).backward()
    rows = grad_of(head.weight)._indices()[0]  # of the sparse gradient: the centres in use
    optimizer.step()
    people = labels.unique() - head.first_class
    people = people[(people >= 0) & (people < len(head.weight))]  # of the batch, those whose centre is here
    moved = (head.weight.detach() != before).any(1).nonzero()[:, 0]
    found = dict(
        holds=len(head.weight),
        people=len(people),
        used=len(rows),
        missing=len(set(people.tolist()) - set(rows.tolist())),
    )
    found["moved"] = len(moved) if set(moved.tolist()) <= set(rows.tolist()) else -1
    ranks = all_gather_object(found)
    words = "{holds} centres, {used} in use, {people} people of the batch, {missing} of them left out, {moved} moved"
    for rank, one in enumerate(ranks):
        print(f"rank {rank}: {words.format(**one)}")
    return dict(ranks=ranks)


def grad_of(tensor: Tensor) -> Tensor:
    """Return the gradient that a backward pass has left in a tensor."""
    assert tensor.grad is not None
    return tensor.grad


def draw_batch(size: int) -> tuple[Tensor, Tensor]:
    """embeddings (size, D) and labels (size,), the same on every rank"""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, DIMENSION, generator=generator), torch.randint(PEOPLE, (size,), generator=generator)


TASKS = dict(softmax=softmax, sample=sample)

if __name__ == "__main__":
    main()
