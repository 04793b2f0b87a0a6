"""Checks of notebook 04: what a rank does with its gradients."""

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = 2  # seconds that a rank waits for the others, where real ones would wait for minutes


def check_one_message(average_gradients: Callable[[nn.Module], Any]) -> bool:
    """Check that `average_gradients(model)` averages all gradients in one message; print what is wrong.

    It runs on two ranks and on three, which are threads here.

    Args:
        average_gradients: Replaces the gradients of its rank's model by the mean over all ranks.

    Returns:
        Whether it is right.
    """
    for size in (2, 3):
        if problem := find_problem(average_gradients, size):
            print(problem)
            return False
    print("Right: every rank has the mean of all gradients, after a single message. This is what a bucket of DDP does.")
    return True


def find_problem(average_gradients: Callable[[nn.Module], Any], size: int) -> str | None:
    """Return a sentence on what is wrong with it on `size` ranks, or None."""
    models = [small_model(rank) for rank in range(size)]
    weights, own = ([torch.cat(flat(model, part)) for model in models] for part in ("data", "grad"))
    mean = torch.stack(own).mean(0)
    world = ThreadWorld(size)
    errors = world.run(lambda rank: average_gradients(models[rank]))

    others = [error for error in errors if error and not isinstance(error, threading.BrokenBarrierError)]
    if any("NoneType" in str(error) for error in others):
        return "One of the weights is frozen: its grad is None, on every rank. Such a weight has nothing to average."
    if others:
        return f"On {size} ranks it stopped with {type(others[0]).__name__}: {others[0]}"
    if len(set(world.calls)) > 1:
        told = ", ".join(f"rank {rank}: {count}" for rank, count in enumerate(world.calls))
        return f"The ranks did not call all_reduce equally often ({told}); the rank with one more call waits for ever."
    if not sum(world.calls):
        return "No rank has called dist.all_reduce: each still has the gradient of its own images alone."
    if any(not torch.equal(torch.cat(flat(m, "data")), w) for m, w in zip(models, weights, strict=True)):
        return "The weights have changed. Only gradients are averaged; the optimizer will step the weights."
    if any(p.grad is None for model in models for p in model.parameters() if p.requires_grad):
        return "A gradient is gone: p.grad is None now, and the optimizer would leave that weight as it is."

    found = [torch.cat(flat(model, "grad")) for model in models]
    if all(torch.allclose(gradient, mean, atol=1e-6) for gradient in found):
        sent = world.calls[0]
        return None if sent == 1 else f"The mean is right, in {sent} messages: put all gradients into one tensor first."
    if all(torch.allclose(gradient, one) for gradient, one in zip(found, own, strict=True)):
        return "all_reduce was called, but p.grad is as before: it sums in place; hand it p.grad itself, no copy."
    if all(torch.allclose(gradient, size * mean, atol=1e-6) for gradient in found):
        return f"This is the sum over {size} ranks, {size} times too much: the step would be that much too long."
    ratio = (found[0] @ mean / (mean @ mean)).item()
    if all(torch.allclose(gradient, ratio * mean, atol=1e-5) for gradient in found):
        return (
            f"On {size} ranks this is {ratio:.2f} times the mean; dist.get_world_size() knows how many ranks there are."
        )
    if any(not torch.allclose(gradient, found[0], atol=1e-6) for gradient in found):
        return "The ranks now have different gradients, and after a step their weights would differ as well."
    return "All ranks agree, but not on the mean of their gradients; is every tensor averaged, and only once?"


def small_model(rank: int) -> nn.Module:
    """Return a model with the same weights on every rank, gradients of its own, and one frozen weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    model(torch.randn(6, 5, generator=torch.Generator().manual_seed(rank))).square().mean().backward()
    return model


def flat(model: nn.Module, part: str) -> list[Tensor]:
    """Return a flat copy of the `data` or `grad` of each weight that is trained."""
    return [getattr(p, part).flatten().clone() for p in model.parameters() if p.requires_grad]


class ThreadWorld:
    """Threads in place of ranks: within `run`, their calls of torch.distributed are answered here.

    Attributes:
        calls: How often each rank has called all_reduce.
    """

    def __init__(self, size: int) -> None:
        self.size, self.calls = size, [0] * size
        self.held: list[Any] = [None] * size  # what each passes on
        self.mine = threading.local()
        self.meeting = threading.Barrier(size, timeout=PATIENCE)

    def run(self, function: Callable[[int], Any]) -> list[Exception | None]:
        """Call function(rank) on every rank, and return the error of each, or None."""
        errors: list[Exception | None] = [None] * self.size

        def live(rank: int) -> None:
            self.mine.rank = rank
            try:
                function(rank)
            except Exception as error:
                errors[rank] = error
                self.meeting.abort()

        fakes: dict[str, Any] = dict(
            all_reduce=self.all_reduce, get_rank=lambda *_: self.mine.rank, get_world_size=lambda *_: self.size
        )
        threads = [threading.Thread(target=live, args=(rank,)) for rank in range(self.size)]
        with mock.patch.multiple(dist, **fakes):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return errors

    def all_reduce(
        self, tensor: Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False
    ) -> None:
        """Sum `tensor` over the threads, in place."""
        if op != dist.ReduceOp.SUM or async_op:
            raise ValueError(
                "this all_reduce can only sum, and returns when it has; gloo knows no ReduceOp.AVG either."
            )
        rank = self.mine.rank
        self.calls[rank] += 1
        self.held[rank] = tensor
        self.meeting.wait()
        total = sum(held.detach().clone() for held in self.held)
        self.meeting.wait()  # before that, nobody may change what others still read
        with torch.no_grad():
            tensor.copy_(total)
        self.meeting.wait()
