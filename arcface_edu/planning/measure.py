"""One rank of a run, built and stepped on fake tensors: what it holds, computes and sends."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arcface_edu.planning.fake_ops import fake_world
from arcface_edu.planning.trackers import Kind, MemoryTracker, Message, Operation, OperationTracker
from arcface_edu.training.launch import World
from arcface_edu.training.state import TrainState, build_state

STEPS = 2  # the second has what the first leaves behind: momentum


@dataclass(frozen=True)
class MeasuredStep:
    """What rank 0 of `gpus` does in one step."""

    gpus: int
    batch: int  # images of one rank in one step, all its micro-batches
    dtype: torch.dtype  # of the network's matrix work
    parameters: int  # of the network
    centres: int  # classes of all ranks
    own_centres: int  # of this one
    memory: dict[Kind, int]  # bytes at the peak
    operations: list[Operation]
    messages: list[Message]
    seconds: float  # that measuring took

    @property
    def peak(self) -> int:
        """Bytes."""
        return sum(self.memory.values())

    @property
    def multiply_adds(self) -> float:
        """Of the network for one image, forward; convolutions and matrix products, as papers count them."""
        return sum(op.flops for op in self.operations if op.phase == "forward: network") / 2 / self.batch


def measure_step(config: Any, gpus: int, dtype: torch.dtype) -> MeasuredStep:
    """Take two steps of a config's run as one of `gpus` ranks, on fake tensors, and measure the second.

    Args:
        config: Complete, as `training.prepare.complete_without_data` returns it.
        gpus: Ranks of the run.
        dtype: float32, bfloat16 or float16: of the network's matrix work.
    """
    began = time.perf_counter()
    with fake_world(gpus, config.batch_size) as world:
        state = build_on_fakes(config, dtype, world)
        batch = fake_batch(config)
        memory = MemoryTracker(state, *batch)
        with memory:
            for _ in range(STEPS):
                work = OperationTracker(memory)
                with work:
                    state.step([batch] * config.gradient_acc)
        return MeasuredStep(
            gpus=gpus,
            batch=config.batch_size * config.gradient_acc,
            dtype=dtype,
            parameters=sum(parameter.numel() for parameter in state.model.parameters()),
            centres=config.num_classes,
            own_centres=len(state.head.weight),
            memory=memory.peak,
            operations=work.operations,
            messages=work.messages,
            seconds=time.perf_counter() - began,
        )


def build_on_fakes(config: Any, dtype: torch.dtype, world: World) -> TrainState:
    """Build the state of a run within `fake_world`, its optimizer as on a GPU."""
    state = build_state(config, config.num_classes, torch.device("cpu"), dtype, world)
    for group in state.optimizer.param_groups:
        if group.get("foreach", False) is None and not group["fused"]:
            group["foreach"] = True  # what torch.optim chooses by itself on GPUs
    return state


def fake_batch(config: Any) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, 112, 112) and labels (B,) of no particular content."""
    images = torch.empty(config.batch_size, 3, 112, 112).to(memory_format=torch.channels_last)
    return images, torch.empty(config.batch_size, dtype=torch.long)
