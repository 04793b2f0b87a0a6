"""The figures of `python -m arcface_edu.angles`: each thing by itself, and several side by side."""

import numpy as np
import torch

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
    plot_pair_angles,
)
from arcface_edu.figures.faces import contact_sheet
from arcface_edu.figures.identities import plot_closest
from arcface_edu.figures.style import save

CLOSEST = 8  # people on the map of angles
ENDS = 8  # faces with the shortest and with the longest embeddings


def draw_angles(subjects, folder):
    """Draw all that can be had of each subject (as in arcface_edu/angles.py) into a folder.

    subjects: dict name -> Subject.   returns: list of the files' Paths.
    """
    drawn, own, nearest = [], {}, {}

    def keep(figure, what, name):
        of = "" if len(subjects) == 1 else "_" + "".join(c if c.isalnum() or c in "-." else "_" for c in name)
        drawn.append(save(figure, folder / f"angles_{what}{of}.png"))

    for name, subject in subjects.items():
        _, means, members = class_means(subject.embeddings, subject.labels)
        # Where the head's centres are not known, the mean of a class stands for its centre.
        centres, rows = (means, members) if subject.centres is None else (subject.centres, subject.labels)
        own[name] = angles_to_rows(subject.embeddings, centres, rows)
        other = angles_to_nearest_other(subject.embeddings, centres, rows)
        nearest[name], neighbours = nearest_angles(centres)
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
            keep(draw_closest(subject, centres, rows, nearest[name], neighbours), "closest", name)
            keep(draw_ends(subject.images, norms), "norm_faces", name)
        for pairs, (result, is_same) in subject.pairs.items():
            threshold, dimension = result["threshold"]["cosine"], subject.embeddings.shape[1]
            figure = plot_pair_angles(result["cosines"], is_same, threshold, dimension=dimension, name=name)
            keep(figure, f"pairs_{pairs}", name)
    dimension = next(iter(subjects.values())).embeddings.shape[1]
    drawn.append(save(plot_own_centre(own), folder / "angles_own_centre.png"))
    drawn.append(save(plot_nearest_centres(nearest, dimension), folder / "angles_nearest_centres.png"))
    return drawn


def draw_closest(subject, centres, rows, degrees, neighbours):
    """The map of the people whose centres are closest, each with the photograph nearest to its centre."""
    seen = np.unique(rows)
    order = np.where(np.isin(np.arange(len(centres)), seen), degrees, 181.0)  # only people with a photograph here
    order = np.where(np.isin(neighbours, seen), order, 181.0)
    group = [row for row in closest_group(neighbours, order, CLOSEST) if row in set(seen.tolist())]
    faces = []
    for row in group:
        own = np.flatnonzero(rows == row)
        faces.append(
            subject.images[own[angles_to_rows(subject.embeddings[own], centres, np.full(len(own), row)).argmin()]]
        )
    return plot_closest(angle_matrix(centres[torch.as_tensor(group)]), faces, len(centres))


def draw_ends(images, norms):
    """The photographs with the shortest and with the longest embeddings."""
    order = np.argsort(norms)
    rows = [[images[place] for place in places] for places in (order[:ENDS], order[: -ENDS - 1 : -1])]
    lengths = [f"{norms[order[0]]:.1f} up", f"{norms[order[-1]]:.1f} down"]
    return contact_sheet(rows, lengths, "Above the shortest embeddings, below the longest: what does the length tell?")
