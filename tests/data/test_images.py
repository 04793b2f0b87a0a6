"""Encoded images to uint8 RGB tensors, from whatever a folder of photographs may hold."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from arcface_edu.data import images
from arcface_edu.data.images import decode, encode_jpeg, encode_png, fit, to_input
from arcface_edu.errors import CorruptRecord

ORANGE = (200, 100, 50)
ORANGE_GREY = 124


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "PPM", "GIF", "WEBP", "TIFF"])
def test_formats(kind):
    image = decode(encoded(Image.new("RGB", (20, 30), ORANGE), kind))
    assert image.shape == (3, 30, 20)
    assert image.dtype == torch.uint8
    np.testing.assert_allclose(image[:, 15, 10], ORANGE, atol=4)


@pytest.mark.parametrize(
    ("mode", "kind", "colour"),
    [
        ("L", "JPEG", ORANGE_GREY),
        ("L", "PPM", ORANGE_GREY),  # a PGM
        ("LA", "PNG", ORANGE_GREY),
        ("P", "PNG", ORANGE),
        ("RGBA", "PNG", ORANGE),
        ("CMYK", "JPEG", ORANGE),
    ],
)
def test_colour_modes(mode, kind, colour):
    image = decode(encoded(Image.new("RGB", (8, 8), ORANGE).convert(mode), kind))
    assert image.shape == (3, 8, 8)
    np.testing.assert_allclose(image[:, 4, 4], np.broadcast_to(colour, 3), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF"])
def test_sixteen_bits(kind):
    source = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    image = decode(encoded(source.convert("I") if kind == "PPM" else source, kind))  # Pillow 10 writes no other PGM
    np.testing.assert_array_equal(image, np.full((3, 8, 8), 40_000 // 256))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_camera_was_held_upright(kind):
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by a quarter, clockwise
    source = Image.new("RGB", (40, 16))
    source.paste(ORANGE, (0, 0, 20, 16))  # the left half, the top one when turned
    image = decode(encoded(source, kind, exif=exif.tobytes()))
    assert image.shape == (3, 40, 16)
    assert image[0, :18].float().mean() > 190
    assert image[0, 22:].float().mean() < 10


def test_pillow_gives_the_same_pixels_as_torchvision(monkeypatch):
    """So a torchvision without its decoders, which it has announced, changes the speed and nothing else."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(noise).resize((112, 112), Image.Resampling.BICUBIC), "JPEG", quality=90)
    fast = decode(jpeg)
    monkeypatch.setattr(images, "torchvision_io", object())
    assert torch.equal(decode(jpeg), fast)


@pytest.mark.parametrize("ending", [".heic", ".avif"])
def test_what_phones_write(ending, monkeypatch):
    if ending in images.missing_decoders():
        pytest.skip("no decoder is installed")
    picture = encoded(Image.new("RGB", (64, 48), ORANGE), {".heic": "HEIF", ".avif": "AVIF"}[ending])
    image = decode(picture)
    assert (image.shape, image.dtype) == ((3, 48, 64), torch.uint8)
    np.testing.assert_allclose(image[:, 24, 32], ORANGE, atol=6)
    monkeypatch.setattr(images, "missing_decoders", lambda: {".heic": images.HEIC, ".avif": images.AVIF})
    with pytest.raises(CorruptRecord, match=rf"a\.jpg: not an image .* \({ending[1:].upper()}, which takes"):
        decode(picture, "a.jpg")  # whatever its name says


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.full((8, 8), 0.5, np.float32), 128),
        (np.full((8, 8), 200, np.float32), 200),
        (np.full((8, 8), 40_000, np.float32), 156),
        (np.full((8, 8), 200, np.int32), 200),
        (np.full((8, 8), 40_000, np.int32), 156),
        (np.full((8, 8), 200, np.uint16), 0),  # 16 bits say their range themselves
        (np.zeros((8, 8), np.float32), 0),
    ],
)
def test_deep_grey_is_scaled_not_clipped(values, grey):
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "TIFF")), np.full((3, 8, 8), grey))


@pytest.mark.parametrize("value", [-1, 70_000, np.nan, np.inf])
def test_grey_of_no_known_range_is_refused(value):
    picture = encoded(Image.fromarray(np.array([[0.5, value]], np.float32)), "TIFF")
    with pytest.raises(CorruptRecord, match=r"x\.tif: not an image .* \(its values run from .* known are 0 to 1"):
        decode(picture, "x.tif")


def test_broken_images_are_named():
    jpeg = encode_jpeg(torch.randint(0, 256, (3, 112, 112), dtype=torch.uint8))
    png = encode_png(torch.randint(0, 256, (3, 112, 112), dtype=torch.uint8))
    for broken in (b"", b"text", jpeg[:100], jpeg[:-2000], jpeg[:3] + b"x" * 500, png[:1000], b"P5\n9 9\n255\nshort"):
        with pytest.raises(CorruptRecord, match=r"^a/b\.jpg: not an image that can be read.*; replace or remove it\.$"):
            decode(broken, "a/b.jpg")


def test_fit_leaves_the_right_size_alone():
    image = torch.randint(0, 256, (3, 112, 112), dtype=torch.uint8)
    assert fit(image) is image


@pytest.mark.parametrize(("height", "width"), [(300, 100), (100, 300), (7, 5), (113, 112), (1, 1), (1, 1000)])
def test_fit_keeps_proportions_and_centres(height, width):
    image = fit(torch.full((3, height, width), 200, dtype=torch.uint8))
    assert image.shape == (3, 112, 112)
    assert image.dtype == torch.uint8
    rows, columns = (image[0] == 200).any(1).nonzero().flatten(), (image[0] == 200).any(0).nonzero().flatten()
    assert abs(len(rows) - max(1, 112 * height / max(height, width))) <= 0.5
    assert abs(len(columns) - max(1, 112 * width / max(height, width))) <= 0.5
    assert abs(rows[0] - (111 - rows[-1])) <= 1
    assert abs(columns[0] - (111 - columns[-1])) <= 1
    assert image.float().sum() == 600 * len(rows) * len(columns)  # nothing but the picture and black


def test_fit_does_not_alias():
    """One-pixel stripes shrunk to a third become an even grey."""
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(168).expand(3, 336, 336)
    assert fit(stripes)[:, 4:-4, 4:-4].float().std() < 20  # 127 without antialias


def test_input_range():
    image = torch.tensor([0, 255, 127], dtype=torch.uint8).view(1, 3, 1, 1)
    before = image.clone()
    torch.testing.assert_close(to_input(image).flatten(), torch.tensor([-1.0, 1.0, -0.5 / 127.5]))
    assert torch.equal(image, before)


def test_encoding():
    smooth = torch.linspace(0, 255, 112).to(torch.uint8).expand(3, 112, 112)
    assert (decode(encode_jpeg(smooth)).int() - smooth.int()).abs().max() <= 4
    assert len(encode_jpeg(smooth, quality=30)) < len(encode_jpeg(smooth, quality=100))
    assert torch.equal(decode(encode_png(smooth)), smooth)
