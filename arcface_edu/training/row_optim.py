"""Optimizers that step only the rows that a sparse gradient holds: what `heads.PartialFC` needs below sample_rate 1.

torch.optim.SGD with momentum or weight decay moves every row at every step, also centres that took no part; Partial FC
(arXiv 2203.15565) leaves those where they are. And at a million centres the untouched rows are most of the work.
A dense gradient means all rows; then these are torch.optim.SGD and AdamW.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Rows at a time. 2048 rows of 512 numbers are 4 MB: what a step needs besides is small and stays in the cache. An
# accelerator would spend its time launching operations on so few.
BLOCK = {"cpu": 2048}
BLOCK_OF_ACCELERATORS = 1 << 15
Rows = Tensor | slice


class RowOptimizer(torch.optim.Optimizer):
    """Step parameters row by row; `update_rows` of a subclass says what a step does to the rows in a gradient.

    Parameters and state tables have one row per class. State is dense, so that checkpoints can shard it anew.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no step here needs the loss again
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    for rows, gradient in blocks_of(weight.grad):
                        weight[rows] = self.update_rows(weight[rows], gradient, rows, self.state[weight], weight, group)

    def update_rows(
        self, weight: Tensor, gradient: Tensor, rows: Rows, state: dict[str, Any], table: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """Return the new rows, (R, D).

        Args:
            weight: (R, D), the rows as they are.
            gradient: (R, D).
            rows: (R,) long or a slice, their place in the table.
            state: The optimizer's, of the whole table.
            table: (C, D), the parameter.
            group: Of the parameter.
        """
        raise TypeError("a RowOptimizer is RowSGD or RowAdamW")


def blocks_of(gradient: Tensor) -> Iterable[tuple[Rows, Tensor]]:
    """Return the rows that a (C, D) gradient holds and their values, (R,) or a slice and (R, D), in blocks."""
    block = BLOCK.get(gradient.device.type, BLOCK_OF_ACCELERATORS)
    if gradient.is_sparse:
        rows = gradient._indices()[0]
        if not (rows.diff() > 0).all():  # several micro-batches; else spare coalesce its sort and sum
            gradient = gradient.coalesce()
        return zip(gradient._indices()[0].split(block), gradient._values().split(block), strict=True)
    begins = range(0, len(gradient), block) or [0]
    return ((slice(begin, begin + block), gradient[begin : begin + block]) for begin in begins)


class RowSGD(RowOptimizer):
    """SGD with momentum and weight decay, as torch.optim.SGD does them, for rows in the gradient alone."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    def update_rows(
        self, weight: Tensor, gradient: Tensor, rows: Rows, state: dict[str, Any], table: Tensor, group: dict[str, Any]
    ) -> Tensor:
        step = gradient.add(weight, alpha=group["weight_decay"])
        if group["momentum"]:
            if not state:
                state["momentum_buffer"] = torch.zeros_like(table)
            step = state["momentum_buffer"][rows].mul_(group["momentum"]).add_(step)
            state["momentum_buffer"][rows] = step  # of a slice it is there already
        return weight.add(step, alpha=-group["lr"])


class RowAdamW(RowOptimizer):
    """AdamW (arXiv 1711.05101), as torch.optim.AdamW does it, for rows in the gradient alone.

    Each row counts its own steps: a centre first drawn at step 1000 has as little history as one at step 1, and needs
    the same bias correction.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def update_rows(
        self, weight: Tensor, gradient: Tensor, rows: Rows, state: dict[str, Any], table: Tensor, group: dict[str, Any]
    ) -> Tensor:
        if not state:
            one_each = (len(table), *[1] * (table.ndim - 1))  # the backbone's biases are tables of one number a row
            state.update(row_steps=table.new_zeros(one_each))  # "step" would stay behind on the CPU at a resume
            state.update(exp_avg=torch.zeros_like(table), exp_avg_sq=torch.zeros_like(table))
        beta1, beta2 = group["betas"]
        step, mean, square = state["row_steps"][rows] + 1, state["exp_avg"][rows], state["exp_avg_sq"][rows]
        mean = mean.lerp(gradient, 1 - beta1)
        square = square.mul(beta2).addcmul(gradient, gradient, value=1 - beta2)
        state["row_steps"][rows], state["exp_avg"][rows], state["exp_avg_sq"][rows] = step, mean, square
        deviation = (square / (1 - beta2**step)).sqrt() + group["eps"]
        return weight * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * mean / (1 - beta1**step) / deviation
