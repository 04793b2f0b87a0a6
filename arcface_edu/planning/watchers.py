"""What watches a step on fake tensors: how much memory is held by what, and what each operation computes and moves."""

from enum import Enum
from typing import NamedTuple

import torch
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Kind(str, Enum):
    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    LOGITS = "logits"  # and everything else the head makes on its way
    TEMPORARY = "temporary"
    BUFFERS = "buffers"
    BATCH = "batch"


KINDS = {
    _MemRefType.PARAM: Kind.WEIGHTS,
    _MemRefType.GRAD: Kind.GRADIENTS,
    _MemRefType.OPT: Kind.OPTIMIZER,
    _MemRefType.ACT: Kind.ACTIVATIONS,
    _MemRefType.TEMP: Kind.TEMPORARY,
    _MemRefType.BUFFER: Kind.BUFFERS,
    _MemRefType.OTH: Kind.BATCH,
}


class Memory(MemTracker):
    """PyTorch's memory tracker, with the head's working memory as a kind of its own and without its view by module.

    peak: dict Kind -> bytes at the moment when most is held.   now: likewise at this moment.
    """

    def __init__(self, state, *batch):
        super().__init__()
        self._ref_class = Kind
        self.head = type(state.head).__name__
        rows, dimension = state.head.weight.shape
        used = round(getattr(state.head, "sample_rate", 1) * rows)
        self.shapes_of_gradients = {(rows, dimension), (used, dimension)}
        self.track_external(state.model, state.head, *batch)
        for parameter in trained(state):
            parameter.register_post_accumulate_grad_hook(lambda parameter: self.mark_gradient(parameter.grad))
        state.optimizer.register_step_pre_hook(lambda *_: self.mark_buckets(state))

    @property
    def peak(self):
        return by_kind(self.get_tracker_snapshot("peak"))

    @property
    def now(self):
        return by_kind(self.get_tracker_snapshot())

    @property
    def in_head(self):
        return self.head in self._mod_tracker.parents

    def mark_gradient(self, gradient):
        self._update_and_maybe_create_winfos(gradient, Kind.GRADIENTS)

    def mark_buckets(self, state):
        """After a backward pass, gradients are views of DDP's buckets, which stay."""
        for parameter in trained(state):
            if parameter.grad is not None:
                self.mark_gradient(parameter.grad)

    def _track(self, kind, tensor):
        if tensor.layout == torch.strided:  # a fake sparse tensor holds nothing; its rows are tracked for themselves
            if self.in_head and kind == _MemRefType.TEMP and tuple(tensor.shape) in self.shapes_of_gradients:
                kind = _MemRefType.GRAD  # the head fills it chunk by chunk
            works = kind in (_MemRefType.ACT, _MemRefType.TEMP)
            super()._track(Kind.LOGITS if works and self.in_head else KINDS[kind], tensor)

    def _update_and_maybe_create_winfos(self, tensor, kind, update_existing=False):
        if tensor.layout != torch.strided:
            return set()
        return super()._update_and_maybe_create_winfos(tensor, KINDS.get(kind, kind), update_existing)

    def _update_peak_stats(self, _):
        for device, held in self._curr_mem_snap.items():
            if held["Total"] > self._peak_mem.get(device, 0):
                self._peak_mem[device], self._peak_mem_snap[device] = held["Total"], dict(held)

    def _no_view_by_module(self, *_):
        pass

    _pre_fw_hook = _post_fw_hook = _pre_bw_hook = _post_bw_hook = _no_view_by_module


def trained(state):
    return [parameter for group in state.optimizer.param_groups for parameter in group["params"]]


def by_kind(snapshot):
    """dict Kind -> bytes, of what MemTracker found on the one device there is."""
    held = next(iter(snapshot.values()), {})
    return {kind: held.get(kind, 0) for kind in Kind}


class Operation(NamedTuple):
    """One kernel, as far as its time goes."""

    part: str  # "network", "head" or "update"
    phase: str  # one of PHASES
    dtype: torch.dtype  # in which it computes
    flops: int  # of matrix products and convolutions, two for a multiply-add; 0 for what only moves
    moved: int  # bytes read and written
    convolution: bool = False


class Message(NamedTuple):
    phase: str
    collective: str  # "all-reduce" ...
    size: int  # bytes of what is gathered, scattered or reduced, as a whole


PHASES = ("forward: network", "forward: head", "backward", "update")  # as `TrainState` names them
COLLECTIVES = {
    "allreduce_": "all-reduce",
    "_allgather_base_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
}
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
CONVOLUTIONS = {"convolution", "convolution_backward"}
OF_SOME_ROWS = {"index", "index_put_", "_index_put_impl_", "gather", "scatter_", "index_select", "embedding"}


class Work(TorchDispatchMode):
    """Notes every operation and every message of a step, with the phase that `TrainState` says it is in."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory
        self.operations, self.messages, self.phases = [], [], [""]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        in_head = self.memory.in_head
        result = func(*args, **kwargs)
        name, phase = func.overloadpacket.__name__, self.phases[-1]
        if func.namespace == "profiler":  # torch.profiler.record_function
            if name == "_record_function_enter_new":
                self.phases.append(args[0] if args[0] in PHASES else phase)
            else:
                self.phases.pop()
        elif func.namespace == "c10d":
            size = max(nbytes(tensor) for tensor in tensors_of(args))
            self.messages.append(Message(phase, COLLECTIVES.get(name, name), size))
        elif name not in NO_KERNEL and not func.is_view:
            read, written = tensors_of((args, kwargs)), tensors_of(result)
            if written or name.endswith("_"):
                count = flop_registry.get(func.overloadpacket, lambda *_, **__: 0)
                flops = count(*args, **kwargs, out_val=result)
                moved = sum(map(nbytes, read)) + sum(map(nbytes, written or tensors_of(args[0])))
                if name in OF_SOME_ROWS:  # of the table, the first argument, as much as of what goes in or comes out
                    moved = 2 * sum(
                        nbytes(tensor) for tensor in tensors_of((args[1:], written)) if tensor is not args[0]
                    )
                part = "update" if phase == "update" else "head" if in_head else "network"
                self.operations.append(Operation(part, phase, dtype_of(read), flops, moved, name in CONVOLUTIONS))
        return result


def tensors_of(tree):
    """The tensors in a tree of arguments, each once; of a fake sparse tensor nothing is known."""
    leaves = {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
    return [tensor for tensor in leaves.values() if tensor.layout == torch.strided]


def dtype_of(tensors):
    """That of the first floating-point tensor."""
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def nbytes(tensor):
    return tensor.numel() * tensor.itemsize
