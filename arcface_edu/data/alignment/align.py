"""The warp that brings a face to where the networks expect it: five landmarks onto a template of 112 x 112.

It is the published one: the similarity (rotation, one scale, shift; no mirror) that brings the landmarks nearest to
the template in the sense of least squares, then bilinear sampling on a grid of 1/32 pixel, black outside the picture.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arcface_edu.errors import DataError

# Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them; (x, y) in pixels of 112 x 112.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
SUBPIXELS = 32  # positions between two pixels that are told apart, as in OpenCV
FINER = 32  # rounding before that is done on a grid finer by so much


def align(image: Tensor | np.ndarray, points: ArrayLike, size: int = 112) -> Tensor:
    """Cut the face out of a photograph, turned and scaled so that its landmarks lie on the template.

    Args:
        image: uint8 (3, H, W) RGB.
        points: (5, 2), x and y in pixels, in the order of TEMPLATE.
        size: Side of the result.

    Returns:
        uint8 (3, size, size).

    Raises:
        DataError: Wrong shapes; points that are not finite, or all at one position.
    """
    image = torch.as_tensor(image)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise DataError(f"the image to align is {image.dtype} {tuple(image.shape)}; wanted is uint8 (3, H, W), RGB")
    return warp(image, similarity(points, TEMPLATE * (size / 112)), size)


def similarity(source: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Return the similarity that brings `source` nearest to `target` by least squares (Umeyama 1991, eqs. 40 to 42).

    Args:
        source: (N, 2) points, N >= 2.
        target: (N, 2) points.

    Returns:
        (2, 3) float64, target ~ matrix @ (x, y, 1).

    Raises:
        DataError: Shapes that differ; points that are not finite, or all at one position.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or not np.isfinite(source).all():
        raise DataError(f"points of shape {source.shape} for {target.shape}: wanted are as many finite (x, y)")
    centre, target_centre = source.mean(0), target.mean(0)
    centred = source - centre
    spread = (centred**2).sum()
    if spread == 0:
        raise DataError(f"all {len(source)} points of the face are ({centre[0]:g}, {centre[1]:g}): they show no face")
    # In the plane a rotation with a scale is a product with one complex number a + ib; least squares finds it.
    x, y = centred.T
    u, v = (target - target_centre).T
    a, b = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    rotation = np.array([[a, -b], [b, a]])
    return np.column_stack([rotation, target_centre - rotation @ centre])


def warp(image: Tensor, matrix: np.ndarray, size: int) -> Tensor:
    """Apply an affine map to an image: uint8 (3, H, W) -> (3, size, size).

    Each output pixel looks up where it came from, mixes the four pixels around that position, and rounds. All is done
    in integers, as warpAffine of OpenCV 3 and 4 does it, and comes out the same to the last bit (OpenCV 5 interpolates
    between any two positions; on noise it differs by up to 7 of 255).

    Args:
        image: uint8 (3, H, W).
        matrix: (2, 3), from pixels of the image to pixels of the result.
        size: Side of the result.
    """
    inverse = np.linalg.inv(matrix[:, :2])
    shift = -inverse @ matrix[:, 2]
    grid = np.arange(size, dtype=np.float64)
    scale = SUBPIXELS * FINER
    # rint by parts, as OpenCV rounds: what the column adds and what the row adds, each on its own.
    of_column = np.rint(inverse[:, :1] * grid * scale).astype(np.int64)  # (2, size)
    of_row = np.rint((inverse[:, 1:] * grid + shift[:, None]) * scale).astype(np.int64)  # (2, size)
    positions = (of_row[:, :, None] + of_column[:, None, :] + FINER // 2) // FINER  # (2, size, size), 1/32 pixels
    (x, y), (right, below) = positions // SUBPIXELS, positions % SUBPIXELS

    height, width = image.shape[1:]
    pixels = np.pad(np.moveaxis(np.asarray(image), 0, 2), ((1, 1), (1, 1), (0, 0)))  # black around

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return pixels[np.clip(row + 1, 0, height + 1), np.clip(column + 1, 0, width + 1)].astype(np.int64)

    right, below = right[..., None], below[..., None]
    mixed = (at(y, x) * (SUBPIXELS - right) + at(y, x + 1) * right) * (SUBPIXELS - below)
    mixed += (at(y + 1, x) * (SUBPIXELS - right) + at(y + 1, x + 1) * right) * below
    rounded = (mixed + SUBPIXELS * SUBPIXELS // 2) // SUBPIXELS**2
    return torch.from_numpy(rounded.astype(np.uint8)).permute(2, 0, 1).contiguous()
