"""The small training of the course and of README's animation: seeded, recorded from its first step, and it learns."""

import pytest
import torch

from arcface_edu.course.eight_people import (
    draw_people,
    embed_small,
    pairs_of,
    portraits,
    room,
    small_net,
    train_small,
    warm_up,
)
from arcface_edu.data.images import decode
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.evaluation.angle_stats import angle_statistics
from arcface_edu.heads import MarginSoftmax, Softmax, target_logit


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


def test_the_net_that_comes_back_made_the_last_frame(colours):
    history = train_small(*colours, Softmax(2, 4), epochs=1, frames=2)
    torch.testing.assert_close(embed_small(history.model, colours[0]), history.embeddings[-1])


def test_the_margin_follows_its_schedule(colours):
    asked, head = [], MarginSoftmax(2, 4)

    def margin_at(done):
        asked.append(done)
        return (1.0, done, 0.0)

    train_small(*colours, head, epochs=2, batch_size=16, frames=2, margin_at=margin_at)
    assert asked == [step / 8 for step in range(8)] and head.margin == (1.0, 7 / 8, 0.0)
    assert [warm_up(1.2)(done)[1] for done in (0, 0.25, 0.5, 1)] == [0, pytest.approx(0.6), 1.2, 1.2]
    assert warm_up(1.2, until=0.8)(0.4) == (1.0, pytest.approx(0.6), 0.0)


def test_centres_begin_as_long_as_asked(colours):
    centres = train_small(*colours, MarginSoftmax(64, 4), epochs=1, frames=2, length=0.01).centres[0]
    assert centres.norm(dim=1).mean().item() == pytest.approx(0.08, rel=0.2)  # sqrt(64) * 0.01


@pytest.mark.parametrize("margin", [(1, 0, 0), (1.35, 0, 0), (1, 0, 0.2), (1, 0.5, 0), (0.9, 0.3, 0.1)])
@pytest.mark.parametrize("gap", [60.0, 98.0])
def test_at_the_edge_of_its_room_a_face_ties(gap, margin):
    theta, rival = (torch.tensor(angle).deg2rad() for angle in (room(gap, margin), gap - room(gap, margin)))
    assert theta > 0
    torch.testing.assert_close(target_logit(theta.cos(), margin, "exact"), rival.cos(), atol=1e-5, rtol=0)


def test_a_margin_that_does_not_fit_leaves_less_than_no_room():
    assert room(45, (1, 1.0, 0)) == pytest.approx((45 - 57.2958) / 2, abs=1e-4)
    assert room(45, (1, 0, 0.35)) < 0 < room(45, (1, 0, 0.2))


def test_pairs_are_all_pairs():
    vectors = torch.tensor([[2.0, 0], [1, 1], [0, 3]])
    cosines, is_same = pairs_of(vectors, torch.tensor([4, 4, 5]))
    assert cosines.tolist() == pytest.approx([2**-0.5, 0, 2**-0.5], abs=1e-6)
    assert is_same.tolist() == [True, False, False]


def test_portraits_are_plain_photographs_of_these_people():
    (face,) = portraits([5])
    assert torch.equal(face, decode(draw_person(0, 5, 1, difficulty=0)[0]))
