"""A copy of a data set without the labels that a trained network contradicts, and a report to judge that by.

The data set itself stays as it is. What was decided about which image stands in changes.csv, with its angles.
"""

import csv
import io
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from arcface_edu.data.datasets import FaceDataset, open_faces
from arcface_edu.data.label_noise import write_relabelled
from arcface_edu.errors import ConfigError, CorruptRecord, DataError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.suspects import Inspection, inspect_labels, main_sub_center
from arcface_edu.io import write_text_atomically
from arcface_edu.runs import open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

CHUNK = 1024  # images that are held decoded
SHOWN = 24  # suspects in the report
DROPPED = -1
HEADER = ("image", "was", "is", "degrees_to_own", "nearest_other", "degrees_to_it", "file")


class Cleaned(NamedTuple):
    """What was done."""

    images: int
    dropped: int
    relabelled: int
    joined: int  # classes that became part of another
    unreadable: int


def clean(
    run_folder: Path,
    data: Path,
    out: Path,
    relabel: bool = False,
    join: bool = False,
    limit: float | None = None,
    device: torch.device | None = None,
) -> Cleaned:
    """Write a data set with fewer wrong labels, changes.csv and report.html.

    Args:
        run_folder: A run trained on the data, with sub-centres or without; or any weights.
        data: RecordIO, or a folder of photographs per person.
        out: Folder to write, or a .csv: then only the list of changes is written.
        relabel: A suspect gets the label of another centre where that is nearer than halfway between the own centre
            and the nearest other one of an image that is kept; False = all suspects are left out.
        join: Classes that look like one person become one.
        limit: Degrees; what is further from its centre is a suspect, too.
        device: Where the network runs; None = the CPU.

    Raises:
        ConfigError: The limit is no angle.
        DataError, CheckpointError: Data or run cannot be used, or nothing would be left.
    """
    if limit is not None and not 0 < limit <= 180:
        raise ConfigError(f"--limit {limit:g}: an angle is above 0 and at most 180 degrees.")
    faces, run = open_faces(data), open_run(run_folder)
    if faces.labels is None:
        raise DataError(f"{data}: the labels of so large a set are not all read; clean a part of it.")
    if out.resolve() == Path(data).resolve():
        raise DataError(f"{out} is the data itself, which stays as it is: name another place.")
    embeddings, readable = embed_faces(run.model.to(device or torch.device("cpu")), faces)
    labels = np.asarray(faces.labels)[readable]
    trusted = None
    if run.centres is not None and run.centres.ndim == 3:
        if len(run.centres) == faces.num_classes:
            trusted = main_sub_center(embeddings, labels, run.centres)
        else:
            log.warning(f"{run_folder} was trained on {len(run.centres):,} people, not on these: angles alone decide.")
    seen = inspect_labels(embeddings, labels, trusted, limit)
    new = decide(seen, labels, relabel, join)
    if len(np.unique(new[new >= 0])) < 2:
        raise DataError(f"{data}: fewer than two people would be left; {run_folder} does not know these faces.")
    result = Cleaned(
        images=len(faces),
        dropped=int((new == DROPPED).sum()),
        relabelled=int((seen.suspects & (new != DROPPED)).sum()),
        joined=len(_targets(seen, join)),
        unreadable=len(faces) - len(readable),
    )
    if out.suffix == ".csv":
        write_text_atomically(out, changes(faces, readable, seen, labels, new))
        return result
    of_all = np.full(len(faces), DROPPED)
    of_all[readable] = new
    write_relabelled(out, faces, of_all)
    kept = [faces.names[label] for label in np.unique(new[new >= 0])]
    write_text_atomically(out / "identities.txt", "".join(f"{name}\n" for name in kept))
    write_text_atomically(out / "changes.csv", changes(faces, readable, seen, labels, new))
    folder = Path(data) if Path(data).is_dir() else Path(data).parent
    for pairs in folder.glob("*.bin"):
        shutil.copyfile(pairs, out / pairs.name)
    write_report(out / "report.html", faces, readable, seen, labels, new, result)
    return result


def embed_faces(model: nn.Module, faces: FaceDataset) -> tuple[Tensor, np.ndarray]:
    """Return the embeddings of all images that can be read, (M, D), and their indices (M,); others are counted."""
    parts, rows = [], []
    for start in tqdm(range(0, len(faces), CHUNK), desc="embedding faces", unit="chunk"):
        images = []
        for index in range(start, min(start + CHUNK, len(faces))):
            try:
                images.append(faces[index][0])
            except CorruptRecord as error:
                log.warning(f"left out: {error}")
            else:
                rows.append(index)
        parts += [embed_images(model, torch.stack(images), flip=False)] if images else []
    if not parts:
        raise DataError("none of the images can be read.")
    return torch.cat(parts), np.array(rows)


def decide(seen: Inspection, labels: np.ndarray, relabel: bool = False, join: bool = False) -> np.ndarray:
    """Return the new label of each image, (N,), or -1 where it is left out.

    Args:
        seen: Of these images.
        labels: (N,).
        relabel, join: As for `clean`.
    """
    new = np.where(seen.suspects, DROPPED, labels)
    if relabel:
        new = np.where(seen.suspects & (seen.other < np.minimum(seen.own, seen.halfway)), seen.nearest, new)
    into = _targets(seen, join)
    return np.array([into.get(label, label) for label in new.tolist()])


def _targets(seen: Inspection, join: bool) -> dict[int, int]:
    """Return for each class that becomes part of another, which: the lowest label of those that are alike."""
    root: dict[int, int] = {}

    def find(label: int) -> int:
        while root.get(label, label) != label:
            label = root[label]
        return label

    for one, two in seen.alike if join else ():
        low, high = sorted((find(one), find(two)))
        root[high] = low
    return {label: find(label) for label in root if find(label) != label}


def changes(faces: FaceDataset, rows: np.ndarray, seen: Inspection, labels: np.ndarray, new: np.ndarray) -> str:
    """Return changes.csv: a line for each image with another label than before, or none, the furthest first."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(HEADER)
    changed = np.flatnonzero(new != labels)
    for i in changed[np.argsort(-seen.own[changed], kind="stable")].tolist():
        to = faces.names[new[i]] if new[i] != DROPPED else ""
        angles = f"{seen.own[i]:.1f}", faces.names[seen.nearest[i]], f"{seen.other[i]:.1f}"
        where = faces.encoded(int(rows[i]))[2]
        lines.writerow([int(rows[i]), faces.names[labels[i]], to, *angles, where])
    return text.getvalue()


def write_report(
    path: Path,
    faces: FaceDataset,
    rows: np.ndarray,
    seen: Inspection,
    labels: np.ndarray,
    new: np.ndarray,
    result: Cleaned,
) -> None:
    """Write one HTML page: how many, the histogram of angles, the furthest suspects, the classes that look alike."""
    from arcface_edu.figures import page
    from arcface_edu.figures.suspects import plot_suspects

    suspects = np.flatnonzero(seen.suspects)
    suspects = suspects[np.argsort(-(seen.own - seen.other)[suspects], kind="stable")][:SHOWN]
    centre_of = {label: _most_typical(seen, labels, label) for label in np.unique(labels).tolist()}
    pictures = {"angles to the own centre": plot_suspects(seen.own, seen.suspects)}
    if len(suspects):
        beside = [(i, centre_of[int(labels[i])]) for i in suspects.tolist()]
        captions = [
            f"{seen.own[i]:.0f}° here, {seen.other[i]:.0f}° to {faces.names[seen.nearest[i]][:12]}"
            for i in suspects.tolist()
        ]
        title = "Left the suspect, right the most typical image of the class that it is in"
        pictures["suspects"] = _pairs_of(faces, rows, beside, captions, title)
    alike = list(zip(seen.alike, seen.alike_degrees, strict=True))[:SHOWN]
    if alike:
        beside = [(centre_of[one], centre_of[two]) for (one, two), _ in alike]
        captions = [f"{faces.names[a][:10]} and {faces.names[b][:10]}, {degrees:.0f}°" for (a, b), degrees in alike]
        pictures["classes that look like one person"] = _pairs_of(
            faces, rows, beside, captions, "Classes that look like one person"
        )
    counts = [(name.replace("_", " "), f"{count:,}") for name, count in result._asdict().items()]
    notes = [] if result.joined or not alike else [f"{len(seen.alike)} pairs of classes look like one person: --join."]
    parts = [page.table(("", ""), counts), page.notes(notes), page.figures(pictures)]
    lead = "Look at the suspects before you train on what is left: a hard photograph of the right person is one, too."
    write_text_atomically(path, page.page("Labels that the network contradicts", lead, *parts))


def _most_typical(seen: Inspection, labels: np.ndarray, label: int) -> int:
    of_class = np.flatnonzero(labels == label)
    return int(of_class[seen.own[of_class].argmin()])


def _pairs_of(
    faces: FaceDataset, rows: np.ndarray, pairs: Sequence[tuple[int, int]], captions: Sequence[str], title: str
) -> "Figure":
    from arcface_edu.figures.faces import plot_pairs

    first, second = ([faces[int(rows[pair[side]])][0] for pair in pairs] for side in (0, 1))
    return plot_pairs(first, second, captions, title, columns=4)
