"""Faces in a photograph, and five landmarks of each: MTCNN, three small networks in a row (Zhang et al. 2016).

P-Net looks at the picture in many sizes for what may be a face, R-Net and O-Net are larger and look again at what is
left, and O-Net says where eyes, nose and mouth are. The trained weights are those in the package `mtcnn` by Iván de
Paz Centeno (MIT licence), which `pip install -e ".[detect]"` brings: 2 MB, of which nothing but the numbers is used.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from arcface_edu.errors import from_extra

SHRINK = 0.709  # from one size of the picture to the next: half the area
WINDOW, STRIDE = 12, 2  # the receptive field of P-Net and the step between two, in pixels
THRESHOLDS = (0.6, 0.7, 0.7)  # the probability of a face from which P-Net, R-Net, O-Net keep it


class Stage(nn.Module):
    """Convolutions, perhaps a hidden layer, and an output layer for each of `outputs`.

    Args:
        convolutions: (in channels, out channels, kernel, size of the max-pooling or 0) of each.
        hidden: (in, out) of a linear layer, or None: the network runs over whole pictures.
        outputs: Channels of each output.
    """

    def __init__(
        self,
        convolutions: Sequence[tuple[int, int, int, int]],
        hidden: tuple[int, int] | None,
        outputs: Sequence[int],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels, out_channels, kernel, pool in convolutions:
            layers += [nn.Conv2d(in_channels, out_channels, kernel), nn.PReLU(out_channels)]
            layers += [nn.MaxPool2d(pool, 2, ceil_mode=True)] if pool else []
        if hidden:
            layers += [FlattenByColumns(), nn.Linear(*hidden), nn.PReLU(hidden[1])]
        self.trunk = nn.Sequential(*layers)
        features = hidden[1] if hidden else convolutions[-1][1]
        self.heads = nn.ModuleList(nn.Linear(features, n) if hidden else nn.Conv2d(features, n, 1) for n in outputs)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        features = self.trunk(pictures)
        return [head(features) for head in self.heads]


class FlattenByColumns(nn.Module):
    """(B, C, H, W) -> (B, W * H * C): the order of the published weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class Mtcnn:
    """`detector(image)` -> boxes (N, 4), points (N, 5, 2), in pixels, float32; the largest face first.

    The image is uint8 (3, H, W) RGB. Points stand in the order of `alignment.align.TEMPLATE`.

    Raises:
        ConfigError: The weights are not installed.
    """

    def __init__(self) -> None:
        with from_extra("detect", "finding faces"):
            import joblib
            import lz4  # noqa: F401  (joblib needs it for these files, and fails with less clear words)

            folder = weights_folder()
        box, points, face = 4, 10, 2
        self.pnet = Stage([(3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)], None, (box, face))
        self.rnet = Stage([(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)], (576, 128), (box, face))
        self.onet = Stage(
            [(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)], (1152, 256), (box, points, face)
        )
        for name in ("pnet", "rnet", "onet"):
            load_weights(getattr(self, name), joblib.load(folder / f"{name}.lz4"))

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        picture = (image[None].float() - 127.5) / 128
        boxes, _ = refine(self.rnet, picture, self.propose(picture), 24, THRESHOLDS[1], 0.7)
        boxes, points = refine(self.onet, picture, boxes, 48, THRESHOLDS[2], 0.3)
        by_size = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(descending=True)
        return boxes[by_size], points[by_size]

    def propose(self, picture: Tensor) -> Tensor:
        """Return (N, 4) boxes of possible faces, as large as a tenth of the shorter side of `picture` (1, 3, H, W)."""
        sides = torch.tensor(picture.shape[2:])
        scale = WINDOW / max(20.0, sides.min().item() / 10)
        found = []
        while sides.min() * scale >= WINDOW:
            smaller = F.interpolate(picture, size=(sides * scale + 1).int().tolist(), mode="area")
            shifts, faces = self.pnet(smaller)
            probability = faces[0].softmax(0)[1]  # (h, w)
            windows = (probability > THRESHOLDS[0]).nonzero()
            corner = windows.flip(1) * STRIDE  # x, y
            boxes = torch.cat([corner + 1, corner + WINDOW], 1) / scale
            scores = probability[windows[:, 0], windows[:, 1]]
            shift = shifts[0][:, windows[:, 0], windows[:, 1]].T
            keep = nms(boxes, scores, 0.5)
            found.append((boxes[keep], scores[keep], shift[keep]))
            scale *= SHRINK
        if not found:
            return torch.zeros(0, 4)
        boxes, scores, shift = map(torch.cat, zip(*found, strict=True))
        keep = nms(boxes, scores, 0.7)
        return shift_sides(boxes[keep], shift[keep])


def refine(
    stage: Stage, picture: Tensor, boxes: Tensor, size: int, threshold: float, overlap: float
) -> tuple[Tensor, Tensor]:
    """Return the boxes that a stage takes for faces as well, corrected, and its landmarks.

    Args:
        stage: R-Net or O-Net.
        picture: (1, 3, H, W) float.
        boxes: (N, 4), in pixels.
        size: Side of the stage's input.
        threshold: The probability of a face to keep a box.
        overlap: Of two boxes that share more than that, the less probable one goes.

    Returns:
        (K, 4) boxes, and (K, 5, 2) points, or (0, 5, 2) from a stage that gives none.
    """
    if not len(boxes):
        return boxes, torch.zeros(0, 5, 2)
    boxes = squares(boxes).round()
    shifts, *shares, faces = stage(torch.cat([crop(picture, box, size) for box in boxes]))
    scores = faces.softmax(1)[:, 1]
    likely = (scores > threshold).nonzero()[:, 0]
    corrected = shift_sides(boxes[likely], shifts[likely])
    kept = nms(corrected, scores[likely], overlap)
    points = points_in_boxes(boxes, shares[0])[likely][kept] if shares else torch.zeros(0, 5, 2)
    return corrected[kept], points


def weights_folder() -> Path:
    """Return where the package `mtcnn` keeps its weights. It is not imported: its own networks take TensorFlow."""
    package = find_spec("mtcnn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(name="mtcnn")
    return Path(package.submodule_search_locations[0]) / "assets" / "weights"


def load_weights(stage: Stage, arrays: Sequence[np.ndarray]) -> None:
    """Copy weights into a stage, in their order: kernels as (h, w, in, out), matrices as (in, out), biases, slopes."""
    for parameter, array in zip(stage.parameters(), arrays, strict=True):
        weight = torch.from_numpy(array)
        weight = weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T if weight.ndim == 2 else weight
        parameter.data.copy_(weight.reshape(parameter.shape))


def shift_sides(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Move each side of the boxes (N, 4) by a share (N, 4) of the box's size."""
    return boxes + shifts * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def points_in_boxes(boxes: Tensor, shares: Tensor) -> Tensor:
    """Return points (N, 5, 2) from shares (N, 10) of the boxes (N, 4): five of the width, five of the height."""
    return boxes[:, None, :2] + shares.unflatten(1, (2, 5)).mT * (boxes[:, 2:] - boxes[:, :2])[:, None]


def squares(boxes: Tensor) -> Tensor:
    """Return boxes (N, 4) of the same centres, as wide and as high as their longer side."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def crop(picture: Tensor, box: Tensor, size: int) -> Tensor:
    """Return the part of a picture (1, 3, H, W) within an integer box (4,), (1, 3, size, size); outside is grey."""
    height, width = picture.shape[2:]
    x1, y1, x2, y2 = box.int().tolist()
    inside = picture[:, :, max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    around = (max(-x1, 0), max(x2 - width, 0), max(-y1, 0), max(y2 - height, 0))
    return F.interpolate(F.pad(inside, around), size=(size, size), mode="area")
