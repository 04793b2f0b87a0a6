"""The check of notebook 04 tells typical wrong answers apart, and takes right ones of any form."""

import pytest
import torch
import torch.distributed as dist

from arcface_edu.course.checks.parallel import check_one_message


def with_grad(model):
    return [p for p in model.parameters() if p.grad is not None]


def right(model):
    for p in with_grad(model):
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


def divided_first(model):
    for p in with_grad(model):
        p.grad.div_(dist.get_world_size())
        dist.all_reduce(p.grad, op=dist.ReduceOp.SUM)


def in_one_message(model):
    bucket = torch.cat([p.grad.flatten() for p in with_grad(model)])
    dist.all_reduce(bucket)
    bucket /= dist.get_world_size()
    for p, part in zip(with_grad(model), bucket.split([p.numel() for p in with_grad(model)]), strict=True):
        p.grad = part.view_as(p)


def in_one_message_divided_first(model):
    bucket = torch.cat([p.grad.flatten() for p in with_grad(model)]) / dist.get_world_size()
    dist.all_reduce(bucket)
    for p, part in zip(with_grad(model), bucket.split([p.numel() for p in with_grad(model)]), strict=True):
        p.grad.copy_(part.view_as(p))


@pytest.mark.parametrize("answer", [in_one_message, in_one_message_divided_first])
def test_right_answers(answer, capsys):
    assert check_one_message(answer) is True
    assert "Right" in capsys.readouterr().out


def untouched(model): ...


def frozen_forgotten(model):
    for p in model.parameters():
        dist.all_reduce(p.grad)


def summed(model):
    for p in with_grad(model):
        dist.all_reduce(p.grad)


def halved(model):
    bucket = torch.cat([p.grad.flatten() for p in with_grad(model)])
    dist.all_reduce(bucket)
    for p, part in zip(with_grad(model), bucket.split([p.numel() for p in with_grad(model)]), strict=True):
        p.grad.copy_(part.view_as(p) / 2)


def copied(model):
    for p in with_grad(model):
        dist.all_reduce(p.grad.clone())


def weights_averaged(model):  # they are alike, so that nothing changes
    for p in model.parameters():
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


def weights_summed(model):
    for p in model.parameters():
        dist.all_reduce(p.data)


def rank_0_alone(model):
    if dist.get_rank() == 0:
        right(model)


def last_divides(model):
    for p in with_grad(model):
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size() if dist.get_rank() else 1


def first_weight_alone(model):
    p = with_grad(model)[0]
    dist.all_reduce(p.grad)
    p.grad /= dist.get_world_size()


def emptied(model):
    right(model)
    with_grad(model)[0].grad = None


def by_avg(model):
    for p in with_grad(model):
        dist.all_reduce(p.grad, op=dist.ReduceOp.AVG)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (right, "The mean is right, in 3 messages"),
        (divided_first, "The mean is right, in 3 messages"),
        (untouched, "No rank has called dist.all_reduce"),
        (frozen_forgotten, "its grad is None"),
        (summed, "sum over 2 ranks, 2 times too much"),
        (halved, "On 3 ranks this is 1.50 times the mean"),
        (copied, "p.grad is as before"),
        (weights_averaged, "p.grad is as before"),
        (weights_summed, "The weights have changed"),
        (rank_0_alone, "rank 0: 1, rank 1: 0"),
        (last_divides, "different gradients"),
        (first_weight_alone, "different gradients"),
        (emptied, "A gradient is gone"),
        (by_avg, "gloo knows no ReduceOp.AVG"),
    ],
)
def test_wrong_answers_are_told_apart(answer, sentence, capsys):
    assert check_one_message(answer) is False
    said = capsys.readouterr().out
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert dist.all_reduce.__module__.startswith("torch")  # nothing of the check is left behind
