"""The figures of `python -m arcface_edu.angles`: each thing by itself, and several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from arcface_edu.evaluation.angle_stats import (
    angle_matrix,
    angles_to_nearest_other,
    angles_to_rows,
    class_means,
    closest_group,
    nearest_angles,
)
from arcface_edu.figures.angles import (
    plot_angle_history,
    plot_nearest_centres,
    plot_norms,
    plot_own_and_other,
    plot_own_centre,
    plot_pairs_by_run,
)
from arcface_edu.figures.faces import contact_sheet
from arcface_edu.figures.identities import plot_closest
from arcface_edu.figures.style import save

CLOSEST = 8  # people on the map of angles
ENDS = 8  # faces with the shortest and with the longest embeddings


def draw_angles(subjects: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all that can be had of each subject (as in arcface_edu/angles.py) into a folder.

    Args:
        subjects: `angles.Subject` by name.
        folder: For the files.

    Returns:
        The files.
    """
    drawn: list[Path] = []
    own: dict[str, np.ndarray] = {}
    nearest: dict[str, np.ndarray] = {}
    by_pairs: dict[str, dict[str, Any]] = {}

    def keep(figure: Figure, what: str, name: str) -> None:
        of = "" if len(subjects) == 1 else "_" + "".join(c if c.isalnum() or c in "-." else "_" for c in name)
        drawn.append(save(figure, folder / f"angles_{what}{of}.png"))

    for name, subject in subjects.items():
        _, means, members = class_means(subject.embeddings, subject.labels)
        # Where the head's centres are not known, the mean of a class stands for its centre.
        centres, rows = (means, members) if subject.centres is None else (subject.centres, subject.labels)
        own[name] = angles_to_rows(subject.embeddings, centres, rows)
        other = angles_to_nearest_other(subject.embeddings, centres, rows)
        nearest[name] = nearest_angles(centres)[0]
        keep(plot_own_and_other(own[name], other, name), "own_and_other", name)
        norms = subject.embeddings.norm(dim=1).numpy()
        if len(norms) >= 10:
            keep(plot_norms(norms, own[name], name), "norms", name)
        if len(subject.log) > 1:
            steps, histograms = zip(
                *((line["step"], line["target_angle_histogram"]) for line in subject.log), strict=True
            )
            keep(plot_angle_history(steps, histograms, name=name), "history", name)
        if subject.images is not None:
            keep(draw_closest(subject, centres, rows), "closest", name)
            keep(draw_ends(subject.images, norms), "norm_faces", name)
        for pairs, (result, is_same) in subject.pairs.items():
            shown = result["cosines"], is_same, result["threshold"]["cosine"]
            by_pairs.setdefault(pairs, {})[name] = shown
    dimension = next(iter(subjects.values())).embeddings.shape[1]
    together = {f"pairs_{pairs}": plot_pairs_by_run(runs, dimension) for pairs, runs in by_pairs.items()}
    together["nearest_centres"] = plot_nearest_centres(nearest, dimension)
    if len(subjects) > 1:
        together["own_centre"] = plot_own_centre(own)
    return drawn + [save(figure, folder / f"angles_{what}.png") for what, figure in together.items()]


def draw_closest(subject: Any, centres: Tensor, rows: np.ndarray) -> Figure:
    """Draw the map of the people whose centres are closest, each with the photograph nearest to its centre.

    Args:
        subject: An `angles.Subject` with images.
        centres: (C, D).
        rows: (N,), the number of each embedding's own centre; people without an embedding are left out.
    """
    seen = np.unique(rows)
    degrees, neighbours = nearest_angles(centres[seen])
    group, faces = seen[closest_group(neighbours, degrees, CLOSEST)], []
    for row in group:
        own = np.flatnonzero(rows == row)
        best = angles_to_rows(subject.embeddings[own], centres, rows[own]).argmin()
        faces.append(subject.images[own[best]])
    return plot_closest(angle_matrix(centres[group]), faces, len(seen))


def draw_ends(images: Sequence[Any], norms: np.ndarray) -> Figure:
    """Draw the photographs with the shortest and with the longest embeddings."""
    order = np.argsort(norms)
    rows = [[images[place] for place in places] for places in (order[:ENDS], order[-ENDS:])]
    lengths = [f"{norms[order[a]]:.1f} to {norms[order[b]]:.1f}" for a, b in ((0, ENDS - 1), (-ENDS, -1))]
    return contact_sheet(rows, lengths, "Above, the faces with the shortest embeddings; below, with the longest")
