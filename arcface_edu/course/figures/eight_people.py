"""A few people in the plane and on the sphere, where nothing has to be projected away, and strangers among them.

A person has the same colour in all of these pictures, and the face in a frame of that colour says who it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from arcface_edu.course.figures.animations import PEOPLE, Array, draw_plane, put_face
from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import as_vectors, class_means, nearest_angles
from arcface_edu.figures.faces import Image
from arcface_edu.figures.style import DPI, FAINT, INK, LABEL_SIZE, METHODS, TITLE_SIZE, dress

CELL = 2.75  # inches of a plane or sphere
HEADED = CELL + 0.3  # with its title
TURN = np.linspace(0, 2 * np.pi, 181)


def plot_planes(
    planes: Mapping[str, tuple[Array, Array]],
    labels: ArrayLike,
    faces: Sequence[Image] | None = None,
    columns: int = 3,
    note: str = "",
) -> Figure:
    """Plot people in the plane under several heads, side by side, with the angle between the closest two.

    Args:
        planes: For each head by name, (embeddings (N, 2), centres (C, 2)).
        labels: (N,), below C.
        faces: C uint8 images, for a key of whose colour is whose.
        columns: At most so many panels in a row.
        note: A line under the panels.

    Raises:
        DataError: No head, or as `draw_plane`.
    """
    return _side_by_side(planes, labels, faces, columns, note, draw_plane)


def plot_spheres(
    spheres: Mapping[str, tuple[Array, Array]],
    labels: ArrayLike,
    faces: Sequence[Image] | None = None,
    azimuth: float = 20,
    elevation: float = 20,
    columns: int = 2,
    note: str = "",
) -> Figure:
    """Plot people on the sphere under several heads, seen from one direction.

    Args:
        spheres: For each head by name, (embeddings (N, 3), centres (C, 3)).
        labels: (N,), below C.
        faces: C uint8 images, for a key of whose colour is whose.
        azimuth: Degrees of the direction.
        elevation: Degrees of the direction.
        columns: At most so many panels in a row.
        note: A line under the panels.

    Raises:
        DataError: No head, or as `draw_sphere`.
    """

    def draw(ax: Axes, embeddings: Array, labels: ArrayLike, centres: Array) -> None:
        draw_sphere(ax, embeddings, labels, centres, azimuth, elevation)

    return _side_by_side(spheres, labels, faces, columns, note, draw)


def plot_lengths(embeddings: Array, labels: ArrayLike, centres: Array, titles: tuple[str, str] = ("", "")) -> Figure:
    """Plot 2-D embeddings with their lengths, and beside them their directions alone.

    Args:
        embeddings: (N, 2).
        labels: (N,), below C.
        centres: (C, 2).
        titles: One over each panel.

    Raises:
        DataError: As `draw_plane`.
    """
    figure = Figure(figsize=(7.6, 4.1), dpi=DPI, facecolor="white")
    raw, plane = figure.add_axes((0.1, 0.14, 0.42, 0.78)), figure.add_axes((0.56, 0.1, 0.43, 0.82))
    draw_plane(plane, embeddings, labels, centres)
    dress(raw, "", "first number of the embedding", "second")
    for person, color in enumerate(PEOPLE[: len(centres)]):
        x, y = np.asarray(embeddings)[np.asarray(labels) == person].T
        raw.scatter(x, y, s=9, color=color, linewidths=0)
    raw.plot(0, 0, "+", color=INK, markersize=12)
    raw.set_aspect("equal", adjustable="datalim")
    for panel, title in zip((raw, plane), titles, strict=True):
        panel.set_title(title, fontsize=LABEL_SIZE, color=INK)
    return figure


def turn_sphere(figure: Figure, dx: float, dy: float, azimuth: float, elevation: float) -> tuple[int, int]:
    """Return the new (azimuth, elevation) in whole degrees after a drag; the width of a sphere makes half a turn.

    Args:
        figure: Of `plot_spheres`.
        dx: The drag, as a share of the figure's width.
        dy: The drag, as a share of its height.
        azimuth: Degrees before the drag.
        elevation: Degrees before the drag.
    """
    width, height = figure.get_size_inches()
    azimuth -= 180 * dx * width / CELL
    elevation = np.clip(elevation - 180 * dy * height / CELL, -90, 90)
    return round((azimuth + 180) % 360 - 180), round(elevation)


def draw_sphere(
    ax: Axes,
    embeddings: Array,
    labels: ArrayLike,
    centres: Array,
    azimuth: float = 20,
    elevation: float = 20,
) -> None:
    """Draw the directions of 3-D embeddings as points on a ball of glass, class centres as rings, the far side pale.

    Args:
        ax: Where.
        embeddings: (N, 3).
        labels: (N,), below C.
        centres: (C, 3).
        azimuth: Degrees of the direction it is seen from.
        elevation: Degrees of the direction it is seen from.

    Raises:
        DataError: Arrays of another shape, or more people than colours.
    """
    embeddings, centres, labels = (np.asarray(values, dtype=float) for values in (embeddings, centres, labels))
    if embeddings.shape[1:] != (3,) or centres.shape[1:] != (3,) or len(centres) > len(PEOPLE):
        raise DataError(
            f"embeddings {embeddings.shape} and centres {centres.shape}: (N, 3) and (C, 3) are meant, C at most "
            f"{len(PEOPLE)}"
        )
    ax.fill(np.cos(TURN), np.sin(TURN), color="#F5F5F5", zorder=0)
    ax.plot(np.cos(TURN), np.sin(TURN), color=FAINT, linewidth=1)
    for line in graticule():
        across, up, depth = look_from(line, azimuth, elevation).T
        ax.plot(across, np.where(depth > 0, up, np.nan), color="#D4D4D4", linewidth=0.7, zorder=1)
    points, rings = (look_from(vectors, azimuth, elevation) for vectors in (embeddings, centres))
    for person, color in enumerate(PEOPLE[: len(centres)]):
        own, ring = points[labels == person], rings[person : person + 1]
        for near, strength, order in ((False, 0.18, 1), (True, 0.8, 3)):
            across, up, depth = own[(own[:, 2] > 0) == near].T
            ax.scatter(across, up, s=9, color=color, alpha=strength, linewidths=0, zorder=order)
            across, up, depth = ring[(ring[:, 2] > 0) == near].T
            ax.scatter(
                across, up, s=110, facecolors="none", edgecolors=color, alpha=strength, linewidths=2, zorder=order
            )
    ax.set_xlim(-1.1, 1.1)
    ax.set_ylim(-1.1, 1.1)
    ax.set_aspect("equal")
    ax.axis("off")


def look_from(vectors: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """Return vectors (..., 3), scaled to length 1, in the viewer's axes (..., 3): across, up, and towards the eye."""
    a, e = np.radians([azimuth, elevation])
    eye = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    across = [-np.sin(a), np.cos(a), 0]
    directions = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
    return directions @ np.stack([across, np.cross(eye, across), eye], 1)


def graticule() -> Iterator[np.ndarray]:
    """Yield meridians and parallels every 30 degrees, each an array (T, 3) of points on the unit sphere."""
    for longitude in np.radians(np.arange(0, 180, 30)):
        yield np.stack([np.cos(TURN) * np.cos(longitude), np.cos(TURN) * np.sin(longitude), np.sin(TURN)], 1)
    for latitude in np.radians(np.arange(-60, 90, 30)):
        ring = np.cos(latitude) * np.stack([np.cos(TURN), np.sin(TURN)], 1)
        yield np.concatenate([ring, np.full((len(TURN), 1), np.sin(latitude))], 1)


def plot_strangers(
    embeddings: Array,
    labels: ArrayLike,
    centres: Array,
    faces: Sequence[Image],
    strangers: Sequence[Image],
    title: str = "",
) -> Figure:
    """Plot where photographs of people outside the training data fall among those inside: the circle, unrolled.

    Args:
        embeddings: (N, 2) of the strangers.
        labels: (N,), which stranger.
        centres: (C, 2) of the people of the training data.
        faces: C uint8 images, which stand over the directions of the centres.
        strangers: K uint8 images.
        title: Over the figure.

    Raises:
        DataError: Vectors that are not 2-D, or not one face for each person.
    """
    embeddings, centres, labels = (np.asarray(values) for values in (embeddings, centres, labels))
    if embeddings.shape[1:] != (2,) or centres.shape != (len(faces), 2) or len(faces) > len(PEOPLE):
        raise DataError(f"embeddings {embeddings.shape}, centres {centres.shape}, {len(faces)} faces: 2-D is meant")
    if labels.max() >= len(strangers):
        raise DataError(f"stranger {labels.max()} has no face: {len(strangers)} are given")
    figure = Figure(figsize=(7.4, 5.0), dpi=DPI, facecolor="white")
    ax = figure.add_axes((0.08, 0.1, 0.9, 0.72))
    at, known = (np.degrees(np.arctan2(v[:, 1], v[:, 0])) for v in (embeddings, centres))
    nearest = np.abs((at[:, None] - known + 180) % 360 - 180).argmin(1)
    for person, direction in enumerate(known):
        ax.axvline(direction, color=PEOPLE[person], linewidth=2, zorder=0)
        put_face(ax, faces[person], (direction, -1.0), PEOPLE[person], pixels=28)
    for row, face in enumerate(strangers):
        own = labels == row
        heights = row + np.random.default_rng(row).uniform(-0.22, 0.22, own.sum())
        ax.scatter(at[own], heights, s=14, color=[PEOPLE[person] for person in nearest[own]], linewidths=0)
        put_face(ax, face, (-197, row), FAINT, pixels=28)
    dress(ax, "", "direction of the embedding in the plane (degrees)")
    ax.set_xlim(-182, 182)
    ax.set_xticks(range(-180, 181, 45))
    ax.set_ylim(len(strangers) - 0.4, -0.5)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
    figure.text(0.02, 0.965, title, fontsize=TITLE_SIZE, color=INK, va="top")
    return figure


def closest_people(embeddings: Array, labels: ArrayLike) -> float:
    """Return the angle between the mean directions of the two people who lie closest to each other, in degrees.

    Args:
        embeddings: (N, D).
        labels: (N,).
    """
    _, means, _ = class_means(as_vectors(embeddings, "embedding"), np.asarray(labels))
    return float(nearest_angles(means)[0].min())


def _side_by_side(
    panels: Mapping[str, tuple[Array, Array]],
    labels: ArrayLike,
    faces: Sequence[Image] | None,
    columns: int,
    note: str,
    draw: Callable[[Axes, Array, ArrayLike, Array], None],
) -> Figure:
    """Return a figure with a panel for each head, titled with the angle of its closest two people, and the key."""
    if not panels:
        raise DataError("there is nothing to draw: no head is given")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    beside = len(panels) % columns > 0  # the key of faces takes the cell that is left, or a strip of its own
    strip = 0.6 if faces is not None and not beside else 0
    foot = strip + (0.3 if note else 0)
    height = HEADED * rows + foot
    figure = Figure(figsize=(CELL * columns, height), dpi=DPI, facecolor="white")

    def cell(place: int) -> Axes:
        row, column = divmod(place, columns)
        bottom = foot + HEADED * (rows - 1 - row)
        return figure.add_axes((column / columns, bottom / height, 1 / columns, CELL / height))

    for place, (name, (embeddings, centres)) in enumerate(panels.items()):
        ax = cell(place)
        draw(ax, embeddings, labels, centres)
        title = f"{name}: closest two {closest_people(embeddings, labels):.0f}°"
        ax.set_title(title, fontsize=LABEL_SIZE, pad=4, color=METHODS.get(name, INK))
    if faces is not None and not beside:
        _key_of_faces(figure.add_axes((0, (foot - strip) / height, 1, strip / height)), faces, len(faces))
    elif faces is not None:
        _key_of_faces(cell(len(panels)), faces, -(-len(faces) // 2))
    if note:
        figure.text(0.5, 0.1 / height, note, ha="center", fontsize=LABEL_SIZE, color=INK)
    return figure


def _key_of_faces(ax: Axes, faces: Sequence[Image], across: int) -> None:
    """Draw the key of whose colour is whose: rows of `across` faces, in the middle of an ax."""
    for person, face in enumerate(faces):
        row, column = divmod(person, across)
        put_face(ax, face, (column, -row), PEOPLE[person])
    last = (len(faces) - 1) // across
    ax.set_xlim(-0.6, across - 0.4)
    ax.set_ylim(-last - 0.6, 0.6)
    ax.set_aspect("equal" if last else "auto")
    ax.axis("off")
