"""Templates against slow plain loops, closed forms, folders, and a sentence for whatever is wrong with them."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from arcface_edu import pool_templates, score_pairs, tar_at_far
from arcface_edu.data.alignment.align import TEMPLATE, warp
from arcface_edu.data.images import encode_png
from arcface_edu.errors import DataError
from arcface_edu.evaluation import ijb, ijb_files
from arcface_edu.evaluation.ijb import image_weights, subjects_of
from arcface_edu.evaluation.ijb_files import embed_crops, read_protocol


def slow_pool(features, templates, media, weights):
    """Template by template, medium by medium."""
    pooled, ids = [], sorted(set(templates.tolist()))
    for template in ids:
        total = np.zeros(features.shape[1])
        for medium in set(media[templates == template].tolist()):
            of_medium = (templates == template) & (media == medium)
            total += (features * weights[:, None])[of_medium].mean(0)
        pooled.append(total / np.linalg.norm(total))
    return np.array(pooled), ids


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 10**6))
def test_pooling_equals_its_loop(images, kinds, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, 6))
    templates, media = rng.integers(-3, kinds, images) * 7, rng.integers(0, 3, images)
    weights = rng.uniform(0.1, 1, images)
    for factor in (None, weights):
        pooled, ids = pool_templates(features, templates, media, factor)
        slow, slow_ids = slow_pool(features, templates, media, np.ones(images) if factor is None else factor)
        assert ids.tolist() == slow_ids
        np.testing.assert_allclose(pooled, slow, atol=1e-12)
        single = pool_templates(torch.tensor(features, dtype=torch.float32), templates, media, factor)[0]
        np.testing.assert_allclose(single, slow, atol=3e-5)


def test_a_medium_counts_once_however_many_frames_it_has():
    features = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    pooled, ids = pool_templates(features, [5, 5, 5, 5, 2], [1, 1, 1, 2, 1])
    np.testing.assert_allclose(pooled, [[0.6, 0.8], [0.5**0.5, 0.5**0.5]])
    assert ids.tolist() == [2, 5]


def test_switches_by_hand():
    features, detector = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([0.5, 0.9])
    expected = {"N1D0F1": [1, 1], "N0D0F1": [0.2, 0.5], "N1D1F0": [0.5, 0.9], "N0D1F0": [0.1, 0.45]}
    for switches, weights in expected.items():
        np.testing.assert_allclose(image_weights(features, detector, switches), weights)


@pytest.mark.parametrize("dense", [0, 10**9])  # each pair by itself; all cosines of a block
@pytest.mark.parametrize("rows", [2, 512])
@pytest.mark.parametrize("spread", [1, 10**6])  # ids that fit into a table, and ids that are searched
def test_scores_equal_the_dot_products(monkeypatch, dense, rows, spread):
    monkeypatch.setattr(ijb, "DENSE", dense)
    monkeypatch.setattr(ijb, "ROWS", rows)
    rng = np.random.default_rng(0)
    ids = spread * (rng.permutation(1000)[:30] - 100)
    pooled = rng.normal(size=(30, 8))
    first, second = rng.choice(ids, (2, 9000))
    place = {template: row for row, template in enumerate(ids.tolist())}
    slow = [pooled[place[a]] @ pooled[place[b]] for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    np.testing.assert_allclose(score_pairs(pooled, ids, first, second), slow, atol=1e-12)


def test_more_than_256_blocks(monkeypatch):
    monkeypatch.setattr(ijb, "ROWS", 1)
    pooled, ids = np.random.default_rng(1).normal(size=(300, 4)), np.arange(300)
    scores = score_pairs(pooled, ids, np.repeat(ids, 300), np.tile(ids, 300))
    np.testing.assert_allclose(scores.reshape(300, 300), pooled @ pooled.T, atol=1e-12)


def test_people_are_those_whom_same_person_pairs_join():
    ids = np.array([9, 4, 7, 1, 3])
    first, second = np.array([9, 7, 3, 9]), np.array([4, 4, 1, 1])
    one, other = subjects_of(ids, first, second, np.array([True, True, False, False]))
    assert one[0] == other[0] == one[1] == one[3]  # 9 = 4 = 7
    assert len({one[0], one[2], other[2]}) == 3  # 3 and 1 are others
    assert other[2] == other[3]  # 1
    chain = np.arange(50)  # joined one to the next: everybody is one person
    one, other = subjects_of(np.arange(51)[::-1], chain, chain + 1, np.ones(50, bool))
    assert not one.any() and not other.any()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pool_templates(np.ones((3, 2)), [1, 1], [1, 1]), r"\(3, 2\), templates \(2,\)"),
        (lambda: pool_templates(np.ones((0, 2)), [], []), r"\(0, 2\)"),
        (
            lambda: pool_templates([[1.0, 2.0], [np.nan, 1.0]], [4, 8], [1, 1]),
            "template 8, of 1 images from row 1 on, is",
        ),
        (lambda: pool_templates([[1.0, 2.0], [-1.0, -2.0]], [4, 4], [1, 2]), "template 4, of 2 images.*no length"),
        (lambda: score_pairs(np.eye(2), [1, 1], [1], [1]), "template 1 stands twice"),
        (lambda: score_pairs(np.eye(2), [1, 5], [1, 1, 3], [5, 5, 5]), "pair 2 names template 3, which has no image"),
        (lambda: score_pairs(np.eye(2), [1, 5], [1, 1], [5, 9]), r"pair 1 names template 9, .*\(1 of 2 pairs"),
        (lambda: score_pairs(np.eye(2), [1, 10**9], [1], [7]), "pair 0 names template 7"),
        (lambda: score_pairs(np.eye(2), [1], [1], [1]), r"2 pooled templates have ids of shape \(1,\)"),
        (lambda: score_pairs(np.eye(2), [1, 5], [1], [5, 1]), r"\(1,\) first and \(2,\) second"),
    ],
)
def test_bad_arrays_are_named(call, says):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=says):
            call()


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """An IJB folder: four templates of two people, 3 faces each, in crops of 150 x 140 that lie anyhow."""
    rng = np.random.default_rng(0)
    (tmp_path / "meta").mkdir()
    (tmp_path / "loose_crop").mkdir()
    people = torch.from_numpy(rng.integers(0, 256, (2, 3, 14, 14), dtype=np.uint8).repeat(8, 2).repeat(8, 3))
    images, points = [], []
    for row in range(12):
        turn = np.array([[np.cos(angle := rng.uniform(-0.4, 0.4)), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = np.column_stack([turn, [70, 75] - turn @ [56, 56]])  # about the middle
        crop = warp(people[row // 3 % 2], matrix, 150)[:, :140]
        (tmp_path / "loose_crop" / f"{row + 1}.jpg").write_bytes(encode_png(crop))
        images.append(f"{row + 1}.jpg {row // 3 * 10} {row % 3 // 2}")
        at = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
        points.append(f"{row + 1}.jpg {' '.join(f'{p:.6f}' for p in at.ravel())} {0.5 + row / 100:.3f}")
    pairs = ["0 20 1", "10 30 1", "0 10 0", "20 30 0", "0 30 0"]
    for name, lines in (("face_tid_mid", images), ("name_5pts_score", points), ("template_pair_label", pairs)):
        (tmp_path / "meta" / f"ijbc_{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


class Pixels(torch.nn.Module):
    """Blurred pixels, so that a crop that is put right once more is much like another of the same face."""

    def forward(self, faces):
        return torch.nn.functional.avg_pool2d(faces, 8)[:, :, 2:-3, 2:-2].flatten(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_from_its_files_to_tar(folder, workers):
    protocol = read_protocol(folder)
    assert protocol.name == "IJBC" and len(protocol.images) == 12 and protocol.is_same.sum() == 2
    np.testing.assert_allclose(protocol.detector[[0, 11]], [0.5, 0.61], rtol=1e-6)
    features = embed_crops(Pixels(), protocol, flip=False, batch_size=5, workers=workers)
    pooled, ids = pool_templates(features, protocol.templates, protocol.media)
    assert ids.tolist() == [0, 10, 20, 30]
    scores = score_pairs(pooled, ids, protocol.first, protocol.second)
    assert scores[protocol.is_same].min() > scores[~protocol.is_same].max() + 0.3
    assert tar_at_far(scores, protocol.is_same)[1e-6] == 1
    assert not np.allclose(embed_crops(Pixels(), protocol, flip=True), features)


def test_without_progress_bars_each_image_keeps_its_place(folder, monkeypatch):
    protocol = read_protocol(folder)
    expected = embed_crops(Pixels(), protocol, batch_size=5)
    monkeypatch.setattr(ijb_files, "tqdm", partial(tqdm, disable=True))  # as TQDM_DISABLE=1 would
    np.testing.assert_array_equal(embed_crops(Pixels(), protocol, batch_size=5), expected)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("face_tid_mid", "3.jpg 0 1\n", "", "lists 11 images and .*name_5pts_score.txt 12"),
        ("face_tid_mid", "3.jpg 0 1", "33.jpg 0 1", "line 3 is 33.jpg in .* and 3.jpg in"),
        ("face_tid_mid", "3.jpg 0 1", "3.jpg zero 1", 'of the form "name template medium".*zero'),
        ("face_tid_mid", "3.jpg 0 1", "3.jpg 0", r'face_tid_mid.txt is not of the form "name template medium"'),
        ("name_5pts_score", " 0.520", "", "name_5pts_score.txt is not of the form"),
        ("name_5pts_score", " 0.520", " nan", "name_5pts_score.txt, line 3: a point or the score is not a number"),
        ("template_pair_label", "0 20 1", "0 20 2", "template_pair_label.txt, line 1: the label is 2"),
        ("template_pair_label", "0 20 1", "0,20,1", "template_pair_label.txt is not of the form"),
    ],
)
def test_meta_files_of_another_format_are_named(folder, file, old, new, says):
    edit(folder / "meta" / f"ijbc_{file}.txt", old, new)
    with pytest.raises(DataError, match=says):
        read_protocol(folder)


def test_an_image_twice_in_a_template_is_named(folder):
    for file in ("face_tid_mid", "name_5pts_score"):
        path = folder / "meta" / f"ijbc_{file}.txt"
        path.write_text(path.read_text().replace("2.jpg", "1.jpg", 1))
    with pytest.raises(DataError, match=r"lists 1\.jpg in template 0 twice"):
        read_protocol(folder)


def test_missing_files_are_named(folder):
    (folder / "loose_crop" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"loose_crop/7.jpg: cannot be read"):
        embed_crops(Pixels(), read_protocol(folder), workers=1)
    (folder / "loose_crop" / "7.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"loose_crop/7.jpg: not an image"):
        embed_crops(Pixels(), read_protocol(folder))
    (folder / "meta" / "ijbc_name_5pts_score.txt").unlink()
    with pytest.raises(DataError, match=r"ijbc_name_5pts_score.txt is missing"):
        read_protocol(folder)
    with pytest.raises(DataError, match=r"meta holds 0 files \*_face_tid_mid.txt"):
        read_protocol(folder / "loose_crop")
