"""What a step on fake tensors holds, computes and sends: its memory by kind, its operations and its messages."""

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from arcface_edu.planning.torch_internals import KindTracker, MemRefType, TorchDispatchMode, flop_registry, tree_leaves

if TYPE_CHECKING:
    from arcface_edu.training.state import TrainState


class Kind(str, Enum):
    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    LOGITS = "logits"  # and everything else the head makes on its way
    TEMPORARY = "temporary"
    BUFFERS = "buffers"
    BATCH = "batch"


KINDS = {  # as PyTorch's tracker calls them
    "PARAM": Kind.WEIGHTS,
    "GRAD": Kind.GRADIENTS,
    "OPT": Kind.OPTIMIZER,
    "ACT": Kind.ACTIVATIONS,
    "TEMP": Kind.TEMPORARY,
    "BUFFER": Kind.BUFFERS,
    "OTH": Kind.BATCH,
}


class MemoryTracker(KindTracker):
    """Tracks how much memory a step holds, by kind; the head's working memory is a kind of its own.

    Args:
        state: Whose step is tracked.
        batch: Its images and labels.
    """

    def __init__(self, state: "TrainState", *batch: Tensor) -> None:
        super().__init__(KINDS)
        self.head = type(state.head).__name__
        classes, sub_centers = len(state.head.weight), state.head.weight.shape[1:-1].numel()
        used = round(getattr(state.head, "sample_rate", 1) * classes)
        dimension = state.head.weight.shape[-1]
        self.gradient_shapes = {(classes * sub_centers, dimension), (used * sub_centers, dimension)}
        self.track_external(state.model, state.head, *batch)
        self.trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(lambda parameter: self.mark(parameter.grad, Kind.GRADIENTS))
        state.optimizer.register_step_pre_hook(lambda *_: self.mark_buckets())

    @property
    def peak(self) -> dict[Kind, int]:
        """Bytes of each kind at the moment when most is held."""
        return self.held("peak")

    @property
    def in_head(self) -> bool:
        """Whether the head computes at this moment."""
        return self.is_inside(self.head)

    def mark_buckets(self) -> None:
        """Count as gradients what they are after a backward pass: views of DDP's buckets, which stay."""
        for parameter in self.trained:
            if parameter.grad is not None:
                self.mark(parameter.grad, Kind.GRADIENTS)

    def kind_of(self, ref_type: Any, tensor: Tensor) -> Enum:
        if self.in_head and ref_type == MemRefType.TEMP and tuple(tensor.shape) in self.gradient_shapes:
            return Kind.GRADIENTS  # the head fills it chunk by chunk
        if self.in_head and ref_type in (MemRefType.ACT, MemRefType.TEMP):
            return Kind.LOGITS
        return super().kind_of(ref_type, tensor)


class Operation(NamedTuple):
    """One kernel, as far as its time goes."""

    part: str  # "network", "head" or "update"
    phase: str  # one of PHASES
    dtype: torch.dtype  # in which it computes
    flops: int  # of matrix products and convolutions, two for a multiply-add; 0 for what only moves
    moved: int  # bytes read and written
    convolution: bool = False


class Message(NamedTuple):
    """One collective."""

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


class OperationTracker(TorchDispatchMode):
    """Notes every operation and every message of a step, with the phase that `TrainState` says it is in.

    Args:
        memory: Knows whether the head computes.
    """

    def __init__(self, memory: Any) -> None:
        super().__init__()
        self.memory = memory
        self.operations: list[Operation] = []
        self.messages: list[Message] = []
        self.phases = [""]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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


def tensors_of(tree: Any) -> list[Tensor]:
    """Return the tensors in a tree of arguments, each once; of a fake sparse tensor nothing is known."""
    leaves = {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
    return [tensor for tensor in leaves.values() if tensor.layout == torch.strided]


def dtype_of(tensors: list[Tensor]) -> torch.dtype:
    """Return the type of the first floating-point tensor."""
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize
