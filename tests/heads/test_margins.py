"""The margin against float64, finite differences, closed forms, and what the reference is known to do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from arcface_edu.heads import MARGINS, target_logit

MIXED = [*MARGINS.values(), (4.0, 0.0, 0.0), (1.2, 0.3, 0.1)]


@pytest.mark.parametrize("margin", MIXED)
@pytest.mark.parametrize("gradient", ["straight-through", "exact"])
def test_value_is_the_formula_up_to_the_turn(margin, gradient):
    m1, m2, m3 = margin
    theta = np.linspace(0.01, min(math.pi, (math.pi - m2) / m1) - 0.01, 500)
    logit = target_logit(torch.tensor(np.cos(theta), dtype=torch.float32), margin, gradient)
    np.testing.assert_allclose(logit.numpy(), np.cos(m1 * theta + m2) - m3, atol=2e-5)


def test_straight_through_keeps_the_formula_past_the_turn_too():
    theta = np.linspace(math.pi - 0.5, math.pi, 50)
    logit = target_logit(torch.tensor(np.cos(theta)), (1.0, 0.5, 0.0))
    np.testing.assert_allclose(logit.numpy(), np.cos(theta + 0.5), atol=1e-9)


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.5, 2.9, math.pi])
def test_straight_through_gradient_is_one_everywhere(theta):
    cosine = torch.tensor([math.cos(theta)], requires_grad=True)
    target_logit(cosine, (1.0, 0.5, 0.0)).sum().backward()
    assert cosine.grad.item() == 1.0


def test_exact_gradient_of_arcface_in_figures():
    """At s = 64 and m = 0.5 the true derivative at 0.3 rad is 155.4, where straight-through has 64."""
    cosine = torch.tensor([math.cos(0.3)], dtype=torch.float64, requires_grad=True)
    (64 * target_logit(cosine, (1.0, 0.5, 0.0), "exact")).sum().backward()
    assert cosine.grad.item() == pytest.approx(64 * math.sin(0.8) / math.sin(0.3), rel=1e-9)
    assert cosine.grad.item() == pytest.approx(155.4, abs=0.05)


@pytest.mark.parametrize("margin", MIXED)
def test_exact_gradient_against_finite_differences(margin):
    m1, m2, _ = margin
    turn = (math.pi - m2) / m1
    theta = torch.linspace(0.05, math.pi - 0.05, 200, dtype=torch.float64)
    theta = theta[(theta - turn).abs() > 0.01]  # not across the kink
    cosine = theta.cos().requires_grad_()
    target_logit(cosine, margin, "exact").sum().backward()
    h = 1e-6
    with torch.no_grad():
        rise = target_logit(cosine + h, margin, "exact") - target_logit(cosine - h, margin, "exact")
    torch.testing.assert_close(cosine.grad, rise / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("margin", MIXED)
def test_exact_never_rewards_a_worse_angle(margin):
    """Also past m1*theta + m2 = pi, where the formula alone would turn back up."""
    cosine = torch.linspace(math.pi, 0, 20001, dtype=torch.float64).cos()  # from theta = pi to 0
    assert (target_logit(cosine, margin, "exact").diff() >= -1e-12).all()


def test_past_the_turn_stands_the_usual_line():
    cosine = torch.tensor([math.cos(math.pi - 0.2)], dtype=torch.float64)
    logit = target_logit(cosine, (1.0, 0.5, 0.0), "exact").item()
    assert logit == pytest.approx(math.cos(math.pi - 0.2) - 0.5 * math.sin(0.5))


@pytest.mark.parametrize("gradient", ["straight-through", "exact"])
@given(st.floats(-1.0001, 1.0001), st.sampled_from(MIXED))
@example(1.0001, (1.0, 0.5, 0.0))
@example(-1.0001, (1.0, 0.5, 0.0))
def test_finite_everywhere_even_where_rounding_leaves_the_interval(gradient, value, margin):
    cosine = torch.tensor([value], dtype=torch.float32, requires_grad=True)
    logit = target_logit(cosine, margin, gradient)
    logit.sum().backward()
    assert torch.isfinite(logit).all()
    assert torch.isfinite(cosine.grad).all()
