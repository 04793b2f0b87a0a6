"""One rank of a run, built and stepped on fake tensors: what it holds, computes and sends."""

import time
from dataclasses import dataclass

import torch

from arcface_edu.planning.stand_ins import fake_world
from arcface_edu.planning.watchers import Memory, Work, trained
from arcface_edu.training.learner import build_learner
from arcface_edu.training.prepare import complete_without_data

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
    """Step a config's learner twice as one of `gpus` ranks, and watch the second time.  returns: Measured.

    config: complete, see above.  dtype: torch.float32, bfloat16 or float16.
    """
    began = time.perf_counter()
    with fake_world(gpus, config.batch_size) as world:
        learner = build_on_fakes(config, dtype, world)
        batch = fake_batch(config)
        memory = Memory(learner, *batch)
        with memory:
            for _ in range(STEPS):
                work = Work(memory)
                with work:
                    step(learner, *batch, config.gradient_acc, memory)
        return Measured(
            gpus=gpus,
            batch=config.batch_size * config.gradient_acc,
            dtype=dtype,
            parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
            centres=config.num_classes,
            own_centres=len(learner.head.weight),
            memory=memory.peak,
            operations=work.operations,
            messages=work.messages,
            seconds=time.perf_counter() - began,
        )


def build_on_fakes(config, dtype, world):
    learner = build_learner(config, config.num_classes, torch.device("cpu"), dtype, world)
    for group in learner.optimizer.param_groups:
        if group.get("foreach", False) is None and not group["fused"]:
            group["foreach"] = True  # what torch.optim chooses by itself on GPUs
    return learner


def fake_batch(config):
    """Images (B, 3, 112, 112) and labels (B,)."""
    images = torch.empty(config.batch_size, 3, 112, 112).to(memory_format=torch.channels_last)
    return images, torch.empty(config.batch_size, dtype=torch.long)


def step(learner, images, labels, micro_batches, memory=None):
    """One step as the trainer takes it.  returns: the loss of the last micro-batch."""
    learner.model.train()
    for number in range(micro_batches):
        with learner.averaging(now=number == micro_batches - 1):
            loss = learner.loss(images, labels)
            learner.backward(loss / micro_batches)
    if memory:
        for parameter in trained(learner):  # by now views of DDP's packets, which stay
            if parameter.grad is not None:
                memory.mark_gradient(parameter.grad)
    learner.update()
    return loss
