"""Who looks like whom: angles between people, with their faces."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from arcface_edu.errors import DataError
from arcface_edu.figures.style import DIFFERENT, INK, SMALL_SIZE, canvas, dress


def plot_closest(degrees: ArrayLike, faces: Sequence[Any], total: int | None = None, ax: Axes | None = None) -> Figure:
    """Draw the map of angles between a few people, their faces along its sides.

    Args:
        degrees: (K, K).
        faces: K uint8 images, (3, H, W) tensors or (H, W, 3) arrays.
        total: Out of how many people these are the closest.
        ax: Where; None makes a new figure.

    Raises:
        DataError: Fewer than two people, or sizes that do not match.
    """
    degrees, count = np.asarray(degrees, dtype=float), len(faces)
    if count < 2 or degrees.shape != (count, count):
        raise DataError(f"{count} faces and angles of shape {degrees.shape}: one face per row is meant, two at least")
    figure, ax = canvas(ax, size=(7.2, 7.6))
    off_diagonal = ~np.eye(count, dtype=bool)
    closest = degrees[off_diagonal].min()
    colors = LinearSegmentedColormap.from_list("", [DIFFERENT, "white"])
    shown = np.where(off_diagonal, degrees, np.nan)
    ax.imshow(shown, cmap=colors, vmin=closest, vmax=max(90.0, closest + 1), extent=(0, count, count, 0))
    for row, column in np.argwhere(off_diagonal):
        ax.text(
            column + 0.5, row + 0.5, f"{degrees[row, column]:.0f}°", ha="center", va="center", color=INK,
            fontsize=max(SMALL_SIZE, 15 - 0.5 * count),
            fontweight="bold" if degrees[row, column] == degrees[row][off_diagonal[row]].min() else "normal",
        )  # fmt: skip
    for place, face in enumerate(map(np.asarray, faces)):
        picture = face.transpose(1, 2, 0) if face.shape[0] == 3 else face
        ax.imshow(picture, extent=(-1.06, -0.06, place + 0.97, place + 0.03))
        ax.imshow(picture, extent=(place + 0.03, place + 0.97, -0.06, -1.06))
    ax.set_xlim(-1.1, count)
    ax.set_ylim(count, -1.1)

    of = f" of {total:,}" if total else ""
    dress(ax, f"The two closest{of} people are {closest:.0f}° apart; bold: each one's nearest")
    ax.axis("off")
    return figure
