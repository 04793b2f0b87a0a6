"""Angles between random directions, in spaces of more and more dimensions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcface_edu.evaluation.angle_stats import random_angle_density
from arcface_edu.figures.style import DIFFERENT, canvas, dress, shades


def plot_random_angles(dimensions: Sequence[int] = (2, 8, 32, 128, 512), ax: Axes | None = None) -> Figure:
    """Plot the angles between random directions: the more dimensions, the nearer all angles are to 90 degrees.

    Args:
        dimensions: Rising, from 2 on.
        ax: Where; None makes a new figure.
    """
    figure, ax = canvas(ax)
    at = np.linspace(0, 180, 1801)
    for dimension, color in zip(dimensions, shades(DIFFERENT, len(dimensions)), strict=True):
        density = random_angle_density(at, dimension)
        spread = np.sqrt(np.average((at - 90) ** 2, weights=density))
        ax.plot(at, 100 * density, color=color, linewidth=1.8, label=f"{dimension}-D: ±{spread:.1f}°")
    ax.set_xlim(0, 180)
    ax.set_ylim(bottom=0)
    title = f"In {dimensions[-1]} dimensions strangers are at right angles by themselves: 90° ± {spread:.0f}°"
    dress(ax, title, "angle between two random directions (degrees)", "share per degree (%)", key=True)
    return figure
