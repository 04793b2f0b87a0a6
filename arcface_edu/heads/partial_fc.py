"""The margin softmax with its class centres spread over the ranks of a process group, all of them or a sample in use.

A million identities need 2 GB of centres, as much again for momentum, and a row of a million logits per image: too much
to copy to every rank, as DistributedDataParallel would. So each rank holds some classes and computes their logits for
the images of all ranks. What travels is small: embeddings and labels, and three numbers per image.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from arcface_edu.errors import ConfigError
from arcface_edu.heads.softmax import MarginSoftmax, check_labels

BLOCK = 1024  # classes whose first centres come from one random generator

# torch 2.14 warns of the old names of these two; torch 2.9 knows no others.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class PartialFC(MarginSoftmax):
    """`MarginSoftmax` sharded by class over the default process group (Partial FC, arXiv 2010.05222 and 2203.15565).

    num_classes: of all ranks together; rank r holds the r-th part as torch.chunk cuts it, which may be empty.
    weight: (classes of this rank, embedding_size), the centres of classes first_class, first_class + 1, ...
    sample_rate: share of its centres that a rank uses in a step: those of the batch's people always, others at random.
        Below 1, `weight.grad` is a sparse COO tensor of the used rows alone; `training.row_optim` steps by those.
    seed: of first centres and samples. A class begins at the same centre however many ranks there are.
    options: margin, scale, gradient, interclass_filtering_threshold as in `MarginSoftmax`.

    Without a process group it is one rank that holds everything. `state_dict()["weight"]` is the whole table, a DTensor
    under a process group; `load_state_dict` takes either form.
    """

    # `weight` itself is a plain tensor: a DTensor takes no sparse gradient (torch 2.15). `sharded` makes the DTensor.

    def __init__(self, embedding_size, num_classes, *, sample_rate=1.0, seed=0, **options):
        if not 0 < sample_rate <= 1:
            raise ConfigError(f"sample_rate is {sample_rate!r}; it is a share, above 0 and at most 1.")
        with torch.device("meta"):  # the table of all classes takes no memory; this rank's part follows
            super().__init__(embedding_size, num_classes, **options)
        self.sample_rate = sample_rate
        self.seed = seed
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        share = -(-num_classes // self.world_size)
        self.first_class = min(num_classes, self.rank * share)
        rows = min(num_classes, self.first_class + share) - self.first_class
        self.weight = nn.Parameter(torch.empty(rows, embedding_size))
        draw_centres(self.weight.detach(), self.first_class, seed)
        self.samples_drawn = 0
        self.register_state_dict_post_hook(show_whole_table)
        self.register_load_state_dict_pre_hook(take_own_rows)

    def forward(self, embeddings, labels, sizes=None):
        """Mean loss of all ranks' images together, the same number on every rank; every rank has to call it.

        embeddings: (B, D), labels: (B,) of this rank; B may differ between ranks, labels count over all classes.
        sizes: the B of every rank, if they are known already; None = the ranks tell each other first.
        returns: scalar, float32 also under autocast.  Raises DataError on every rank if any rank's label is wrong.
        """
        sizes = sizes or gather_sizes(len(labels), self.world_size, labels.device)
        embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        embeddings, labels = GatherBatch.apply(embeddings, labels, sizes)  # (N, D), (N,): N images on all ranks
        for rank, part in enumerate(labels.split(sizes)):
            check_labels(part, self.num_classes, owner=f" on rank {rank}" if self.world_size > 1 else "")

        own, rows = labels - self.first_class, None  # (N,), each image's row of `weight`
        own = torch.where((own >= 0) & (own < len(self.weight)), own, -1)  # or -1 where another rank holds its class
        if self.sample_rate < 1:
            rows = self.sample(own[own >= 0])
            own = torch.where(own >= 0, torch.searchsorted(rows, own), -1)
        losses = self.losses(embeddings, own, rows, self.world_size)
        self.target_cosine = self.target_cosine.split(sizes)[self.rank]
        return losses.sum() / max(1, len(losses))  # of batches that nobody could read, 0

    def sample(self, positives):
        """Rows of `weight` for one step, (R,) sorted: `positives`, (P,) with repeats, and others up to the share.

        Drawn anew from (seed, rank, number of the draw), so that a resumed run needs to know one integer. The others
        are numbered without the positives and drawn by number: the cost follows R, and every set is equally likely.
        """
        random = np.random.default_rng([self.seed, self.rank, self.samples_drawn])
        self.samples_drawn += 1
        positives = positives.unique()
        free = len(self.weight) - len(positives)
        wanted = max(0, round(self.sample_rate * len(self.weight)) - len(positives))
        others = torch.from_numpy(random.choice(free, wanted, replace=False, shuffle=False)).to(self.weight.device)
        before = positives - torch.arange(len(positives), device=positives.device)  # others numbered below a positive
        others += torch.searchsorted(before, others, right=True)
        return torch.cat([positives, others]).sort().values

    def classes_per_step(self):
        return max(1, round(self.sample_rate * self.num_classes))

    def sharded(self, tensor):
        """This rank's rows of a table of all classes (`weight`, or its momentum) as the DTensor of the whole table.

        tensor: (classes of this rank, ...).  returns: (num_classes, ...) on the same memory, which
        torch.distributed.checkpoint saves and reads at any world size; without a process group the tensor as it is.
        """
        if not dist.is_initialized():
            return tensor
        from torch.distributed.tensor import DTensor, Shard, init_device_mesh  # a slow import, of no use to one process

        mesh = init_device_mesh(tensor.device.type, (self.world_size,))
        shape = (self.num_classes, *tensor.shape[1:])
        return DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False, shape=shape, stride=tensor.stride())

    def get_extra_state(self):
        return torch.tensor(self.samples_drawn)

    def set_extra_state(self, state):
        self.samples_drawn = int(state)

    def extra_repr(self):
        return f"{super().extra_repr()}, sample_rate={self.sample_rate:g}, rank {self.rank} of {self.world_size}"


def draw_centres(weight, first_class, seed):
    """Fill `weight`, (rows, D) of the classes from `first_class` on, with its part of all classes' N(0, 0.01)."""
    rows, dimension = weight.shape
    for block in range(first_class // BLOCK, -(-(first_class + rows) // BLOCK)):
        begin = block * BLOCK - first_class  # in this shard; below 0 if the block began in the one before
        centres = np.random.default_rng([seed, block]).standard_normal((BLOCK, dimension), dtype=np.float32)
        weight[max(0, begin) : begin + BLOCK] = 0.01 * torch.from_numpy(centres[max(0, -begin) : rows - begin])


def show_whole_table(head, state, prefix, _):
    """After state_dict: a shard under the name of the whole would be taken for the whole."""
    state[f"{prefix}weight"] = head.sharded(state[f"{prefix}weight"])


def take_own_rows(head, state, prefix, *_):
    """Before load_state_dict: from the table of all classes, this rank's rows."""
    name = f"{prefix}weight"
    if name not in state:
        return
    if len(state[name]) != head.num_classes:
        raise RuntimeError(f"{name} has {len(state[name])} classes, the head {head.num_classes}.")
    own = slice(head.first_class, head.first_class + len(head.weight))
    state[name] = state[name].to_local() if hasattr(state[name], "to_local") else state[name][own]


class GatherBatch(torch.autograd.Function):
    """The images of all ranks, rank after rank: (B, D) embeddings, (B,) labels -> (N, D), (N,); sizes: each one's B."""

    @staticmethod
    def forward(ctx, embeddings, labels, sizes):
        ctx.sizes = sizes
        if len(sizes) == 1:
            return embeddings, labels
        arriving = [gather_rows_later(local, sizes) for local in (embeddings, labels)]  # both are on their way at once
        return tuple(arrived() for arrived in arriving)

    @staticmethod
    def backward(ctx, grad, _):
        """Each rank knows what its own classes want of every embedding; the sum over ranks is the whole gradient.

        It comes back times the world size, because DistributedDataParallel divides by it: the loss is one mean over all
        images, so the backbone's gradient is the sum over ranks of what their images give, and DDP takes the mean.
        """
        if len(ctx.sizes) == 1:
            return grad, None, None
        padded = pad_sequence(grad.split(ctx.sizes), batch_first=True)  # (world, longest, ...)
        own = torch.empty_like(padded[0])
        reduce_scatter(own, padded.flatten(0, 1))
        return own[: ctx.sizes[dist.get_rank()]] * len(ctx.sizes), None, None


def gather_rows_later(local, sizes):
    """Begin to gather (B, ...) of every rank.  returns: a function that waits for all rows, (N, ...)."""
    longest = max(sizes)  # a collective wants equal sizes, so shorter batches are padded on the way
    padded = local.new_zeros(longest, *local.shape[1:])
    padded[: len(local)] = local
    everyone = local.new_empty(longest * len(sizes), *local.shape[1:])
    work = all_gather(everyone, padded, async_op=True)

    def arrived():
        work.wait()
        return torch.cat([rows[:size] for rows, size in zip(everyone.split(longest), sizes, strict=True)])

    return arrived


def gather_sizes(size, world_size, device):
    """The batch size of every rank, as a list.

    It travels between the processors where there is a way (gloo beside nccl, PyTorch's default): read from a GPU, the
    numbers would have to wait for all that it has to do.
    """
    if world_size == 1:
        return [size]
    if "cpu" in dist.get_backend_config():
        device = "cpu"
    sizes = torch.zeros(world_size, dtype=torch.long, device=device)
    sizes[dist.get_rank()] = size
    dist.all_reduce(sizes)
    return sizes.tolist()
