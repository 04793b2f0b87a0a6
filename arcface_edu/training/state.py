"""What a run trains: network, head, optimizer and loss scaler, and the one step that they take.

Trainer, planner, tests and benchmarks all call `TrainState.step`.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from arcface_edu.errors import ConfigError, TrainingError
from arcface_edu.heads import Head, build_head
from arcface_edu.models import build_model
from arcface_edu.training.collectives import StepSync
from arcface_edu.training.launch import SINGLE_PROCESS, World
from arcface_edu.training.optim import build_optimizer
from arcface_edu.training.parallel import batch_norms, sync_gradients, wrap_parallel
from arcface_edu.training.precision import autocast, build_scaler


class StepResult(NamedTuple):
    """What one step leaves to be logged; a tensor for each micro-batch, still on the device."""

    losses: list[Tensor]  # scalars, each the mean over the images of all ranks
    target_cosines: list[Tensor]  # (B,), cosine to the class centre without the margin, of this rank's images
    grad_norm: Tensor | None  # scalar, of the network's gradient before it was clipped; None where it is not clipped
    updated: bool  # False if fp16 overflowed and the optimizer left the step out


class NonFiniteLoss(TrainingError):
    """A loss that is NaN or infinite, found before the weights were touched; it is so on every rank or on none."""

    def __init__(self, loss: Tensor, images: Tensor, labels: Tensor) -> None:
        super().__init__(f"the loss is {loss.item()}")
        self.loss, self.images, self.labels = loss.detach(), images, labels


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0  # the place in the schedule
    updates: int = 0  # of the optimizer: the steps without those that the scaler skipped
    global_step: int = 0  # only ever grows; differs from `step` once another total batch has changed the steps an epoch

    def advance(self, updated: bool) -> None:
        self.step, self.updates, self.global_step = self.step + 1, self.updates + updated, self.global_step + 1

    def state_dict(self, steps_per_epoch: int) -> dict[str, int]:
        return dict(step=self.step, global_step=self.global_step, updates=self.updates, steps_per_epoch=steps_per_epoch)

    def load_state_dict(self, saved: dict[str, int], steps_per_epoch: int) -> None:
        """Take up a saved place; where an epoch has another number of steps now, the place in the epochs stays."""
        stretch = steps_per_epoch / saved["steps_per_epoch"]
        self.step, self.updates = round(saved["step"] * stretch), round(saved["updates"] * stretch)
        self.global_step = saved.get("global_step", saved.get("taken", saved["step"]))  # `taken` until version 0.1


@dataclass
class TrainState:
    """The parts of a run that hold weights or their history. `ddp_...`: the same modules, wrapped for all ranks."""

    model: nn.Module
    head: Head
    ddp_model: nn.Module
    ddp_head: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    dtype: torch.dtype  # of the network's matrix work
    max_norm: float
    gradient_acc: int
    progress: Progress = field(default_factory=Progress)

    def step(
        self, micro_batches: Iterable[tuple[Tensor, Tensor]], sync: StepSync | None = None, head_only: bool = False
    ) -> StepResult:
        """Take one optimizer step along the gradient of `gradient_acc` micro-batches, of all ranks together.

        Args:
            micro_batches: Pairs of images (B, 3, 112, 112), float in [-1, 1], and labels (B,), both on the device.
            sync: What the ranks tell each other in this step; without it the head asks for the batch sizes itself.
            head_only: Train the head alone; the backbone embeds as it does for verification and does not change.

        Raises:
            NonFiniteLoss: A loss is NaN or infinite; weights and optimizer are as they were.
        """
        losses, target_cosines = [], []
        for number, (images, labels) in enumerate(micro_batches):
            self.set_train_mode(len(images), head_only)
            # Gradients travel between ranks once a step, with the last micro-batch.
            with sync_gradients((self.ddp_model, self.ddp_head), enabled=number == self.gradient_acc - 1):
                loss = self.loss(images, labels, sync, number, head_only)
                is_finite = item_async(torch.isfinite(loss))
                self.backward(loss / self.gradient_acc)  # a mean of micro-batches' means is the mean of the big batch
            if not is_finite():  # asked only now, when an accelerator has the backward pass to do meanwhile
                raise NonFiniteLoss(loss, images, labels)
            losses.append(loss.detach())
            target_cosines.append(self.head.target_cosine)
        grad_norm, updated = self.optimizer_step()
        self.progress.advance(updated)
        return StepResult(losses, target_cosines, grad_norm, updated)

    def set_train_mode(self, images: int, head_only: bool = False) -> None:
        """Put the network in training mode for so many images; BN cannot normalise one image by itself.

        For a single image, or where the head alone is trained, BN uses its running statistics and leaves them alone.
        """
        self.model.train(not head_only)
        if images < 2:
            for norm in batch_norms(self.model):
                norm.eval()

    def loss(
        self,
        images: Tensor,
        labels: Tensor,
        sync: StepSync | None = None,
        number: int = 0,
        head_only: bool = False,
    ) -> Tensor:
        """Return the mean loss over the images of all ranks, a scalar.

        Args:
            images: (B, 3, 112, 112), float in [-1, 1].
            labels: (B,), class numbers.
            sync: Knows the B of every rank of micro-batch `number`, and is asked after the network's pass; without it
                the head finds out.
            number: Of the micro-batch in its step.
            head_only: Compute no gradient for the backbone. A weight without one is left alone by every optimizer.
        """
        with (
            record_function("forward: network"),
            autocast(self.device, self.dtype),
            torch.set_grad_enabled(not head_only),
        ):
            embeddings = self.ddp_model(images)  # (B, D) float32
        with record_function("forward: head"):
            return self.ddp_head(embeddings, labels, sync.sizes[number] if sync else None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to every weight's `grad`, scaled up where fp16 needs it."""
        with record_function("backward"):
            self.scaler.scale(loss).backward()

    def optimizer_step(self) -> tuple[Tensor | None, bool]:
        """Clip the network's gradient, step the weights, and clear the gradients.

        Returns:
            The norm before clipping (None if `max_norm` is 0), and False if fp16 overflowed and the step was left out.

        Raises:
            TrainingError: fp16 overflows at every loss scale.
        """
        grad_norm = None
        with record_function("update"):
            self.scaler.unscale_(self.optimizer)
            if self.max_norm:
                trained = [p for p in self.model.parameters() if p.requires_grad]
                grad_norm = torch.nn.utils.clip_grad_norm_(trained, self.max_norm)
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1e-3:
            raise TrainingError("fp16 overflows at every loss scale; try amp_dtype=bf16, fp16=False, or a smaller lr.")
        return grad_norm, self.scaler.get_scale() >= scale

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, by name; each has state_dict and load_state_dict."""
        return dict(model=self.model, head=self.head, optimizer=self.optimizer, scaler=self.scaler)


def build_state(
    config: Any, num_classes: int, device: torch.device, dtype: torch.dtype, world: World = SINGLE_PROCESS
) -> TrainState:
    """Build network, head and optimizer of a config, with the same first weights on every rank."""
    torch.manual_seed(config.seed)
    model = build_model(config.network, config.embedding_size, config.dropout, config.gradient_checkpointing)
    model = model.to(device).to(
        memory_format=torch.channels_last
    )  # what convolutions want on CPUs and tensor cores alike
    head = build_head(config, num_classes).to(device)
    ddp_model = wrap_parallel(compile_model(model, device) if config.compile else model, config, device)
    # A sharded head exchanges embeddings by itself; any other is on all ranks, and DDP averages its gradient.
    ddp_head = head if head.is_sharded else wrap_parallel(head, config, device)
    torch.manual_seed(config.seed + world.rank)  # from here on, each rank draws its own dropout
    return TrainState(
        model,
        head,
        ddp_model,
        ddp_head,
        build_optimizer(config, model, head, dtype),
        build_scaler(device, dtype),
        device,
        dtype,
        config.max_norm,
        config.gradient_acc,
    )


def compile_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the network under torch.compile, with the same weights; its first step compiles it.

    A batch of another size, from which a broken record was left out, is compiled for itself: code for sizes that vary
    would be slower in all steps after it. Verification uses the network as it is.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise ConfigError(
            f"compile=True needs a C++ compiler, and {compiler} is not there: install it, or leave compile out."
        )
    compiled: Any = torch.compile(model, dynamic=False)
    return compiled


def item_async(scalar: Tensor) -> Callable[[], Any]:
    """Begin to copy a one-element tensor to the CPU.

    Returns:
        A function that gives the number, and waits for nothing that the device was told to do after this call.
    """
    if scalar.device.type != "cuda":
        return scalar.item
    number, sent = scalar.to("cpu", non_blocking=True), torch.Event(scalar.device)
    sent.record()

    def wait() -> Any:
        sent.synchronize()
        return number.item()

    return wait
