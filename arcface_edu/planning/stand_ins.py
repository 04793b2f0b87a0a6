"""A place where the true step runs without data, without GPUs and without memory.

Tensors are fake (shape and type, no numbers), processes are fake (this one of N; collectives return at once), and the
few places where the step asks what the numbers are get the answer of a healthy step. All else is the trainer's code.
"""

import contextlib
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from arcface_edu.heads import chunked, margin_softmax, softmax
from arcface_edu.models import prelu
from arcface_edu.training import parallel, row_optim, state
from arcface_edu.training.launch import World


@contextlib.contextmanager
def fake_world(gpus, batch_size):
    """Within it, tensors are fake, and this process is rank 0 of `gpus` with batches of `batch_size`.  yields: World.

    The device is "cpu": fake CUDA tensors need a driver in their backward pass. What a GPU would do otherwise than a
    CPU is set to the GPU's way: its PReLU, the size of the head's chunks.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow imports, which only planning needs
    from torch.testing._internal.distributed.fake_pg import FakeStore

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    # The memo of conversions holds a weak reference to every weight, and then none can be made channels-last.
    mode.fake_tensor_converter.set_tensor_memo = lambda *_: None
    with contextlib.ExitStack() as stack:
        if gpus > 1:
            dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=gpus)
            stack.callback(dist.destroy_process_group)
        for owner, name, stand_in in stand_ins():
            stack.enter_context(mock.patch.object(owner, name, stand_in))
        stack.enter_context(mode)
        stack.enter_context(Answers(batch_size))
        yield World(0, gpus, 0)


def stand_ins():
    """(owner, name, what takes its place): what asks for numbers, or does on CPUs what it would not do on GPUs."""
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    all_reduce, sparse_gradients = dist.all_reduce, []

    def keep_sparse(indices, values, size, **_):
        """A fake sparse tensor forgets how many rows it holds: those are kept beside it until the optimizer comes."""
        sparse_gradients.append((indices[0], values))
        return torch.empty(size, layout=torch.sparse_coo, device=values.device)

    def blocks_of(gradient):
        block = row_optim.BLOCK_OF_ACCELERATORS
        if not gradient.is_sparse:
            return ((slice(at, at + block), gradient[at : at + block]) for at in range(0, len(gradient), block))
        rows, values = (
            torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*sparse_gradients, strict=True)
        )
        sparse_gradients.clear()
        return zip(rows.split(block), values.split(block), strict=True)

    def all_reduce_and_tell(tensor, *args, async_op=False, **options):
        """The fake group's work has no result, for which DDP's hooks wait."""
        all_reduce(tensor, *args, **options)
        return Done(tensor) if async_op else None

    return [
        # Numbers that have no meaning here
        (margin_softmax, "draw_centres", lambda *_: None),
        (margin_softmax, "check_labels", lambda *_, **__: None),
        (softmax, "check_labels", lambda *_, **__: None),
        (margin_softmax, "gather_sizes", lambda size, world_size, _: [size] * world_size),
        (margin_softmax.MarginSoftmax, "sample", sample),
        (state, "item_async", lambda _: lambda: True),  # the loss is finite
        # A step that does not overflow
        (torch.amp.GradScaler, "_maybe_opt_step", lambda _, optimizer, *__: optimizer.step()),
        (torch.amp.GradScaler, "get_scale", lambda _: 1.0),
        (torch.amp.GradScaler, "_get_growth_tracker", lambda _: 0),
        (ShardedGradScaler, "_amp_update_scale_cpu_", lambda *_: None),
        # What fake tensors and fake processes lack
        (torch, "sparse_coo_tensor", keep_sparse),
        (row_optim, "blocks_of", blocks_of),
        (parallel, "DistributedDataParallel", FakeDDP),
        (dist, "Reducer", Reducer),
        (dist, "all_reduce", all_reduce_and_tell),
        # The ways of a GPU
        (chunked, "CHUNK_BYTES", {}),
        (chunked, "KEPT_BYTES", {}),
        (prelu.PReLU, "forward", lambda layer, x: F.prelu(x, layer.weight.to(x.dtype))),
    ]


def sample(head, positives):
    """As many rows as `PartialFC.sample` gives."""
    rows = len(head.weight)
    return torch.empty(min(rows, max(len(positives), round(head.sample_rate * rows))), dtype=torch.long)


class Answers(TorchDispatchMode):
    """x[mask] has as many rows as the mask has ones, which nobody knows; the only mask in a step selects those of all
    ranks' images whose class is here: taken to be as many as one rank has images."""

    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
            return args[0].new_empty(min(self.batch_size, len(args[0])), *args[0].shape[1:])
        return func(*args, **(kwargs or {}))


class FakeDDP(nn.parallel.DistributedDataParallel):
    """DDP but for its first look at whether all ranks have the same weights, and with a hook that fakes can run."""

    def __init__(self, *args, **options):
        super().__init__(*args, init_sync=False, **options)
        self.own_hook = False

    def register_comm_hook(self, state, hook):
        self.own_hook = True
        super().register_comm_hook(state, hook)

    def forward(self, *args):
        if not self.own_hook:
            self.register_comm_hook(None, default_hooks.allreduce_hook)
        return super().forward(*args)


class Reducer(dist.Reducer):
    """DDP's, with its packets from the start as it would rebuild them after a step: by the order gradients come in."""

    def __init__(self, parameters, _packets, _limits, *options):
        backwards = list(range(len(parameters)))[::-1]
        packets, limits = dist._compute_bucket_assignment_by_size(
            [parameters[place] for place in backwards],
            [dist._DEFAULT_FIRST_BUCKET_BYTES, options[2]],
            [False] * len(parameters),
            backwards,
        )
        super().__init__(parameters, packets, limits, *options)

    def _rebuild_buckets(self):
        return False


class Done:
    """A collective that is over."""

    def __init__(self, tensor):
        self.tensor = tensor

    def wait(self):
        pass

    def get_future(self):
        future = torch.futures.Future()
        future.set_result([self.tensor])
        return future
