"""Does a measure of image quality know which pairs will be judged wrongly? The error-versus-reject curve.

The threshold is fixed first, for all pairs. Then pairs are rejected, the worst first, and the share of same-person
pairs that the threshold still loses is followed (Grother and Tabassi, 2007). A pair is as good as the worse of its
images. A measure that knows nothing keeps the error where it was; the best one rejects what would be lost, and nothing
else.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_edu.errors import DataError


def error_versus_reject(cosines: np.ndarray, quality: np.ndarray, threshold: float) -> np.ndarray:
    """Return the share of same-person pairs that are lost (FNMR) once 0, 1, ... 95 % of them are rejected, (96,).

    Args:
        cosines: (N,), of same-person pairs.
        quality: (N,), of each pair: what is rejected first is lowest. Pairs of one quality go together.
        threshold: A pair with a cosine below it is lost.

    Raises:
        DataError: No pair, or not a quality for each.
    """
    if not len(cosines) or len(cosines) != len(quality):
        raise DataError(f"{len(cosines)} same-person pairs and {len(quality)} qualities: rejection needs one for each.")
    order = np.argsort(quality, kind="stable")
    lost = (cosines < threshold)[order].astype(float)
    _, group, sizes = np.unique(quality[order], return_inverse=True, return_counts=True)
    lost = (np.bincount(group, lost) / sizes)[group]  # within a group any pair may go: what is lost on average
    kept = len(lost) - (np.arange(96) * len(lost)) // 100
    return np.array([lost[-count:].mean() for count in kept])


def best_reject(lost: float) -> np.ndarray:
    """Return the curve of a measure that knows every pair that is lost, (96,), for that share of lost pairs."""
    rejected = np.arange(96) / 100
    return np.maximum(lost - rejected, 0) / (1 - rejected)


def pair_quality(of_images: np.ndarray) -> np.ndarray:
    """Return the quality of pairs, (N,): that of the worse image of each; of_images: (2N,), side by side."""
    return np.minimum(of_images[0::2], of_images[1::2])


def sharpness(images: Sequence[Tensor]) -> np.ndarray:
    """Return the variance of the Laplacian of each grey image, (N,): large where edges are sharp.

    Args:
        images: uint8 (3, H, W) each.
    """
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return np.array([F.conv2d(image.float().mean(0)[None, None], kernel).var().item() for image in images])
