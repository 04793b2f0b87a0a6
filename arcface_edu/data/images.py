"""Between encoded images (bytes of a JPEG, PNG ... file), uint8 RGB tensors and the network's input."""

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


def decode(encoded: bytes, where: object = "image") -> Tensor:
    """Decode an image to uint8 (3, H, W) RGB, turned upright where the camera noted its orientation.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB, transparency is dropped, of an animation the first picture
    stays.

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
        image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
        if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # on broken files Pillow raises nearly anything
        raise _corrupt(where, error) from None


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
