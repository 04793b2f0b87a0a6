"""Faces in a photograph, and five landmarks of each: MTCNN, three small networks in a row (Zhang et al. 2016).

P-Net looks at the picture in many sizes for what may be a face, R-Net and O-Net are larger and look again at what is
left, and O-Net says where eyes, nose and mouth are. The trained weights, mtcnn.npz beside this file (fp16, 0.9 MB), are
those of the package `mtcnn` by Iván de Paz Centeno (MIT licence, in MTCNN_LICENSE.txt). The page in docs/demo finds
faces by the same three networks.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from arcface_edu.errors import DataError
from arcface_edu.io import StrPath

SHRINK = 0.709  # from one size of the picture to the next: half the area
WINDOW, STRIDE = 12, 2  # the receptive field of P-Net and the step between two, in pixels
WEIGHTS = Path(__file__).with_name("mtcnn.npz")
NETWORKS = ("pnet", "rnet", "onet")
SMALLEST = 20.0  # pixels of the smallest face that is looked for
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
            layers += [nn.Flatten(), nn.Linear(*hidden), nn.PReLU(hidden[1])]
        self.trunk = nn.Sequential(*layers)
        features = hidden[1] if hidden else convolutions[-1][1]
        self.heads = nn.ModuleList(nn.Linear(features, n) if hidden else nn.Conv2d(features, n, 1) for n in outputs)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        features = self.trunk(pictures)
        return [head(features) for head in self.heads]


class Mtcnn:
    """`detector(image)` -> boxes (N, 4), points (N, 5, 2), in pixels, float32; the largest face first.

    The image is uint8 (3, H, W) RGB. Points stand in the order of `alignment.align.TEMPLATE`.

    Args:
        weights: The file of the three networks' weights.

    Raises:
        DataError: The file is damaged, or another one.
    """

    def __init__(self, weights: StrPath = WEIGHTS) -> None:
        box, points, face = 4, 10, 2
        self.pnet = Stage([(3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)], None, (box, face))
        self.rnet = Stage([(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)], (576, 128), (box, face))
        self.onet = Stage(
            [(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)], (1152, 256), (box, points, face)
        )
        try:
            with np.load(weights) as arrays:
                for name in NETWORKS:
                    for number, parameter in enumerate(getattr(self, name).parameters()):
                        parameter.data.copy_(torch.from_numpy(arrays[f"{name}.{number}"]))
        except Exception as error:  # on a damaged file NumPy raises nearly anything
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{weights} does not hold the detector's weights ({why}): install the package anew."
            ) from None

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        picture = (image[None].float() - 127.5) / 128
        boxes, _ = refine(self.rnet, picture, self.propose(picture), 24, THRESHOLDS[1], 0.7)
        boxes, points = refine(self.onet, picture, boxes, 48, THRESHOLDS[2], 0.3)
        by_size = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(descending=True)
        return boxes[by_size], points[by_size]

    def propose(self, picture: Tensor) -> Tensor:
        """Return (N, 4) boxes of possible faces, from a twentieth of the shorter side of `picture` (1, 3, H, W) on."""
        sides = torch.tensor(picture.shape[2:])
        face = max(SMALLEST, sides.min().item() / 10)  # pixels; down to SMALLEST and half of that share
        while face * SHRINK >= max(SMALLEST, sides.min().item() / 20):
            face *= SHRINK
        scale = WINDOW / face
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
