"""What augment="photo" does, against torchvision on single images; and that it follows from seed and step alone."""

import pytest
import torch
from easydict import EasyDict
from torchvision.transforms.v2 import functional
from torchvision.transforms.v2.functional import InterpolationMode

from arcface_edu.data.augment import RANGES, augment_photo, draw_photo
from arcface_edu.data.loader import Batch, augment, draw_mirrored
from arcface_edu.train import to_device
from arcface_edu.training.launch import World

CPU = torch.device("cpu")
NEUTRAL = dict(scale=1.0, brightness=1.0, contrast=1.0, coarse=1.0, grey=1.0)  # of all others it is 0


@pytest.fixture
def image():
    """A smooth picture (3, 112, 112) in [0.3, 0.7], which no change of tone below clips."""
    rough = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.4 * torch.nn.functional.interpolate(rough, size=112, mode="bilinear")[0]


def numbers(*images):
    """The numbers (B, R) of images for which only the named ones are not neutral."""
    return torch.tensor([[(NEUTRAL | changed).get(name, 0.0) for name in RANGES] for changed in images])


def changed(image, **how):
    """That one image after augment_photo, again in [0, 1]; beside it stands another, which must not matter."""
    both = augment_photo(torch.stack([image, 1 - image]) * 2 - 1, numbers(how, dict(angle=3.0, gamma=0.2)))
    return both[0] / 2 + 0.5


def test_neutral_numbers_change_nothing(image):
    torch.testing.assert_close(changed(image), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle, scale, x, y", [(8, 1, 0, 0), (-5, 0.9, 0, 0), (0, 1.1, 4.5, 0), (6, 1.12, -3.5, 2.25)])
def test_geometry_is_that_of_an_affine_map_with_black_outside(image, angle, scale, x, y):
    got = changed(image, angle=angle, scale=scale, shift_x=x, shift_y=y)
    there = dict(angle=-angle, translate=[x, y], scale=scale, shear=[0.0, 0.0])  # there clockwise is positive
    torch.testing.assert_close(
        got, functional.affine(image, interpolation=InterpolationMode.BILINEAR, **there), rtol=0, atol=1e-4
    )
    assert (changed(image, shift_x=4.0)[:, :, :4] < 1e-5).all()


def test_tones_are_those_of_torchvision(image):
    got = changed(image, gamma=0.25, brightness=0.9, contrast=1.2, grey=0.2)
    expected = functional.adjust_gamma(image, float(torch.tensor(0.25).exp()))
    expected = functional.adjust_contrast(functional.adjust_brightness(expected, 0.9), 1.2)
    expected = functional.rgb_to_grayscale(expected, num_output_channels=3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    bright = changed(image, brightness=1.3, contrast=1.5)
    assert bright.max() == 1  # clipped


def test_coarse_images_went_through_48_pixels(image):
    small = functional.resize(image, [48, 48], antialias=True)
    expected = functional.resize(small, [112, 112], antialias=True)
    torch.testing.assert_close(changed(image, coarse=0.1), expected, rtol=0, atol=1e-4)


def test_noise_has_its_strength_and_its_place(image):
    grain = changed(image, noise=0.03, noise_x=200.0, noise_y=5.0) - image
    assert grain.std() == pytest.approx(0.03, rel=0.05) and abs(grain.mean()) < 1e-3
    moved = changed(image, noise=0.03, noise_x=201.0, noise_y=7.0) - image
    torch.testing.assert_close(moved[:, :-2, :-1], grain[:, 2:, 1:], rtol=0, atol=1e-5)
    grey = changed(image, noise=0.03, grey=0.0)
    assert (grey[0] == grey[1]).all() and (grey[0] == grey[2]).all()


def test_numbers_are_drawn_per_step_within_their_ranges():
    drawn = draw_photo(2, 5, 100, 3, seed=5)
    assert drawn.shape == (2, 5, 100, len(RANGES))
    assert torch.equal(drawn, draw_photo(2, 5, 100, 3, seed=5))
    assert not torch.equal(drawn, draw_photo(2, 5, 100, 4, seed=5))
    assert not torch.equal(drawn, draw_photo(2, 5, 100, 3, seed=6))
    low, high = torch.tensor(list(RANGES.values())).T
    assert (drawn >= low).all() and (drawn <= high).all()
    of_range = ((drawn - low) / (high - low)).flatten(0, 2)
    torch.testing.assert_close(of_range.mean(0), torch.full_like(low, 0.5), rtol=0, atol=0.05)
    assert torch.corrcoef(of_range.T).fill_diagonal_(0).abs().max() < 0.12  # each for itself


def shown(way, batch_size, ranks, rank, missing=0, micro_batches=2):
    """The images that a rank's network sees in step 7; its last ones may be missing, as of broken records."""
    config = EasyDict(augment=way, batch_size=batch_size, seed=3)
    images = torch.randint(256, (micro_batches, 8, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    own = images.to(torch.uint8)[:, rank * batch_size : (rank + 1) * batch_size - missing]
    batches = [Batch(part, torch.arange(len(part)), [], "") for part in own]
    return [seen for seen, _ in to_device(batches, 7, config, World(rank, ranks), CPU)]


def test_two_ranks_see_what_one_with_twice_the_batch_sees():
    whole, halves = shown("photo", 8, 1, 0), [shown("photo", 4, 2, rank) for rank in (0, 1)]
    for part, *of_ranks in zip(whole, *halves, strict=True):
        assert torch.equal(part, torch.cat(of_ranks))
        assert part.is_contiguous(memory_format=torch.channels_last) and part.dtype == torch.float32
        assert part.min() >= -1 and part.max() <= 1
    assert not torch.equal(whole[0], whole[1])
    short = shown("photo", 8, 1, 0, missing=3)
    assert torch.equal(short[1], whole[1][:5])  # the others stay as they are


def test_mirror_stays_as_it_is():
    images = torch.randint(256, (2, 8, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    flips = draw_mirrored(2, 1, 8, 7, 3)
    for part, seen in enumerate(shown("mirror", 8, 1, 0)):
        assert torch.equal(seen, augment(images[part], flips[part, 0]))
