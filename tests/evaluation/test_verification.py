"""The protocols against slow plain versions (loops over thresholds), closed forms, bad input."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from arcface_edu.errors import DataError
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.roc import in_three_units, operating_points, roc, tar_at_far, thin, too_few
from arcface_edu.evaluation.verification import (
    hardest_pairs,
    pair_cosines,
    pair_distances,
    suggested_threshold,
    summary,
    verify_pairs,
)


def make_pairs(pairs=60, dim=8, noise=1.0, seed=0):
    """Embeddings (2 * pairs, dim) of any length and is_same (pairs,): same pairs are noisy copies."""
    rng = np.random.default_rng(seed)
    is_same = rng.random(pairs) < 0.5
    is_same[:2] = True, False
    first = rng.normal(size=(pairs, dim))
    second = np.where(is_same[:, None], first + noise * rng.normal(size=first.shape), rng.normal(size=first.shape))
    embeddings = np.stack([first, second], 1).reshape(-1, dim) * rng.uniform(0.5, 20, (2 * pairs, 1))
    return embeddings, is_same


def slow_rates(threshold, distances, is_same):
    """TAR, FAR and accuracy of one threshold, pair by pair."""
    true_accepts = false_accepts = true_rejects = 0
    for distance, same in zip(distances, is_same, strict=True):
        if distance < threshold:
            true_accepts += same
            false_accepts += not same
        else:
            true_rejects += not same
    same, different = sum(is_same), len(is_same) - sum(is_same)
    return (
        true_accepts / same if same else 0.0,
        false_accepts / different if different else 0.0,
        (true_accepts + true_rejects) / len(is_same) if len(is_same) else 0.0,
    )


def slow_verify(embeddings, is_same, folds):
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = ((unit[0::2] - unit[1::2]) ** 2).sum(1)
    numbers = np.arange(len(distances))
    sizes = [len(distances) // folds + (fold < len(distances) % folds) for fold in range(folds)]
    accuracy, chosen, tprs, fprs, vals, fars = [], [], [], [], [], []
    for fold in range(folds):
        test = (numbers >= sum(sizes[:fold])) & (numbers < sum(sizes[: fold + 1]))
        train_accuracy = [slow_rates(t, distances[~test], is_same[~test])[2] for t in np.arange(0, 4, 0.01)]
        best = np.arange(0, 4, 0.01)[int(np.argmax(train_accuracy))]
        chosen.append(best)
        accuracy.append(slow_rates(best, distances[test], is_same[test])[2])
        rates = [slow_rates(t, distances[test], is_same[test]) for t in np.arange(0, 4, 0.01)]
        tprs.append([rate[0] for rate in rates])
        fprs.append([rate[1] for rate in rates])

        # The threshold at FAR 1e-3, walking up: past the last threshold whose FAR is at most that, along a line.
        far = [np.mean(distances[~test & ~is_same] < t) for t in np.arange(0, 4, 0.001)]
        val_threshold = 0.0
        if max(far) >= 1e-3:
            val_threshold = float(np.interp(1e-3, far, np.arange(0, 4, 0.001)))
        tar, far, _ = slow_rates(val_threshold, distances[test], is_same[test])
        vals.append(tar)
        fars.append(far)
    return {
        "accuracy": np.mean(accuracy), "accuracy_std": np.std(accuracy), "thresholds": chosen,
        "tpr": np.mean(tprs, 0), "fpr": np.mean(fprs, 0),
        "val": np.mean(vals), "val_std": np.std(vals), "far": np.mean(fars),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "folds", "noise", "seed"), [(60, 10, 1.0, 0), (47, 5, 0.5, 1), (23, 10, 2.0, 2), (12, 2, 0.1, 3)]
)
def test_the_protocol_equals_its_loops(pairs, folds, noise, seed):
    embeddings, is_same = make_pairs(pairs, noise=noise, seed=seed)
    result, slow = verify_pairs(embeddings, is_same, folds), slow_verify(embeddings, is_same, folds)
    for key, value in slow.items():
        np.testing.assert_allclose(result[key], value, rtol=1e-13, atol=1e-15, err_msg=key)
    assert result["same_pairs"] == is_same.sum() and result["pairs"] == pairs


def at_degrees(degrees):
    """Unit pairs (2N, 2) that many degrees apart."""
    radians = np.radians(degrees)
    first = np.tile([1.0, 0.0], (len(radians), 1))
    return np.stack([first, np.stack([np.cos(radians), np.sin(radians)], 1)], 1).reshape(-1, 2)


def test_perfect_and_hopeless_embeddings():
    is_same = np.tile([True, False], 50)
    perfect = verify_pairs(at_degrees(np.where(is_same, 30.0, 85.0)), is_same)
    assert perfect["accuracy"] == perfect["val"] == 1.0
    assert perfect["accuracy_std"] == perfect["val_std"] == perfect["far"] == 0.0
    assert perfect["tar_at_far"] == {1e-2: 1.0, 1e-3: 1.0}
    # The first threshold above 2 - 2 cos 30 degrees = 0.268 in steps of 0.01.
    np.testing.assert_allclose(perfect["thresholds"], 0.27, rtol=1e-12)
    # All pairs alike: the best is to call all of them different (threshold 0, the first maximum).
    hopeless = verify_pairs(at_degrees(np.full(100, 60.0)), is_same)
    assert hopeless["accuracy"] == 0.5 and not hopeless["thresholds"].any()


def test_a_pair_at_the_threshold_is_not_accepted():
    # Orthogonal pairs have the distance 2, which is a threshold: only from 2.01 on are they "the same person".
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0]] * 10 + [[1.0, 0.0], [-1.0, 0.0]] * 10)
    result = verify_pairs(embeddings, np.repeat([True, False], 10), folds=2)
    assert result["tpr"][200] == 0 and result["tpr"][201] > 0
    assert result["fpr"][-1] == 0  # distance 4 lies past the last threshold


def test_val_inverts_a_standing_far_at_its_last_threshold():
    # One impostor at distance 0.9995 and 999 at 3.0005 in each half: FAR is 0 to 0.999, 1e-3 from 1.0 to 3.0, then 1.
    # The target 1e-3 stands over two thousand thresholds; the last of them, 3.0, is taken.
    far_away = np.degrees(np.arccos(1 - np.array([0.9995] + [3.0005] * 999) / 2))
    same = np.degrees(np.arccos(1 - np.array([2.9, 3.0003]) / 2))  # one below 3.0, one above
    half = np.concatenate([far_away, same])
    is_same = np.tile(np.arange(len(half)) >= 1000, 2)
    result = verify_pairs(at_degrees(np.tile(half, 2)), is_same, folds=2)
    assert result["val"] == 0.5 and result["far"] == pytest.approx(1e-3)


def test_lengths_and_kinds_of_input_do_not_matter():
    embeddings, is_same = make_pairs(40)
    result = verify_pairs(embeddings, is_same)
    scaled = embeddings * np.random.default_rng(1).choice([0.25, 1.0, 1024.0], (len(embeddings), 1))
    as_lists = verify_pairs(torch.tensor(scaled, requires_grad=True), is_same.tolist())
    for key in ("accuracy", "val", "far", "thresholds", "cosines"):
        np.testing.assert_array_equal(result[key], as_lists[key])


def test_distances_do_not_depend_on_the_chunk():
    embeddings, _ = make_pairs(11)
    np.testing.assert_array_equal(pair_distances(embeddings, chunk=3), pair_distances(embeddings))
    np.testing.assert_allclose(pair_cosines(at_degrees([0, 60, 90, 180])), [1, 0.5, 0, -1], atol=1e-15)


def test_suggested_threshold_in_three_units():
    threshold = suggested_threshold([0.9, 1.1])
    assert threshold == pytest.approx({"cosine": 0.5, "degrees": 60.0, "squared_l2": 1.0})


# --- roc -------------------------------------------------------------------------------------------------------------

scored_pairs = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({same for _, same in pairs}) == 2
)


def slow_roc(scores, is_same):
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    tpr = [np.mean([s >= t for s, same in zip(scores, is_same, strict=True) if same]) for t in thresholds]
    fpr = [np.mean([s >= t for s, same in zip(scores, is_same, strict=True) if not same]) for t in thresholds]
    return np.array(fpr), np.array(tpr), np.array(thresholds)


@settings(max_examples=150, deadline=None)
@given(scored_pairs)
def test_roc_equals_its_loop(pairs):
    scores, is_same = zip(*pairs, strict=True)
    for fast, slow in zip(roc(np.array(scores) / 4, is_same), slow_roc(np.array(scores) / 4, is_same), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-14)


@settings(max_examples=150, deadline=None)
@given(scored_pairs, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_tar_at_far_is_the_last_nearest_point_of_the_roc(pairs, fars):
    scores, is_same = zip(*pairs, strict=True)
    fpr, tpr, _ = slow_roc(scores, is_same)
    found = tar_at_far(scores, is_same, fars)
    for far in fars:
        distance = abs(fpr - far)
        assert found[far] == pytest.approx(tpr[np.flatnonzero(distance == distance.min())[-1]], abs=1e-14)


def test_tar_at_far_by_hand():
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    is_same = [1, 1, 0, 1, 0, 0, 0]  # 4 impostors: FAR 0 admits 2 of 3, FAR 1/4 all of them
    assert tar_at_far(scores, is_same, (0, 0.125, 0.3)) == pytest.approx({0: 2 / 3, 0.125: 1.0, 0.3: 1.0})
    assert list(tar_at_far(scores, is_same)) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    np.testing.assert_array_equal(tar_at_far(np.float32(scores), np.bool_(is_same), (1.0,))[1.0], 1.0)


# --- embeddings ------------------------------------------------------------------------------------------------------


class Corner(nn.Module):
    """An embedding one can predict: the left- and rightmost pixel of the first line, red. Notes how it was called."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(2).eval()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.calls = []

    def forward(self, faces):
        self.calls.append(
            (len(faces), torch.is_inference_mode_enabled(), faces.is_contiguous(memory_format=torch.channels_last))
        )
        return self.drop(self.scale * faces[:, 0, 0, [0, -1]]).to(torch.bfloat16)


def test_embed_adds_the_mirror_in_eval_mode_and_restores_the_modes():
    images = torch.zeros(5, 3, 6, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = 255  # +1 on the left, -1 elsewhere
    model = Corner()
    out = embed_images(model, images, flip=False, batch_size=2)
    torch.testing.assert_close(out, torch.tensor([[2.0, -2.0]]).repeat(5, 1))
    torch.testing.assert_close(embed_images(model, images, batch_size=2), torch.zeros(5, 2))  # image + mirror
    assert out.dtype == torch.float32 and out.device.type == "cpu"
    assert [batch for batch, _, _ in model.calls[:3]] == [2, 2, 1]
    assert all(inference and channels_last for _, inference, channels_last in model.calls)
    assert model.training and model.drop.training and not model.frozen.training


def test_modes_are_restored_after_an_error():
    model = Corner()
    with pytest.raises(DataError):
        embed_images(model, [b"not an image"])
    assert model.training and not model.frozen.training


def encode(image, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, **options)
    return stream.getvalue()


def test_encoded_images_and_their_pixels_embed_alike():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    encoded = [encode(image, format="PNG") for image in pixels]
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    torch.testing.assert_close(
        embed_images(Corner(), encoded, flip=False, batch_size=2), embed_images(Corner(), tensor, flip=False)
    )
    torch.testing.assert_close(pixel_embeddings(encoded), pixel_embeddings(tensor))


def test_pixel_embeddings_are_blind_to_brightness_and_contrast():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 100, (1, 1, 28, 28), dtype=np.uint8).repeat(3, 1)
    flat = np.full_like(grey, 9)
    vectors = pixel_embeddings(torch.from_numpy(np.concatenate([grey, 2 * grey + 20, flat, grey])))
    assert vectors.shape == (4, 28 * 28) and vectors.dtype == torch.float32
    np.testing.assert_allclose(pair_cosines(vectors), [1.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(vectors[0], (grey[0, 0] - grey[0, 0].mean()).ravel(), atol=1e-3)


# --- what is printed -------------------------------------------------------------------------------------------------


def test_hardest_pairs_come_worst_first():
    cosines, is_same = [0.9, 0.1, 0.5, 0.8, -0.2, 0.3], [1, 1, 1, 0, 0, 0]
    same, different = hardest_pairs(cosines, is_same, 2)
    assert same.tolist() == [1, 2] and different.tolist() == [3, 5]
    same, different = hardest_pairs(cosines, is_same, 10)
    assert len(same) == len(different) == 3


def test_summary_says_what_matters_and_where_pairs_are_too_few():
    is_same = np.tile([True, False], 1000)
    text = summary(verify_pairs(at_degrees(np.where(is_same, 30.0, 85.0)), is_same))
    assert "100.00% +- 0.00%" in text and "2,000 pairs" in text
    at_1e2, at_1e3 = (line for line in text.splitlines() if line.startswith("TAR"))
    assert "1e-02" in at_1e2 and "few" not in at_1e2
    assert "1e-03" in at_1e3 and "few" in at_1e3 and "10,000" in at_1e3
    assert "cosine 0.865 = below 30.1 degrees = below squared L2 0.270" in text and "note" not in text
    sorted_pairs = verify_pairs(at_degrees(np.where(is_same, 30.0, 85.0)), np.sort(is_same))
    assert sorted_pairs["one_kind_folds"] == 10 and "10 folds hold one kind" in summary(sorted_pairs)


# --- bad input: one sentence that names the place ---------------------------------------------------------------------


def spoilt(row, value):
    embeddings, is_same = make_pairs(20)
    embeddings[row:] = value
    return embeddings, is_same


@pytest.mark.parametrize(
    ("embeddings", "is_same", "folds", "says"),
    [
        (np.ones((5, 2)), [True, False], 2, r"\(5, 2\)"),
        (np.ones(8), [True, False], 2, r"\(8,\)"),
        (np.ones((0, 2)), [], 2, r"\(0, 2\)"),
        (np.ones((8, 2)), [True, False, True], 2, r"8 embeddings make 4 pairs, but is_same has shape \(3,\)"),
        (np.ones((8, 2)), [True] * 4, 2, "all 4 pairs are of the same person"),
        (np.ones((8, 2)), [False] * 4, 2, "all 4 pairs are of different people"),
        (np.ones((8, 2)), [True, False] * 2, 10, "4 pairs cannot be cut into 10 folds"),
        (np.ones((8, 2)), [True, False] * 2, 1, "4 pairs cannot be cut into 1 folds"),
        (*spoilt(7, np.nan), 10, r"row 7 \(pair 3\) is not finite"),
        (*spoilt(9, np.inf), 10, r"row 9 \(pair 4\) is not finite"),
        (*spoilt(4, 0.0), 10, r"row 4 \(pair 2\) has no length"),
    ],
)
def test_bad_pairs_are_named(embeddings, is_same, folds, says):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=says):
            verify_pairs(embeddings, is_same, folds)


@pytest.mark.parametrize("curve", [roc, tar_at_far])
def test_bad_scores_are_named(curve):
    with pytest.raises(DataError, match=r"\(3,\) and is_same of shape \(2,\)"):
        curve([0.1, 0.2, 0.3], [True, False])
    with pytest.raises(DataError, match="score of pair 1 is not a number"):
        curve([0.1, np.nan, 0.3], [True, False, True])
    with pytest.raises(DataError, match="all 2 pairs are of the same person"):
        curve([0.1, 0.2], [True, True])
    with pytest.raises(DataError, match="no pairs"):
        curve([], [])


@pytest.mark.parametrize("embedder", [lambda images: embed_images(Corner(), images), pixel_embeddings])
def test_bad_images_are_named(embedder):
    with pytest.raises(DataError, match=r"float32 \(2, 3, 8, 8\)"):
        embedder(torch.zeros(2, 3, 8, 8))
    with pytest.raises(DataError, match=r"\(2, 8, 8, 3\)"):
        embedder(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="no images"):
        embedder([])
    good = encode(np.zeros((112, 112, 3), np.uint8), format="PNG")
    with pytest.raises(DataError, match="image 2"):
        embedder([good, good, b"\xff\xd8 broken"])


# --- thresholds, thin curves, sizes -----------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(scored_pairs, st.floats(0, 1))
def test_operating_points_do_what_they_say(pairs, far):
    scores, is_same = np.array([score / 13 for score, _ in pairs]), np.array([same for _, same in pairs])
    point = operating_points(scores, is_same, (far,))[far]
    accepted = scores > point["threshold"]["cosine"]
    assert accepted[is_same].mean() == point["tar"] and accepted[~is_same].mean() == point["far"]
    assert point["tar"] == tar_at_far(scores, is_same, (far,))[far]


def test_three_units_and_too_few():
    assert in_three_units(0.5) == pytest.approx({"cosine": 0.5, "degrees": 60, "squared_l2": 1})
    assert in_three_units(-1.0000001)["degrees"] == 180
    assert too_few(10_000, 1e-3) == "" and "9,999 pairs" in too_few(9_999, 1e-3) and "10,000" in too_few(9_999, 1e-3)


def test_a_thin_curve_keeps_points_of_the_curve_evenly_over_log_far():
    rng = np.random.default_rng(0)
    is_same = rng.random(50_000) < 0.3
    fpr, tpr, _ = roc(rng.normal(size=50_000) + is_same, is_same)
    thin_fpr, thin_tpr = thin(fpr, tpr, 300)
    assert 200 < len(thin_fpr) <= 300 and thin_fpr[-1] == thin_tpr[-1] == 1 and thin_fpr[0] == thin_tpr[0] == 0
    known = dict(zip(fpr.tolist(), tpr.tolist(), strict=True))  # of one FPR the last, with the highest TPR
    assert all(known[x] == y for x, y in zip(thin_fpr.tolist()[1:], thin_tpr.tolist()[1:], strict=True))
    steps = np.diff(np.log10(thin_fpr[thin_fpr > 1e-3]))
    assert steps.max() < 0.05
    assert thin(fpr[:10], tpr[:10])[0].tolist() == fpr[:10].tolist()  # few points stay as they are
