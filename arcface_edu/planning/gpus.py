"""GPUs by name, and how long a measured step takes on them."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from arcface_edu.errors import ConfigError
from arcface_edu.planning.measure import MeasuredStep
from arcface_edu.planning.trackers import Message, Operation
from arcface_edu.training.precision import DTYPES

GIB, TERA, GIGA = 2**30, 1e12, 1e9


class Gpu(NamedTuple):
    """What the maker states, without sparsity."""

    name: str
    memory: float  # GiB, as nvidia-smi shows it
    half: float  # TFLOP/s of tensor cores in fp16 or bf16
    single: float  # TFLOP/s in fp32 (PyTorch leaves TF32 off for matrix products)
    bandwidth: float  # GB/s of its memory
    link: float  # GB/s to its neighbours, each way
    has_bf16: bool = True


# The data sheets' numbers, of the SXM form where there are several; entered from memory and second-hand tables.
GPUS = {
    "t4": Gpu("Tesla T4", 15, 65, 8.1, 320, 16, has_bf16=False),
    "v100": Gpu("Tesla V100 SXM2 32 GB", 31.7, 125, 15.7, 900, 150, has_bf16=False),
    "a10": Gpu("A10", 22.5, 125, 31.2, 600, 32),
    "a30": Gpu("A30", 24, 165, 10.3, 933, 32),
    "a100": Gpu("A100 SXM 80 GB", 80, 312, 19.5, 2039, 300),
    "a100-40gb": Gpu("A100 SXM 40 GB", 40, 312, 19.5, 1555, 300),
    "rtx3090": Gpu("GeForce RTX 3090", 24, 71, 35.6, 936, 16),
    "rtx4090": Gpu("GeForce RTX 4090", 24, 165, 82.6, 1008, 16),
    "l4": Gpu("L4", 22.5, 121, 30.3, 300, 32),
    "l40s": Gpu("L40S", 45, 362, 91.6, 864, 32),
    "h100": Gpu("H100 SXM 80 GB", 79.6, 989, 67, 3350, 450),
    "h200": Gpu("H200 SXM 141 GB", 140.4, 989, 67, 4800, 450),
    "b200": Gpu("B200 SXM 180 GB", 179, 2250, 75, 7700, 900),
}

# The part of a GPU's peak, in arithmetic or bandwidth, that an operation reaches. Both numbers make the plan agree with
# InsightFace's page on 8 x V100 (benchmarks/train/nvidia_v100.md: r50, 8 x 128, fp16; 618 k classes 4,322 images/s,
# 2 M classes 2,810) and nothing else: what a class more costs gives HEAD_SHARE, the rest NETWORK_SHARE.
NETWORK_SHARE = 0.37
HEAD_SHARE = 0.67

# What fake tensors do not show, assumed alike on every GPU. The first two were measured on an H100 (docs/plan.md).
CONTEXT = 0.75 * GIB  # the driver's context and the kernels loaded into it
FRAGMENTS = 0.13  # of the tensors' memory: gaps that PyTorch's allocator cannot fill, and scratch of convolutions
COMMUNICATOR = 0.3 * GIB  # NCCL's buffers, where there are several GPUs
LINK_SHARE = 0.75  # of a link that collectives reach
GPUS_PER_MACHINE = 8  # GPUs of one machine
BETWEEN_MACHINES = 12.5  # GB/s that one machine's GPUs share to reach another: 100 Gbit/s


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its name in GPUS.

    Raises:
        ConfigError: The name is unknown; it lists those known.
    """
    if name.lower() not in GPUS:
        near = difflib.get_close_matches(name.lower(), GPUS, n=1)
        raise ConfigError(
            f'no GPU called "{name}" is known{f" (did you mean {near[0]}?)" if near else ""}; known are '
            f"{', '.join(GPUS)}; more go into arcface_edu/planning/gpus.py."
        )
    return GPUS[name.lower()]


def dtype_on(config: Any, gpu: Gpu) -> torch.dtype:
    """Return what `training.precision.choose_dtype` would choose there.

    Raises:
        ConfigError: The config asks for bf16, which the GPU has not.
    """
    if not config.fp16:
        return torch.float32
    if config.amp_dtype == "bf16" and not gpu.has_bf16:
        raise ConfigError(f"amp_dtype=bf16, but a {gpu.name} has no bf16; leave amp_dtype out: it then takes fp16.")
    return DTYPES[config.amp_dtype or ("bf16" if gpu.has_bf16 else "fp16")]


def memory_on(measured: MeasuredStep) -> dict[str, float]:
    """Return bytes by kind as the driver would count them: the tensors at the peak, and what fake tensors lack."""
    held: dict[str, float] = {kind.value: size for kind, size in measured.memory.items()}
    held["fragments"] = FRAGMENTS * measured.peak
    held["CUDA, cuDNN, NCCL"] = CONTEXT + (COMMUNICATOR if measured.gpus > 1 else 0)
    return held


def excess_memory(measured: MeasuredStep, gpu: Gpu) -> float:
    """Return the bytes beyond what the GPU has; 0 or less where the step fits."""
    return sum(memory_on(measured).values()) - gpu.memory * GIB


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by what they go to."""

    network: float
    head: float
    update: float
    head_messages: float  # the head waits for them
    gradient_messages: float  # what of the gradients' all-reduce outlasts the network's backward pass
    hidden_messages: float  # and what of it that pass hides, which is no part of the step's time

    @property
    def step(self) -> float:
        """Of the whole step."""
        return self.network + self.head + self.update + self.head_messages + self.gradient_messages


def time_on(measured: MeasuredStep, gpu: Gpu) -> StepTime:
    """Return how long the step takes on a GPU.

    An operation takes as long as its arithmetic or its memory traffic, whichever is more, at a share of the peak.
    Messages travel round a ring. Gradients' messages travel while the network's backward pass computes; the head's are
    waited for. The loader is taken to keep up.
    """
    spent = dict(network=0.0, head=0.0, update=0.0)
    backward = 0.0
    for op in measured.operations:
        seconds = max(op.flops / (TERA * peak_for(op, gpu)), op.moved / (gpu.bandwidth * GIGA))
        seconds /= NETWORK_SHARE if op.part == "network" else HEAD_SHARE
        spent[op.part] += seconds
        backward += seconds if (op.part, op.phase) == ("network", "backward") else 0
    gradients, others = (
        travel_time((message for message in measured.messages if is_gradient(message) == wanted), measured.gpus, gpu)
        for wanted in (True, False)
    )
    hidden = min(gradients, backward)
    return StepTime(**spent, head_messages=others, gradient_messages=gradients - hidden, hidden_messages=hidden)


def peak_for(op: Operation, gpu: Gpu) -> float:
    """Return TFLOP/s.

    PyTorch lets convolutions of fp32 numbers have TF32, which came with bf16, at half its rate.
    """
    if op.dtype != torch.float32:
        return gpu.half
    return gpu.half / 2 if op.convolution and gpu.has_bf16 else gpu.single


def is_gradient(message: Message) -> bool:
    return message.phase == "backward" and message.collective == "all-reduce"


def bytes_sent(message: Message, gpus: int) -> float:
    """Return the bytes that each GPU sends for a message, round a ring: a reduced tensor passes twice, others once."""
    times = 2 if message.collective == "all-reduce" else 1
    return times * message.size * (gpus - 1) / gpus


def travel_time(messages: Iterable[Message], gpus: int, gpu: Gpu) -> float:
    """Return seconds.

    Between machines the ring's slowest edge is the network, which carries each message once per machine.
    """
    speed = min(gpu.link, BETWEEN_MACHINES) if gpus > GPUS_PER_MACHINE else gpu.link
    return sum(bytes_sent(message, gpus) for message in messages) / (LINK_SHARE * speed * GIGA)
