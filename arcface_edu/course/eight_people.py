"""Eight people on a circle: ArcFace's figure 3 for real, trained while one looks on.

    images, labels = draw_people()
    history = train_small(images, labels, Softmax(2, PEOPLE))
    history = train_small(images, labels, MarginSoftmax(2, PEOPLE, margin=(1, 0.3, 0), scale=8))

An embedding of two or three numbers can be drawn as it is. In the plane eight people have 45 degrees each, so that a
margin of 0.3 (17 degrees) is about what fits, and a scale of 8 is steep enough. The heads are those of every other run;
only the network is a small one, so that a minute on two cores is enough. `pics/make_pics.py` and the course show what
comes out.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from arcface_edu.data.images import decode, to_input
from arcface_edu.data.loader import seeded
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.heads import MarginSoftmax, Softmax

Margin = tuple[float, float, float]
PEOPLE = 8
SIZE = 56  # pixels: half of what other networks see
WHO = (200, 201, 202, 203, 204, 205, 206, 207)  # of the population with seed 0


class History(NamedTuple):
    """What a training looked like after each of its F recorded steps."""

    steps: list[int]  # F
    embeddings: Tensor  # (F, N, D) float32, in eval mode, as the network gives them
    centres: Tensor  # (F, C, D)
    losses: list[float]  # F, the mean since the step before
    model: nn.Module  # the trained network, for `embed_small`


def draw_people(photos: int = 100, people: Sequence[int] = WHO, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw photographs of people: uint8 (N, 3, 112, 112) RGB and labels (N,), person after person. 10 ms a photo."""
    who = tqdm(people, desc="drawing faces", unit="person", leave=False)
    images = [decode(photo) for person in who for photo in draw_person(seed, person, photos)]
    return torch.stack(images), torch.arange(len(people)).repeat_interleave(photos)


def portraits(people: Sequence[int] = WHO, seed: int = 0) -> list[Tensor]:
    """Draw one plain photograph of each of these people, uint8 (3, 112, 112), to show who is who in a picture."""
    return [decode(draw_person(seed, person, photos=1, difficulty=0)[0]) for person in people]


def small_net(embedding_size: int) -> nn.Sequential:
    """Build a network of four convolutions of stride 2 and one linear layer.

    (B, 3, 56, 56) float in [-1, 1] -> (B, embedding_size).
    """
    layers, channels = [], 3
    for width in (16, 32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
        channels = width
    last = nn.BatchNorm1d(embedding_size, affine=False)  # the cloud stays centred: its directions fill the circle
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * channels, embedding_size), last)


def embed_small(model: nn.Module, images: Tensor) -> Tensor:
    """Return the embeddings (N, D) float32 of uint8 images (N, 3, H, W), by a `small_net` in eval mode."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part) for part in shrink(images).split(256)])


def shrink(images: Tensor) -> Tensor:
    """Shrink uint8 (N, 3, H, W) to (N, 3, 56, 56) float in [-1, 1], channels last."""
    return F.interpolate(to_input(images), size=(SIZE, SIZE), mode="area")


def train_small(
    images: Tensor,
    labels: Tensor,
    head: MarginSoftmax | Softmax,
    epochs: int = 24,
    batch_size: int = 64,
    lr: float = 0.05,
    frames: int = 28,
    seed: int = 0,
    margin_at: Callable[[float], Margin] | None = None,
    length: float = 1.0,
) -> History:
    """Train `small_net` and `head` from random weights, and embed all images up to `frames` times on the way.

    Args:
        images: uint8 (N, 3, H, W).
        labels: (N,).
        head: MarginSoftmax or Softmax, of the size of the embeddings.
        epochs: Passes over the images.
        batch_size: Images a step.
        lr: The highest learning rate.
        frames: How often the embeddings are recorded, at most.
        seed: Of the weights, the order and the mirroring.
        margin_at: Gives the margin (m1, m2, m3) of the next step from the share of the steps that are done, 0 to 1;
            None leaves the head's as it is.
        length: Of the class centres at first, about: the shorter a centre, the further a step turns it.

    Returns:
        The first frame is before any step; the frames lie closer in the beginning, where most happens.
    """
    torch.manual_seed(seed)
    model = small_net(head.weight.shape[1]).to(memory_format=torch.channels_last)
    nn.init.normal_(head.weight, 0, length)
    faces = shrink(images)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)
    batch_size = min(batch_size, len(faces))
    whole = len(faces) // batch_size * batch_size
    orders = [torch.randperm(len(faces), generator=seeded(seed, epoch))[:whole] for epoch in range(epochs)]
    batches = torch.cat(orders).view(-1, batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=len(batches), pct_start=0.1)
    moments = {round(len(batches) * (frame / (frames - 1)) ** 2) for frame in range(frames)}
    steps: list[int] = []
    embeddings: list[Tensor] = []
    centres: list[Tensor] = []
    losses: list[float] = []
    since: list[float] = []

    def look(step: int) -> None:
        model.eval()
        with torch.inference_mode():
            embeddings.append(torch.cat([model(part) for part in faces.split(256)]))
        steps.append(step)
        centres.append(head.weight.detach().clone())
        losses.append(sum(since) / max(1, len(since)))
        since.clear()
        model.train()

    look(0)
    for step, batch in enumerate(tqdm(batches, desc="training", unit="step", leave=False), start=1):
        if margin_at and isinstance(head, MarginSoftmax):
            head.margin = margin_at((step - 1) / len(batches))
        mirrored = torch.rand(len(batch), 1, 1, 1, generator=seeded(seed, step, 1)) < 0.5
        loss = head(model(torch.where(mirrored, faces[batch].flip(3), faces[batch])), labels[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        since.append(loss.item())
        if step in moments:
            look(step)
    return History(steps, torch.stack(embeddings), torch.stack(centres), losses, model)


def warm_up(m2: float, until: float = 0.5) -> Callable[[float], Margin]:
    """Return a `margin_at` for `train_small`: ArcFace's margin grows evenly from 0 to m2 radians, then stays.

    Args:
        m2: Radians.
        until: The share of the training at which the margin reaches m2.
    """
    return lambda done: (1.0, m2 * min(1.0, done / until), 0.0)


def room(gap: float, margin: Margin) -> float:
    """Return how far from its own centre a face may lie, towards another one, and still win with the margin: degrees.

    It is the angle theta at which cos(m1*theta + m2) - m3 = cos(gap - theta). Below 0 not even a face upon its centre
    wins: the margin does not fit.

    Args:
        gap: Degrees between the two centres.
        margin: (m1, m2, m3).
    """
    m1, m2, m3 = margin
    low, high = -gap, gap
    for _ in range(50):  # left less right falls with theta: halve the interval
        theta = (low + high) / 2
        wins = math.cos(math.radians(m1 * theta) + m2) - m3 > math.cos(math.radians(gap - theta))
        low, high = (theta, high) if wins else (low, theta)
    return theta


def pairs_of(embeddings: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return (cosines (P,), is_same (P,)) of every two of N images, for `plot_pair_angles`; embeddings are (N, D)."""
    directions = F.normalize(embeddings)
    first, second = np.triu_indices(len(labels), 1)
    cosines = (directions @ directions.T)[first, second]
    return cosines.numpy(), (labels[first] == labels[second]).numpy()
