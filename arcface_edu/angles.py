"""Look at the angles that a network makes: between photographs, people and class centres.

    python -m arcface_edu.angles runs/drawn_faces                        a run: statistics and figures
    python -m arcface_edu.angles runs/drawn_faces runs/softmax           several runs side by side
    python -m arcface_edu.angles runs/drawn_faces --unseen data/others   also people that it was not trained on
    python -m arcface_edu.angles backbone.pth --faces data/ms1m          weights, on faces of your choice
    python -m arcface_edu.angles embeddings.npz                          arrays `embeddings` (N, D) and `labels` (N,)

Prints the statistics of ArcFace's Table 3 (W-EC, W-Inter, Intra, Inter); writes angles.json and figures.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from arcface_edu.cli import cli_main
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces, sample_faces
from arcface_edu.data.folder import FolderFaces, held_out_pairs
from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import PAPER, angle_statistics, read_embeddings, statistics_table
from arcface_edu.evaluation.verification import embed, verify_pairs
from arcface_edu.figures.angle_set import draw_angles
from arcface_edu.models.weights import is_published
from arcface_edu.training.finished import open_trained
from arcface_edu.training.prepare import find_pair_files

METHODS = dict(softmax="softmax", norm_softmax="norm-softmax", sphereface="SphereFace", cosface="CosFace")
METHODS |= dict(arcface="ArcFace", combined1="combined 1", combined2="combined 2")


class Subject(NamedTuple):
    """One thing to look at."""

    embeddings: torch.Tensor  # (N, D), of each image as it is
    labels: np.ndarray  # (N,)
    images: torch.Tensor | None  # uint8 (N, 3, 112, 112)
    centres: torch.Tensor | None  # (C, D), of the head
    log: list  # training lines of metrics.jsonl
    unseen: tuple | None  # (embeddings, labels) of people who were not trained on
    pairs: dict  # name -> (result of `verify_pairs`, mirror images added; is_same)


@cli_main
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.angles", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="+", metavar="RUN|WEIGHTS|EMBEDDINGS", help="what to look at")
    parser.add_argument("--faces", help="RecordIO or photo folder to embed; of a run, None is what it was trained on")
    parser.add_argument("--unseen", help="the same, of people who were not trained on")
    parser.add_argument("--pairs", nargs="+", help="verification pairs; of a run, None is every .bin beside its data")
    parser.add_argument("--labels", help="labels.npy (N,) of an embeddings.npy")
    parser.add_argument("--network", help="of weights, where their shapes do not tell")
    parser.add_argument("--people", type=int, default=500, help="look at so many, chosen at random (default 500)")
    parser.add_argument("--photos", type=int, default=10, help="of each at so many (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--output", type=Path, help="folder of the figures; None: that of the run, or runs/angles")
    options = parser.parse_args(argv)
    if min(options.people, options.photos) < 2:
        raise DataError(f"--people {options.people} --photos {options.photos}: angles need two of each at least.")

    subjects, columns, unseen = {}, {}, {}
    for path in map(Path, options.subjects):
        name, subject = look_at(path, options)
        name = f"{name}, {path.name}" if name in subjects else name
        subjects[name] = subject
        columns[name] = angle_statistics(subject.embeddings, subject.labels, subject.centres)
        print(f"{name}: {path}, {len(subject.labels):,} images of {len(np.unique(subject.labels)):,} people")
        if subject.unseen:
            unseen[name] = angle_statistics(*subject.unseen)
            print(f"{name}: {len(subject.unseen[1]):,} images of {len(np.unique(subject.unseen[1])):,} unseen people")
    papers = {f"paper's {name} *": statistics for name, statistics in PAPER.items()}
    print(f"\n{statistics_table(columns | papers, 'people it was trained on, degrees')}")
    print("\n* ArcFace, Table 3: CASIA-WebFace, ResNet50; quoted from memory, not checked against the paper")
    if unseen:
        print(f"\n{statistics_table(unseen, 'people it has never seen, degrees')}")
    for name, subject in subjects.items():
        for pairs, (result, is_same) in subject.pairs.items():
            degrees = np.degrees(np.arccos(result["cosines"].clip(-1, 1)))
            print(
                f"{name}, pairs of {pairs}: same person {degrees[is_same].mean():.1f}°, different people "
                f"{degrees[~is_same].mean():.1f}°, threshold {result['threshold']['degrees']:.1f}°"
            )
    only = Path(options.subjects[0])
    of_a_run = len(subjects) == 1 and only.is_dir() and not is_published(only)
    output = options.output or (only / "figures" if of_a_run else Path("runs/angles"))
    output.mkdir(parents=True, exist_ok=True)
    (output / "angles.json").write_text(json.dumps(dict(trained=columns, unseen=unseen), indent=1))
    drawn = draw_angles(subjects, output)
    print(f"\n{len(drawn)} figures: {output}/{{{','.join(sorted(path.stem for path in drawn))}}}.png")


def look_at(path, options):
    """(name, Subject) of what a path names."""
    if path.suffix in (".npy", ".npz"):
        nothing = dict(images=None, centres=None, log=[], unseen=None, pairs={})
        return path.stem, Subject(*read_embeddings(path, options.labels), **nothing)
    trained = open_trained(path, options.network)
    config = trained.config
    root = options.faces or (config and config.rec)
    if not root:
        raise DataError(f"{path} does not say which faces to embed: name a folder with --faces.")
    hold_out = 0 if options.faces or not config else config.hold_out or 0
    sample = dict(people=options.people, photos=options.photos, seed=options.seed)
    images, labels = sample_faces(open_faces(root, hold_out), **sample)
    embeddings = embed(trained.model, images, flip=False, progress="embedding faces")
    unseen = None
    if options.unseen or hold_out:
        people = open_faces(options.unseen) if options.unseen else FolderFaces(root)
        among = None if options.unseen else range(people.num_classes - hold_out, people.num_classes)
        faces, their_labels = sample_faces(people, **sample, among=among)
        unseen = embed(trained.model, faces, flip=False, progress="embedding unseen people"), their_labels
    pairs = {file.stem: read_pairs(file) for file in map(Path, options.pairs or ())}
    if config and not options.pairs:
        pairs = {file.stem: read_pairs(file) for file in find_pair_files(config, Path(root))}
        if hold_out:
            pairs["held_out"] = held_out_pairs(root, hold_out, config.draw_pairs, config.seed)
    for name, (encoded, is_same) in pairs.items():
        result = verify_pairs(embed(trained.model, encoded, progress=f"embedding {name}"), is_same)
        pairs[name] = result, is_same
    # Centres belong to the classes that were trained on, whatever faces are looked at.
    centres = None if options.faces else trained.centres
    log = [line for line in trained.log if "target_angle_histogram" in line]
    name = METHODS.get(config.loss, config.loss) if config and not config.margin_list else path.name
    return name, Subject(embeddings, labels, images, centres, log, unseen, pairs)


if __name__ == "__main__":
    main()
