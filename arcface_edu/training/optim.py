"""The optimizer, its parameter groups, and the learning rate at every step."""

from dataclasses import dataclass

import torch
from torch import nn

from arcface_edu.training.row_optim import RowAdamW, RowSGD


def build_optimizer(config, *modules):
    """SGD with momentum, or AdamW, over the parameters of the backbone and, where it is given, the head.

    With sampled centres, of those that leave alone what was not sampled.
    """
    groups = parameter_groups(modules, (config.backbone_rate, 1.0), config.weight_decay, config.decay_all)
    sampled = config.sample_rate < 1
    if sampled:
        if config.optimizer == "adamw":
            return RowAdamW(groups, lr=config.lr)
        return RowSGD(groups, lr=config.lr, momentum=config.momentum)
    # Fused: one kernel that reads and writes every number once, instead of an operator for each term of the update.
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    if config.momentum:  # from the start: the fused kernel leaves it undefined when fp16 overflows in the first step
        for parameter in (p for group in groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(modules, shares, weight_decay, decay_all=False):
    """Two groups: weights that decay, and those that do not; two of each if the modules' shares of the rate differ.

    Decay shrinks a convolution or a class centre without harm, since a normalisation follows. BN's gain and bias,
    PReLU's slope and every other bias have none behind them: decay would bend what they compute. InsightFace decays
    them too (`decay_all`).
    """
    groups = {(spared, share): [] for spared in (False, True) for share in shares}
    for module, share in zip(modules, shares, strict=False):
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.requires_grad:
                    bare = name == "bias" or isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU))
                    groups[bare and not decay_all, share].append(parameter)
    return [
        dict(params=params, weight_decay=0.0 if spared else weight_decay, share=share)
        for (spared, share), params in groups.items()
        if params
    ]


@dataclass(frozen=True)
class Schedule:
    """The learning rate at every step of a run, and how many steps there are.

    An epoch's last images that fill no batch are left for another epoch's shuffle, as in the reference.
    """

    peak: float  # the rate that warm-up climbs to
    steps_per_epoch: int
    total_steps: int
    total_batch: int  # images a step, of all processes
    warmup_steps: int
    decay_steps: tuple | None  # rate x 0.1 at each; None = polynomial
    power: float
    head_steps: int  # at the start, in which the head learns alone

    @classmethod
    def of(cls, config, num_images, world_size=1):
        total_batch = config.batch_size * config.gradient_acc * world_size
        per_epoch = max(1, num_images // total_batch)
        peak, decay_steps = config.lr, None
        if config.decay_epoch is not None:  # the older recipe: lr is meant for a batch of 512
            peak = config.lr * total_batch / 512
            decay_steps = tuple(round(epoch * per_epoch) for epoch in config.decay_epoch)
        warmup = round(max(0, config.warmup_epoch) * per_epoch)
        total, alone = per_epoch * config.num_epoch, round(config.head_epoch * per_epoch)
        return cls(peak, per_epoch, total, total_batch, warmup, decay_steps, config.poly_power, min(alone, total))

    def rate(self, step):
        """The learning rate of step 0, 1, ...: warm-up begins at a small share of the peak, not at the peak."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        if self.decay_steps is not None:
            return self.peak * 0.1 ** sum(step >= at for at in self.decay_steps)
        left = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * max(0.0, left) ** self.power


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def check_linear_rule(config, world_size=1):
    """A sentence if the rate no longer fits the images a step, by the recipe that the config states; else None.

    The linear rule (arXiv 1706.02677): k times the images, k times the rate. It is SGD's; for AdamW it is the square
    root of k (arXiv 2205.10287). A tenth more or less passes. With `decay_epoch` the rate goes with the batch anyway.
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
        f"careful: lr={config.lr:g} with {total:,} images a step (batch_size {config.batch_size} x gradient_acc "
        f"{config.gradient_acc} x {world_size} process{'es' if world_size > 1 else ''}) is not the recipe, which is "
        f"{rate:g} with {batch:,}; by the {rule} rule set lr={fitted:.3g}{or_accumulate}. recipe=None says it is meant."
    )
