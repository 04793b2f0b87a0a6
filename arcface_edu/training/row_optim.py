"""Optimizers that step only the rows which a sparse gradient holds: what `heads.PartialFC` needs below sample_rate 1.

torch.optim.SGD with momentum or weight decay moves every row at every step, also centres that took no part; Partial FC
(arXiv 2203.15565) leaves those where they are. And at a million centres the untouched rows are most of the work.
A dense gradient means all rows; then these are torch.optim.SGD and AdamW.
"""

import torch

# Rows at a time. 4 MB of 512 numbers each: what a step needs besides is small and in the cache. An accelerator has more
# memory than it has patience: it would wait for the launch of every operation on so few.
BLOCK = {"cpu": 2048}
BLOCK_OF_ACCELERATORS = 1 << 15


class RowOptimizer(torch.optim.Optimizer):
    """Walks over parameters; `update_rows` of a subclass says what a step does to the rows in a gradient.

    Parameters and state tables have one row per class. State is dense, so that checkpoints can shard it anew.
    """

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    for rows, gradient in blocks_of(weight.grad):
                        self.step_rows(weight, rows, gradient)

    def step_rows(self, weight, rows, gradient):
        """weight: (C, D), of which `rows`, (R,) long or a slice, take a step along gradient, (R, D)."""
        group = next(group for group in self.param_groups if any(weight is param for param in group["params"]))
        weight[rows] = self.update_rows(weight[rows], gradient, rows, self.state[weight], weight, group)


def blocks_of(gradient):
    """The rows that a (C, D) gradient holds and their values, (R,) or a slice and (R, D), in blocks; at least one."""
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

    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    def update_rows(self, weight, gradient, rows, state, table, group):
        """weight, gradient: (R, D).  returns: (R, D), the new rows."""
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

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def update_rows(self, weight, gradient, rows, state, table, group):
        """weight, gradient: (R, D).  returns: (R, D), the new rows."""
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
