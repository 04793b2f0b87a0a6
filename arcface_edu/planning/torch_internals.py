"""All that the planner takes from inside PyTorch: every private name and every patch of PyTorch itself.

Any release may change these. `check_torch` looks for each of them before the planner begins, so that a release which
has changed one ends in a sentence; tests/planning/test_torch_internals.py tries each by itself and names the release.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import tensor as dtensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from arcface_edu.errors import ConfigError

NEWEST = "2.14"  # the newest release that the planner is known to work with; the oldest is the one in pyproject.toml

# What is taken from inside PyTorch, and what for.
NEEDED = {
    "torch._subclasses.fake_tensor.FakeTensorMode": "tensors without numbers",
    "torch._subclasses.fake_tensor.FakeTensorConverter.set_tensor_memo": "weights that can become channels-last",
    "torch._subclasses.fake_tensor.unset_fake_temporarily": "the device mesh of a checkpoint",
    "torch.testing._internal.distributed.fake_pg.FakeStore": "ranks that are not there",
    "torch.nn.parallel.distributed.dist.Reducer": "DDP's buckets",
    "torch.distributed.Reducer._rebuild_buckets": "DDP's buckets as they are after the first step",
    "torch.distributed._compute_bucket_assignment_by_size": "DDP's buckets",
    "torch.distributed._DEFAULT_FIRST_BUCKET_BYTES": "DDP's first bucket",
    "torch.amp.GradScaler._maybe_opt_step": "a step that does not overflow",
    "torch.amp.GradScaler._get_growth_tracker": "a step that does not overflow",
    "torch.distributed.fsdp.sharded_grad_scaler.ShardedGradScaler._amp_update_scale_cpu_": "likewise, on several ranks",
    "torch.distributed._tools.mem_tracker.MemTracker._track": "memory by kind",
    "torch.distributed._tools.mem_tracker.MemTracker._update_and_maybe_create_winfos": "memory of gradients",
    "torch.distributed._tools.mem_tracker.MemTracker._update_peak_stats": "the peak of the memory",
    "torch.distributed._tools.mem_tracker.MemTracker._pre_fw_hook": "memory without its view by module",
    "torch.distributed._tools.mem_tracker.MemTracker._post_fw_hook": "memory without its view by module",
    "torch.distributed._tools.mem_tracker.MemTracker._pre_bw_hook": "memory without its view by module",
    "torch.distributed._tools.mem_tracker.MemTracker._post_bw_hook": "memory without its view by module",
    "torch.distributed._tools.mem_tracker._MemRefType": "memory by kind",
    "torch.utils._python_dispatch.TorchDispatchMode": "the operations of a step",
    "torch.utils._pytree.tree_leaves": "the tensors of an operation",
    "torch.utils.flop_counter.flop_registry": "the arithmetic of an operation",
}


def look_up(path: str) -> Any:
    """Return what stands in PyTorch under a dotted path, or None."""
    parts, found = path.split("."), None
    for at, part in enumerate(parts):
        try:
            found = importlib.import_module(".".join(parts[: at + 1]))
        except ImportError:
            found = getattr(found, part, None)
    return found


def missing() -> dict[str, str]:
    """Return what this PyTorch lacks of NEEDED."""
    return {path: purpose for path, purpose in NEEDED.items() if look_up(path) is None}


def check_torch() -> None:
    """Raise ConfigError if this PyTorch lacks something that the planner takes from inside it."""
    for path, purpose in missing().items():
        raise ConfigError(
            f"plan and dry run look inside PyTorch, and torch {torch.__version__} has no {path} ({purpose}); "
            f"train without them, or plan with another torch, up to {NEWEST}."
        )


# Where one is missing the classes below still have a base, and `check_torch` says so before any of them is used.
FakeTensorMode: Any = look_up("torch._subclasses.fake_tensor.FakeTensorMode")
unset_fake_temporarily: Any = look_up("torch._subclasses.fake_tensor.unset_fake_temporarily")
FakeStore: Any = look_up("torch.testing._internal.distributed.fake_pg.FakeStore")
ShardedGradScaler: Any = look_up("torch.distributed.fsdp.sharded_grad_scaler.ShardedGradScaler")
MemTracker: Any = look_up("torch.distributed._tools.mem_tracker.MemTracker") or object
MemRefType: Any = look_up("torch.distributed._tools.mem_tracker._MemRefType")
TorchDispatchMode: Any = look_up("torch.utils._python_dispatch.TorchDispatchMode") or object
DDPReducer: Any = look_up("torch.distributed.Reducer") or object
tree_leaves: Any = look_up("torch.utils._pytree.tree_leaves")
flop_registry: Any = look_up("torch.utils.flop_counter.flop_registry")


class Patch(NamedTuple):
    """Something that is replaced while the planner works."""

    owner: Any  # a module or a class
    name: str
    fake: Any


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Within it, every new tensor has shape and type, and no numbers."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    # The memo of conversions holds a weak reference to every weight, and then none can be made channels-last.
    mode.fake_tensor_converter.set_tensor_memo = lambda *_: None
    with mode:
        yield


@contextlib.contextmanager
def fake_process_group(gpus: int) -> Iterator[None]:
    """Within it, this process is rank 0 of `gpus` ranks; collectives return at once and change nothing."""
    if gpus > 1:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=gpus)
    try:
        yield
    finally:
        if gpus > 1:
            dist.destroy_process_group()


def torch_patches() -> list[Patch]:
    """Return what of PyTorch asks for numbers, or what fake tensors and fake processes lack."""
    return [
        # A step that does not overflow
        Patch(torch.amp.GradScaler, "_maybe_opt_step", lambda _, optimizer, *__: optimizer.step()),
        Patch(torch.amp.GradScaler, "get_scale", lambda _: 1.0),
        Patch(torch.amp.GradScaler, "_get_growth_tracker", lambda _: 0),
        Patch(ShardedGradScaler, "_amp_update_scale_cpu_", lambda *_: None),
        # What fake processes lack
        Patch(dist, "Reducer", Reducer),
        Patch(dist, "all_reduce", finished_all_reduce(dist.all_reduce)),
        Patch(dtensor, "init_device_mesh", on_real_tensors(dtensor.init_device_mesh)),
    ]


def on_real_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs outside `fake_tensors`, as a device mesh has to: it reads its own table of ranks."""

    def call(*args: Any, **options: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **options)

    return call


def finished_all_reduce(all_reduce: Callable[..., Any]) -> Callable[..., Any]:
    """Return an all-reduce whose work has a result, for which DDP's hooks wait; that of the fake group has none."""

    def call(tensor: Tensor, *args: Any, async_op: bool = False, **options: Any) -> "FinishedWork | None":
        all_reduce(tensor, *args, **options)
        return FinishedWork(tensor) if async_op else None

    return call


class FinishedWork:
    """A collective that is over."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def wait(self) -> None:
        pass

    def get_future(self) -> Any:
        future: Any = torch.futures.Future()
        future.set_result([self.tensor])
        return future


class FakeDDP(nn.parallel.DistributedDataParallel):
    """DDP without its first check that all ranks have the same weights, and with a hook that fake tensors can run."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__(module, init_sync=False, **options)
        self.has_own_hook = False

    def register_comm_hook(self, state: object, hook: Callable[..., Any]) -> None:
        self.has_own_hook = True
        super().register_comm_hook(state, hook)

    def forward(self, *args: Any) -> Any:
        if not self.has_own_hook:
            self.register_comm_hook(None, default_hooks.allreduce_hook)
        return super().forward(*args)


class Reducer(DDPReducer):
    """DDP's reducer, with the buckets that it would rebuild after a step: by the order in which gradients come."""

    def __init__(self, parameters: list[Tensor], _buckets: Any, _limits: Any, *options: Any) -> None:
        backwards = list(range(len(parameters)))[::-1]
        buckets, limits = dist._compute_bucket_assignment_by_size(
            [parameters[index] for index in backwards],
            [dist._DEFAULT_FIRST_BUCKET_BYTES, options[2]],
            [False] * len(parameters),
            backwards,
        )
        super().__init__(parameters, buckets, limits, *options)

    def _rebuild_buckets(self) -> bool:
        return False


class KindTracker(MemTracker):
    """PyTorch's memory tracker, with kinds of memory of our own and without its view by module.

    Args:
        kinds: Our kind for each of PyTorch's, by the name that MemRefType gives it: "PARAM", "ACT" ...
    """

    def __init__(self, kinds: Mapping[str, Enum]) -> None:
        super().__init__()
        self.kinds = {MemRefType[name]: kind for name, kind in kinds.items()}
        self._ref_class = type(next(iter(kinds.values())))

    def kind_of(self, ref_type: Any, tensor: Tensor) -> Enum:
        """Return the kind of a tensor that an operation has made; PyTorch's tracker says it is a `ref_type`."""
        return self.kinds[ref_type]

    def mark(self, tensor: Tensor, kind: Enum) -> None:
        """Count the memory of a tensor as that kind from now on."""
        self._update_and_maybe_create_winfos(tensor, kind)

    def held(self, when: str) -> dict[Any, int]:
        """Return the bytes of each kind on the one device there is; `when` is "peak" or "current"."""
        held: dict[Enum, int] = next(iter(self.get_tracker_snapshot(when).values()), {})
        return {kind: held.get(kind, 0) for kind in self._ref_class}

    def is_inside(self, module: str) -> bool:
        """Return whether a module of that class computes at this moment."""
        return module in self._mod_tracker.parents

    def _track(self, ref_type: Any, tensor: Tensor) -> None:
        if tensor.layout == torch.strided:  # a fake sparse tensor holds nothing; its rows are tracked for themselves
            super()._track(self.kind_of(ref_type, tensor), tensor)

    def _update_and_maybe_create_winfos(self, tensor: Tensor, kind: Any, update_existing: bool = False) -> Any:
        if tensor.layout != torch.strided:
            return set()
        return super()._update_and_maybe_create_winfos(tensor, self.kinds.get(kind, kind), update_existing)

    def _update_peak_stats(self, _: Any) -> None:
        for device, held in self._curr_mem_snap.items():
            if held["Total"] > self._peak_mem.get(device, 0):
                self._peak_mem[device], self._peak_mem_snap[device] = held["Total"], dict(held)

    def _no_view_by_module(self, *_: Any) -> None:
        pass

    _pre_fw_hook = _post_fw_hook = _pre_bw_hook = _post_bw_hook = _no_view_by_module
