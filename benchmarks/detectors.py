"""How well a detector finds faces and their five points: AT&T/ORL as it is, turned, scaled and in crowds, photographs.

    python benchmarks/detectors.py [--detector MODULE:CLASS] [--pictures FOLDER]

A detector is called with uint8 (3, H, W) RGB and returns boxes (N, 4) and points (N, 5, 2), as the package's own does;
another one is named by its module. The 400 faces of ORL are looked at as they are, and after a known turn, change of
size or collage; how far the points then lie from where they lay, moved along, is given in per cent of the distance of
the eyes. `grace_hopper.jpg` comes with matplotlib (public domain); --pictures names scikit-image's folder `data`, where
the astronaut is (public domain), and pictures of things and animals, in which any face is a false one.
"""

import argparse
import importlib
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch.nn import functional as F

from arcface_edu.cli import cli_main
from arcface_edu.course.orl import orl_faces
from arcface_edu.data.alignment.align import warp
from arcface_edu.data.images import decode
from arcface_edu.data.photographs import photographs_in

HOPPER = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
NOBODY = (
    "brick chelsea coffee coins grass gravel horse hubble_deep_field ihc moon motorcycle_left page retina rocket text"
)
BEYOND = 56  # pixels of grey around a face that is turned, so that nothing is cut off


@cli_main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="arcface_edu.data.alignment.detector:Mtcnn", metavar="MODULE:CLASS")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="scikit-image's folder data")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="look at every Nth face only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    module, name = options.detector.split(":")
    detector = getattr(importlib.import_module(module), name)()
    faces = [decode(path.read_bytes(), path) for path in photographs_in(orl_faces())][:: options.every]
    print(f"{name}: | faces | found | false or double | points off, median and 95 % | ms a picture |")
    still = look(detector, faces, None, "as they are")
    for degrees in (10, 20, 30, 45):
        moved_faces(detector, faces, still, degrees, 1, f"turned by {degrees}°")
    for scale in (0.25, 0.4, 2, 4, 8):
        moved_faces(detector, faces[::4] if scale > 2 else faces, still, 0, scale, f"{scale:g} times as large")
    for scale in (1, 0.4):
        crowds(detector, faces, still, scale)
    for path in [HOPPER, *([options.pictures / "astronaut.png"] if options.pictures else [])]:
        boxes, _ = detector(decode(path.read_bytes()))
        print(f"| {path.name} | 1 | {min(len(boxes), 1)} | {max(len(boxes) - 1, 0)} |")
    if options.pictures:
        pictures = [next(options.pictures.glob(f"{one}.*")) for one in NOBODY.split()]
        false = [len(detector(decode(path.read_bytes()))[0]) for path in pictures]
        print(f"| {len(pictures)} pictures without a person | 0 | - | {sum(false)} |")


def look(detector, pictures, expected, what):
    """Print a row for pictures of one face each, with the points expected in it.  returns: the points found."""
    began = time.perf_counter()
    found = [detector(picture)[1].numpy() for picture in pictures]
    seconds = (time.perf_counter() - began) / len(pictures)
    wanted = expected or [of_one[0] if len(of_one) else None for of_one in found]
    off, right, false = judge(found, [[points] if points is not None else [] for points in wanted])
    print(row(what, len(pictures), right, false, off if expected else [], seconds), flush=True)
    return wanted


def judge(found, expected):
    """Match found faces to expected ones.  returns: errors in distances of the eyes, how many right, how many false."""
    off, right, false = [], 0, 0
    for points, wanted in zip(found, expected, strict=True):
        taken = set()
        for face in wanted:
            eyes = np.linalg.norm(face[1] - face[0])
            far = [np.linalg.norm(one - face, axis=1).mean() / max(eyes, 1e-9) for one in points]
            near = int(np.argmin(far)) if far else None
            if near is not None and far[near] < 0.5 and near not in taken:
                taken.add(near)
                off.append(far[near])
        right, false = right + len(taken), false + len(points) - len(taken)
    return off, right, false


def moved_faces(detector, faces, still, degrees, scale, what):
    """Turn or scale every face on grey, and print how many are found where they should be."""
    if len(faces) != len(still):
        still = still[:: len(still) // len(faces)]
    pictures, matrices = [], []
    for face in faces:
        height, width = face.shape[1:]
        turn = scale * rotation(degrees)
        border = BEYOND if degrees else 0
        size = int(max(height, width) * scale) + 2 * border
        shift = np.array([size, size]) / 2 - turn @ [width / 2, height / 2]
        matrix = np.column_stack([turn, shift])
        pictures.append(warp(shrink_first(face, scale), matrix @ undo(scale), size))
        matrices.append(matrix)
    expected = [points @ matrix[:, :2].T + matrix[:, 2] for points, matrix in zip(still, matrices, strict=True)]
    look(detector, pictures, expected, what)


def shrink_first(face, scale):
    """An image that will be sampled more coarsely than its pixels, averaged down before."""
    if scale >= 1:
        return face
    smaller = F.interpolate(face[None].float(), scale_factor=scale, mode="bilinear", antialias=True)
    return smaller[0].round().byte()


def undo(scale):
    """(3, 3): from pixels of the averaged image to those of the face."""
    scale = min(scale, 1)
    return np.array([[1 / scale, 0, 0.5 / scale - 0.5], [0, 1 / scale, 0.5 / scale - 0.5], [0, 0, 1]])


def rotation(degrees):
    theta = np.radians(degrees)
    return np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])


def crowds(detector, faces, still, scale):
    """Thirty faces of thirty pictures in one, six by five, and print how many are found."""
    step = int(112 * scale)
    began, found, expected, of_all = time.perf_counter(), [], [], len(faces) // 30
    for number in range(of_all):
        scene, wanted = torch.full((3, 5 * step, 6 * step), 120, dtype=torch.uint8), []
        for place, index in enumerate(range(number, 30 * of_all, of_all)):
            line, column = divmod(place, 6)
            matrix = np.column_stack(
                [scale * np.eye(2), [(scale - 1) / 2 + column * step, (scale - 1) / 2 + line * step]]
            )
            small = shrink_first(faces[index], scale)
            scene[:, line * step :, column * step :][:, : small.shape[1], : small.shape[2]] = small[:, :step, :step]
            wanted.append(still[index] @ matrix[:, :2].T + matrix[:, 2])
        found.append(detector(scene)[1].numpy())
        expected.append(wanted)
    seconds = (time.perf_counter() - began) / of_all
    off, right, false = judge(found, expected)
    print(row(f"thirty in a picture of {6 * step} x {5 * step}", 30 * of_all, right, false, off, seconds), flush=True)


def row(what, faces, right, false, off, seconds):
    points = f"{100 * np.median(off):.1f} %, {100 * np.percentile(off, 95):.1f} %" if len(off) else "-"
    return f"| {what} | {faces} | {right} | {false} | {points} | {1000 * seconds:.1f} |"


if __name__ == "__main__":
    main()
