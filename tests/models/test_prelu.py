"""Our PReLU is PyTorch's."""

import pytest
import torch
from torch import nn

from arcface_edu.models.prelu import PReLU


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_nn_prelu(dtype, memory_format):
    torch.manual_seed(0)
    ours, theirs = PReLU(5), nn.PReLU(5).double()
    with torch.no_grad():
        ours.weight.copy_(torch.tensor([0.25, -0.5, 0.0, 1.0, 2.0]))
        theirs.weight.copy_(ours.weight)
    x = torch.randn(3, 5, 7, 6).to(dtype)
    x[0, :, 0, 0] = 0
    grad = torch.randn(3, 5, 7, 6).to(dtype)
    a = x.clone(memory_format=memory_format).requires_grad_()
    b = x.double().requires_grad_()
    out = ours(a)
    out.backward(grad)
    theirs(b).backward(grad.double())
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), theirs(b).detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.grad.double(), b.grad, rtol=tolerance, atol=tolerance)
    scale = theirs.weight.grad.abs().max()
    torch.testing.assert_close(
        ours.weight.grad.double() / scale, theirs.weight.grad / scale, rtol=tolerance, atol=tolerance
    )


def test_gradients_against_finite_differences():
    layer = PReLU(3).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()  # away from the kink
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,)), (x, layer.weight)
    )
