"""Typical wrong answers are refused, each with the sentence that helps; right ones pass."""

import pytest
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
