"""Faces in a photograph, and five points in each: MTCNN, three small networks in a row (Zhang et al. 2016).

The first looks at the picture in many sizes for what may be a face, each next one is larger and looks again at what is
left, and the last says where eyes, nose and mouth are. The trained weights are those in the package `mtcnn` by Iván de
Paz Centeno (MIT licence), which `pip install -e ".[detect]"` brings: 2 MB, of which nothing but the numbers is used.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import nms

from arcface_edu.errors import from_extra

SHRINK = 0.709  # from one size of the picture to the next: half the area
WINDOW, STRIDE = 12, 2  # what the first network sees at a time, and how far apart, in pixels
SURE = (0.6, 0.7, 0.7)  # the probability of a face that each network asks for


class Stage(nn.Module):
    """Convolutions, perhaps a hidden layer, and an output for each of `outputs`.

    convolutions: (in, out, kernel, pool) each.   hidden: (in, out), or None: the network runs over whole pictures.
    """

    def __init__(self, convolutions, hidden, outputs):
        super().__init__()
        layers = []
        for channels, to, kernel, pool in convolutions:
            layers += [nn.Conv2d(channels, to, kernel), nn.PReLU(to)]
            layers += [nn.MaxPool2d(pool, 2, ceil_mode=True)] if pool else []
        if hidden:
            layers += [Columns(), nn.Linear(*hidden), nn.PReLU(hidden[1])]
        self.trunk = nn.Sequential(*layers)
        last = hidden[1] if hidden else to
        self.heads = nn.ModuleList(nn.Linear(last, n) if hidden else nn.Conv2d(last, n, 1) for n in outputs)

    def forward(self, pictures):
        features = self.trunk(pictures)
        return [head(features) for head in self.heads]


class Columns(nn.Module):
    """(B, C, H, W) -> (B, W * H * C): the order in which the published weights count."""

    def forward(self, x):
        return x.permute(0, 3, 2, 1).flatten(1)


class Mtcnn:
    """`detector(image)` -> boxes (N, 4), points (N, 5, 2), in pixels, float32; the largest face first.

    image: uint8 (3, H, W) RGB.   Points stand in the order of data.align's TEMPLATE.
    To make one raises ConfigError where the weights are not installed.
    """

    def __init__(self):
        with from_extra("detect", "finding faces"):
            import joblib
            import lz4  # noqa: F401  (joblib needs it for these files, and fails with less clear words)

            folder = weights_folder()
        box, points, face = 4, 10, 2
        self.first = Stage([(3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)], None, (box, face))
        self.second = Stage([(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)], (576, 128), (box, face))
        self.third = Stage(
            [(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)], (1152, 256), (box, points, face)
        )
        for stage, file in ((self.first, "pnet"), (self.second, "rnet"), (self.third, "onet")):
            fill(stage, joblib.load(folder / f"{file}.lz4"))

    @torch.inference_mode()
    def __call__(self, image):
        picture = (image[None].float() - 127.5) / 128
        boxes, _ = look_again(self.second, picture, self.propose(picture), 24, SURE[1], 0.7)
        boxes, points = look_again(self.third, picture, boxes, 48, SURE[2], 0.3)
        largest = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(descending=True)
        return boxes[largest], points[largest]

    def propose(self, picture):
        """(N, 4) boxes of what may be faces, of a tenth of the picture's shorter side and more."""
        sides = torch.tensor(picture.shape[2:])
        scale = WINDOW / max(20.0, sides.min().item() / 10)
        found = []
        while sides.min() * scale >= WINDOW:
            smaller = F.interpolate(picture, size=(sides * scale + 1).int().tolist(), mode="area")
            shifts, faces = self.first(smaller)
            probability = faces[0].softmax(0)[1]  # (h, w)
            places = (probability > SURE[0]).nonzero()
            corner = places.flip(1) * STRIDE  # x, y
            boxes = torch.cat([corner + 1, corner + WINDOW], 1) / scale
            scores = probability[places[:, 0], places[:, 1]]
            shift = shifts[0][:, places[:, 0], places[:, 1]].T
            keep = nms(boxes, scores, 0.5)
            found.append((boxes[keep], scores[keep], shift[keep]))
            scale *= SHRINK
        if not found:
            return torch.zeros(0, 4)
        boxes, scores, shift = map(torch.cat, zip(*found, strict=True))
        keep = nms(boxes, scores, 0.7)
        return shifted(boxes[keep], shift[keep])


def look_again(stage, picture, boxes, size, sure, overlap):
    """The boxes (N, 4) that a stage takes for faces as well, corrected, and the points (N, 5, 2) if it gives any.

    size: of its input.   overlap: of two boxes that share more than that, the less sure one goes.
    """
    if not len(boxes):
        return boxes, torch.zeros(0, 5, 2)
    boxes = squares(boxes).round()
    shifts, *shares, faces = stage(torch.cat([cut(picture, box, size) for box in boxes]))
    scores = faces.softmax(1)[:, 1]
    likely = (scores > sure).nonzero()[:, 0]
    corrected = shifted(boxes[likely], shifts[likely])
    kept = nms(corrected, scores[likely], overlap)
    points = on(boxes, shares[0])[likely][kept] if shares else None
    return corrected[kept], points


def weights_folder():
    """Where the package `mtcnn` keeps its weights. It is not imported: its own networks take TensorFlow."""
    package = find_spec("mtcnn")
    if package is None:
        raise ModuleNotFoundError(name="mtcnn")
    return Path(package.submodule_search_locations[0]) / "assets" / "weights"


def fill(stage, arrays):
    """Weights into a stage, in their order: kernels as (h, w, in, out), matrices as (in, out), biases, slopes."""
    for parameter, array in zip(stage.parameters(), arrays, strict=True):
        array = torch.from_numpy(array)
        array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T if array.ndim == 2 else array
        parameter.data.copy_(array.reshape(parameter.shape))


def shifted(boxes, shifts):
    """Boxes (N, 4), with each side moved by a share (N, 4) of the box's size."""
    return boxes + shifts * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def on(boxes, shares):
    """Points (N, 5, 2) of shares (N, 10) of boxes (N, 4): five of the width, five of the height."""
    return boxes[:, None, :2] + shares.unflatten(1, (2, 5)).mT * (boxes[:, 2:] - boxes[:, :2])[:, None]


def squares(boxes):
    """Boxes of the same centres, as wide and as high as their longer side."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def cut(picture, box, size):
    """The part of a picture (1, 3, H, W) within a box of whole numbers, as (1, 3, size, size); outside is grey."""
    height, width = picture.shape[2:]
    x1, y1, x2, y2 = box.int().tolist()
    inside = picture[:, :, max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    around = (max(-x1, 0), max(x2 - width, 0), max(-y1, 0), max(y2 - height, 0))
    return F.interpolate(F.pad(inside, around), size=(size, size), mode="area")
