"""The walk over classes in chunks against the plain softmax over all of them: values, gradients, and what is held."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_head import plain_step
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arcface_edu.errors import ConfigError
from arcface_edu.heads import MARGINS, MarginSoftmax, PartialFC, chunked
from arcface_edu.training.row_optim import BLOCK, RowSGD

MARGIN_OPTIONS = [
    dict(margin=margin, gradient=gradient)
    for margin in [*MARGINS.values(), (4.0, 0.0, 0.0)]
    for gradient in ("straight-through", "exact")
]


def batch(images=6, classes=11, dimension=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    embeddings = 3 * torch.randn(images, dimension, generator=generator, dtype=dtype)
    return embeddings.requires_grad_(), torch.randint(classes, (images,), generator=generator)


def build(classes=11, dimension=16, seed=1, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    return MarginSoftmax(dimension, classes, **options).to(dtype)


def step(head, embeddings, labels):
    """Loss, and the gradients for embeddings and centres."""
    loss = head(embeddings, labels)
    return loss.detach(), *torch.autograd.grad(loss, (embeddings, head.weight))


def close(actual, expected, error):
    """Every tensor within `error` of the other, as a share of its length; below 1e-37 fp32 runs out of digits."""
    for mine, other in zip(actual, expected, strict=True):
        assert mine.shape == other.shape
        assert (mine.double() - other).norm() <= error * other.norm() + 1e-37


@pytest.mark.parametrize("options", MARGIN_OPTIONS)
@pytest.mark.parametrize("chunk_size", [1, 4, 11, None])
@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_loss_and_gradients_equal_the_plain_softmax(options, chunk_size, threshold):
    options = options | dict(scale=20.0, interclass_filtering_threshold=threshold)
    head, (embeddings, labels) = build(chunk_size=chunk_size, **options), batch()
    close(step(head, embeddings, labels), plain_step(embeddings, labels, head.weight, **options), 1e-10)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_size_and_any_chunk_with_all_some_or_no_logits_kept(data):
    images, classes, dimension = (data.draw(st.integers(*between)) for between in ((1, 9), (1, 40), (3, 8)))
    options = data.draw(st.sampled_from(MARGIN_OPTIONS)) | dict(
        scale=data.draw(st.sampled_from([1.0, 10.0, 64.0])),
        interclass_filtering_threshold=data.draw(st.sampled_from([0.0, 0.3])),
    )
    head = build(classes, dimension, chunk_size=data.draw(st.integers(1, 45)), **options)
    embeddings, labels = batch(images, classes, dimension, seed=data.draw(st.integers(0, 99)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked.KEPT_BYTES, "cpu", data.draw(st.sampled_from([0, 500, 1 << 20])))
        found = step(head, embeddings, labels)
    for mine, other in zip(found, plain_step(embeddings, labels, head.weight, **options), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("keep", [0, 1 << 20])
def test_fp32_is_within_1e_5_of_float64(monkeypatch, keep):
    monkeypatch.setitem(chunked.KEPT_BYTES, "cpu", keep)
    head = build(20000, 128, dtype=torch.float32, chunk_size=777)
    embeddings, labels = batch(64, 20000, 128, dtype=torch.float32)
    with torch.no_grad():  # some images near their centres, as after training
        embeddings[:32] += 200 * head.weight[labels[:32]]
    close(step(head, embeddings, labels), plain_step(embeddings, labels, head.weight), 1e-5)


@pytest.mark.parametrize("margin", MARGINS.values())
@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_finite_differences_in_float64(margin, threshold):
    head = build(7, 4, scale=5.0, margin=margin, gradient="exact", chunk_size=3)
    head.interclass_filtering_threshold = threshold
    embeddings, labels = batch(3, 7, 4)

    def loss(embeddings, weight):
        return torch.func.functional_call(head, dict(weight=weight), (embeddings, labels))

    assert torch.autograd.gradcheck(loss, (embeddings, head.weight))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("own_side", [-1, 1])
def test_rows_whose_best_logit_is_far_from_the_scale_stay_exact(side, own_side):
    """At s = 64, exp(-64 - 64) is 0 in fp32: a sum that leaned on the scale, or on the true class, would be empty."""
    generator = torch.Generator().manual_seed(0)
    pole = F.normalize(torch.ones(1, 8))
    head = build(50, 8, dtype=torch.float32, chunk_size=7)
    with torch.no_grad():
        head.weight.copy_(side * pole + 0.1 * torch.randn(50, 8, generator=generator))
        head.weight[3] *= own_side * side
    image = (pole + 0.05 * torch.randn(1, 8, generator=generator)).requires_grad_()
    label = torch.tensor([3])
    cosine = F.cosine_similarity(image, head.weight)
    assert cosine[3] * own_side > 0.8
    assert (cosine.index_fill(0, label, side) * side > 0.8).all()
    close(step(head, image, label), plain_step(image, label, head.weight), 2e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("chunk_size", [3, None])
def test_an_embedding_or_a_centre_that_is_not_finite_shows_in_the_loss(value, threshold, chunk_size):
    """The trainer's guard looks at the loss alone."""
    head = build(dtype=torch.float32, interclass_filtering_threshold=threshold, chunk_size=chunk_size)
    embeddings, labels = batch(dtype=torch.float32)
    with torch.no_grad():
        embeddings[2, 5] = value
    assert not torch.isfinite(head(embeddings, labels))
    embeddings, labels = batch(dtype=torch.float32)
    with torch.no_grad():
        head.weight[10, 5] = value
    assert not torch.isfinite(head(embeddings, labels))


def test_one_class_is_always_right():
    head, (embeddings, labels) = build(1), batch(classes=1)
    for tensor in step(head, embeddings, labels):
        assert not tensor.any()


def test_a_centre_of_no_length_counts_as_ninety_degrees():
    head, (embeddings, labels) = build(), batch()
    with torch.no_grad():
        head.weight[4] = 0
    close(step(head, embeddings, labels)[:2], plain_step(embeddings, labels, head.weight)[:2], 1e-10)


def test_autocast_does_not_reach_the_backward_pass():
    head, (embeddings, labels) = build(dtype=torch.float32), batch(dtype=torch.float32)
    expected = step(head, embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for mine, other in zip(step(head, embeddings, labels), expected, strict=True):
            assert torch.equal(mine, other)


def test_half_precision_comes_back_as_such():
    head, (embeddings, labels) = build(dtype=torch.bfloat16), batch(dtype=torch.bfloat16)
    loss, *gradients = step(head, embeddings, labels)
    assert loss.dtype == torch.float32
    assert [gradient.dtype for gradient in gradients] == [torch.bfloat16] * 2
    close(gradients, plain_step(embeddings, labels, head.weight)[1:], 0.01)


def test_micro_batches_add_up_and_only_what_needs_a_gradient_gets_one():
    head, (embeddings, labels) = build(chunk_size=4), batch()
    for part in (slice(2), slice(2, 6)):
        (head(embeddings[part], labels[part]) * len(labels[part]) / 6).backward()
    close([embeddings.grad, head.weight.grad], plain_step(embeddings, labels, head.weight)[1:], 1e-10)
    kept = head.weight.grad.clone()
    head.weight.requires_grad_(False)
    head(embeddings, labels).backward()
    assert torch.equal(head.weight.grad, kept)


def test_a_graph_that_is_kept_gives_its_gradient_twice_but_no_second_derivative():
    head, (embeddings, labels) = build(chunk_size=4), batch()
    loss = head(embeddings, labels)
    first, second = (torch.autograd.grad(loss, head.weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


class Created(TorchDispatchMode):
    """Sizes of all tensors that operations bring into being, views left out."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        before = {
            tensor.untyped_storage().data_ptr()
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, torch.Tensor) and not tensor.is_sparse
        }
        for tensor in tree_leaves(result):
            dense = isinstance(tensor, torch.Tensor) and not tensor.is_sparse
            if dense and tensor.untyped_storage().data_ptr() not in before:
                self.sizes.append(tensor.numel())
        return result


@pytest.mark.parametrize("keep", [0, 1 << 20])
def test_no_logits_of_all_classes_and_no_copy_of_the_centres(monkeypatch, keep):
    monkeypatch.setitem(chunked.KEPT_BYTES, "cpu", keep)
    images, classes, dimension, chunk_size = 64, 3000, 32, 100
    head = build(classes, dimension, dtype=torch.float32, chunk_size=chunk_size, interclass_filtering_threshold=0.1)
    embeddings, labels = batch(images, classes, dimension, dtype=torch.float32)
    with Created() as created:
        head(embeddings, labels).backward()
    sizes = sorted(created.sizes)
    assert sizes[-1] == classes * dimension  # the gradient, once
    assert sizes[-2] == images * chunk_size < images * classes // 20


def test_logits_are_kept_up_to_a_bound_and_not_at_all_without_a_gradient(monkeypatch):
    monkeypatch.setitem(chunked.KEPT_BYTES, "cpu", 10 * 64 * 100 * 4)
    head = build(3000, 32, dtype=torch.float32, chunk_size=100)
    embeddings, labels = batch(64, 3000, 32, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.shape) or tensor, lambda t: t):
        expected = head(embeddings, labels)
    assert 8 <= saved.count((100, 64)) <= 10
    with torch.no_grad(), Created() as created:
        assert head(embeddings, labels) == expected
    assert max(created.sizes) <= 64 * 100


def test_a_sampled_step_makes_nothing_that_grows_with_all_classes_but_the_momentum():
    classes, dimension = 20 * BLOCK["cpu"], 2
    head = PartialFC(dimension, classes, sample_rate=0.1, chunk_size=500)
    optimizer = RowSGD([head.weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
    embeddings, labels = batch(16, classes, dimension, dtype=torch.float32)
    for first in (True, False):
        with Created() as created:
            head(embeddings, labels).backward()
            optimizer.step()
        used, momentum = classes // 10 * dimension, classes * dimension
        assert max(created.sizes) == (momentum if first else used)
        assert sum(size > 500 * 16 for size in created.sizes) < 12  # row numbers, the gradient
        optimizer.zero_grad()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.floats(0.01, 0.99), st.data())
def test_a_sample_is_sorted_whole_and_of_the_exact_size(classes, rate, data):
    head = PartialFC(2, classes, sample_rate=rate)
    positives = data.draw(st.lists(st.integers(0, classes - 1), max_size=20))
    rows = head.sample(torch.tensor(positives, dtype=torch.long))
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert set(positives) <= set(rows.tolist()) <= set(range(classes))
    assert len(rows) == max(len(set(positives)), round(rate * classes))


def test_every_set_of_others_is_equally_likely():
    head = PartialFC(2, 6, sample_rate=0.5)
    counts = {}
    for _ in range(6000):
        rows = tuple(head.sample(torch.tensor([2])).tolist())
        counts[rows] = counts.get(rows, 0) + 1
    assert len(counts) == 10  # 2 of the 5 others
    assert all(abs(count - 600) < 5 * math.sqrt(600) for count in counts.values())


def test_a_chunk_of_no_classes_is_refused():
    with pytest.raises(ConfigError, match="chunk_size"):
        MarginSoftmax(4, 3, chunk_size=0)
