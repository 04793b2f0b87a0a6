"""Checks of the exercises on residual networks: each compares with another network, and prints what is wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock


def check_resnet_block(forward: Callable[[BasicBlock, Tensor], Any]) -> bool:
    """Check that `forward(block, x)` is the output of torchvision's BasicBlock for x; print what is wrong.

    Args:
        forward: The attempt: a BasicBlock with conv1, bn1, conv2, bn2 and downsample (None where the shape stays), and
            x (B, C, H, W) -> (B, C', H', W').

    Returns:
        Whether the attempt is right.
    """
    for what, block, x in blocks_to_try():
        with torch.no_grad():
            try:
                answer = forward(block, x)
            except (RuntimeError, TypeError) as error:
                print(f"On {what} it stops: {error}".splitlines()[0])
                return False
            problem = what_is_wrong(answer, block, x)
        if problem:
            print(f"On {what}: {problem}")
            return False
    print("Right: number for number what torchvision's block gives, where the shape stays and where it changes.")
    return True


def check_plain_tower(start: Callable[[nn.Sequential], Any]) -> bool:
    """Check that a tower without skips and BN learns eight pictures by heart in 30 steps; print how far it came.

    Args:
        start: The attempt: initializes the weights of a `plain_tower` in place, and returns it.

    Returns:
        Whether the attempt is right.
    """
    torch.manual_seed(0)
    pictures, labels = F.avg_pool2d(torch.randn(8, 3, 28, 28), 2), torch.arange(8)
    network = start(plain_tower())
    if not isinstance(network, nn.Sequential):
        print("It returns no network: set the weights in place, and return the network you were given.")
        return False
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()) or len(network) != 52:
        print("It returns another network: 49 blocks without BN are meant, with other weights.")
        return False
    optimizer = torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9)
    first: list[float] = []
    for _ in range(30):
        loss = F.cross_entropy(network(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        first = first or [gradient_norm(network[number]) for number in (1, 49)]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    times = f"The first block's gradient was {first[0]:.1e} at the start, the last block's {first[-1]:.1e}"
    if not loss.item() < 0.1:
        print(f"{times}; after 30 steps the loss is {loss.item():.2f}, and guessing has 2.08.")
        return False
    print(f"Right: {times[0].lower()}{times[1:]}, and the loss has come down to {loss.item():.4f}.")
    return True


def gradient_norm(block: Any) -> float:
    """Return the norm of the gradient of a block's first convolution."""
    return block.body[1].weight.grad.double().norm().item()


class PlainBlock(nn.Module):
    """A block of the notebook's tower, without skip and without BN; its layers stand at the same positions."""

    def __init__(self) -> None:
        super().__init__()
        first, second = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.body = nn.Sequential(nn.Identity(), first, nn.Identity(), nn.PReLU(8), second, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of x, (B, 8, H, W)."""
        return self.body(x)


def plain_tower() -> nn.Sequential:
    """Build a network (B, 3, 14, 14) -> (B, 8): a convolution, 49 blocks, and a linear layer."""
    blocks = [PlainBlock() for _ in range(49)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *blocks, nn.Flatten(), nn.Linear(8 * 14 * 14, 8))


def blocks_to_try() -> Iterator[tuple[str, BasicBlock, Tensor]]:
    """Yield (what it is, the block, an input): a block that keeps the shape, and one that halves the map."""
    generator = torch.Generator().manual_seed(0)
    shrink = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    kinds = {"a block that keeps the shape": BasicBlock(8, 8)}
    kinds["a block that halves the map"] = BasicBlock(8, 16, stride=2, downsample=shrink)
    for what, block in kinds.items():
        for value in (*block.parameters(), *block.buffers()):
            if value.is_floating_point():
                value.data.uniform_(-0.5, 1.0, generator=generator).add_(0.0 if value.ndim > 1 else 0.75)
        yield what, block.eval(), torch.randn(2, 8, 6, 6, generator=generator)


def what_is_wrong(answer: Any, block: BasicBlock, x: Tensor) -> str | None:
    """Return a sentence on how an answer differs from the block's own, or None."""
    right = block(x)
    if not isinstance(answer, torch.Tensor):
        return f"it returns {answer!r}, no tensor; write the block from the picture."
    if answer.shape != right.shape:
        return f"{tuple(x.shape)} should become {tuple(right.shape)}, and becomes {tuple(answer.shape)}."
    if torch.allclose(answer, right, rtol=1e-4, atol=1e-4):
        return None
    skip = x if block.downsample is None else block.downsample(x)
    first = block.bn1(block.conv1(x))
    branch = block.bn2(block.conv2(F.relu(first)))
    mistakes = {
        "the last ReLU is missing: it comes after the sum.": branch + skip,
        "the last ReLU comes after the sum, not before.": F.relu(branch) + skip,
        "the input is not added.": F.relu(branch),
        "between the two convolutions a ReLU is missing.": F.relu(block.bn2(block.conv2(first)) + skip),
        "a BN is missing: one follows each convolution.": F.relu(block.conv2(F.relu(first)) + skip),
    }
    for sentence, wrong in mistakes.items():
        if torch.allclose(answer, wrong, rtol=1e-4, atol=1e-4):
            return sentence
    return f"the numbers are off by up to {(answer - right).abs().max():.2g}; go through the picture layer by layer."
