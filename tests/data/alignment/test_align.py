"""The warp to the template: the matrix against least squares, the pixels against analytic pictures and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_edu import align
from arcface_edu.data.alignment.align import TEMPLATE, similarity, warp
from arcface_edu.errors import DataError


def by_least_squares(source, target):
    """The four numbers a, b, c, d of u = ax - by + c, v = bx + ay + d, from the system of 2N equations."""
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, c, d = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5), st.floats(-3.1, 3.1), st.floats(0, 20))
def test_the_matrix_is_that_of_least_squares(seed, scale, turn, noise):
    rng = np.random.default_rng(seed)
    turned = scale * TEMPLATE @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = turned + rng.uniform(-200, 200, 2) + noise * rng.normal(size=(5, 2))
    np.testing.assert_allclose(similarity(points, TEMPLATE), by_least_squares(points, TEMPLATE), rtol=1e-7, atol=1e-6)


def test_a_known_similarity_is_found_back():
    matrix = similarity(TEMPLATE @ np.array([[0.0, 2.0], [-2.0, 0.0]]) + [10, 20], TEMPLATE)  # turned by 90 degrees
    np.testing.assert_allclose(matrix[:, :2], [[0, 0.5], [-0.5, 0]], atol=1e-12)


def test_a_face_in_its_place_stays_as_it_is_and_a_shifted_one_comes_back():
    image = torch.randint(0, 256, (3, 150, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(align(image, TEMPLATE), image[:, :112, :112])
    assert torch.equal(align(image, TEMPLATE + np.array([31, 17])), image[:, 17:129, 31:143])
    assert not align(image, TEMPLATE + 1000).any()  # black outside the picture


def test_a_slope_stays_a_slope():
    # Bilinear sampling is exact on a plane: the grey 0.7 x + 0.4 y, at half the size and turned by 20 degrees.
    x, y = np.meshgrid(np.arange(200), np.arange(200))
    image = torch.from_numpy(np.rint(0.7 * x + 0.4 * y).astype(np.uint8)).expand(3, -1, -1)
    turn = np.radians(20)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 3.0], [np.sin(turn), np.cos(turn), -8.0]]) * 0.6
    out = warp(image, matrix, 112).numpy()[0]
    u, v = np.meshgrid(np.arange(112), np.arange(112))
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    sx, sy, _ = np.einsum("ij,jhw->ihw", inverse, np.stack([u, v, np.ones_like(u)]))
    inside = (sx > 1) & (sx < 198) & (sy > 1) & (sy < 198)
    assert inside.sum() > 5000
    assert abs(out - (0.7 * sx + 0.4 * sy))[inside].max() < 1.1  # 1/2 for rounding twice, and 1/32 pixel


def slow_warp(image, matrix, size):
    """Pixel by pixel in floats, places on a grid of 1/32 pixel."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    height, width = image.shape[1:]
    out = np.zeros((3, size, size))
    for v in range(size):
        for u in range(size):
            place = inverse @ [u, v, 1]
            x, y = np.floor(place[:2] * 32 + 0.5) / 32
            for row, below in ((int(np.floor(y)), 1 - y % 1), (int(np.floor(y)) + 1, y % 1)):
                for column, right in ((int(np.floor(x)), 1 - x % 1), (int(np.floor(x)) + 1, x % 1)):
                    if 0 <= row < height and 0 <= column < width:
                        out[:, v, u] += below * right * image[:, row, column]
    return np.floor(out + 0.5)


def test_the_warp_equals_its_loop():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (3, 30, 40), dtype=np.uint8)
    matrix = np.array([[0.8, -0.3, 4.2], [0.3, 0.8, -3.1]])
    ours, slow = warp(torch.from_numpy(image), matrix, 32).numpy(), slow_warp(image, matrix, 32)
    assert (slow == 0).any() and (slow > 0).mean() > 0.5
    # Places are rounded by parts there, which now and then ends on the neighbouring 1/32 of a pixel.
    assert (ours == slow).mean() > 0.9
    assert abs(ours - slow).max() <= 12


@pytest.mark.parametrize(
    ("image", "points", "says"),
    [
        (torch.zeros(3, 9, 9), TEMPLATE, r"float32 \(3, 9, 9\)"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), TEMPLATE, r"\(9, 9, 3\)"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), TEMPLATE[:4], r"\(4, 2\) for \(5, 2\)"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), TEMPLATE * np.nan, "finite"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), np.ones((5, 2)), r"all 5 points of the face are \(1, 1\)"),
    ],
)
def test_bad_input_is_named(image, points, says):
    with pytest.raises(DataError, match=says):
        align(image, points)
