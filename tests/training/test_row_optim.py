"""Rows in the gradient step as torch.optim would step them; all other rows, and their state, stay bit for bit."""

from copy import deepcopy

import pytest
import torch

from arcface_edu.training.row_optim import BLOCK, RowAdamW, RowSGD

PAIRS = [
    (RowSGD, torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=5e-4)),
    (RowSGD, torch.optim.SGD, dict(lr=0.1)),
    (RowAdamW, torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1)),
]


def table(rows=6, dimension=3):
    return torch.nn.Parameter(torch.randn(rows, dimension, generator=torch.Generator().manual_seed(1)))


def gradients(rows, dimension=3, steps=5):
    return torch.randn(steps, rows, dimension, generator=torch.Generator().manual_seed(2))


def sparse(rows, values, size=6):
    return torch.sparse_coo_tensor(
        torch.tensor([rows], dtype=torch.long), values, (size, values.shape[1]), check_invariants=True
    )


@pytest.mark.parametrize(("mine", "torchs", "options"), PAIRS)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_equals_torch_where_every_row_is_in_the_gradient(mine, torchs, options, layout):
    a, b = table(), table()
    row_wise, plain = mine([a], **options), torchs([b], **options)
    for gradient in gradients(6):
        a.grad = sparse(list(range(6)), gradient) if layout == "sparse" else gradient.clone()
        b.grad = gradient.clone()
        row_wise.step()
        plain.step()
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mine", "torchs", "options"), PAIRS)
def test_rows_outside_the_gradient_do_not_move_and_those_inside_live_on_their_own(mine, torchs, options):
    a, b = table(), torch.nn.Parameter(table().detach()[[1, 4]])
    row_wise, alone = mine([a], **options), torchs([b], **options)
    before = a.detach().clone()
    for step, gradient in enumerate(gradients(2)):
        a.grad = sparse([1, 4], gradient)
        b.grad = gradient.clone()
        row_wise.step()
        alone.step()
        if step == 2:  # another row's step in between changes nothing for these
            a.grad = sparse([0], torch.ones(1, 3))
            row_wise.step()
    torch.testing.assert_close(a[[1, 4]], b, rtol=1e-6, atol=1e-6)
    untouched = [2, 3, 5]
    assert torch.equal(a[untouched], before[untouched])
    for state in row_wise.state[a].values():
        assert len(state) == len(a)  # dense: one row per class
        assert not state[untouched].any()


@pytest.mark.parametrize(("mine", "torchs", "options"), PAIRS)
@pytest.mark.parametrize("shape", [(5,), (3, 2, 2, 2), (2 * BLOCK["cpu"] + 1, 3), (BLOCK["cpu"], 1)])
def test_equals_torch_for_tables_of_any_shape_and_number_of_blocks(mine, torchs, options, shape):
    """The same optimizer steps the backbone, down to its biases."""
    a, b = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    row_wise, plain = mine([a], **options), torchs([b], **options)
    for seed in range(3):
        a.grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        b.grad = a.grad.clone()
        row_wise.step()
        plain.step()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_row_left_twice_by_two_micro_batches_counts_as_their_sum():
    a, b = table(), table()
    for weight, gradient in (
        (a, sparse([1, 4, 1], torch.ones(3, 3))),
        (b, sparse([1, 4], torch.tensor([[2.0], [1.0]]).expand(2, 3))),
    ):
        weight.grad = gradient
        RowSGD([weight], lr=0.1, momentum=0.9).step()
    assert torch.equal(a, b)


@pytest.mark.parametrize(("mine", "torchs", "options"), PAIRS)
def test_goes_on_from_its_state_dict(mine, torchs, options):
    a, b = table(), table()
    first, second = mine([a], **options), mine([b], **options)
    for gradient in gradients(2, steps=3):
        a.grad = sparse([0, 3], gradient)
        first.step()
    with torch.no_grad():
        b.copy_(a)
    second.load_state_dict(deepcopy(first.state_dict()))
    for weight, optimizer in ((a, first), (b, second)):
        weight.grad = sparse([3, 5], torch.ones(2, 3))
        optimizer.step()
    assert torch.equal(a, b)


def test_an_empty_shard_steps_too():
    weight = torch.nn.Parameter(torch.empty(0, 3))
    weight.grad = sparse([], torch.empty(0, 3), size=0)
    optimizer = RowSGD([weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.step()
    assert optimizer.state[weight]["momentum_buffer"].shape == (0, 3)
