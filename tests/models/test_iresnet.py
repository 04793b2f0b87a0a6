"""The networks against the published figures and names, and against the description of the block."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from arcface_edu.models import build_model
from arcface_edu.models.iresnet import IBasicBlock

PUBLISHED = {"r50": (43_590_848, 6.309), "r100": (65_156_160, 12.090)}  # parameters, 1e9 multiply-adds


@pytest.mark.parametrize("network", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(network):
    with FakeTensorMode():
        model = build_model(network).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 112, 112))
    parameters, multiply_adds = PUBLISHED[network]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(multiply_adds, abs=0.001)


@pytest.mark.parametrize(
    ("network", "blocks"),
    [
        ("r18", (2, 2, 2, 2)),
        ("r34", (3, 4, 6, 3)),
        ("r50", (3, 4, 14, 3)),
        ("r100", (3, 13, 30, 3)),
        ("r200", (6, 26, 60, 6)),
    ],
)
def test_state_dict_has_the_published_names_and_shapes(network, blocks):
    """Every name of a published checkpoint and no other, written out from their list in REFERENCE order."""

    def bn(name, width):
        kinds = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)) | {"num_batches_tracked": ()}
        return {f"{name}.{kind}": shape for kind, shape in kinds.items()}

    expected = {"conv1.weight": (64, 3, 3, 3), **bn("bn1", 64), "prelu.weight": (64,)}
    before = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for i in range(count):
            at = f"layer{stage}.{i}"
            expected |= bn(f"{at}.bn1", before) | {f"{at}.conv1.weight": (width, before, 3, 3)} | bn(f"{at}.bn2", width)
            expected |= {f"{at}.prelu.weight": (width,), f"{at}.conv2.weight": (width, width, 3, 3)} | bn(
                f"{at}.bn3", width
            )
            if i == 0:
                expected |= {f"{at}.downsample.0.weight": (width, before, 1, 1)} | bn(f"{at}.downsample.1", width)
            before = width
    expected |= bn("bn2", 512) | {"fc.weight": (512, 512 * 7 * 7), "fc.bias": (512,)} | bn("features", 512)
    with torch.device("meta"):
        found = {name: tuple(value.shape) for name, value in build_model(network).state_dict().items()}
    assert found == expected


def test_block_is_what_its_docstring_says():
    torch.manual_seed(0)
    block = IBasicBlock(8, 16, stride=2).eval()
    for name, buffer in block.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    x = torch.randn(2, 8, 10, 10)

    def bn(part, value):
        scale = part.weight / (part.running_var + 1e-5).sqrt()
        return value * scale[:, None, None] + (part.bias - part.running_mean * scale)[:, None, None]

    inner = F.conv2d(bn(block.bn1, x), block.conv1.weight, padding=1)
    inner = bn(block.bn2, inner)
    inner = torch.where(inner > 0, inner, inner * block.prelu.weight[:, None, None])
    inner = bn(block.bn3, F.conv2d(inner, block.conv2.weight, stride=2, padding=1))
    skip = bn(block.downsample[1], F.conv2d(x, block.downsample[0].weight, stride=2))
    torch.testing.assert_close(block(x), inner + skip, rtol=1e-4, atol=1e-5)


def test_gain_of_the_last_bn_is_frozen_at_one():
    model = build_model("r10")
    assert not model.features.weight.requires_grad
    assert (model.features.weight == 1).all()
    assert model.features.bias.requires_grad


@pytest.mark.parametrize("network", ["r10", "r10_quick"])
def test_small_networks_see_every_pixel(network):
    images = torch.randn(2, 3, 112, 112, requires_grad=True)
    build_model(network, 32).eval()(images).square().sum().backward()
    assert (images.grad != 0).any(1).all()
