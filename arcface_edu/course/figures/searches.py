"""Searches in a gallery, as faces."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from arcface_edu.errors import DataError
from arcface_edu.figures.faces import GAP, LINE, MARGIN, Image, as_pixels, paste, show_sheet, wrap_title
from arcface_edu.figures.style import DIFFERENT, SAME, SMALL_SIZE


def plot_searches(
    probes: Sequence[Image],
    found: Sequence[Sequence[Image]],
    captions: Sequence[Sequence[str]],
    right: Sequence[Sequence[bool]],
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Plot searches in a gallery, one a row: the probe, and apart from it what was found, nearest first.

    Images of the probe's person are framed and ticked in the colour of same identity, others in that of different.

    Args:
        probes: N uint8 images, as in `contact_sheet`.
        found: N lists of K images.
        captions: N lists of K texts, to stand under them.
        right: N lists of K bools: whether the image shows the probe's person.
        title: Over the sheet.
        ax: Where; None makes a new figure.

    Raises:
        DataError: No search, or lists of different lengths.
    """
    probes, found = [as_pixels(probe) for probe in probes], [[as_pixels(image) for image in row] for row in found]
    lengths = {len(row) for rows in (found, captions, right) for row in rows}
    if not probes or not len(probes) == len(found) == len(captions) == len(right) or len(lengths) != 1:
        raise DataError(f"{len(probes)} probes: one list of images, captions and bools each is meant, all as long")
    images = [*probes, *(image for row in found for image in row)]
    height, width = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    step, first = width + 4 * GAP, MARGIN + width + 4 * MARGIN  # the probe stands apart
    across = first + lengths.pop() * step - 4 * GAP + MARGIN
    heading, top = wrap_title(title, across)
    cell_height = height + LINE + 2 * MARGIN
    sheet = np.full((top + len(probes) * cell_height, across, 3), 255, np.uint8)
    marks = []
    for r, (probe, row) in enumerate(zip(probes, found, strict=True)):
        y = top + r * cell_height
        paste(sheet, probe, y, MARGIN)
        for c, image in enumerate(row):
            x, color = first + c * step, SAME if right[r][c] else DIFFERENT
            frame = np.round(255 * np.array(to_rgb(color))).astype(np.uint8)
            sheet[y - 4 : y + image.shape[0] + 4, x - 4 : x + image.shape[1] + 4] = frame
            paste(sheet, image, y, x)
            marks.append((x + width / 2, y + height + 7, f"{captions[r][c]} {'✓' if right[r][c] else '✗'}", color))
    figure, ax = show_sheet(sheet, heading, ax)
    for x, y, text, color in marks:
        ax.text(x, y, text, ha="center", va="top", fontsize=SMALL_SIZE, color=color)
    return figure
