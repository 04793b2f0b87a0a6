"""The problem of face recognition in pictures: training and use of a network, and a face brought onto the template."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from arcface_edu.course.figures.animations import PEOPLE, put_face
from arcface_edu.course.figures.hero import card
from arcface_edu.course.figures.overview import arrow, box, heading
from arcface_edu.figures.style import COMPUTE, FAINT, INK, LABEL_SIZE, SMALL_SIZE, WAITING, panels

POINT = "#CC6677"


def plot_train_and_test(known: Sequence[Tensor], strangers: Sequence[Tensor]) -> Figure:
    """Draw what a network is trained with and what is left of it in use: the head is thrown away.

    Args:
        known: Two photographs of people of the training data, uint8 (3, H, W).
        strangers: Two photographs of other people.
    """
    figure, ax = card(9.6, 4.3)
    heading(ax, 0.3, 4.05, "The head exists in training only")
    text: dict[str, Any] = dict(ha="center", va="center", fontsize=LABEL_SIZE, color=INK)
    for y, name in ((3.0, "train"), (0.95, "use")):
        ax.text(0.3, y, name, **(text | dict(ha="left", fontweight="bold")))
    put_face(ax, known[0], (1.45, 3.0), PEOPLE[3], pixels=52)
    row(ax, 3.0, 2.0)
    box(ax, 6.0, 2.65, 1.5, 0.7, "head:\na centre a person", COMPUTE)
    arrow(ax, 7.5, 3.0, 7.85, 3.0)
    ax.text(8.7, 3.0, "64 scores,\nand the loss: is the\nright one the largest?", **text)
    for y, face in zip((1.4, 0.5), strangers, strict=True):
        put_face(ax, face, (1.45, y), FAINT, pixels=52)
        row(ax, y, 2.0)
        ax.annotate("", (6.6, 0.95), (5.75, y), arrowprops=dict(arrowstyle="-|>", color=INK, lw=1.4))
    ax.text(7.75, 0.95, "the angle between the two:\nbelow a threshold,\n“the same person”", **text)
    ax.text(3.05, 2.13, "the same network, the same weights", **(text | dict(fontsize=SMALL_SIZE)))
    ax.text(6.75, 2.13, "no head: nobody here has a centre", **(text | dict(fontsize=SMALL_SIZE)))
    return figure


def row(ax: Axes, y: float, left: float) -> None:
    """Draw one pass through the network: the box, and the bar of its embedding."""
    arrow(ax, left - 0.1, y, left + 0.3, y)
    box(ax, left + 0.3, y - 0.3, 1.5, 0.6, "network", COMPUTE)
    arrow(ax, left + 1.8, y, left + 2.15, y)
    box(ax, left + 2.15, y - 0.2, 1.5, 0.4, "embedding", WAITING)
    if y > 2:
        arrow(ax, left + 3.65, y, left + 4.0, y)


def plot_alignment(photo: Tensor, found: np.ndarray, face: Tensor, template: np.ndarray) -> Figure:
    """Draw a photograph with five detected points, and the face that was cut out so that they lie on the template.

    Args:
        photo: uint8 (3, H, W).
        found: (5, 2) x and y in the photograph.
        face: uint8 (3, 112, 112).
        template: (5, 2).
    """
    figure, axes = panels(1, 2, (6.6, 3.5))
    for ax, picture, points, title in (
        (axes[0], photo, found, "found in the photograph"),
        (axes[1], face, template, "moved onto the template"),
    ):
        ax.imshow(np.asarray(picture).transpose(1, 2, 0))
        ax.scatter(*np.asarray(points).T, s=46, facecolors="none", edgecolors="white", linewidths=3)
        ax.scatter(*np.asarray(points).T, s=46, facecolors="none", edgecolors=POINT, linewidths=1.6)
        ax.set_title(f"{title}: {picture.shape[2]} × {picture.shape[1]}", fontsize=LABEL_SIZE, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure
