"""Typical wrong answers are refused, each with the sentence that helps; right ones pass."""

import pytest
from torch import nn
from torch.nn import functional as F

from arcface_edu.course.checks.resnet import check_plain_tower, check_resnet_block


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


def orthogonal(network):
    for block in network[1:50]:
        for convolution in (block.body[1], block.body[4]):
            nn.init.zeros_(convolution.weight)
            nn.init.orthogonal_(convolution.weight.data[:, :, 1, 1])
        nn.init.ones_(block.body[3].weight)
    return network


def he(network):
    for block in network[1:50]:
        for convolution, slope in ((block.body[1], 1.0), (block.body[4], 0.25)):
            nn.init.kaiming_normal_(convolution.weight, a=slope)
    return network


def with_bn(network):
    for block in network[1:50]:
        block.body[0], block.body[2] = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    return network


PLAIN = {
    "It returns no network": lambda network: None,
    "49 blocks without BN are meant": with_bn,
    "after 30 steps the loss is 2": lambda network: network,  # as PyTorch begins it
    "and guessing has 2.08": he,
}


def test_a_plain_tower_of_orthogonal_convolutions_learns(capsys):
    assert check_plain_tower(orthogonal) is True
    assert capsys.readouterr().out.startswith("Right: the first block's gradient")


@pytest.mark.parametrize("sentence", PLAIN)
def test_a_plain_tower_that_does_not_learn_hears_how_far_it_came(sentence, capsys):
    assert check_plain_tower(PLAIN[sentence]) is False
    assert sentence in capsys.readouterr().out
