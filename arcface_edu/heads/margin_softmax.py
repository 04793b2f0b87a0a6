"""Softmax over cosines with a margin on the true class, in one process or with its class centres sharded over ranks."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_edu.errors import ConfigError
from arcface_edu.heads.chunked import HardNegatives, TargetAndNegativeLSE, logits_of_targets
from arcface_edu.heads.margins import target_logit
from arcface_edu.heads.sharding import (
    GatherBatch,
    as_dtensor,
    count_once,
    draw_centres,
    gather_sizes,
    keep_own_rows,
    show_whole_table,
)
from arcface_edu.heads.softmax import check_labels


class MarginSoftmax(nn.Module):
    """Softmax over s * cosine, with a margin on the true class (ArcFace, arXiv 1801.07698, eqs. 2 to 4).

    Args:
        embedding_size: Numbers in an embedding, D.
        num_classes: Of all ranks together.
        margin: (m1, m2, m3) of cos(m1*theta + m2) - m3: (1, 0.5, 0) ArcFace, (1, 0, 0.35) CosFace, (1.35, 0, 0) in the
            manner of SphereFace, (1, 0, 0) norm-softmax, or any mixture.
        scale: s, the radius of the sphere that the embeddings are put on; None = their own lengths.
        gradient: "straight-through" or "exact", see `margins.target_logit`.
        interclass_filtering_threshold: Above 0, a cosine to another class that exceeds it counts as 0 (90 degrees): an
            image that near to another class is more likely labelled wrongly (Partial FC, arXiv 2203.15565).
        sample_rate: Share of the class centres used in a step: those of the batch's classes always, others at random.
            0 = no others. Below 1, `weight.grad` is a sparse COO tensor of the used rows; `training.row_optim` steps by
            those.
        batch_size: Images of a rank in a step, where they are known: `expected_first_loss` counts their classes.
        seed: Of the first class centres and of the samples; None = first centres from torch's own generator.
        sharded: Share the classes out over the ranks of the default process group; see `PartialFC`.
        chunk_size: How many classes are compared at a time, see `chunked`; None = what fits the cache.
        sub_centers: K, the centres of each class, of which the nearest counts (sub-center ArcFace, ECCV 2020).

    Attributes:
        weight: (classes of this rank, D), the class centres of `first_class`, `first_class` + 1, ...; only their
            direction counts. With sub-centres (classes of this rank, K, D).
        target_cosine: (B,) of the last forward pass: cosine of each image to its class centre, without the margin.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        margin: Sequence[float] = (1.0, 0.5, 0.0),
        scale: float | None = 64.0,
        gradient: str = "straight-through",
        interclass_filtering_threshold: float = 0.0,
        sample_rate: float = 1.0,
        batch_size: int = 0,
        seed: int | None = None,
        sharded: bool = False,
        chunk_size: int | None = None,
        sub_centers: int = 1,
    ) -> None:
        super().__init__()
        if gradient not in ("straight-through", "exact"):
            raise ConfigError(f'gradient is {gradient!r}; it may be "straight-through" or "exact".')
        if len(margin) != 3 or margin[0] <= 0 or not 0 <= margin[1] < math.pi:
            raise ConfigError(f"margin is {margin!r}; it holds (m1, m2, m3) with m1 > 0 and 0 <= m2 < pi.")
        if chunk_size is not None and chunk_size < 1:
            raise ConfigError(f"chunk_size is {chunk_size!r}; it counts classes, 1 or more, or is None.")
        if not 0 <= sample_rate <= 1:
            raise ConfigError(f"sample_rate is {sample_rate!r}; it is a share, from 0 to 1.")
        if sub_centers < 1:
            raise ConfigError(f"sub_centers is {sub_centers!r}; it counts the centres of a class, 1 or more.")
        self.margin = tuple(map(float, margin))
        self.num_classes = num_classes
        self.scale = scale
        self.gradient = gradient
        self.interclass_filtering_threshold = interclass_filtering_threshold
        self.sample_rate = sample_rate
        self.batch_size = batch_size
        self.seed = seed
        self.samples_drawn = 0
        self.chunk_size = chunk_size
        self.is_sharded = sharded
        in_group = sharded and dist.is_initialized()
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if in_group else (0, 1)
        share = -(-num_classes // self.world_size)  # rank r holds the r-th part as torch.chunk cuts it, perhaps none
        self.first_class = min(num_classes, self.rank * share)
        rows = min(num_classes, self.first_class + share) - self.first_class
        # A plain tensor: a DTensor takes no sparse gradient (torch 2.15). State dicts hold the DTensor of all classes.
        shape = (rows, embedding_size) if sub_centers == 1 else (rows, sub_centers, embedding_size)
        self.weight = nn.Parameter(torch.empty(shape))
        if seed is None:
            nn.init.normal_(self.weight, 0, 0.01)
        else:
            draw_centres(self.weight.detach(), self.first_class, seed)
        self.target_cosine = torch.empty(0)
        if sharded:
            self.register_state_dict_post_hook(show_whole_table)
            self.register_load_state_dict_pre_hook(keep_own_rows)

    def forward(self, embeddings: Tensor, labels: Tensor, sizes: list[int] | None = None) -> Tensor:
        """Return the mean loss over the images of all ranks: a scalar, float32 also under autocast.

        Args:
            embeddings: (B, D) of this rank; B may differ between ranks.
            labels: (B,), class numbers that count over all ranks' classes.
            sizes: The B of every rank, where they are known already; None = the ranks tell each other first.

        Raises:
            DataError: On every rank, if a label of any rank is out of range.
        """
        sizes = sizes or gather_sizes(len(labels), self.world_size, labels.device)
        embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        embeddings, labels = GatherBatch.apply(embeddings, labels, sizes)  # (N, D), (N,): the images of all ranks
        for rank, part in enumerate(labels.split(sizes)):
            check_labels(part, self.num_classes, owner=f" on rank {rank}" if self.world_size > 1 else "")

        targets, rows = labels - self.first_class, None  # (N,), each image's row of `weight`
        targets = torch.where((targets >= 0) & (targets < len(self.weight)), targets, -1)  # -1: on another rank
        if self.sample_rate < 1:
            rows = self.sample(targets[targets >= 0])
            targets = torch.where(targets >= 0, torch.searchsorted(rows, targets), -1)
        losses, cosine = self.losses(embeddings, targets, rows)
        self.target_cosine = cosine.split(sizes)[self.rank]
        return losses.sum() / max(1, len(losses))  # 0 where no image of the step could be read

    def losses(self, embeddings: Tensor, targets: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss of each image, (N,), and its cosine to its class centre without the margin, (N,).

        Args:
            embeddings: (N, D).
            targets: (N,), each image's class as an index into the rows in use, -1 where another rank holds it.
            rows: (R,), the rows of `weight` in use; None = all.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            # In bf16 the gradient of an embedding would be off by half a percent to two (measured): fp32 at least.
            dtype = torch.promote_types(torch.promote_types(embeddings.dtype, self.weight.dtype), torch.float32)
            embeddings, weight = embeddings.to(dtype), self.weight.to(dtype)
            norms = count_once(torch.linalg.vector_norm(embeddings, dim=1), self.world_size)
            scale = norms if self.scale is None else self.scale
            radius = scale / math.log(2)  # on a sphere of this radius, exp2 of an inner product is e^(s * cosine)
            features = embeddings / math.log(2) if self.scale is None else radius * F.normalize(embeddings)
            hard = self.hard_negatives(
                radius, lambda: logits_of_targets(features, weight, targets, rows, self.world_size)
            )
            target, negatives_lse = TargetAndNegativeLSE.apply(
                features, weight, targets, rows, hard, self.chunk_size, self.world_size
            )
            cosine = target / radius
            logits = scale * self.target_logit(cosine, norms)
            # -log(e^logit / (e^logit + sum of e^negative)), the cross-entropy
            losses = -F.logsigmoid(logits - math.log(2) * negatives_lse)
            return losses + self.penalty(norms), cosine.detach()

    def target_logit(self, cosine: Tensor, norms: Tensor) -> Tensor:
        """Return the logit of the target class after the margin, before the scale, (N,).

        A head with another margin has its own.

        Args:
            cosine: (N,), of each image to its class centre.
            norms: (N,), lengths of the embeddings.
        """
        return target_logit(cosine, self.margin, self.gradient)

    def penalty(self, norms: Tensor) -> Tensor | float:
        """Return what is added to the loss of each image for the length of its embedding, (N,)."""
        return 0.0

    def hard_negatives(self, radius: Tensor | float, targets: Callable[[], Tensor]) -> HardNegatives | None:
        """Return what becomes of the logits of hard negatives; None = nothing.

        Args:
            radius: Logit of a cosine of 1, (N,) or one for all.
            targets: Gives the logits of the target classes without the margin, (N,), on every rank.
        """
        threshold = self.interclass_filtering_threshold
        return HardNegatives(threshold * radius) if threshold else None

    def sample(self, positives: Tensor) -> Tensor:
        """Return the rows of `weight` to use in a step: (R,), sorted; `positives`, and others up to `sample_rate`.

        They are drawn from (seed, rank, number of the draw), so that a resumed run needs to restore one integer. The
        others are numbered without the positives and drawn by number: the cost follows R, and every set is equally
        likely.

        Args:
            positives: (P,), rows of the classes in the batch, with repeats.
        """
        rng = np.random.default_rng([self.seed or 0, self.rank, self.samples_drawn])
        self.samples_drawn += 1
        positives = positives.unique()
        free = len(self.weight) - len(positives)
        wanted = max(0, round(self.sample_rate * len(self.weight)) - len(positives))
        others = torch.from_numpy(rng.choice(free, wanted, replace=False, shuffle=False)).to(self.weight.device)
        before = positives - torch.arange(len(positives), device=positives.device)  # others numbered below a positive
        others += torch.searchsorted(before, others, right=True)
        return torch.cat([positives, others]).sort().values

    def as_dtensor(self, tensor: Tensor) -> Tensor:
        """Return this rank's rows of a table of all classes (`weight`, or its momentum) as the DTensor of the table.

        torch.distributed.checkpoint saves and reads it at any world size. Without a process group it is `tensor`.

        Args:
            tensor: (classes of this rank, ...).
        """
        return as_dtensor(tensor, self.num_classes, self.world_size)

    def expected_first_loss(self) -> float:
        """Return the mean loss of random embeddings against random centres: a check that a run starts as it should.

        The cosines are then normal with variance 1/d, their mean exponential adds s^2 / 2d to ln C, and the target
        sits at 90 degrees. Few classes never see the far tail that carries that mean: past s/sqrt(d) = sqrt(2 ln C)
        the largest of C normal numbers is what counts.
        """
        images, dimension = self.batch_size * self.world_size, self.weight.shape[-1]
        in_batch = self.num_classes * (1 - (1 - 1 / self.num_classes) ** images)  # distinct labels of random images
        num_classes = max(1, round(self.sample_rate * self.num_classes), round(in_batch))
        m1, m2, m3 = self.margin
        scale = self.scale or math.sqrt(dimension)  # about the length of what the network's last BN gives
        spread = scale / math.sqrt(dimension)  # standard deviation of a logit
        reach = math.sqrt(2 * math.log(num_classes))
        partition = math.log(num_classes) + spread**2 / 2 if spread < reach else spread * reach
        return partition - scale * (math.cos(m1 * math.pi / 2 + m2) - m3)

    def extra_repr(self) -> str:
        sizes = f"{self.weight.shape[-1]}, {self.num_classes}"
        shown = f"{sizes}, margin={self.margin}, scale={self.scale}, gradient={self.gradient!r}"
        if self.is_sharded:
            shown += f", sample_rate={self.sample_rate:g}, rank {self.rank} of {self.world_size}"
        return shown


class PartialFC(MarginSoftmax):
    """`MarginSoftmax` sharded by class over the default process group (Partial FC, arXiv 2010.05222 and 2203.15565).

    A million identities need 2 GB of centres, as much again for momentum, and a row of a million logits per image: too
    much to copy to every rank, as DistributedDataParallel would. So each rank holds some classes and computes their
    logits for the images of all ranks. What travels is small: embeddings, labels, and three numbers per image.

    Every rank calls `forward` at the same time, and gets the same loss. A class begins at the same centre however many
    ranks there are. In a single process this is one rank that holds all classes. `state_dict()["weight"]` is the whole
    table, a DTensor under a process group; `load_state_dict` takes either form. Arguments as for `MarginSoftmax`.
    """

    def __init__(
        self, embedding_size: int, num_classes: int, *, sample_rate: float = 1.0, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(embedding_size, num_classes, sample_rate=sample_rate, seed=seed, sharded=True, **options)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.samples_drawn)

    def set_extra_state(self, state: Tensor) -> None:
        self.samples_drawn = int(state)
