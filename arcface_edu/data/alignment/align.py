"""Turning a photograph so that the face in it lies as the networks know it: five points onto a template of 112 x 112.

The warp is the published one: the similarity (rotation, one scale, shift; no mirror) that brings the points nearest to
the template in the sense of least squares, then bilinear sampling on a grid of 1/32 pixel, black outside the picture.
"""

import numpy as np
import torch

from arcface_edu.errors import DataError

# Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them; (x, y) in pixels of 112 x 112.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
STEPS = 32  # places between two pixels that are told apart, as in OpenCV
FINER = 32  # rounding before that is done on a grid finer by so much


def align(image, points, size=112):
    """The face of a photograph, in the template's place.

    image: uint8 (3, H, W) RGB tensor.   points: (5, 2), x and y in pixels, in the order of TEMPLATE.
    returns: uint8 (3, size, size).   raises: DataError (shapes, points that are not finite or all in one place).
    """
    image = torch.as_tensor(image)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise DataError(f"the image to align is {image.dtype} {tuple(image.shape)}; wanted is uint8 (3, H, W), RGB")
    return warp(image, similarity(points, TEMPLATE * (size / 112)), size)


def similarity(source, target):
    """The similarity that carries `source` nearest to `target`, by least squares (Umeyama 1991, eqs. 40 to 42).

    source, target: (N, 2) points, N >= 2.   returns: (2, 3) float64, target ~ matrix @ (x, y, 1).   raises: DataError.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or not np.isfinite(source).all():
        raise DataError(f"points of shape {source.shape} for {target.shape}: wanted are as many finite (x, y)")
    centre, target_centre = source.mean(0), target.mean(0)
    centred = source - centre
    spread = (centred**2).sum()
    if spread == 0:
        raise DataError(f"all {len(source)} points of the face are ({centre[0]:g}, {centre[1]:g}): they show no face")
    # In the plane a turn with a scale is a multiplication by one complex number a + ib, and least squares finds it.
    x, y = centred.T
    u, v = (target - target_centre).T
    a, b = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, target_centre - turn @ centre])


def warp(image, matrix, size):
    """`image` (3, H, W) uint8 under an affine matrix (2, 3) from its pixels to those of the outcome (3, size, size).

    Each pixel of the outcome looks up where it came from, mixes the four pixels around that place, and rounds. All is
    done in whole numbers, as warpAffine of OpenCV 3 and 4 does it, and comes out the same to the last bit (OpenCV 5
    interpolates between any two places; on noise it differs by up to 7 of 255).
    """
    turn = np.linalg.inv(matrix[:, :2])
    shift = -turn @ matrix[:, 2]
    grid = np.arange(size, dtype=np.float64)
    whole = STEPS * FINER
    # rint by parts, since that is how the places are rounded there: x and y of column and row, each on its own.
    along = np.rint(turn[:, :1] * grid * whole).astype(np.int64)  # (2, size), what the column adds
    down = np.rint((turn[:, 1:] * grid + shift[:, None]) * whole).astype(np.int64)  # (2, size), what the row adds
    places = (down[:, :, None] + along[:, None, :] + FINER // 2) // FINER  # (2, size, size), 1/32 pixels
    (x, y), (right, below) = places // STEPS, places % STEPS

    height, width = image.shape[1:]
    pixels = np.pad(np.moveaxis(np.asarray(image), 0, 2), ((1, 1), (1, 1), (0, 0)))  # black around

    def at(row, column):
        return pixels[np.clip(row + 1, 0, height + 1), np.clip(column + 1, 0, width + 1)].astype(np.int64)

    right, below = right[..., None], below[..., None]
    mixed = (at(y, x) * (STEPS - right) + at(y, x + 1) * right) * (STEPS - below)
    mixed += (at(y + 1, x) * (STEPS - right) + at(y + 1, x + 1) * right) * below
    rounded = (mixed + STEPS * STEPS // 2) // STEPS**2
    return torch.from_numpy(rounded.astype(np.uint8)).permute(2, 0, 1).contiguous()
