"""One rank of a run, built and stepped on fake tensors: what it holds, computes and sends."""

import time
from dataclasses import dataclass

import torch

from arcface_edu.planning.stand_ins import fake_world
from arcface_edu.planning.watchers import Memory, Work
from arcface_edu.training.prepare import complete_without_data
from arcface_edu.training.state import build_state

STEPS = 2  # the second has what the first leaves behind: momentum


@dataclass(frozen=True)
class Measured:
    """What rank 0 of `gpus` does in one step."""

    gpus: int
    batch: int  # images of one rank in one step, all its micro-batches
    dtype: torch.dtype  # of the network's matrix work
    parameters: int  # of the network
    centres: int  # classes of all ranks
    own_centres: int  # of this one
    memory: dict  # Kind -> bytes at the peak
    operations: list  # of watchers.Operation
    messages: list  # of watchers.Message
    seconds: float  # that this took

    @property
    def peak(self):
        """Bytes."""
        return sum(self.memory.values())

    @property
    def multiply_adds(self):
        """Of the network for one image, forward; convolutions and matrix products, as papers count them."""
        return sum(op.flops for op in self.operations if op.phase == "forward: network") / 2 / self.batch


def complete(config, gpus):
    """Fill in what the data and the weights to start from would say. Raises ConfigError where nothing says it."""
    config.update(complete_without_data(config, gpus))


def measure(config, gpus, dtype):
    """Step a config's state twice as one of `gpus` ranks, and watch the second time.  returns: Measured.

    config: complete, see above.  dtype: torch.float32, bfloat16 or float16.
    """
    began = time.perf_counter()
    with fake_world(gpus, config.batch_size) as world:
        state = build_on_fakes(config, dtype, world)
        batch = fake_batch(config)
        memory = Memory(state, *batch)
        with memory:
            for _ in range(STEPS):
                work = Work(memory)
                with work:
                    state.step([batch] * config.gradient_acc)
        return Measured(
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


def build_on_fakes(config, dtype, world):
    state = build_state(config, config.num_classes, torch.device("cpu"), dtype, world)
    for group in state.optimizer.param_groups:
        if group.get("foreach", False) is None and not group["fused"]:
            group["foreach"] = True  # what torch.optim chooses by itself on GPUs
    return state


def fake_batch(config):
    """Images (B, 3, 112, 112) and labels (B,)."""
    images = torch.empty(config.batch_size, 3, 112, 112).to(memory_format=torch.channels_last)
    return images, torch.empty(config.batch_size, dtype=torch.long)
