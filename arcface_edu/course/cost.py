"""What a step on many GPUs would take under DataParallel and under DDP: the planner's numbers, in a model of a few
lines that a slider can ask again and again."""

import dataclasses
import functools
from typing import NamedTuple

from arcface_edu.course.published_runs import PUBLISHED, PublishedRun, plan_published
from arcface_edu.planning.gpus import GIGA, GPUS, LINK_SHARE, time_on

MS1MV3_CLASSES = 93_431
WAYS = ("DataParallel", "DDP")


class Cost(NamedTuple):
    """What a network and its head take of one GPU."""

    forward: float  # seconds an image, the network alone
    backward: float
    head: float  # seconds an image, both passes
    update: float  # seconds a step
    gradient: float  # bytes


class Step(NamedTuple):
    """Seconds of one step."""

    compute: float
    waiting: float  # for messages, or for the one GPU that computes for all
    hidden: float  # messages that travel meanwhile: no part of the step's length


@functools.cache
def cost_of(network: str, classes: int = MS1MV3_CLASSES, gpu: str = "v100") -> Cost:
    """Return the cost of one rank of a published run with a head sharded by class, by the planner."""
    key = (gpu, network, classes, "model")
    row = next(row for row in PUBLISHED if (row.gpu, row.network, row.classes, row.way) == key)
    measured = plan_published(row)
    backward = [op for op in measured.operations if op.phase == "backward"]
    whole, half = (time_on(one, GPUS[gpu]) for one in (measured, dataclasses.replace(measured, operations=backward)))
    images = measured.batch
    forward = (whole.network - half.network) / images
    return Cost(forward, half.network / images, whole.head / images, whole.update, 4 * measured.parameters)


def milliseconds(cost: Cost, batch: int, bandwidth: float) -> dict[str, float]:
    """Return what `plot_dp_ddp_timelines` draws: what one GPU computes for its images, and one message of gradients."""
    seconds = dict(forward=batch * cost.forward, backward=batch * cost.backward, loss=batch * cost.head)
    seconds |= dict(update=cost.update, message=cost.gradient / (LINK_SHARE * bandwidth * GIGA))
    return {name: 1000 * value for name, value in seconds.items()}


def step_of(cost: Cost, way: str, ranks: int, batch: int, bandwidth: float) -> Step:
    """Return the time of one step of `ranks` GPUs with `batch` images each, over links of `bandwidth` GB/s.

    DataParallel sends the weights out and adds the gradients up on GPU 0, which alone computes the head of all images
    and the update, while nothing else goes on. DDP's all-reduce, round a ring, hides behind the backward pass.
    """
    seconds = cost.gradient / (LINK_SHARE * bandwidth * GIGA)  # for the network's gradient to pass one link
    compute = batch * (cost.forward + cost.backward + cost.head) + cost.update
    if ranks == 1:
        return Step(compute, 0.0, 0.0)
    if way == "DataParallel":
        return Step(compute, 2 * seconds + (ranks - 1) * batch * cost.head, 0.0)
    travel = 2 * (ranks - 1) / ranks * seconds
    hidden = min(travel, batch * cost.backward)
    return Step(compute, travel - hidden, hidden)


def rate(cost: Cost, way: str, ranks: int, batch: int, bandwidth: float) -> float:
    """Return images/s of all GPUs."""
    step = step_of(cost, way, ranks, batch, bandwidth)
    return ranks * batch / (step.compute + step.waiting)


def published_rows(gpu: str = "v100", most: int = 125_000) -> list[PublishedRun]:
    """Return the published runs to compare `cost_of` with: few classes, a head sharded by class, none sampled."""
    rows = [row for row in PUBLISHED if (row.gpu, row.way, row.sample_rate) == (gpu, "model", 1)]
    return [row for row in rows if row.classes <= most]


def speeds(
    cost: Cost, ranks: int, batch: int, bandwidth: float, most: int = 64
) -> tuple[list[int], dict[str, list[float]], dict[str, Step]]:
    """Return what `plot_scaling` draws: numbers of ranks (R,), and for each way images/s (R,) and its Step in ms."""
    counts = list(range(1, most + 1))
    rates = {way: [rate(cost, way, count, batch, bandwidth) for count in counts] for way in WAYS}
    steps = {way: Step(*(1000 * part for part in step_of(cost, way, ranks, batch, bandwidth))) for way in WAYS}
    return counts, rates, steps
