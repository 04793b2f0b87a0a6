"""The optimizer and its parameter groups."""

from typing import Any

import torch
from torch import nn

from arcface_edu.training.collectives import is_distributed
from arcface_edu.training.row_optim import RowAdamW, RowSGD


def build_optimizer(
    config: Any, model: nn.Module, head: nn.Module | None = None, dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """Build SGD with momentum, or AdamW, over the parameters of the backbone and, where it is given, the head.

    With sampled class centres it is an optimizer that leaves unsampled centres untouched. `dtype` is that of the
    network's matrix work.
    """
    groups = parameter_groups([model] if head is None else [model, head], config)
    sampled = config.sample_rate < 1
    if sampled:
        if config.optimizer == "adamw":
            return RowAdamW(groups, lr=config.lr)
        return RowSGD(groups, lr=config.lr, momentum=config.momentum)
    # Fused: one kernel that reads and writes every number once, instead of an operator for each term of the update.
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    if config.optimizer == "adamw":
        # The scaler of fp16 on several ranks counts overflows in a tensor of shape (1,), and fused AdamW wants one of
        # shape () (torch 2.9 to 2.14).
        fused = fused and not (dtype == torch.float16 and is_distributed())
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    if config.momentum:  # from the start: the fused kernel leaves it undefined when fp16 overflows in the first step
        for parameter in (p for group in groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(modules: list[nn.Module], config: Any) -> list[dict[str, Any]]:
    """Return the parameters in groups: those that decay, and those that do not, by their share of the learning rate.

    Weight decay shrinks a convolution or a class centre without harm, since a normalisation follows. Nothing follows
    BN's gain and bias, PReLU's slope and the other biases: decay would bend what they compute. InsightFace decays them
    too (`decay_all`).

    Args:
        modules: The backbone, whose share is `backbone_rate`, and perhaps the head, whose share is 1.
        config: With weight_decay, decay_all and backbone_rate.
    """
    shares = (config.backbone_rate, 1.0)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(spared, s): [] for spared in (False, True) for s in shares}
    for module, share in zip(modules, shares, strict=False):
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.requires_grad:
                    bare = name == "bias" or isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU))
                    groups[bare and not config.decay_all, share].append(parameter)
    return [
        dict(params=params, weight_decay=0.0 if spared else config.weight_decay, share=share)
        for (spared, share), params in groups.items()
        if params
    ]
