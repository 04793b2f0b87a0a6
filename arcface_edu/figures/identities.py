"""Who looks like whom: angles between people, with their faces."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from arcface_edu.errors import DataError
from arcface_edu.figures.style import DIFFERENT, INK, SMALL_SIZE, canvas, dress


def plot_closest(degrees, faces, total=None, ax=None):
    """The map of angles between a few people, their faces along its sides.

    degrees: (K, K).   faces: K uint8 images, (3, H, W) tensors or (H, W, 3) arrays.   total: out of how many people
    these are the closest.   returns: Figure.   raises: DataError (fewer than two people, sizes that do not match).
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
