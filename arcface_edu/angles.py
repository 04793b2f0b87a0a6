"""Look at the angles that a network makes: between photographs, people and class centres.

    python -m arcface_edu.angles runs/drawn_faces                        a run: statistics and figures
    python -m arcface_edu.angles runs/drawn_faces runs/softmax           several runs side by side
    python -m arcface_edu.angles runs/drawn_faces --unseen data/others   also people that it was not trained on
    python -m arcface_edu.angles backbone.pth --faces data/ms1m          weights, on faces of your choice
    python -m arcface_edu.angles embeddings.npz                          arrays `embeddings` (N, D) and `labels` (N,)

Prints the statistics of ArcFace's Table 3 (W-EC, W-Inter, Intra, Inter); writes angles.json and figures.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from easydict import EasyDict
from torch import Tensor

from arcface_edu.cli import add_inference_flags, add_model_flags, cli_main, command_parser, parse_args
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces, sample_faces
from arcface_edu.data.folder import FolderFaces, held_out_pairs
from arcface_edu.errors import DataError
from arcface_edu.evaluation.angle_stats import (
    PAPER,
    angle_statistics,
    read_embeddings,
    statistics_table,
    used_sub_centers,
)
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.verification import VerificationResult, verify_pairs
from arcface_edu.io import write_json_atomically
from arcface_edu.runs import is_run, locate, open_run
from arcface_edu.training.people import people_to_judge
from arcface_edu.training.precision import choose_device
from arcface_edu.training.prepare import find_pair_files

METHODS = dict(softmax="softmax", norm_softmax="norm-softmax", sphereface="SphereFace", cosface="CosFace")
METHODS |= dict(arcface="ArcFace", combined1="combined 1", combined2="combined 2")


class Subject(NamedTuple):
    """One network, or one file of embeddings, whose angles are measured."""

    embeddings: Tensor  # (N, D), of each image without its mirror
    labels: np.ndarray  # (N,)
    images: Tensor | None = None  # uint8 (N, 3, 112, 112)
    centres: Tensor | None = None  # (C, D), of the head
    log: Sequence[dict[str, Any]] = ()  # training lines of metrics.jsonl
    unseen: tuple[Tensor, np.ndarray] | None = None  # (embeddings, labels) of people who were not trained on
    pairs: dict[str, tuple[VerificationResult, np.ndarray]] = {}  # noqa: RUF012 (with mirrors added; and is_same)


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    """Print the statistics of each subject, and write angles.json and figures."""
    options = parse_args(build_parser(), argv)
    if min(options.people, options.photos) < 2:
        raise DataError(f"--people {options.people} --photos {options.photos}: angles need two of each at least.")
    subjects: dict[str, Subject] = {}
    options.subjects = [locate(path) for path in options.subjects]
    for path in options.subjects:
        name, subject = open_subject(path, options)
        name = f"{name}, {path.name}" if name in subjects else name
        subjects[name] = subject
        print(f"{name}: {path}, {len(subject.labels):,} images of {len(np.unique(subject.labels)):,} people")
        if subject.unseen:
            labels = subject.unseen[1]
            print(f"{name}: {len(labels):,} images of {len(np.unique(labels)):,} unseen people")
    trained = {name: angle_statistics(s.embeddings, s.labels, s.centres) for name, s in subjects.items()}
    unseen = {name: angle_statistics(*s.unseen) for name, s in subjects.items() if s.unseen}
    papers = {f"paper's {name} *": statistics for name, statistics in PAPER.items()}
    print(f"\n{statistics_table(trained | papers, 'people it was trained on, degrees')}")
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
    from arcface_edu.figures.angle_set import draw_angles

    only = options.subjects[0] if len(subjects) == 1 else None
    output = options.output or (only / "figures" if only and is_run(only) else Path("runs/angles"))
    write_json_atomically(output / "angles.json", dict(trained=trained, unseen=unseen))
    drawn = draw_angles(subjects, output)
    print(f"\n{len(drawn)} figures: {output}/{{{','.join(sorted(path.stem for path in drawn))}}}.png")


def open_subject(path: Path, options: argparse.Namespace) -> tuple[str, Subject]:
    """Return the name and the embeddings of what a path names, with all that its run says."""
    if path.suffix in (".npy", ".npz"):
        return path.stem, Subject(*read_embeddings(path, options.labels))
    run = open_run(path, options.network, options.embedding_size)
    model, config = run.model.to(choose_device(options.device)), run.config
    embed = functools.partial(embed_images, model, batch_size=options.batch_size)
    root = options.faces or run.data or config.get("rec")
    if not root:
        raise DataError(f"{path} does not say which faces to embed: name a folder with --faces.")
    hold_out = 0 if options.faces else config.get("hold_out") or 0
    sample = dict(people=options.people, photos=options.photos, seed=options.seed)
    only = None if options.faces else people_to_judge(path if path.is_dir() else path.parent, Path(root))
    images, labels = sample_faces(open_faces(root, hold_out, only), **sample)
    embeddings = embed(images, flip=False, progress="embedding faces")
    unseen = None
    if options.unseen or hold_out:
        people = open_faces(options.unseen) if options.unseen else FolderFaces(root, only=only)
        among = None if options.unseen else range(people.num_classes - hold_out, people.num_classes)
        faces, their_labels = sample_faces(people, **sample, among=among)
        unseen = embed(faces, flip=False, progress="embedding unseen people"), their_labels
    files = options.pairs or (find_pair_files(EasyDict({"val_targets": None} | config), Path(root)) if config else [])
    pair_sets = {file.stem: read_pairs(file) for file in files}
    if hold_out and not options.pairs:
        how = hold_out, config.get("draw_pairs"), config.get("seed", 0)
        pair_sets["held_out"] = held_out_pairs(root, *how, only)
    pairs = {}
    for name, (encoded, is_same) in pair_sets.items():
        pairs[name] = verify_pairs(embed(encoded, progress=f"embedding {name}"), is_same), is_same
    # Centres belong to the classes that were trained on, whichever faces are embedded.
    centres = None if options.faces else run.centres
    if centres is not None and centres.ndim == 3:
        centres = used_sub_centers(centres, embeddings, labels)
    log = [line for line in run.log if "target_angle_histogram" in line]
    loss = None if config.get("margin_list") else config.get("loss")
    name = METHODS.get(loss, loss) if loss else path.name
    return name, Subject(embeddings, labels, images, centres, log, unseen, pairs)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("angles", __doc__)
    a = parser.add_argument
    a("subjects", type=Path, nargs="+", metavar="RUN|WEIGHTS|EMBEDDINGS", help="what to measure")
    a("--faces", help="RecordIO or photo folder to embed; of a run, None is what it was trained on")
    a("--unseen", help="the same, of people who were not trained on")
    a("--pairs", type=Path, nargs="+", help="verification pairs; of a run, None is every .bin beside its data")
    a("--labels", help="labels.npy (N,) of an embeddings.npy")
    add_model_flags(parser)
    add_inference_flags(parser)
    a("--people", type=int, default=500, help="embed photographs of so many, chosen at random (default 500)")
    a("--photos", type=int, default=10, help="of each at so many (default 10)")
    a("--seed", type=int, default=0, help="of that choice")
    a("--output", type=Path, help="folder of the figures; None: that of the run, or runs/angles")
    return parser


if __name__ == "__main__":
    main()
