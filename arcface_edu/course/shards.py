"""A head whose classes are spread over processes, small enough to read: all processes run each task together.

    torchrun --nproc_per_node=2 -m arcface_edu.course.shards sample    a tenth of the centres in a step, whose they are

Rank 0 tells what happened; its last line is the same as JSON, for a notebook to read.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arcface_edu.cli import cli_main
from arcface_edu.course.tasks import run_task
from arcface_edu.heads import PartialFC
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import World
from arcface_edu.training.row_optim import RowSGD

BATCH = 8  # images per process
PEOPLE, DIMENSION = 1001, 128  # that many do not divide evenly
MARGIN, SCALE = (1.0, 0.5, 0.0), 64.0


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    run_task("arcface_edu.course.shards", __doc__, TASKS, argv)


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
    """Draw embeddings (size, D) and labels (size,), the same on every rank."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, DIMENSION, generator=generator), torch.randint(PEOPLE, (size,), generator=generator)


TASKS = dict(sample=sample)

if __name__ == "__main__":
    main()
