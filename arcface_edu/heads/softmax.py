"""Plain softmax, the head that ArcFace is compared with."""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_edu.errors import DataError


class Softmax(nn.Module):
    """Plain softmax: logits are inner products plus a bias, and nothing is normalised.

    Under a process group each rank has the whole head, within DistributedDataParallel.

    Attributes:
        weight: (num_classes, embedding_size).
        bias: (num_classes,).
        target_cosine: (B,) of the last forward pass: cosine of each image to the row of its class.
    """

    is_sharded = False

    def __init__(self, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.normal_(self.weight, 0, 0.01)
        self.target_cosine = torch.empty(0)

    def forward(self, embeddings: Tensor, labels: Tensor, sizes: list[int] | None = None) -> Tensor:
        """Return the mean loss over the images of all ranks: a scalar, float32 also under autocast.

        Args:
            embeddings: (B, D) of this rank.
            labels: (B,), class numbers.
            sizes: The B of every rank, as `PartialFC` takes them; here they travel with the loss.
        """
        check_labels(labels, len(self.weight))
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            with torch.no_grad():
                self.target_cosine = F.cosine_similarity(embeddings, self.weight[labels].float())
            logits = F.linear(embeddings, self.weight.float(), self.bias.float())  # (B, C)
            return mean_over_ranks(F.cross_entropy(logits, labels, reduction="sum"), len(labels))

    def expected_first_loss(self) -> float:
        """Return ln C: small random weights make every class equally likely."""
        return math.log(len(self.weight))


def mean_over_ranks(total: Tensor, count: int) -> Tensor:
    """Return the mean over the images of all ranks, the same on each; its gradient, averaged over ranks, is the mean's.

    Args:
        total: Scalar, the sum over this rank's images.
        count: How many images that are.
    """
    if not dist.is_initialized():
        return total / max(1, count)
    sums = torch.stack([total.detach(), total.new_tensor(count)])
    dist.all_reduce(sums)
    count_of_all = sums[1].clamp(min=1)
    part = total * dist.get_world_size() / count_of_all
    return part + (sums[0] / count_of_all - part).detach()


def check_labels(labels: Tensor, num_classes: int, owner: str = "") -> None:
    """Raise DataError for a label without a class centre; unnoticed, training would only push everything apart.

    On an accelerator the check would wait for the device at every step, and in compiled code it would break the graph;
    the loader has checked the labels of a run already.
    """
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        wrong = labels[(labels < 0) | (labels >= num_classes)][0].item()
        raise DataError(f"label {wrong}{owner} is out of range: the head has {num_classes} classes, numbered from 0.")
