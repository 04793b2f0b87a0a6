"""The small training of the course and of README's animation: seeded, recorded from its first step, and it learns."""

import pytest
import torch

from arcface_edu.course.eight_people import draw_people, small_net, train_small
from arcface_edu.data.faces import draw_person
from arcface_edu.data.images import decode
from arcface_edu.evaluation.angle_stats import angle_statistics
from arcface_edu.heads import MarginSoftmax, Softmax


@pytest.fixture(scope="module")
def colours():
    """Four "people" of 16 photographs, each a colour with noise."""
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(16)
    base = torch.tensor([[200, 50, 50], [50, 200, 50], [50, 50, 200], [180, 180, 40]])[labels]
    return (base[:, :, None, None] + torch.randint(-40, 40, (64, 3, 112, 112))).to(torch.uint8), labels


@pytest.mark.parametrize("head", [lambda: Softmax(2, 4), lambda: MarginSoftmax(2, 4, margin=(1, 0.3, 0), scale=8)])
def test_people_part_in_the_plane(colours, head):
    history = train_small(*colours, head(), epochs=20, batch_size=16, frames=5)
    assert history.steps[0] == 0 and history.steps[-1] == 80 and history.steps == sorted(history.steps)
    count = len(history.steps)
    assert history.embeddings.shape == (count, 64, 2) and history.centres.shape == (count, 4, 2)
    first, last = (angle_statistics(history.embeddings[at], colours[1], history.centres[at]) for at in (0, -1))
    assert last["inter"] > 2 * last["intra"] and last["w_ec"] < first["w_ec"]
    assert 0 < history.losses[-1] < history.losses[1]


def test_the_same_seed_the_same_pictures(colours):
    one, two, other = (train_small(*colours, Softmax(3, 4), epochs=1, frames=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.embeddings, two.embeddings) and not torch.equal(one.embeddings, other.embeddings)
    assert one.embeddings.shape == (2, 64, 3)


def test_people_are_drawn_in_order():
    images, labels = draw_people(photos=2, people=(5, 6))
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(images[3], decode(draw_person(0, 6, 2)[1]))


def test_the_net_is_small():
    assert sum(p.numel() for p in small_net(2).parameters()) < 110_000
