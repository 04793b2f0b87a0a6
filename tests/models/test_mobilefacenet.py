"""MobileFaceNet against the published figures and names, and against a plain account of its blocks."""

from math import prod

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from arcface_edu.models import build_model
from arcface_edu.models.mobilefacenet import DepthWise


def test_parameters_and_multiply_adds_are_the_published_ones():
    """2,059,520 parameters and 437.5 M multiply-adds of convolutions and linear layers (measured by others too).

    InsightFace calls it "0.45G": its counter adds two operations for each value that goes through BN, one for PReLU.
    """
    others = []

    def count(module, _inputs, output):
        others.append(prod(output.shape) * (1 if isinstance(module, nn.PReLU) else 2))

    with FakeTensorMode():
        model = build_model("mbf").eval()
        for module in model.modules():
            if isinstance(module, (nn.PReLU, nn.BatchNorm2d, nn.BatchNorm1d)):
                module.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 112, 112))
    multiply_adds = counter.get_total_flops() / 2e9
    assert sum(p.numel() for p in model.parameters()) == 2_059_520
    assert multiply_adds == pytest.approx(0.4375, abs=0.0001)
    assert round(multiply_adds + sum(others) / 1e9, 2) == 0.45


def published_names(blocks, scale, embedding_size):
    """Every name and shape of a published checkpoint, from the description of the network."""
    expected = {}

    def conv(name, shape, prelu=True):
        kinds = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), shape[:1]) | {
            "num_batches_tracked": ()
        }
        expected.update({f"{name}.layers.0.weight": shape} | {f"{name}.layers.1.{k}": s for k, s in kinds.items()})
        if prelu:
            expected[f"{name}.layers.2.weight"] = shape[:1]

    def depthwise(name, before, after, inner):
        conv(f"{name}.layers.0", (inner, before, 1, 1))
        conv(f"{name}.layers.1", (inner, 1, 3, 3))
        conv(f"{name}.layers.2", (after, inner, 1, 1), prelu=False)

    narrow, wide = 64 * scale, 128 * scale
    conv("layers.0", (narrow, 3, 3, 3))
    if blocks[0] == 1:
        conv("layers.1", (narrow, scale, 3, 3))
    stages = [(1, narrow, 128, blocks[0] if blocks[0] > 1 else 0)]
    stages += [(3, narrow, 128, blocks[1]), (5, wide, 256, blocks[2]), (7, wide, 256, blocks[3])]
    for at, width, inner, count in stages:
        for i in range(count):
            depthwise(f"layers.{at}.layers.{i}", width, width, inner)
    for at, before, after, inner in ((2, narrow, narrow, 128), (4, narrow, wide, 256), (6, wide, wide, 512)):
        depthwise(f"layers.{at}", before, after, inner)
    conv("conv_sep", (512, wide, 1, 1))
    conv("features.layers.0", (512, 1, 7, 7), prelu=False)
    expected["features.layers.2.weight"] = (embedding_size, 512)
    for kind in ("weight", "bias", "running_mean", "running_var"):
        expected[f"features.layers.3.{kind}"] = (embedding_size,)
    return expected | {"features.layers.3.num_batches_tracked": ()}


@pytest.mark.parametrize(("network", "blocks", "scale"), [("mbf", (1, 4, 6, 2), 2), ("mbf_large", (2, 8, 12, 4), 4)])
def test_state_dict_has_the_published_names_and_shapes(network, blocks, scale):
    expected = published_names(blocks, scale, 256)
    with torch.device("meta"):
        model = build_model(network, 256)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
    published = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
    model.load_state_dict(published, strict=True, assign=True)


@pytest.mark.parametrize("residual", [False, True])
def test_block_is_what_its_docstring_says(residual):
    torch.manual_seed(0)
    block = DepthWise(8, 8, inner=12, stride=1 if residual else 2, residual=residual).eval()
    for name, buffer in block.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    x = torch.randn(2, 8, 10, 10)
    wide, deep, narrow = (part.layers for part in block.layers)

    def bn(part, value):
        scale = part.weight / (part.running_var + 1e-5).sqrt()
        return value * scale[:, None, None] + (part.bias - part.running_mean * scale)[:, None, None]

    inner = bn(wide[1], torch.einsum("bihw,oi->bohw", x, wide[0].weight[:, :, 0, 0]))
    inner = torch.where(inner > 0, inner, 0.25 * inner)
    one_by_one = [F.conv2d(inner[:, [c]], deep[0].weight[[c]], stride=deep[0].stride, padding=1) for c in range(12)]
    inner = bn(deep[1], torch.cat(one_by_one, dim=1))
    inner = torch.where(inner > 0, inner, 0.25 * inner)
    expected = bn(narrow[1], torch.einsum("bihw,oi->bohw", inner, narrow[0].weight[:, :, 0, 0]))
    torch.testing.assert_close(block(x), x + expected if residual else expected, rtol=1e-4, atol=1e-5)


def test_whole_network_is_what_its_published_names_say():
    """The embedding computed again from nothing but a state dict: stages, strides and sums in their order."""
    torch.manual_seed(0)
    model = build_model("mbf", 32).eval()
    for name, value in model.state_dict().items():
        if "running" in name or name.endswith("1.bias"):
            value.uniform_(0.5, 1.5)
    images = torch.randn(2, 3, 112, 112)
    w = model.state_dict()

    def bn(name, value):
        kinds = (w[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(value, *kinds)

    def conv(name, value, stride=1, padding=0):
        weight = w[f"{name}.layers.0.weight"]
        value = F.conv2d(value, weight, None, stride, padding, groups=value.shape[1] // weight.shape[1])
        value = bn(f"{name}.layers.1", value)
        return F.prelu(value, w[f"{name}.layers.2.weight"]) if f"{name}.layers.2.weight" in w else value

    def bottleneck(name, value, stride=1):
        inner = conv(f"{name}.layers.1", conv(f"{name}.layers.0", value), stride, padding=1)
        return conv(f"{name}.layers.2", inner)

    x = conv("layers.1", conv("layers.0", images, stride=2, padding=1), padding=1)
    for stage, count in ((2, 4), (4, 6), (6, 2)):
        x = bottleneck(f"layers.{stage}", x, stride=2)
        for i in range(count):
            x = x + bottleneck(f"layers.{stage + 1}.layers.{i}", x)
    x = conv("features.layers.0", conv("conv_sep", x)).flatten(1)
    expected = bn("features.layers.3", x @ w["features.layers.2.weight"].T)
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-4)
