"""Between encoded images (bytes of a JPEG, PNG ... file), uint8 RGB tensors and the network's input."""

import contextlib
import functools
import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision import io as torchvision_io
from torchvision.transforms.v2 import functional

from arcface_edu.errors import CorruptRecord

JPEG = b"\xff\xd8\xff"  # how every JPEG begins
HEIC = 'HEIC, which takes the package pillow-heif: pip install -e ".[heif]"'
AVIF = "AVIF, which takes Pillow from 11.3 on"


@functools.cache
def missing_decoders() -> dict[str, str]:
    """Return the endings of phones' images that cannot be read with what is installed here, and what each takes."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    known, wanted = Image.registered_extensions(), {".heic": HEIC, ".heif": HEIC, ".hif": HEIC, ".avif": AVIF}
    return {suffix: what for suffix, what in wanted.items() if suffix not in known}


def decode(encoded: bytes, where: object = "image") -> Tensor:
    """Decode an image to uint8 (3, H, W) RGB, turned upright where the camera noted its orientation.

    Grey, palette, CMYK, 16-bit and float images become 8-bit RGB, transparency is dropped, of an animation the first
    picture stays. HEIC takes the extra `heif`, AVIF a Pillow from 11.3 on.

    Args:
        encoded: The bytes of a JPEG, PNG ... file.
        where: Names the image (its file or record) in the error.

    Raises:
        CorruptRecord: It cannot be decoded.
    """
    try:
        if encoded.startswith(JPEG):
            return _decode_jpeg(encoded)
    except (RuntimeError, AttributeError):
        pass  # broken; or a torchvision without decoders, for 0.29 announces their end: Pillow gives the same pixels
    try:
        if encoded[4:8] == b"ftyp":  # HEIC or AVIF, by whatever name
            lacking = missing_decoders().get(".avif" if encoded[8:11] == b"avi" else ".heic")
            if lacking:
                raise ValueError(lacking)
        image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
        if image.mode[0] in "IF":
            image = _eight_bits(image)
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # on broken files Pillow raises nearly anything
        raise _corrupt(where, error) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 16-bit, 32-bit or float grey as 8-bit grey: convert() would clip it at 255."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high < 65536):  # or not a number
        raise ValueError(f"its values run from {low:g} to {high:g}; known are 0 to 1, to 255 and to 65535")
    if image.mode == "F" and high <= 1:
        values = (values * 255).round()
    elif image.mode.startswith("I;16") or high > 255:
        values = values / 256
    return Image.fromarray(values.astype(np.uint8))


def _decode_jpeg(encoded: bytes) -> Tensor:
    """Decode a JPEG, of which training sets consist, in two thirds of Pillow's time."""
    source = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    return torchvision_io.decode_image(source, torchvision_io.ImageReadMode.RGB, apply_exif_orientation=True)


def size_of(encoded: bytes, where: object) -> tuple[int, int]:
    """Return (width, height) of an image by its first bytes, as it is stored; CorruptRecord where it is none."""
    try:
        return Image.open(io.BytesIO(encoded)).size
    except Exception as error:  # on broken files Pillow raises nearly anything
        raise _corrupt(where, error) from None


def _corrupt(where: object, error: Exception) -> CorruptRecord:
    what = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return CorruptRecord(f"{where}: not an image that can be read{what}; replace or remove it.")


def fit(image: Tensor, size: int = 112) -> Tensor:
    """Fit an image into a square, undistorted, centred on black: uint8 (3, H, W) -> (3, size, size).

    One of that size already comes back untouched.
    """
    height, width = image.shape[1:]
    if height == width == size:
        return image
    scale = size / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    image = functional.resize(image, [height, width], antialias=True)
    top, left = (size - height) // 2, (size - width) // 2
    return functional.pad(image, [left, top, size - width - left, size - height - top])


def to_input(images: Tensor) -> Tensor:
    """Return the input of the networks: uint8 (B, 3, H, W) -> float32 in [-1, 1], channels last in memory."""
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(127.5).div_(127.5)


def encode_jpeg(image: Tensor, quality: int = 95) -> bytes:
    """Return uint8 (3, H, W) RGB as the bytes of a JPEG."""
    return _encode(image, "JPEG", quality=quality)


def encode_png(image: Tensor) -> bytes:
    """Return uint8 (3, H, W) RGB as the bytes of a PNG, which keeps every pixel."""
    return _encode(image, "PNG")


def _encode(image: Tensor, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.numpy().transpose(1, 2, 0))).save(buffer, kind, **options)
    return buffer.getvalue()
