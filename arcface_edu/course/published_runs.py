"""What InsightFace published for arcface_torch on 8 GPUs, and the plan of each such run.

The head of that time held all logits of a rank at once, so a plan that is to be held against those figures has such a
head ("theirs") in the place of ours. docs/plan.md shows what comes out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch

from arcface_edu.config import load_config
from arcface_edu.course.whole_logits_head import OnEveryRank, WholeLogits
from arcface_edu.heads import Head
from arcface_edu.planning.measure import MeasuredStep, measure_step
from arcface_edu.training import state
from arcface_edu.training.prepare import complete_without_data

GPUS_USED = 8


class PublishedRun(NamedTuple):
    """One run of arcface_torch in fp16, as its authors report it."""

    gpu: str  # a name of planning.gpus.GPUS
    way: str  # "data": a whole head on every rank; "model": sharded by class; "partial": sharded and sampled
    network: str
    classes: int
    sample_rate: float
    images: int  # of all GPUs in one step
    speed: float  # images/s of all GPUs
    memory: float | None  # MiB of one GPU
    source: str  # a page of github.com/deepinsight/insightface

    @property
    def run(self) -> tuple[str, str, int, float, int]:
        """What was run, without what it was run on: two GPUs may have run the same."""
        return self.way, self.network, self.classes, self.sample_rate, self.images


# Pages nvidia_*.md are in benchmarks/train, speed_benchmark.md in arcface_torch/docs.
BY_CLASSES = "arcface_torch README, by class count"
CALIBRATION = "nvidia_v100.md (calibration)"
V100, A100 = "nvidia_v100.md", "nvidia_a100.md"
SPEED = "speed_benchmark.md"
PUBLISHED = [
    PublishedRun("v100", "data", "r50", 125_000, 1.0, 1024, 4681, 7358, BY_CLASSES),
    PublishedRun("v100", "data", "r50", 1_000_000, 1.0, 1024, 2090, 23708, BY_CLASSES),
    PublishedRun("v100", "model", "r50", 125_000, 1.0, 1024, 4824, 5306, BY_CLASSES),
    PublishedRun("v100", "model", "r50", 1_000_000, 1.0, 1024, 3449, 9966, BY_CLASSES),
    PublishedRun("v100", "model", "r50", 4_000_000, 1.0, 1024, 1748, 23238, BY_CLASSES),
    PublishedRun("v100", "partial", "r50", 125_000, 0.1, 1024, 5004, 4868, BY_CLASSES),
    PublishedRun("v100", "partial", "r50", 1_000_000, 0.1, 1024, 4803, 5620, BY_CLASSES),
    PublishedRun("v100", "partial", "r50", 4_000_000, 0.1, 1024, 4208, 8284, BY_CLASSES),
    PublishedRun("v100", "partial", "r50", 29_000_000, 0.1, 1024, 1855, 32324, BY_CLASSES),
    PublishedRun("v100", "model", "r50", 3_000_000, 1.0, 1024, 2270, 28900, SPEED),
    PublishedRun("v100", "partial", "r50", 3_000_000, 0.1, 1024, 5295, 10350, SPEED),
    PublishedRun("v100", "model", "r50", 93_431, 1.0, 1024, 6112, None, "InsightFace, MXNet recipe"),
    PublishedRun("v100", "model", "r100", 93_431, 1.0, 1024, 3867, None, "InsightFace, MXNet recipe"),
    PublishedRun("v100", "model", "r50", 618_000, 1.0, 512, 3889, None, V100),
    PublishedRun("v100", "model", "r50", 618_000, 1.0, 1024, 4322, None, CALIBRATION),
    PublishedRun("v100", "model", "r50", 2_000_000, 1.0, 1024, 2810, None, CALIBRATION),
    PublishedRun("v100", "model", "r50", 618_000, 1.0, 2048, 4921, None, V100),
    PublishedRun("v100", "partial", "r50", 2_000_000, 0.1, 1024, 5430, None, V100),
    PublishedRun("a100", "model", "r50", 618_000, 1.0, 1024, 5170, 10.1 * 1024, A100),
    PublishedRun("a100", "model", "r50", 618_000, 1.0, 2048, 7780, 16.4 * 1024, A100),
    PublishedRun("a100", "model", "r50", 618_000, 1.0, 10240, 9400, 66.7 * 1024, A100),
    PublishedRun("a100", "model", "r100", 618_000, 1.0, 1024, 3700, 13.1 * 1024, A100),
    PublishedRun("a100", "model", "r100", 2_000_000, 1.0, 1024, 3480, 20.5 * 1024, A100),
    PublishedRun("a100", "partial", "r50", 50_000_000, 0.1, 1024, 2700, 54.1 * 1024, A100),
    PublishedRun("a10", "model", "r50", 618_000, 1.0, 1024, 3300, None, "nvidia_a10.md"),
    PublishedRun("a10", "model", "r100", 618_000, 1.0, 1024, 2210, None, "nvidia_a10.md"),
    PublishedRun("a30", "model", "r50", 618_000, 1.0, 1024, 2520, None, "nvidia_a30.md"),
    PublishedRun("a30", "model", "r100", 618_000, 1.0, 1024, 1680, None, "nvidia_a30.md"),
    PublishedRun("rtx3090", "model", "r50", 618_000, 1.0, 1024, 3790, None, "nvidia_rtx3090.md"),
]


def plan_published(published: PublishedRun, theirs: bool = True) -> MeasuredStep:
    """Plan a published run, with the head of its time or with ours, and return the step of one of its 8 ranks."""
    way, network, classes, rate, images = published.run
    words = [f"network={network}", f"num_classes={classes}", "num_image=100000000", f"sample_rate={rate}"]
    words += [f"batch_size={images // GPUS_USED}", "embedding_size=512", "scale=64", "lr=0.1", "num_epoch=20"]
    config = complete_without_data(load_config("drawn_faces", words), GPUS_USED)
    with mock.patch.object(state, "build_head", their_head(way) if theirs else state.build_head):
        return measure_step(config, GPUS_USED, torch.float16)


def their_head(way: str) -> Callable[[Any, int], Head]:
    """Return a function that builds the head of that time, in the form of `heads.build_head`."""

    def build(config: Any, num_classes: int) -> Head:
        if way == "data":
            head = OnEveryRank(config.embedding_size, num_classes)
            head.bias.requires_grad_(False)
            return head
        return WholeLogits(config.embedding_size, num_classes, sample_rate=config.sample_rate)

    return build
