"""From counts to seconds and gibibytes: closed forms."""

import pytest
import torch

from arcface_edu.errors import ConfigError
from arcface_edu.planning import gpus as assumed
from arcface_edu.planning.gpus import GIB, Gpu, dtype_on, excess_memory, find_gpu, memory_on, time_on
from arcface_edu.planning.measure import MeasuredStep
from arcface_edu.planning.trackers import Kind, Message, Operation

CARD = Gpu("a card", 10, half=100, single=10, bandwidth=1000, link=100, has_bf16=False)


def measured(operations=(), messages=(), gpus=1, memory=0):
    held = dict.fromkeys(Kind, 0) | {Kind.WEIGHTS: memory}
    return MeasuredStep(gpus, 8, torch.float16, 0, 0, 0, held, operations, messages, 0.0)


@pytest.mark.parametrize(
    ("dtype", "flops", "moved", "seconds"),
    [
        (torch.float16, 1e12, 1e6, 1e12 / 100e12),  # bound by arithmetic
        (torch.float32, 1e12, 1e6, 1e12 / 10e12),
        (torch.float16, 1e9, 1e9, 1e9 / 1000e9),  # bound by memory
    ],
)
def test_an_operation_takes_what_binds_it(dtype, flops, moved, seconds):
    for part, share in (("network", assumed.NETWORK_SHARE), ("head", assumed.HEAD_SHARE)):
        found = time_on(measured([Operation(part, "backward", dtype, flops, moved)]), CARD)
        assert getattr(found, part) == pytest.approx(seconds / share)
        assert found.step == pytest.approx(seconds / share)


def test_fp32_convolutions_are_as_fast_as_tf32_lets_them():
    newer = CARD._replace(has_bf16=True)
    for gpu, convolution, peak in ((CARD, True, 10), (newer, True, 50), (newer, False, 10)):
        op = Operation("network", "backward", torch.float32, 1e12, 0, convolution)
        assert time_on(measured([op]), gpu).step == pytest.approx(1e12 / (peak * 1e12) / assumed.NETWORK_SHARE)


def test_messages_go_round_a_ring_and_gradients_hide_behind_the_backward_pass():
    speed = assumed.LINK_SHARE * 100e9
    gradients, head = Message("backward", "all-reduce", 8e9), Message("forward: head", "all-gather", 4e9)
    found = time_on(measured(messages=[gradients, head], gpus=4), CARD)
    assert found.head_messages == pytest.approx(4e9 * 3 / 4 / speed)
    assert found.gradient_messages == pytest.approx(2 * 8e9 * 3 / 4 / speed)
    backward = Operation("network", "backward", torch.float16, 0, 0.1 * 1000e9 * assumed.NETWORK_SHARE)  # 0.1 s
    found = time_on(measured([backward], [gradients], gpus=4), CARD)
    assert found.hidden_messages == pytest.approx(0.1)
    assert found.step == pytest.approx(2 * 8e9 * 3 / 4 / speed)


def test_several_machines_are_as_fast_as_the_network_between_them():
    message = Message("forward: head", "all-gather", 1e9)
    one, two = (time_on(measured(messages=[message], gpus=gpus), CARD).step for gpus in (8, 16))
    assert two / one == pytest.approx(100 / assumed.BETWEEN_MACHINES * (15 / 16) / (7 / 8))


def test_what_fake_tensors_do_not_show_is_added():
    one = memory_on(measured(memory=5 * GIB))
    assert sum(one.values()) == pytest.approx(5 * GIB * (1 + assumed.FRAGMENTS) + assumed.CONTEXT)
    several = measured(memory=5 * GIB, gpus=2)
    assert sum(memory_on(several).values()) - sum(one.values()) == pytest.approx(assumed.COMMUNICATOR)
    assert excess_memory(several, CARD) == pytest.approx(sum(memory_on(several).values()) - 10 * GIB)


def test_precision_is_what_the_trainer_would_choose_there():
    def config(**keys):
        return type("config", (), dict(fp16=True, amp_dtype=None) | keys)

    assert dtype_on(config(), find_gpu("v100")) == torch.float16
    assert dtype_on(config(), find_gpu("H100")) == torch.bfloat16
    assert dtype_on(config(amp_dtype="fp16"), find_gpu("h100")) == torch.float16
    assert dtype_on(config(fp16=False), find_gpu("h100")) == torch.float32
    with pytest.raises(ConfigError, match=r"V100.* has no bf16"):
        dtype_on(config(amp_dtype="bf16"), find_gpu("v100"))


def test_an_unknown_gpu_is_answered_with_the_known():
    with pytest.raises(ConfigError, match=r"did you mean h100\?.*known are t4, v100, .*h200"):
        find_gpu("h1000")
