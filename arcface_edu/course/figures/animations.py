"""Pictures that move: target angles that shrink over a run, and a few people who move apart in the plane."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import ArrayLike
from torch import Tensor

from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import angle_statistics
from arcface_edu.figures.angles import BIN, join_lines
from arcface_edu.figures.faces import Image
from arcface_edu.figures.style import DPI, FAINT, INK, SAME, TITLE_SIZE, Color, canvas, dress, method_color
from arcface_edu.io import StrPath, replace_when_done

Array = np.ndarray | Tensor

# Paul Tol's "muted" colours, one for each of a few people: they mean nothing but who is who.
PEOPLE = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255")
HOLD = 12  # frames for which the last picture stands


def animate_target_angles(steps: ArrayLike, histograms: ArrayLike, frames: int = 48) -> FuncAnimation:
    """Animate the histogram of angles to the own class centre over the lines of a run's log (ArcFace fig. 4a).

    Args:
        steps: (L,) rising.
        histograms: (L, bins) counts over equal bins of 0 to 180 degrees.
        frames: At most so many; lines of the log are joined to fit.

    Returns:
        What `save_animation` writes.

    Raises:
        DataError: No line, or a line without counts.
    """
    steps, shares = join_lines(steps, histograms, frames)
    shares, edges = 100 * shares, np.linspace(0, 180, shares.shape[1] + 1)
    shares *= BIN / (edges[1] - edges[0])
    means = shares @ ((edges[1:] + edges[:-1]) / 2) / shares.sum(1)
    filled = np.flatnonzero(shares.max(0) > 0.1)
    figure, ax = canvas()
    FigureCanvasAgg(figure)

    def draw(frame: int) -> None:
        ax.clear()
        ax.stairs(shares[0], edges, color=FAINT, linewidth=1.2, label=f"in the beginning: mean {means[0]:.1f}°")
        ax.stairs(shares[frame], edges, fill=True, color=SAME, alpha=0.32)
        ax.stairs(shares[frame], edges, color=SAME, linewidth=1.8, label=f"now: mean {means[frame]:.1f}°")
        ax.axvline(means[frame], color=INK, linewidth=1.4, linestyle=":")
        ax.set_xlim(edges[filled[0]] - BIN, edges[filled[-1] + 1] + BIN)
        ax.set_ylim(0, 1.08 * shares.max())
        title = f"Faces move in on the centre of their own class: step {steps[frame]:,}"
        dress(ax, title, "angle to the own class centre (degrees)", "share of images (%)", key=True)

    return _film(figure, draw, len(steps))


def animate_plane(
    histories: Mapping[str, tuple[Array, Array]],
    labels: ArrayLike,
    faces: Sequence[Image],
    notes: Sequence[str] | None = None,
) -> FuncAnimation:
    """Animate the embeddings of a few people in the plane during training, a panel for each head (ArcFace fig. 3).

    Over each panel stands the `inter` of `angle_statistics`.

    Args:
        histories: For each head by name, (embeddings (F, N, 2), centres (F, C, 2)); F is the same for all.
        labels: (N,), below C.
        faces: C uint8 images, one of each person.
        notes: F texts, one under each frame.

    Returns:
        What `save_animation` writes.

    Raises:
        DataError: The panels differ in F, or as `draw_plane`.
    """
    lengths = {len(embeddings) for embeddings, _ in histories.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"the panels have {sorted(lengths)} frames; one number, above 0, is meant for all")
    frames = lengths.pop()
    figure = Figure(figsize=(3.2 * len(histories), 3.7), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(histories)))
    figure.subplots_adjust(0.01, 0.07, 0.99, 0.9, wspace=0.04)
    note = figure.text(0.5, 0.03, "", ha="center", fontsize=TITLE_SIZE - 1, color=INK)

    def draw(frame: int) -> None:
        for ax, (name, (embeddings, centres)) in zip(panels, histories.items(), strict=True):
            ax.clear()
            apart = angle_statistics(embeddings[frame], labels)["inter"]
            draw_plane(ax, embeddings[frame], labels, centres[frame], faces, f"{name}: people {apart:.0f}° apart")
            ax.title.set_color(method_color(name))
        note.set_text(notes[frame] if notes else "")

    return _film(figure, draw, frames)


def draw_plane(
    ax: Axes,
    embeddings: Array,
    labels: ArrayLike,
    centres: Array,
    faces: Sequence[Image] | None = None,
    title: str = "",
) -> None:
    """Draw the directions of 2-D embeddings as points about a circle, and class centres as spokes that end in a face.

    The points' distance from the circle means nothing: it only keeps them from covering one another.

    Args:
        ax: Where.
        embeddings: (N, 2).
        labels: (N,), below C.
        centres: (C, 2).
        faces: C uint8 images, (3, H, W) or (H, W, 3); None draws spokes alone.
        title: Over the ax.

    Raises:
        DataError: More people than colours, arrays of another shape, or not one face a centre.
    """
    embeddings, centres, labels = (np.asarray(values) for values in (embeddings, centres, labels))
    count = len(centres) if faces is None else len(faces)
    if embeddings.shape[1:] != (2,) or centres.shape != (count, 2) or count > len(PEOPLE):
        raise DataError(
            f"embeddings {embeddings.shape}, centres {centres.shape}, {count} faces: (N, 2), (C, 2) and C "
            f"are meant, C at most {len(PEOPLE)}"
        )
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
    spokes = centres / np.linalg.norm(centres, axis=1, keepdims=True).clip(1e-12)
    jitter = 1 + np.random.default_rng(0).uniform(-0.09, 0.09, (len(directions), 1))
    points = directions * jitter
    for person, (x, y) in enumerate(spokes):
        color, own = PEOPLE[person], labels == person
        ax.plot([0, x], [0, y], color=color, linewidth=2)
        ax.scatter(points[own, 0], points[own, 1], s=9, color=color, alpha=0.75, linewidths=0)
        if faces is not None:
            put_face(ax, faces[person], (1.46 * x, 1.46 * y), color)
    reach = 1.76 if faces is not None else 1.2
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(title, fontsize=TITLE_SIZE, color=INK)


def put_face(ax: Axes, face: Image, at: tuple[float, float], color: Color, pixels: float = 32) -> None:
    """Draw a person's picture in a frame of their colour.

    Args:
        ax: Where.
        face: uint8, (3, H, W) or (H, W, 3).
        at: Its middle, data coordinates.
        color: Of the frame.
        pixels: Height of the picture, points.
    """
    picture = np.asarray(face)
    picture = picture.transpose(1, 2, 0) if picture.shape[0] == 3 else picture
    frame = dict(edgecolor=color, linewidth=2, boxstyle="square,pad=0.05")
    image = OffsetImage(picture, zoom=pixels / len(picture))
    ax.add_artist(AnnotationBbox(image, at, bboxprops=frame, pad=0.1, annotation_clip=False))


def save_animation(animation: FuncAnimation, path: StrPath, seconds: float = 6.0) -> Path:
    """Write an animation as a GIF, whole or not at all; it plays in about `seconds`, then again.

    Raises:
        OSError: The folder cannot be written.
    """
    with replace_when_done(path) as beside:
        fps = round(len(list(animation.new_frame_seq())) / seconds, 2)
        animation.save(beside, PillowWriter(fps=fps))  # type: ignore[arg-type]  # declared int, used in int(1000 / fps)
    return Path(path)


def _film(figure: Figure, draw: Callable[[int], None], frames: int) -> FuncAnimation:
    """Return an animation of `draw(frame)` whose last picture stays for a while."""
    order = [*range(frames), *[frames - 1] * HOLD]
    return FuncAnimation(figure, draw, frames=order, init_func=lambda: None, blit=False)
