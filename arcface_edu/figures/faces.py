"""Faces as they are: pixel for pixel, one image pixel at least one picture pixel, no axes."""

import textwrap
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcface_edu.errors import DataError
from arcface_edu.figures.style import DPI, INK, SMALL_SIZE, TITLE_SIZE

Image = Any  # uint8 RGB: a (3, H, W) tensor or an (H, W, 3) array
FACE = 112  # pixels: smaller images are enlarged by a whole factor to come near it
MARGIN, GAP = 12, 4  # pixels
LINE, CHARACTER = 17, 7.4  # pixels of one line of small text and, generously, of one of its characters


def contact_sheet(
    rows: Sequence[Sequence[Image]],
    titles: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw rows of faces, as one identity a row.

    Args:
        rows: uint8 images, (3, H, W) tensors or (H, W, 3) arrays; rows may differ in length.
        titles: A text for each row, written to its left.
        title: Over the sheet.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No image, an image that is not uint8 RGB, or not one title a row.
    """
    rows = [[as_pixels(image) for image in row] for row in rows]
    if not any(rows):
        raise DataError("a contact sheet needs at least one image")
    if titles is not None and len(titles) != len(rows):
        raise DataError(f"{len(titles)} titles for {len(rows)} rows of the contact sheet")
    height = max(image.shape[0] for row in rows for image in row)
    width = max(image.shape[1] for row in rows for image in row)
    left = MARGIN + (int(max(len(text) for text in titles) * CHARACTER) + MARGIN if titles else 0)
    across = left + max(map(len, rows)) * (width + GAP) - GAP + MARGIN
    heading, top = wrap_title(title, across)
    sheet = np.full((top + len(rows) * (height + GAP) - GAP + MARGIN, across, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            paste(sheet, image, top + r * (height + GAP), left + c * (width + GAP))
    figure, ax = show_sheet(sheet, heading, ax)
    for r, text in enumerate(titles or []):
        y = top + r * (height + GAP) + height / 2
        ax.text(left - MARGIN, y, text, ha="right", va="center", fontsize=SMALL_SIZE, color=INK)
    return figure


def plot_pairs(
    first: Sequence[Image],
    second: Sequence[Image],
    captions: Sequence[str],
    title: str | None = None,
    columns: int = 4,
    ax: Axes | None = None,
) -> Figure:
    """Draw pairs of faces side by side with a caption under each, as the hardest pairs and their angle in degrees.

    Args:
        first: N uint8 images, as in `contact_sheet`.
        second: N more, the other side of each pair.
        captions: N texts.
        title: Over the sheet.
        columns: Pairs in a row, at most.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No pairs, lists of different lengths, or images as in `contact_sheet`.
    """
    first, second, captions = (
        [as_pixels(image) for image in first],
        [as_pixels(image) for image in second],
        list(captions),
    )
    if not first or not len(first) == len(second) == len(captions):
        raise DataError(
            f"{len(first)} first, {len(second)} second faces and {len(captions)} captions: one of each a pair"
        )
    height = max(image.shape[0] for image in first + second)
    width = max(image.shape[1] for image in first + second)
    cell_width = max(2 * width + GAP, int(max(len(text) for text in captions) * CHARACTER)) + 2 * MARGIN
    columns = min(columns, len(first))
    across = MARGIN + columns * cell_width - MARGIN
    heading, top = wrap_title(title, across)
    cell_height = height + LINE + MARGIN
    sheet = np.full((top + -(-len(first) // columns) * cell_height, across, 3), 255, np.uint8)
    places = []
    for i, (one, two) in enumerate(zip(first, second, strict=True)):
        y, x = top + i // columns * cell_height, MARGIN + i % columns * cell_width
        paste(sheet, one, y, x)
        paste(sheet, two, y, x + width + GAP)
        places.append((x + width + GAP / 2, y + height + 3))
    figure, ax = show_sheet(sheet, heading, ax)
    for (x, y), text in zip(places, captions, strict=True):
        ax.text(x, y, text, ha="center", va="top", fontsize=SMALL_SIZE, color=INK)
    return figure


def as_pixels(image: Image) -> np.ndarray:
    """Return any of the accepted images as (H, W, 3) uint8, a small one enlarged by a whole factor."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"an image is {image.dtype} {image.shape}; wanted is uint8 RGB, (3, H, W) or (H, W, 3)")
    factor = max(1, round(FACE / max(image.shape[:2])))
    return image.repeat(factor, 0).repeat(factor, 1)


def paste(sheet: np.ndarray, image: np.ndarray, y: int, x: int) -> None:
    sheet[y : y + image.shape[0], x : x + image.shape[1]] = image


def wrap_title(title: str | None, across: int) -> tuple[str, int]:
    """Return the title wrapped to a sheet `across` pixels wide, and the pixels that it takes at the top."""
    text = textwrap.fill(title, max(12, int((across - 2 * MARGIN) / (TITLE_SIZE * 0.8)))) if title else ""
    return text, MARGIN + (22 * len(text.splitlines()) + 4 if text else 0)


def show_sheet(sheet: np.ndarray, heading: str, ax: Axes | None) -> tuple[Figure, Axes]:
    """Show a sheet (H, W, 3), in a new figure pixel for pixel; data coordinates are the pixels of the sheet."""
    height, width = sheet.shape[:2]
    if ax is None:
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(sheet, interpolation="nearest", extent=(0, width, height, 0))
    ax.axis("off")
    ax.text(MARGIN, MARGIN - 2, heading, va="top", fontsize=TITLE_SIZE, color=INK)
    return cast(Figure, ax.figure), ax
