"""The sharded head on 1 to 4 ranks against a slow plain version of one process in float64."""

import math

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.errors import ConfigError, DataError
from arcface_edu.heads import MarginSoftmax, PartialFC
from arcface_edu.training.row_optim import RowSGD

D = 16
WORLDS = [1, 2, 3, 4]
# name: classes, images of ranks 0, 1, 2, 3, options of the head
CASES = {
    "uneven classes and batches": (10, (3, 1, 2, 5), {}),
    "fewer classes than ranks, batch 1": (3, (1, 1, 1, 1), {}),
    "one class, and a rank without images": (1, (2, 0, 1, 1), {}),
    "exact gradient": (10, (3, 1, 2, 5), dict(margin=(1.1, 0.3, 0.1), gradient="exact")),
    "filtering": (10, (3, 1, 2, 5), dict(interclass_filtering_threshold=0.2)),
    "one class a chunk": (10, (3, 1, 2, 5), dict(chunk_size=1)),
    "an uneven last chunk, filtered": (10, (3, 1, 2, 5), dict(chunk_size=4, interclass_filtering_threshold=0.2)),
    "chunks, and ranks without a class": (5, (1, 2, 1, 1), dict(chunk_size=1, gradient="exact")),
    "sampled": (23, (3, 1, 2, 5), dict(sample_rate=0.4)),
    "sampled in chunks": (23, (3, 1, 2, 5), dict(sample_rate=0.4, chunk_size=3)),
    "sampled, more people than the share": (9, (4, 4, 4, 4), dict(sample_rate=0.1)),
    "sampled, the batch's people only": (23, (3, 1, 2, 5), dict(sample_rate=0)),
    "sampled, the batch's people only, on few ranks": (40, (2, 2, 0, 0), dict(sample_rate=0, chunk_size=1)),
    "sampled, exact and filtered": (
        23,
        (2, 2, 2, 2),
        dict(sample_rate=0.5, gradient="exact", interclass_filtering_threshold=0.2),
    ),
}


def whole_batch(case, world):
    """All ranks' images and labels, and the count per rank; the same on every rank and in the test."""
    classes, sizes, _ = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    images = 2 * torch.randn(sum(sizes), D, generator=generator)
    labels = torch.randint(classes, (sum(sizes),), generator=generator)
    count = sum(sizes[:world])
    return images[:count], labels[:count], sizes[:world]


def build(case):
    classes, _, options = CASES[case]
    return PartialFC(D, classes, scale=8.0, seed=5, **options)


def own_part(case):
    """This rank's images and labels."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    images, labels, sizes = whole_batch(case, world)
    return images.split(sizes)[rank].clone(), labels.split(sizes)[rank]


def work():
    """Everything that the tests below look at, from one rank."""
    found = {case: step_once(case) for case in CASES}
    found["backbone"] = backbone_gradient()
    found["wrong label"] = message_of_wrong_label()
    found["table"] = whole_table()
    return found


def step_once(case):
    """Forward, backward, then two steps of RowSGD, the second with another sample."""
    head = build(case)
    images, labels = own_part(case)
    images.requires_grad_()
    start = head.weight.detach().clone()
    loss = head(images, labels)
    loss.backward()
    gradient = head.weight.grad
    used = rows_in(gradient)
    kept = dict(
        loss=loss.detach(), start=start, first_class=head.first_class, used=used, images_grad=images.grad,
        weight_grad=gradient.to_dense().clone(), target_cosine=head.target_cosine,
    )  # fmt: skip
    optimizer = RowSGD([head.weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
    moves = []
    for _ in range(2):
        before = [t.clone() for t in (head.weight.detach(), momentum_of(optimizer, head))]
        optimizer.step()
        after = [head.weight.detach().clone(), momentum_of(optimizer, head).clone()]
        rows = rows_in(head.weight.grad)
        moves.append((before, after, rows))
        optimizer.zero_grad()
        head(images.detach(), labels).backward()
    return kept | dict(moves=moves)


def rows_in(gradient):
    """The rows of a gradient, sparse or dense."""
    return gradient.coalesce().indices()[0] if gradient.is_sparse else torch.arange(len(gradient))


def momentum_of(optimizer, head):
    return optimizer.state[head.weight].get("momentum_buffer", torch.zeros_like(head.weight))


def backbone_gradient():
    """Of a linear backbone behind DistributedDataParallel; plain where there is no group."""
    torch.manual_seed(3)
    backbone = nn.Linear(D, D)
    wrapped = DistributedDataParallel(backbone) if dist.is_initialized() else backbone
    images, labels = own_part("uneven classes and batches")
    build("uneven classes and batches")(wrapped(images), labels).backward()
    return backbone.weight.grad


def message_of_wrong_label():
    """The last rank alone has a wrong one; all have to raise."""
    images, labels = own_part("uneven classes and batches")
    if not dist.is_initialized() or dist.get_rank() == dist.get_world_size() - 1:
        labels[0] = 10
    try:
        build("uneven classes and batches")(images, labels)
    except DataError as error:
        return str(error)


def whole_table():
    """What a checkpoint sees, and what comes back from it: the weights, and the next sample."""
    head = build("sampled")
    batch = own_part("sampled")
    head(*batch).backward()
    state = {name: value.clone() for name, value in head.state_dict().items()}
    whole = state["weight"].full_tensor() if dist.is_initialized() else state["weight"]

    restored = []
    for form in (state, state | dict(weight=whole)):
        other = build("sampled")
        nn.init.zeros_(other.weight)
        other.load_state_dict(form)
        other(*batch).backward()
        restored.append((other.weight.detach(), rows_in(other.weight.grad)))
    head.zero_grad()
    head(*batch).backward()
    return dict(whole=whole, own=head.weight.detach(), next=rows_in(head.weight.grad), restored=restored)


@pytest.fixture(scope="module")
def found():
    """{world size: [what each rank found]}; one rank means this process, without a group."""
    return {1: [work()]} | run_on_ranks(work, [2, 3, 4])


def plain(images, labels, centres, used, margin=(1.0, 0.5, 0.0), gradient="", interclass_filtering_threshold=0.0, **_):
    """Mean loss, image by image and class by class, of the formula as it is printed."""
    m1, m2, m3 = margin
    total = 0.0
    for x, label in zip(images, labels.tolist(), strict=True):
        logits = []
        for j in used:
            cosine = x @ centres[j] / x.norm() / centres[j].norm()
            if j == label:
                logit = torch.cos(m1 * torch.acos(cosine) + m2) - m3
                true = cosine + (logit - cosine).detach() if gradient != "exact" else logit
                logits.append(8 * true)
            elif interclass_filtering_threshold and cosine > interclass_filtering_threshold:
                logits.append(0 * cosine)
            else:
                logits.append(8 * cosine)
        total = total + torch.logsumexp(torch.stack(logits), 0) - 8 * true
    return total / len(labels)


def close(actual, expected):
    """Within 1e-6, and 1e-6 of the largest entry where entries are larger than 1."""
    size = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=1e-6 * size)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("case", CASES)
def test_loss_and_every_gradient_equal_the_plain_version(found, case, world):
    ranks = [rank[case] for rank in found[world]]
    images, labels, sizes = whole_batch(case, world)
    images = images.double().requires_grad_()
    centres = torch.cat([rank["start"] for rank in ranks]).double().requires_grad_()
    used = torch.cat([rank["first_class"] + rank["used"] for rank in ranks]).tolist()
    loss = plain(images, labels, centres, used, **CASES[case][2])
    loss.backward()
    for rank in ranks:
        close(rank["loss"], loss.detach())
    # Behind DDP, which divides by the world size, this is the gradient of the mean over all images.
    close(torch.cat([rank["images_grad"] for rank in ranks]), world * images.grad)
    close(torch.cat([rank["weight_grad"] for rank in ranks]), centres.grad)
    expected = F.cosine_similarity(images, centres[labels]).detach().split(sizes)
    for rank, cosine in zip(ranks, expected, strict=True):
        close(rank["target_cosine"], cosine)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("case", [case for case in CASES if "sampled" in case])
def test_a_sample_is_the_share_and_holds_everybody_in_the_batch(found, case, world):
    _, labels, _ = whole_batch(case, world)
    for rank in (rank[case] for rank in found[world]):
        own = range(rank["first_class"], rank["first_class"] + len(rank["start"]))
        positives = {label for label in labels.tolist() if label in own}
        used = (rank["first_class"] + rank["used"]).tolist()
        assert positives <= set(used)
        assert len(used) == len(set(used)) == max(len(positives), round(CASES[case][2]["sample_rate"] * len(own)))


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_centres_outside_the_sample_do_not_move_under_decay_and_momentum(found, world):
    resting = 0
    for rank in (rank["sampled"] for rank in found[world]):
        for before, after, rows in rank["moves"]:
            still = torch.ones(len(rank["start"]), dtype=torch.bool)
            still[rows] = False
            for old, new in zip(before, after, strict=True):
                assert torch.equal(old[still], new[still])
                assert (old[rows] != new[rows]).any(dim=1).all()
            resting += still.sum()
    assert resting > 0


def test_others_are_drawn_evenly_and_anew_at_each_step_and_rank():
    head = PartialFC(4, 50, sample_rate=0.2)
    samples = torch.stack([head.sample(torch.tensor([7, 3, 7])) for _ in range(1000)])  # (1000, 10)
    counts = samples.flatten().bincount(minlength=50)
    assert counts[3] == counts[7] == 1000
    others = counts[[row for row in range(50) if row not in (3, 7)]]
    assert others.sum() == 8000
    assert (others - 8000 / 48).abs().max() < 5 * math.sqrt(8000 / 48)  # five standard deviations
    head.samples_drawn = 0
    assert torch.equal(head.sample(torch.tensor([3, 7])), samples[0])
    head.rank, head.samples_drawn = 1, 0
    assert not torch.equal(head.sample(torch.tensor([3, 7])), samples[0])


@pytest.mark.slow
def test_centres_begin_alike_at_every_world_size_and_no_two_are_clones(found):
    tables = [torch.cat([rank["sampled"]["start"] for rank in found[world]]) for world in WORLDS]
    assert all(torch.equal(tables[0], table) for table in tables)
    assert len(tables[0].unique(dim=0)) == len(tables[0]) == 23


def test_centres_are_small_normal_numbers_also_across_blocks():
    head = PartialFC(4, 3000, seed=1)
    assert len(head.weight.detach().unique(dim=0)) == 3000
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not torch.equal(head.weight, PartialFC(4, 3000, seed=2).weight)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 4])
def test_behind_ddp_a_backbone_gets_the_gradient_of_one_process(found, world):
    torch.manual_seed(3)
    backbone = nn.Linear(D, D)
    images, labels, _ = whole_batch("uneven classes and batches", world)
    build("uneven classes and batches")(backbone(images), labels).backward()
    for rank in found[world]:
        close(rank["backbone"], backbone.weight.grad)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_a_wrong_label_on_one_rank_is_named_on_all(found, world):
    owner = f" on rank {world - 1}" if world > 1 else ""
    for rank in found[world]:
        assert rank["wrong label"] == f"label 10{owner} is out of range: the head has 10 classes, numbered from 0."


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_state_dict_is_the_whole_table_and_brings_back_weights_and_the_next_sample(found, world):
    ranks = [rank["table"] for rank in found[world]]
    for rank in ranks:
        assert torch.equal(rank["whole"], torch.cat([other["own"] for other in ranks]))
        for weight, sample in rank["restored"]:
            assert torch.equal(weight, rank["own"])
            assert torch.equal(sample, rank["next"])


@pytest.mark.parametrize("options", [{}, dict(margin=(1.1, 0.3, 0.1), gradient="exact"), dict(scale=20.0)])
def test_on_one_rank_it_is_margin_softmax(options):
    sharded, whole = PartialFC(D, 10, **options), MarginSoftmax(D, 10, **options)
    with torch.no_grad():
        whole.weight.copy_(sharded.weight)
    images, labels, _ = whole_batch("uneven classes and batches", 4)
    gradients = []
    for head in (sharded, whole):
        embeddings = images.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = head(embeddings, labels)
        assert loss.dtype == torch.float32
        loss.backward()
        gradients.append((loss.detach(), embeddings.grad, head.weight.grad, head.target_cosine))
    for a, b in zip(*gradients, strict=True):
        close(a, b)


def test_expected_first_loss_counts_the_sampled_classes():
    whole, sampled = PartialFC(64, 10000), PartialFC(64, 10000, sample_rate=0.1)
    assert whole.expected_first_loss() == MarginSoftmax(64, 10000).expected_first_loss()
    images, labels = torch.randn(128, 64), torch.randint(10000, (128,))
    assert sampled(images, labels).item() == pytest.approx(sampled.expected_first_loss(), rel=0.1)
    assert math.isfinite(sampled.expected_first_loss())


def test_expected_first_loss_without_other_centres_counts_the_people_of_the_batch():
    head = PartialFC(64, 500, sample_rate=0, batch_size=400)
    images, labels = torch.randn(400, 64), torch.randint(500, (400,))
    assert head(images, labels).item() == pytest.approx(head.expected_first_loss(), rel=0.1)
    assert head.expected_first_loss() > PartialFC(64, 500, sample_rate=0, batch_size=4).expected_first_loss() + 3


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_an_impossible_share_is_refused(rate):
    with pytest.raises(ConfigError, match="sample_rate"):
        PartialFC(4, 3, sample_rate=rate)


def test_another_number_of_classes_is_refused():
    with pytest.raises(RuntimeError, match="20 classes, the head 10"):
        PartialFC(4, 10).load_state_dict(PartialFC(4, 20).state_dict())
