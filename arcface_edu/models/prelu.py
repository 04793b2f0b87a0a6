"""PReLU (arXiv 1502.01852, eq. 1) with a backward pass that a CPU does quickly."""

from typing import Any

import torch
from torch import Tensor, nn


class PReLU(nn.PReLU):
    """max(x, 0) + weight * min(x, 0), a slope per channel: (B, C, H, W) -> (B, C, H, W). Same as nn.PReLU.

    On a CPU PyTorch's own backward pass over channels-last bf16 takes three to four times as long as this one
    (measured), and would be a third of a small network's step. Elsewhere this is nn.PReLU, also in an exported graph.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.ndim == 4 and not torch.compiler.is_exporting():
            return _PReLU.apply(x, self.weight.to(x.dtype))
        return super().forward(x)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.addcmul(x, (weight - 1)[:, None, None], x.clamp(max=0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(grad, x, 0)  # grad where x > 0, else 0
        negative = grad - positive
        grad_x = torch.addcmul(positive, negative, weight[:, None, None])
        # Sum over images and positions as a matrix product: one long dot product per channel, accumulated in fp32.
        products = negative.mul_(x).permute(0, 2, 3, 1).reshape(-1, len(weight))  # (B * H * W, C)
        return grad_x, products.new_ones(len(products)) @ products
