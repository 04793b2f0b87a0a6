"""Parameter groups and the learning rate, against the recipes' own figures."""

import math

import pytest
import torch
from torch import nn

from arcface_edu.config import load_config
from arcface_edu.heads import MarginSoftmax, Softmax
from arcface_edu.models import build_model
from arcface_edu.training.checkpoint import load_latest, restore_state, save_checkpoint
from arcface_edu.training.optim import build_optimizer
from arcface_edu.training.schedule import Schedule

MS1MV3 = 5_179_510


def schedule(*words, images=1000):
    return Schedule.of(load_config(overrides=["warmup_epoch=0", *words]), images)


def test_polynomial_recipe_of_ms1mv3_has_the_published_number_of_steps():
    s = schedule("batch_size=1024", "num_epoch=20", images=MS1MV3)
    assert (s.steps_per_epoch, s.total_steps) == (5058, 101_160)
    assert s.lr(0) == pytest.approx(0.1)
    assert s.lr(50_580) == pytest.approx(0.05)
    assert 0 < s.lr(101_159) < 1e-5


def test_step_recipe_scales_the_rate_from_512_and_drops_at_its_epochs():
    s = schedule(
        "batch_size=128", "lr=0.1", "num_epoch=25", "decay_epoch=[10, 16, 22]", "warmup_epoch=-1", images=12800
    )
    rates = [s.lr(epoch * 100) for epoch in (0, 9.99, 10, 15.99, 16, 22, 24.99)]
    assert rates == pytest.approx([0.025, 0.025, 0.0025, 0.0025, 0.00025, 0.000025, 0.000025])


def test_gradient_accumulation_counts_into_the_batch():
    s = schedule("batch_size=128", "gradient_acc=4", "decay_epoch=[10]", images=5120)
    assert (s.peak_lr, s.steps_per_epoch) == (load_config().lr, 10)


def test_every_rank_counts_into_the_batch():
    s = Schedule.of(load_config(overrides=["batch_size=128", "decay_epoch=[10]"]), 5120, world_size=4)
    assert (s.peak_lr, s.steps_per_epoch, s.total_batch) == (load_config().lr, 10, 512)


def test_warm_up_starts_low_and_reaches_the_peak():
    s = schedule("batch_size=10", "num_epoch=4", "warmup_epoch=0.5", "lr=0.1")
    rates = [s.lr(step) for step in range(s.total_steps)]
    assert s.warmup_steps == 50
    assert rates[0] < 0.1 / 25
    assert max(rates) == rates[50] == pytest.approx(0.1)
    assert rates[:51] == sorted(rates[:51])
    assert rates[50:] == sorted(rates[50:], reverse=True)


@pytest.mark.parametrize("head", [MarginSoftmax(64, 5), Softmax(64, 5)])
def test_decay_spares_bn_prelu_and_biases(head):
    model = build_model("r10", 64)
    optimizer = build_optimizer(load_config(overrides=["weight_decay=0.1"]), model, head)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = {**dict(model.named_parameters()), **{f"head.{name}": p for name, p in head.named_parameters()}}
    decayed = {name for name, p in named.items() if decay.get(id(p))}
    assert decayed == {name for name, p in named.items() if p.ndim > 1}  # convolutions, the linear layer, the centres
    trainable = {id(p) for p in named.values() if p.requires_grad}
    assert set(decay) == trainable


def test_reference_habit_decays_everything():
    optimizer = build_optimizer(load_config(overrides=["decay_all=True"]), build_model("r10", 64))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4]


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizer_is_the_one_asked_for(name, kind):
    optimizer = build_optimizer(load_config(overrides=[f"optimizer={name}", "momentum=0.8"]), nn.Linear(2, 2))
    assert isinstance(optimizer, kind)
    if name == "sgd":
        assert optimizer.param_groups[0]["momentum"] == 0.8


def one_step(weight, optimizer, gradient):
    weight.grad = torch.empty_like(weight).copy_(gradient)
    optimizer.step()


def test_momentum_goes_on_in_the_memory_order_of_its_weight(tmp_path):
    """A checkpoint holds no memory order; a fused step that mixed two of them would mix up the numbers."""
    config = load_config("drawn_faces")
    gradients = torch.randn(3, 8, 4, 3, 3)
    runs = []
    for saves in (False, True):
        module = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=torch.channels_last)
        nn.init.ones_(module.weight)
        parts = dict(optimizer=build_optimizer(config, module))
        for gradient in gradients:
            one_step(module.weight, parts["optimizer"], gradient)
            if saves:
                state = dict(optimizer=parts["optimizer"].state_dict(), rng=torch.get_rng_state()[None])
                save_checkpoint(tmp_path, 1, state)
                parts = dict(optimizer=build_optimizer(config, module))
                restore_state(parts, load_latest(tmp_path), torch.device("cpu"), tmp_path)
        runs.append(module.weight.detach())
    torch.testing.assert_close(*runs, rtol=0, atol=0)


def test_a_first_step_that_overflows_leaves_nothing_behind():
    """Of fp16's first steps most overflow, and are left out."""
    module = nn.Linear(3, 2)
    optimizer, scaler = build_optimizer(load_config("drawn_faces"), module), torch.amp.GradScaler("cpu")
    for gradient in (math.inf, 1.0):
        scaler.scale((module.weight * gradient).sum() + module.bias.sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    momentum = optimizer.state[module.weight]["momentum_buffer"]
    torch.testing.assert_close(momentum, torch.ones(2, 3), rtol=0.05, atol=0.01)  # and the weight's decay
