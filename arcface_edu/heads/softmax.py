"""Classification heads in one process: class centres, and the loss of embeddings against them."""

import functools
import math

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from arcface_edu.errors import ConfigError, DataError
from arcface_edu.heads.chunked import TrueAndOthers
from arcface_edu.heads.margins import target_logit


class MarginSoftmax(nn.Module):
    """Softmax over s * cosine, with a margin on the true class (ArcFace, arXiv 1801.07698, eqs. 2 to 4).

    weight: (num_classes, embedding_size), the class centres; only their direction counts.
    margin: (m1, m2, m3) of cos(m1*theta + m2) - m3: (1, 0.5, 0) ArcFace, (1, 0, 0.35) CosFace, (1.35, 0, 0) in the
        manner of SphereFace, (1, 0, 0) norm-softmax, or any mixture.
    scale: s, the radius of the sphere that the embeddings are put on.
    gradient: "straight-through" or "exact", see `margins.target_logit`.
    interclass_filtering_threshold: above 0, a cosine to another class that exceeds it counts as 0 (90 degrees): so
        near a stranger is more likely a wrong label (Partial FC, arXiv 2203.15565).
    chunk_size: how many classes are compared at a time, see `chunked`; None takes what fits the cache.
    """

    def __init__(
        self,
        embedding_size,
        num_classes,
        *,
        margin=(1.0, 0.5, 0.0),
        scale=64.0,
        gradient="straight-through",
        interclass_filtering_threshold=0.0,
        chunk_size=None,
    ):
        super().__init__()
        if gradient not in ("straight-through", "exact"):
            raise ConfigError(f'gradient is {gradient!r}; it may be "straight-through" or "exact".')
        if len(margin) != 3 or margin[0] <= 0 or not 0 <= margin[1] < math.pi:
            raise ConfigError(f"margin is {margin!r}; it holds (m1, m2, m3) with m1 > 0 and 0 <= m2 < pi.")
        if chunk_size is not None and chunk_size < 1:
            raise ConfigError(f"chunk_size is {chunk_size!r}; it counts classes, 1 or more, or is None.")
        self.margin = tuple(map(float, margin))
        self.num_classes = num_classes
        self.scale = scale
        self.gradient = gradient
        self.interclass_filtering_threshold = interclass_filtering_threshold
        self.chunk_size = chunk_size
        self.update = None  # see `step_in_backward`
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight, 0, 0.01)
        self.target_cosine = None  # (B,) of the last forward pass, without margin: what the log calls the target angle

    def forward(self, embeddings, labels):
        """Mean loss of a batch.  embeddings: (B, D), labels: (B,) -> scalar, float32 also under autocast."""
        check_labels(labels, self.num_classes)
        return self.losses(embeddings, labels).mean()

    def losses(self, embeddings, own, rows=None, world_size=1):
        """Loss of each image, (N,), from embeddings (N, D); own, rows, world_size as in `chunked.TrueAndOthers`."""
        with torch.autocast(embeddings.device.type, enabled=False):
            # In bf16 the gradient of an embedding would be off by half a percent to two (measured): fp32 at least.
            dtype = torch.promote_types(torch.promote_types(embeddings.dtype, self.weight.dtype), torch.float32)
            radius = self.scale / math.log(2)  # on a sphere of this radius, inner products with unit vectors are bits
            points = radius * F.normalize(embeddings.to(dtype))
            threshold = radius * self.interclass_filtering_threshold or None
            true, others = TrueAndOthers.apply(
                points, self.weight.to(dtype), own, rows, threshold, self.chunk_size, self.update, world_size
            )
            cosine = true / radius
            self.target_cosine = cosine.detach()
            marked = self.scale * target_logit(cosine, self.margin, self.gradient)
            return -F.logsigmoid(marked - math.log(2) * others)  # -log(e^marked / (e^marked + e^others))

    def step_in_backward(self, optimizer):
        """From now on a backward pass steps the centres too, chunk by chunk, as `optimizer` would do it after the pass.

        optimizer: a `training.row_optim` that holds `weight`. `weight.grad` stays None: the gradient of all centres is
        never in memory, nor is a pass over them needed besides. So it excludes several backward passes a step, and
        whatever looks at that gradient first: clipping, a loss scaler. An optimizer's rate must be set before the pass.
        """
        self.update = functools.partial(optimizer.step_rows, self.weight)

    def expected_first_loss(self):
        """Mean loss of random embeddings against random centres: a check that a run starts as it should.

        The cosines are then normal with variance 1/d, their mean exponential adds s^2 / 2d to ln C, and the target
        sits at 90 degrees. Few classes never see the far tail that carries that mean: past s/sqrt(d) = sqrt(2 ln C)
        the largest of C normal numbers is what counts.
        """
        num_classes, dimension = self.classes_per_step(), self.weight.shape[1]
        m1, m2, m3 = self.margin
        spread = self.scale / math.sqrt(dimension)  # standard deviation of a logit
        reach = math.sqrt(2 * math.log(num_classes))
        partition = math.log(num_classes) + spread**2 / 2 if spread < reach else spread * reach
        return partition - self.scale * (math.cos(m1 * math.pi / 2 + m2) - m3)

    def classes_per_step(self):
        """How many centres an embedding is compared with."""
        return self.num_classes

    def extra_repr(self):
        sizes = f"{self.weight.shape[1]}, {self.num_classes}"
        return f"{sizes}, margin={self.margin}, scale={self.scale:g}, gradient={self.gradient!r}"


class Softmax(nn.Module):
    """Plain softmax, what ArcFace is compared with: logits are inner products plus a bias, nothing is normalised.

    Of several processes each has all of it, and DistributedDataParallel around it.
    """

    def __init__(self, embedding_size, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.normal_(self.weight, 0, 0.01)
        self.target_cosine = None  # (B,) of the last forward pass

    def forward(self, embeddings, labels, sizes=None):
        """Mean loss of all ranks' images.  embeddings: (B, D), labels: (B,) -> scalar, float32 also under autocast.

        sizes: of every rank's batch, which `PartialFC` wants to know; here they travel with the loss.
        """
        check_labels(labels, len(self.weight))
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            with torch.no_grad():
                self.target_cosine = F.cosine_similarity(embeddings, self.weight[labels].float())
            logits = F.linear(embeddings, self.weight.float(), self.bias.float())  # (B, C)
            return mean_over_ranks(F.cross_entropy(logits, labels, reduction="sum"), len(labels))

    def expected_first_loss(self):
        """ln C: small random weights make every class equally likely."""
        return math.log(len(self.weight))


def mean_over_ranks(total, count):
    """Mean over the images of all ranks, the same number on each; its gradient, averaged over ranks, is the mean's.

    total: scalar, the sum over this rank's `count` images.
    """
    if not dist.is_initialized():
        return total / max(1, count)
    sums = torch.stack([total.detach(), total.new_tensor(count)])
    dist.all_reduce(sums)
    count = sums[1].clamp(min=1)
    part = total * dist.get_world_size() / count
    return part + (sums[0] / count - part).detach()


def check_labels(labels, num_classes, owner=""):
    """A label that no centre answers to is an error here; unnoticed, training would only push everything apart.

    On an accelerator the look would make it wait for the device at every step; there the loader has checked already.
    """
    if labels.device.type == "cpu" and len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        wrong = labels[(labels < 0) | (labels >= num_classes)][0].item()
        raise DataError(f"label {wrong}{owner} is out of range: the head has {num_classes} classes, numbered from 0.")
