"""The plan's predictions beside what InsightFace published for arcface_torch; prints the tables of docs/plan.md.

    python benchmarks/plan_against_published.py

What was published held all logits of a rank at once, so the published figures are compared with a plain head put in the
place of ours ("their head"); ours is planned beside it. Nothing is run on a GPU here.
"""

import argparse
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn import functional as F
from tqdm import tqdm

from arcface_edu.config import load_config
from arcface_edu.heads import PartialFC, Softmax
from arcface_edu.heads.partial_fc import GatherBatch, all_reduce
from arcface_edu.planning.gpus import GPUS, memory_on, time_on
from arcface_edu.planning.measure import complete, measure
from arcface_edu.training import learner

MIB = 2**20

# GPU, way, network, classes, sample rate, images of 8 GPUs, images/s, MiB of one GPU, where it was published: pages of
# github.com/deepinsight/insightface, nvidia_*.md in benchmarks/train, speed_benchmark.md in arcface_torch/docs.
BY_CLASSES = "arcface_torch README, by class count"
CALIBRATION = "nvidia_v100.md (calibration)"
V100, A100 = "nvidia_v100.md", "nvidia_a100.md"
SPEED = "speed_benchmark.md"
PUBLISHED = [
    ("v100", "data", "r50", 125_000, 1.0, 1024, 4681, 7358, BY_CLASSES),
    ("v100", "data", "r50", 1_000_000, 1.0, 1024, 2090, 23708, BY_CLASSES),
    ("v100", "model", "r50", 125_000, 1.0, 1024, 4824, 5306, BY_CLASSES),
    ("v100", "model", "r50", 1_000_000, 1.0, 1024, 3449, 9966, BY_CLASSES),
    ("v100", "model", "r50", 4_000_000, 1.0, 1024, 1748, 23238, BY_CLASSES),
    ("v100", "partial", "r50", 125_000, 0.1, 1024, 5004, 4868, BY_CLASSES),
    ("v100", "partial", "r50", 1_000_000, 0.1, 1024, 4803, 5620, BY_CLASSES),
    ("v100", "partial", "r50", 4_000_000, 0.1, 1024, 4208, 8284, BY_CLASSES),
    ("v100", "partial", "r50", 29_000_000, 0.1, 1024, 1855, 32324, BY_CLASSES),
    ("v100", "model", "r50", 3_000_000, 1.0, 1024, 2270, 28900, SPEED),
    ("v100", "partial", "r50", 3_000_000, 0.1, 1024, 5295, 10350, SPEED),
    ("v100", "model", "r50", 93_431, 1.0, 1024, 6112, None, "InsightFace, MXNet recipe"),
    ("v100", "model", "r100", 93_431, 1.0, 1024, 3867, None, "InsightFace, MXNet recipe"),
    ("v100", "model", "r50", 618_000, 1.0, 512, 3889, None, V100),
    ("v100", "model", "r50", 618_000, 1.0, 1024, 4322, None, CALIBRATION),
    ("v100", "model", "r50", 2_000_000, 1.0, 1024, 2810, None, CALIBRATION),
    ("v100", "model", "r50", 618_000, 1.0, 2048, 4921, None, V100),
    ("v100", "partial", "r50", 2_000_000, 0.1, 1024, 5430, None, V100),
    ("a100", "model", "r50", 618_000, 1.0, 1024, 5170, 10.1 * 1024, A100),
    ("a100", "model", "r50", 618_000, 1.0, 2048, 7780, 16.4 * 1024, A100),
    ("a100", "model", "r50", 618_000, 1.0, 10240, 9400, 66.7 * 1024, A100),
    ("a100", "model", "r100", 618_000, 1.0, 1024, 3700, 13.1 * 1024, A100),
    ("a100", "model", "r100", 2_000_000, 1.0, 1024, 3480, 20.5 * 1024, A100),
    ("a100", "partial", "r50", 50_000_000, 0.1, 1024, 2700, 54.1 * 1024, A100),
    ("a10", "model", "r50", 618_000, 1.0, 1024, 3300, None, "nvidia_a10.md"),
    ("a10", "model", "r100", 618_000, 1.0, 1024, 2210, None, "nvidia_a10.md"),
    ("a30", "model", "r50", 618_000, 1.0, 1024, 2520, None, "nvidia_a30.md"),
    ("a30", "model", "r100", 618_000, 1.0, 1024, 1680, None, "nvidia_a30.md"),
    ("rtx3090", "model", "r50", 618_000, 1.0, 1024, 3790, None, "nvidia_rtx3090.md"),
]


class WholeLogits(PartialFC):
    """The head with (N, classes of this rank) matrices whole: of cosines, angles, logits, exponentials, as in their
    code of the time; arccos and cos run over all of them, and the softmax's gradient is made in the forward pass."""

    def forward(self, embeddings, labels):
        sizes = [len(labels)] * self.world_size
        labels, embeddings = GatherBatch.apply(labels, sizes), GatherBatch.apply(embeddings, sizes)
        images = torch.arange(len(labels) // self.world_size)  # whose class is here
        columns, weight = labels[: len(images)], self.weight
        if self.sample_rate < 1:
            weight = WholeRows.apply(weight, self.sample(columns))
        cosine = F.normalize(embeddings) @ F.normalize(weight).T  # (N, C)
        margin = torch.zeros(len(images), len(weight)).scatter_(1, columns[:, None], self.margin[1])
        return WholeSoftmax.apply(self.scale * cosine.acos().index_add(0, images, margin).cos(), images, columns)


class WholeSoftmax(torch.autograd.Function):
    """Mean loss over all ranks' classes, from (N, C) logits."""

    @staticmethod
    def forward(ctx, logits, images, columns):
        top = all_reduce(logits.amax(1), dist.ReduceOp.MAX)
        grad = (logits - top[:, None]).exp()
        grad /= all_reduce(grad.sum(1), dist.ReduceOp.SUM)[:, None]
        loss = all_reduce(torch.zeros(len(logits)).index_copy(0, images, grad[images, columns]), dist.ReduceOp.SUM)
        grad[images] -= torch.zeros(len(images), grad.shape[1]).scatter_(1, columns[:, None], 1)
        ctx.save_for_backward(grad.div_(len(grad)))
        return -loss.log().mean()

    @staticmethod
    def backward(ctx, grad_loss):
        return ctx.saved_tensors[0] * grad_loss, None, None


class WholeRows(torch.autograd.Function):
    """weight[rows], with the gradient of PartialFC's form: the rows in use alone."""

    @staticmethod
    def forward(ctx, weight, rows):
        ctx.rows, ctx.shape = rows, weight.shape
        return weight[rows]

    @staticmethod
    def backward(ctx, grad):
        return torch.sparse_coo_tensor(ctx.rows[None], grad, ctx.shape), None


class OnEveryRank(Softmax):
    """Data parallel: each rank has all centres and the (B, C) logits of its own images; DDP averages the gradients."""

    def forward(self, embeddings, labels):
        cosine = F.normalize(embeddings) @ F.normalize(self.weight).T
        margin = torch.zeros_like(cosine).scatter_(1, labels[:, None], 0.5)
        return F.cross_entropy(64 * (cosine.acos() + margin).cos(), labels)


def their_head(way):
    def build(config, num_classes):
        if way == "data":
            head = OnEveryRank(config.embedding_size, num_classes)
            head.bias.requires_grad_(False)
            return head
        return WholeLogits(config.embedding_size, num_classes, sample_rate=config.sample_rate)

    return build


def predict(way, network, classes, rate, images, theirs):
    """Measured, of one of 8 ranks in fp16."""
    words = [f"network={network}", f"num_classes={classes}", "num_image=100000000", f"sample_rate={rate}"]
    words += [f"batch_size={images // 8}", "embedding_size=512", "scale=64", "lr=0.1", "num_epoch=20"]
    config = load_config("drawn_faces", words)
    complete(config, 8)
    with mock.patch.object(learner, "build_head", their_head(way) if theirs else learner.build_head):
        return measure(config, 8, torch.float16)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    measured, memory_rows, speed_rows = {}, [], []
    for name, way, network, classes, rate, images, speed, memory, source in tqdm(PUBLISHED):
        key, gpu = (way, network, classes, rate, images), GPUS[name]
        if key not in measured:
            measured[key] = [predict(*key, theirs) for theirs in (True, False)]
        what = [f"8 x {name}", way, network, f"{classes:,}", f"{images:,}"]
        # The first table does not say how it was counted; docs/plan.md says why PyTorch's count of tensors is taken.
        tensors = source == BY_CLASSES
        held = [(one.peak if tensors else sum(memory_on(one).values())) / MIB for one in measured[key]]
        rates = [images / time_on(one, gpu).step for one in measured[key]]
        counted = ["tensors" if tensors else "driver"]
        for published, (theirs, ours), rows, how in (
            (speed, rates, speed_rows, []),
            (memory, held, memory_rows, counted),
        ):
            if published:
                error = theirs / published - 1
                cells = [f"{published:,.0f}", f"{theirs:,.0f}", f"{error:+.0%}", f"{ours:,.0f}", source]
                rows.append((error, what + how + cells))
    for unit, rows in (("counted | MiB of one GPU", memory_rows), ("images/s", speed_rows)):
        print("\n| GPUs | way | network | ids | images a step", end=" ")
        print(f"| {unit}, published | predicted | error | with our head | source |")
        print("|" + "---|" * len(rows[0][1]))
        for _, cells in rows:
            print("|", " | ".join(cells), "|")
        errors = sorted(abs(error) for error, _ in rows)
        middle, largest = errors[len(errors) // 2], errors[-1]
        print(f"\nHalf of the {len(errors)} errors are within {middle:.0%}, the largest is {largest:.0%}.")


if __name__ == "__main__":
    main()
