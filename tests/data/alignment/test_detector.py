"""The detector against faces whose points are known, because they were drawn there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_edu.course.orl import orl_faces
from arcface_edu.data.alignment.align import TEMPLATE, similarity
from arcface_edu.data.alignment.detector import Mtcnn, crop
from arcface_edu.data.images import decode
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.errors import DataError

ORL = Path(__file__).parents[3] / "data" / "orl"


@pytest.fixture(scope="module")
def detector():
    return Mtcnn()


@pytest.fixture(scope="module")
def portraits():
    """Twelve drawn people, as on passports, on grey; the points of each are those of TEMPLATE + (60, 40)."""
    faces = [decode(draw_person(0, person, 1, difficulty=0.0)[0]) for person in range(12)]
    return [F.pad(face, (60, 90, 40, 70), value=120) for face in faces]


def test_the_points_are_where_the_face_was_drawn(detector, portraits):
    wrong = []
    for image in portraits:
        boxes, points = detector(image)
        assert boxes.shape == (len(points), 4) and points.shape[1:] == (5, 2)
        wrong.append(np.abs(points[0].numpy() - TEMPLATE - [60, 40]).max() if len(points) else np.inf)
    assert np.median(wrong) < 5 and np.mean(np.array(wrong) < 10) > 0.8  # of eyes that are 35 pixels apart


@pytest.mark.full
def test_real_photographs(detector):
    """AT&T/ORL: one face in each, whose points lie as those of a face seen from the front do, but for its pose."""
    off = []
    for person in range(1, 41):
        path = orl_faces(ORL) / f"s{person}" / "1.pgm"
        _, points = detector(decode(path.read_bytes(), path))
        assert len(points) == 1
        moved = similarity(points[0].numpy(), TEMPLATE)
        off.append(np.linalg.norm(points[0].numpy() @ moved[:, :2].T + moved[:, 2] - TEMPLATE, axis=1).mean())
    assert np.median(off) < 4 and max(off) < 10


def test_a_larger_picture_has_its_points_further_apart(detector, portraits):
    for image in portraits[:4]:
        twice = F.interpolate(image[None].float(), scale_factor=2.0, mode="bilinear")[0].round().byte()
        (small, *_), (large, *_) = detector(image)[1], detector(twice)[1]
        assert (large / 2 - small).abs().max() < 5


def test_the_largest_of_several_faces_comes_first(detector, portraits):
    small = F.interpolate(portraits[0][None].float(), scale_factor=0.6, mode="area")[0].round().byte()
    scene = torch.full((3, 400, 600), 120, dtype=torch.uint8)
    scene[:, 20 : 20 + small.shape[1], 20 : 20 + small.shape[2]] = small
    scene[:, 150:372, 300:562] = portraits[1]
    boxes, points = detector(scene)
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert len(boxes) == 2 and sizes[0] > sizes[1]
    assert (points[0].mean(0) > torch.tensor([300.0, 150.0])).all() and (points[1].mean(0) < 200).all()


def test_where_there_is_no_face(detector):
    rng = torch.Generator().manual_seed(0)
    for height, width in ((200, 300), (300, 40), (5, 5), (1, 1)):
        for image in (torch.zeros(3, height, width), torch.randint(0, 256, (3, height, width), generator=rng)):
            boxes, points = detector(image.byte())
            assert (boxes.shape, points.shape) == ((0, 4), (0, 5, 2))


def test_a_crop_that_reaches_beyond_the_picture_is_grey_there():
    picture = torch.ones(1, 3, 10, 10)
    part = crop(picture, torch.tensor([-5.0, 0, 5, 10]), 10)
    assert not part[..., :5].any() and (part[..., 5:] == 1).all()
    assert not crop(picture, torch.tensor([20.0, 20, 30, 30]), 4).any()


def test_thirty_faces_in_one_picture(detector, portraits):
    """A group in ten columns and three rows, each face a twentieth of the picture's height: all, and each once."""
    small = F.interpolate(portraits[1][None].float(), scale_factor=0.45, mode="area")[0].round().byte()  # 99 x 117
    scene = torch.full((3, 900, 1600), 120, dtype=torch.uint8)
    for row in range(3):
        for column in range(10):
            scene[:, 300 * row : 300 * row + 99, 150 * column : 150 * column + 117] = small
    boxes, points = detector(scene)
    assert len(boxes) == 30
    assert len({(int(x // 150), int(y // 300)) for x, y in points.mean(1).tolist()}) == 30


@pytest.mark.parametrize("content", [b"no weights", b"PK\x03\x04 cut short", b""])
def test_a_file_that_does_not_hold_its_weights_is_named(tmp_path, content):
    (tmp_path / "mtcnn.npz").write_bytes(content)
    with pytest.raises(
        DataError, match=r"mtcnn.npz does not hold the detector's weights \(.+\): install the package anew"
    ):
        Mtcnn(tmp_path / "mtcnn.npz")


def test_weights_of_another_network_are_named(tmp_path):
    np.savez(tmp_path / "other.npz", **{"pnet.0": np.zeros((3, 3), np.float16)})
    with pytest.raises(DataError, match=r"other\.npz does not hold the detector's weights"):
        Mtcnn(tmp_path / "other.npz")
