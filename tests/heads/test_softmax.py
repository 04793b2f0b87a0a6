"""The heads against a slow plain version in float64, and what they promise about precision, filtering and labels."""

import math

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.errors import ConfigError, DataError
from arcface_edu.heads import MARGINS, MarginSoftmax, Softmax


def plain_loss(embeddings, labels, weight, margin, scale):
    """Row by row, class by class, with math's own functions and the formula as it is printed."""
    m1, m2, m3 = margin
    total = 0.0
    for x, label in zip(embeddings.double(), labels.tolist(), strict=True):
        logits = []
        for j, w in enumerate(weight.double()):
            cosine = (x @ w / x.norm() / w.norm()).item()
            theta = math.acos(max(-1.0, min(1.0, cosine)))
            logits.append(scale * (math.cos(m1 * theta + m2) - m3 if j == label else math.cos(theta)))
        top = max(logits)
        total += top + math.log(sum(math.exp(logit - top) for logit in logits)) - logits[label]
    return total / len(labels)


def batch(rows=6, classes=11, dimension=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = 3 * torch.randn(rows, dimension, generator=generator)
    return embeddings, torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("margin", MARGINS.values())
@pytest.mark.parametrize("gradient", ["straight-through", "exact"])
def test_loss_equals_the_slow_plain_version(margin, gradient):
    torch.manual_seed(1)
    head = MarginSoftmax(16, 11, margin=margin, scale=30.0, gradient=gradient)
    embeddings, labels = batch()
    expected = plain_loss(embeddings, labels, head.weight.detach(), margin, 30.0)
    assert head(embeddings, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("margin", MARGINS.values())
def test_exact_gradients_against_finite_differences(margin):
    torch.manual_seed(2)
    head = MarginSoftmax(5, 4, margin=margin, scale=8.0, gradient="exact").double()
    # The head computes in fp32 whatever it is given, so the differences are taken at a step that fp32 resolves.
    embeddings, labels = batch(3, 4, 5)
    embeddings.requires_grad_()
    head(embeddings, labels).backward()
    h = 1e-2
    for tensor, grad in ((embeddings, embeddings.grad), (head.weight, head.weight.grad)):
        flat = tensor.detach().view(-1)
        size = flat.abs().max().item()
        for i in range(len(flat)):
            kept, values = flat[i].item(), []
            for sign in (1, -1):
                flat[i] = kept + sign * h * size
                values.append(head(embeddings, labels).item())
            flat[i] = kept
            assert grad.view(-1)[i].item() == pytest.approx(
                (values[0] - values[1]) / (2 * h * size), rel=0.02, abs=2e-3
            )


def test_straight_through_gradient_is_that_of_a_constant_shift():
    """What InsightFace computes: the margin moves the target logit, and autograd does not see it move."""
    torch.manual_seed(3)
    head = MarginSoftmax(16, 11, scale=30.0)
    embeddings, labels = batch()
    embeddings.requires_grad_()
    head(embeddings, labels).backward()

    mine = embeddings.detach().clone().requires_grad_()
    cosine = F.normalize(mine) @ F.normalize(head.weight.detach()).T
    rows = torch.arange(len(labels))
    theta = cosine.detach()[rows, labels].acos()
    shift = torch.zeros_like(cosine)
    shift[rows, labels] = (theta + 0.5).cos() - theta.cos()
    F.cross_entropy(30.0 * (cosine + shift), labels).backward()
    torch.testing.assert_close(embeddings.grad, mine.grad, rtol=1e-4, atol=1e-6)


def test_margin_free_head_is_a_softmax_over_scaled_cosines():
    head = MarginSoftmax(16, 11, margin=MARGINS["norm_softmax"], scale=20.0)
    embeddings, labels = batch()
    expected = F.cross_entropy(20 * F.cosine_similarity(embeddings[:, None], head.weight[None], dim=2), labels)
    torch.testing.assert_close(head(embeddings, labels), expected)


def test_head_stays_in_fp32_under_autocast():
    head = MarginSoftmax(16, 11)
    embeddings, labels = batch()
    embeddings.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head(embeddings, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == head(embeddings, labels).item()


def test_interclass_filtering_sets_near_strangers_to_ninety_degrees():
    head = MarginSoftmax(2, 3, margin=MARGINS["norm_softmax"], scale=10.0, interclass_filtering_threshold=0.5)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    embedding = torch.tensor([[1.0, 0.0]])
    # Cosines 1.0 (target, stays), 0.8 (above the threshold: counts as 0), 0.0.
    expected = -math.log(math.exp(10) / (math.exp(10) + 1 + 1))
    assert head(embedding, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-3)


def test_target_cosine_is_without_margin():
    head = MarginSoftmax(16, 11)
    embeddings, labels = batch()
    head(embeddings, labels)
    torch.testing.assert_close(head.target_cosine, F.cosine_similarity(embeddings, head.weight[labels]).detach())


@pytest.mark.parametrize(
    ("classes", "dimension", "scale", "margin"),
    [
        (20000, 512, 64.0, "arcface"),
        (600, 128, 32.0, "cosface"),
        (600, 128, 32.0, "sphereface"),
        (30, 128, 64.0, "arcface"),
    ],
)
def test_expected_first_loss_is_the_measured_one(classes, dimension, scale, margin):
    torch.manual_seed(4)
    head = MarginSoftmax(dimension, classes, margin=MARGINS[margin], scale=scale)
    loss = head(torch.randn(256, dimension), torch.randint(classes, (256,))).item()
    assert loss == pytest.approx(head.expected_first_loss(), rel=0.1)


def test_expected_first_loss_of_ms1mv3():
    with torch.device("meta"):
        head = MarginSoftmax(512, 93431)
    assert head.expected_first_loss() == pytest.approx(46.1, abs=0.05)


def test_plain_softmax_is_cross_entropy_of_a_linear_layer():
    head = Softmax(16, 11)
    embeddings, labels = batch()
    torch.testing.assert_close(
        head(embeddings, labels), F.cross_entropy(embeddings @ head.weight.T + head.bias, labels)
    )
    assert head(embeddings, labels).item() == pytest.approx(head.expected_first_loss(), rel=0.05)


@pytest.mark.parametrize("head", [MarginSoftmax(4, 3), Softmax(4, 3)])
@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_out_of_range_is_named(head, wrong):
    with pytest.raises(DataError, match=rf"label {wrong} is out of range: the head has 3 classes"):
        head(torch.randn(2, 4), torch.tensor([0, wrong]))


def test_batch_of_one():
    head = MarginSoftmax(16, 11)
    embeddings, labels = batch(rows=1)
    assert torch.isfinite(head(embeddings, labels))


@pytest.mark.parametrize("options", [dict(margin=(1.0, 0.5)), dict(margin=(0.0, 0.5, 0.0)), dict(gradient="exactly")])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        MarginSoftmax(4, 3, **options)


def softmax_of_a_part():
    """The loss of this rank's part of five images, and the gradient of the centres behind DistributedDataParallel."""
    torch.manual_seed(0)
    head, images, labels = Softmax(8, 3), torch.randn(5, 8), torch.tensor([0, 1, 2, 1, 1])
    trained, own = head, slice(None)
    if dist.is_initialized():
        trained, own = DistributedDataParallel(head), slice(0, 4) if dist.get_rank() == 0 else slice(4, 5)
    loss = trained(images[own], labels[own])
    loss.backward()
    return loss.detach(), head.weight.grad, head.bias.grad


@pytest.mark.slow
def test_plain_softmax_on_ranks_with_unlike_batches_is_that_of_one_process():
    expected = softmax_of_a_part()
    for found in run_on_ranks(softmax_of_a_part, [2])[2]:
        torch.testing.assert_close(found, expected)
