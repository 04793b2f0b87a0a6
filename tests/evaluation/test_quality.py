"""Error versus reject: closed forms, and measures that know everything or nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arcface_edu.errors import DataError
from arcface_edu.evaluation.quality import best_reject, error_versus_reject, pair_quality, sharpness
from arcface_edu.figures.runs import plot_reject


def plain(cosines, quality, threshold):
    """The same by sorting a list and counting, for qualities that all differ."""
    ranked = [cosine for _, cosine in sorted(zip(quality, cosines, strict=True))]
    curve = []
    for percent in range(96):
        kept = ranked[percent * len(ranked) // 100 :]
        curve.append(sum(cosine < threshold for cosine in kept) / len(kept))
    return curve


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(-1, 1), st.randoms())
def test_it_counts_what_is_lost_among_what_is_kept(cosines, threshold, random):
    quality = list(range(len(cosines)))
    random.shuffle(quality)
    found = error_versus_reject(np.array(cosines), np.array(quality), threshold)
    np.testing.assert_allclose(found, plain(cosines, quality, threshold))


def test_a_measure_that_knows_all_is_the_best_possible():
    cosines = np.linspace(-1, 1, 1000)
    np.testing.assert_allclose(error_versus_reject(cosines, cosines, -0.8), best_reject(0.1), atol=1e-12)
    assert best_reject(0.1)[:11].tolist() == pytest.approx([(0.1 - r / 100) / (1 - r / 100) for r in range(11)])


def test_one_quality_for_all_rejects_by_chance():
    np.testing.assert_allclose(error_versus_reject(np.array([0.1, 0.9, 0.2, 0.8]), np.ones(4), 0.5), 0.5)


def test_a_pair_is_as_good_as_its_worse_image():
    assert pair_quality(np.array([3, 1, 2, 5])).tolist() == [1, 2]


def test_a_blurred_image_is_less_sharp():
    image = torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    blurred = torch.nn.functional.avg_pool2d(image.float(), 3, 1, 1).to(torch.uint8)
    clear, dim = sharpness([image, blurred])
    assert dim < clear / 4
    assert sharpness([torch.full((3, 8, 8), 7, dtype=torch.uint8)]) == [0]


def test_nothing_to_reject_is_a_sentence():
    with pytest.raises(DataError, match="0 same-person pairs and 0 qualities"):
        error_versus_reject(np.empty(0), np.empty(0), 0.5)


def test_the_picture_says_what_a_fifth_brings():
    figure = plot_reject(
        {"sharpness": np.full(96, 0.1), "length": best_reject(0.1), "best possible": best_reject(0.1)}, 0.01
    )
    title = figure.axes[0].get_title(loc="left").replace("\n", " ")
    assert title == "A fifth turned away by length: 10.0% of the same-person pairs lost become 0.0%"
