"""Typical wrong answers are refused, each with the sentence that helps; right ones pass."""

import pytest
import torch
from torch.nn import functional as F

from arcface_edu.course.checks.resnet import check_resnet_block


def right(block, x):
    skip = x if block.downsample is None else block.downsample(x)
    x = F.relu(block.bn1(block.conv1(x)))
    return F.relu(block.bn2(block.conv2(x)) + skip)


def no_last_relu(block, x):
    skip = x if block.downsample is None else block.downsample(x)
    return block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + skip


def relu_before_the_sum(block, x):
    skip = x if block.downsample is None else block.downsample(x)
    return F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))) + skip


def no_relu_between(block, x):
    skip = x if block.downsample is None else block.downsample(x)
    return F.relu(block.bn2(block.conv2(block.bn1(block.conv1(x)))) + skip)


def no_second_bn(block, x):
    skip = x if block.downsample is None else block.downsample(x)
    return F.relu(block.conv2(F.relu(block.bn1(block.conv1(x)))) + skip)


WRONG = {
    "returns None": lambda block, x: None,
    "should become": lambda block, x: block(x)[:, :4],
    "last ReLU is missing": no_last_relu,
    "not before": relu_before_the_sum,
    "input is not added": lambda block, x: F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))),
    "between the two convolutions": no_relu_between,
    "a BN is missing": no_second_bn,
    "layer by layer": lambda block, x: 2 * right(block, x),
    "halves the map it stops": lambda block, x: F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + x),
}


def test_what_torchvision_does_is_right(capsys):
    assert check_resnet_block(right) is True
    assert capsys.readouterr().out.startswith("Right")
    assert check_resnet_block(lambda block, x: block(x)) is True


@pytest.mark.parametrize("sentence", WRONG)
def test_a_wrong_answer_hears_what_is_wrong(sentence, capsys):
    assert check_resnet_block(WRONG[sentence]) is False
    assert sentence in capsys.readouterr().out


def test_a_downsample_that_is_left_out_of_a_block_of_one_shape_is_no_mistake():
    """The two blocks differ: an answer that only knows the first fails on the second."""
    torch.manual_seed(0)
    assert check_resnet_block(lambda block, x: right(block, x) if x.shape[1] == block.conv2.out_channels else x) is False
