"""A handful of people in the plane and on the sphere, where nothing has to be projected away, and strangers among them.

A person has the same colour in all of these pictures, and the face in a frame of that colour says who it is.
"""

import numpy as np
from matplotlib.figure import Figure

from arcface_edu.course.figures.animations import PEOPLE, draw_plane, put_face
from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import as_vectors, class_means, nearest_angles
from arcface_edu.figures.style import DPI, FAINT, INK, LABEL_SIZE, METHODS, TITLE_SIZE, dress

CELL = 2.75  # inches of a plane or sphere
HEADED = CELL + 0.3  # with its title
TURN = np.linspace(0, 2 * np.pi, 181)


def plot_planes(planes, labels, faces=None, columns=3, note=""):
    """People in the plane under several heads, side by side, with the angle between the closest two.

    planes: dict name of the head -> (embeddings (N, 2), centres (C, 2)).   labels: (N,).   note: a line under it all.
    faces: C uint8 images, for a key of whose colour is whose, or None.   returns: Figure.
    raises: DataError (no plane, or as `draw_plane`).
    """
    return _side_by_side(planes, labels, faces, columns, note, draw_plane)


def plot_spheres(spheres, labels, faces=None, azimuth=20, elevation=20, columns=2, note=""):
    """People on the sphere under several heads, looked at from a direction.

    spheres: dict name of the head -> (embeddings (N, 3), centres (C, 3)).   azimuth, elevation: degrees.   The rest as
    in `plot_planes`.
    """

    def draw(ax, embeddings, labels, centres):
        draw_sphere(ax, embeddings, labels, centres, azimuth, elevation)

    return _side_by_side(spheres, labels, faces, columns, note, draw)


def plot_lengths(embeddings, labels, centres, titles=("", "")):
    """2-D embeddings as they are, with their lengths, and beside them what is left when only directions count.

    embeddings: (N, 2).   labels: (N,), below C.   centres: (C, 2).   titles: one over each.   returns: Figure.
    raises: DataError (as `draw_plane`).
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


def turn_sphere(figure, dx, dy, azimuth, elevation):
    """New (azimuth, elevation), whole degrees, after a drag by shares dx, dy of a figure of `plot_spheres`.

    As wide as a sphere is, so far a drag makes half a turn.
    """
    width, height = figure.get_size_inches()
    azimuth -= 180 * dx * width / CELL
    elevation = np.clip(elevation - 180 * dy * height / CELL, -90, 90)
    return round((azimuth + 180) % 360 - 180), round(elevation)


def draw_sphere(ax, embeddings, labels, centres, azimuth=20, elevation=20):
    """Directions of 3-D embeddings as points on a ball of glass, class centres as rings; the far side is pale.

    embeddings: (N, 3).   labels: (N,), below C.   centres: (C, 3).   azimuth, elevation: degrees, of who looks on.
    raises: DataError (embeddings or centres of another size, more people than colours).
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


def look_from(vectors, azimuth, elevation):
    """Vectors (..., 3) as (..., 3): across, up, and towards the eye; all of length 1, seen from far away."""
    a, e = np.radians([azimuth, elevation])
    eye = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    across = [-np.sin(a), np.cos(a), 0]
    directions = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
    return directions @ np.stack([across, np.cross(eye, across), eye], 1)


def graticule():
    """Meridians and parallels every 30 degrees: arrays (T, 3) on the unit sphere."""
    for longitude in np.radians(np.arange(0, 180, 30)):
        yield np.stack([np.cos(TURN) * np.cos(longitude), np.cos(TURN) * np.sin(longitude), np.sin(TURN)], 1)
    for latitude in np.radians(np.arange(-60, 90, 30)):
        ring = np.cos(latitude) * np.stack([np.cos(TURN), np.sin(TURN)], 1)
        yield np.concatenate([ring, np.full((len(TURN), 1), np.sin(latitude))], 1)


def plot_strangers(embeddings, labels, centres, faces, strangers, title=""):
    """Where photographs of people whom a net has never seen fall among those it knows: the circle, unrolled.

    embeddings: (N, 2) of the strangers.   labels: (N,), which stranger.   centres: (C, 2) of the known, whose faces
    stand over their directions.   faces: C and strangers: K uint8 images.   returns: Figure.
    raises: DataError (vectors that are not 2-D, other counts of faces).
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


def closest_people(embeddings, labels):
    """Degrees between the mean directions of the two people who lie closest to each other."""
    _, means, _ = class_means(as_vectors(embeddings, "embedding"), np.asarray(labels))
    return float(nearest_angles(means)[0].min())


def _side_by_side(panels, labels, faces, columns, note, draw):
    """Figure with a cell per panel, titled with how close the two closest people are, and a key of faces."""
    if not panels:
        raise DataError("there is nothing to draw: no head is given")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    beside = len(panels) % columns > 0  # the key of faces takes the cell that is left, or a strip of its own
    strip = 0.6 if faces is not None and not beside else 0
    foot = strip + (0.3 if note else 0)
    height = HEADED * rows + foot
    figure = Figure(figsize=(CELL * columns, height), dpi=DPI, facecolor="white")

    def cell(place):
        row, column = divmod(place, columns)
        bottom = foot + HEADED * (rows - 1 - row)
        return figure.add_axes((column / columns, bottom / height, 1 / columns, CELL / height))

    for place, (name, (embeddings, centres)) in enumerate(panels.items()):
        ax = cell(place)
        draw(ax, embeddings, labels, centres)
        title = f"{name}: closest two {closest_people(embeddings, labels):.0f}°"
        ax.set_title(title, fontsize=LABEL_SIZE, pad=4, color=METHODS.get(name, INK))
    if strip:
        _key_of_faces(figure.add_axes((0, (foot - strip) / height, 1, strip / height)), faces, len(faces))
    elif faces is not None:
        _key_of_faces(cell(len(panels)), faces, -(-len(faces) // 2))
    if note:
        figure.text(0.5, 0.1 / height, note, ha="center", fontsize=LABEL_SIZE, color=INK)
    return figure


def _key_of_faces(ax, faces, across):
    """Whose colour is whose: rows of so many faces, in the middle of an ax."""
    for person, face in enumerate(faces):
        row, column = divmod(person, across)
        put_face(ax, face, (column, -row), PEOPLE[person])
    last = (len(faces) - 1) // across
    ax.set_xlim(-0.6, across - 0.4)
    ax.set_ylim(-last - 0.6, 0.6)
    ax.set_aspect("equal" if last else "auto")
    ax.axis("off")
