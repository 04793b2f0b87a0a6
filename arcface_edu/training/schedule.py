"""The learning rate at every step."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Schedule:
    """The learning rate at every step of a run, and how many steps there are.

    The last images of an epoch, which fill no batch, are left for another epoch's shuffle, as in arcface_torch.
    """

    peak_lr: float  # that warm-up climbs to
    steps_per_epoch: int
    total_steps: int
    total_batch: int  # images a step, of all processes
    warmup_steps: int
    decay_steps: tuple[int, ...] | None  # lr x 0.1 at each; None = polynomial
    power: float
    head_steps: int  # at the start, in which the head alone is trained

    @classmethod
    def of(cls, config: Any, num_images: int, world_size: int = 1) -> "Schedule":
        """Return the schedule of a config on so many images, shared by so many processes."""
        total_batch = config.batch_size * config.gradient_acc * world_size
        per_epoch = max(1, num_images // total_batch)
        peak, decay_steps = config.lr, None
        if config.decay_epoch is not None:  # the step-decay recipe (2021): lr is meant for a batch of 512
            peak = config.lr * total_batch / 512
            decay_steps = tuple(round(epoch * per_epoch) for epoch in config.decay_epoch)
        warmup = round(max(0, config.warmup_epoch) * per_epoch)
        total, alone = per_epoch * config.num_epoch, round(config.head_epoch * per_epoch)
        return cls(peak, per_epoch, total, total_batch, warmup, decay_steps, config.poly_power, min(alone, total))

    def lr(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ...; warm-up begins at a small share of the peak."""
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / (self.warmup_steps + 1)
        if self.decay_steps is not None:
            return self.peak_lr * 0.1 ** sum(step >= at for at in self.decay_steps)
        left = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self.peak_lr * max(0.0, left) ** self.power

    def is_save_due(self, step: int, save_every: int, verify_every: int = 0) -> bool:
        """Return whether a checkpoint is due after so many steps.

        It is due at the end of an epoch, every `save_every` steps, and before a verification.
        """
        due = step % self.steps_per_epoch == 0 or bool(save_every and step % save_every == 0)
        return due or self.is_verification_due(step, verify_every)

    def is_verification_due(self, step: int, every: int) -> bool:
        """Return whether a verification is due after so many steps, beside that at the end of the run."""
        return bool(every) and 0 < step < self.total_steps and step % every == 0


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group: its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]


def check_linear_rule(config: Any, world_size: int = 1) -> str | None:
    """Return a sentence if the learning rate does not fit the images a step, by the config's recipe; else None.

    The linear scaling rule (arXiv 1706.02677): k times the images, k times the rate. It holds for SGD; for AdamW the
    factor is the square root of k (arXiv 2205.10287). A tenth more or less passes. With `decay_epoch` the rate follows
    the batch anyway.
    """
    if config.recipe is None or config.lr is None or config.decay_epoch is not None:
        return None
    rate, batch = config.recipe
    total = config.batch_size * config.gradient_acc * world_size
    rule, power = ("linear", 1) if config.optimizer == "sgd" else ("square-root", 0.5)
    fitted = rate * (total / batch) ** power
    if abs(config.lr - fitted) <= 0.1 * fitted:
        return None
    accumulate = batch / (config.batch_size * world_size)
    or_accumulate = f", or gradient_acc={accumulate:.0f} to take as many images" if accumulate in range(2, 129) else ""
    return (
        f"lr={config.lr:g} with {total:,} images a step (batch_size {config.batch_size} x gradient_acc "
        f"{config.gradient_acc} x {world_size} process{'es' if world_size > 1 else ''}) is not the recipe, which is "
        f"{rate:g} with {batch:,}; by the {rule} rule set lr={fitted:.3g}{or_accumulate}. recipe=None says it is meant."
    )
