"""Make, pack and look at face data sets.

python -m arcface_edu.dataset draw data/drawn --identities 500 --photos 24     faces that do not exist, from a seed
python -m arcface_edu.dataset draw data/dark --mix skin=0.1,0.9                a crowd with few of one group
python -m arcface_edu.dataset detect photos/ points.csv                        five points of the face in each photo
python -m arcface_edu.dataset align photos/ points.csv faces/                  the faces by them, as 112x112 PNGs
python -m arcface_edu.dataset pack faces/ data/mine --hold-out 10              faces/anna/1.png ... -> train.rec
python -m arcface_edu.dataset pairs faces/ data/mine/mine.bin --hold-out 10    verification pairs of those held out
python -m arcface_edu.dataset pairs lfw/ lfw.bin --list pairs.txt              the pairs that a list names
python -m arcface_edu.dataset inspect data/mine                                counts, sizes, broken files, a look
python -m arcface_edu.dataset clean runs/mine data/mine data/clean             without labels that the run contradicts
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from arcface_edu.aligning import align_into
from arcface_edu.cli import cli_main, command_parser, parse_args
from arcface_edu.data.alignment.landmarks import (
    HEADER,
    align_photographs,
    find_landmarks,
    read_landmarks,
    write_landmarks,
)
from arcface_edu.data.bins import write_pairs
from arcface_edu.data.folder import (
    DEFAULT_PAIRS,
    FolderFaces,
    face_jpegs,
    held_out_pairs,
    listed_pairs,
    warn_of_broken,
)
from arcface_edu.data.inspection import inspect_faces, inspect_pairs
from arcface_edu.data.photographs import photographs_in, scan_people, warn_of_unused
from arcface_edu.data.recordio import find_records, write_face_records
from arcface_edu.data.synthetic.crowds import GROUPS, Mix
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.io import write_atomically, write_text_atomically
from arcface_edu.training.precision import choose_device

log = logging.getLogger(__name__)


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    options = parse_args(build_parser(), argv)
    options.run(options)


def draw(options: argparse.Namespace) -> None:
    refuse_to_overwrite(options.out / "train.rec", options.overwrite)
    draw_faces(
        options.out,
        options.identities,
        options.photos,
        seed=options.seed,
        pairs=options.pairs,
        pair_identities=options.pair_identities,
        difficulty=options.difficulty,
        workers=options.workers,
        mix=Mix.parse(options.mix) if options.mix else None,
    )
    print(f"{options.out}: {options.identities:,} identities with {options.photos:,} photos, {options.pairs:,} pairs.")


def detect(options: argparse.Namespace) -> None:
    refuse_to_overwrite(options.out, options.overwrite)
    broken: list[str] = []
    photographs = require_photographs(options.photos)
    points, several = find_landmarks(options.photos, photographs, broken)
    warn_of_broken(broken)
    if not points:
        raise DataError(f"no face was found in the {len(photographs):,} photographs of {options.photos}.")
    write_landmarks(options.out, points)
    print(f"{options.out}: points in {len(points):,} of {len(photographs):,} photographs.")
    if several:
        log.warning(f"{several:,} of them show several faces, and the largest counts: look at the aligned ones.")


def align(options: argparse.Namespace) -> None:
    if options.out.resolve().is_relative_to(options.photos.resolve()):
        raise DataError(f"{options.out} lies in {options.photos}: choose a place outside, they would be mixed up.")
    if options.out.is_dir() and any(options.out.iterdir()):
        refuse_to_overwrite(options.out, options.overwrite)
    broken: list[str] = []
    photographs = require_photographs(options.photos)
    points = read_landmarks(options.landmarks, broken)
    faces = align_photographs(options.photos, points, options.out, broken)
    warn_of_broken(broken)
    if not faces:
        raise DataError(f"no face was aligned: {options.landmarks} names no photograph of {options.photos} rightly.")
    print(f"{options.out}: {faces:,} faces of 112x112, as PNG; `pack` and training take the folder.")
    if without := {str(path.relative_to(options.photos)) for path in photographs} - points.keys():
        log.warning(f"without points in {options.landmarks}: {len(without):,} photographs, as {min(without)}.")


def pack(options: argparse.Namespace) -> None:
    refuse_to_overwrite(options.out / "train.rec", options.overwrite)
    folder = options.folder
    if options.align:
        folder = options.out.with_name(f"{options.out.name}_aligned")
        align_into([options.folder], folder)
    people = FolderFaces(folder, options.hold_out).people
    names: list[str] = []
    broken: list[str] = []

    def photos_by_label() -> Iterator[list[bytes]]:
        for name, photos in face_jpegs(people, broken, options.quality):
            names.append(name)
            yield photos

    identities, images = write_face_records(options.out, photos_by_label(), total=len(people))
    write_text_atomically(options.out / "identities.txt", "".join(f"{name}\n" for name in names))
    warn_of_broken(broken)
    print(f"{options.out}: {images:,} images of {identities:,} identities; {options.hold_out} people held out.")


def pairs(options: argparse.Namespace) -> None:
    refuse_to_overwrite(options.out, options.overwrite)
    warn_of_unused(options.folder, scan_people(options.folder)[1])
    if options.list and options.hold_out:
        raise ConfigError("--list names the pairs itself: leave --hold-out out.")
    if options.list:
        images, is_same = listed_pairs(options.folder, options.list)
    else:
        images, is_same = held_out_pairs(options.folder, options.hold_out, options.pairs, options.seed)
    write_pairs(options.out, images, is_same)
    print(f"{options.out}: {len(is_same):,} pairs, {is_same.sum():,} of one person and {(~is_same).sum():,} of two.")


def inspect(options: argparse.Namespace) -> None:
    from arcface_edu.figures.faces import contact_sheet  # matplotlib, which the other commands do without

    is_pairs = options.path.is_file() and not find_records(options.path)
    found = (inspect_pairs if is_pairs else inspect_faces)(options.path)
    print("\n".join(found.lines))
    warn_of_broken(found.broken)
    if any(found.rows):
        with write_atomically(options.sheet) as file:
            contact_sheet(found.rows, found.titles).savefig(file, format="png")
        print(f"contact sheet:       {options.sheet}")
    if found.broken:
        raise SystemExit(1)  # for scripts


def clean(options: argparse.Namespace) -> None:
    from arcface_edu.cleaning import clean as clean_labels  # needs a network, which the other commands do without

    refuse_to_overwrite(options.out if options.out.suffix == ".csv" else options.out / "train.rec", options.overwrite)
    device = choose_device(options.device)
    done = clean_labels(
        options.run_folder, options.data, options.out, options.relabel, options.join, options.limit, device
    )
    print(
        f"{options.out}: of {done.images:,} images {done.dropped:,} left out, {done.relabelled:,} under another label, "
        f"{done.joined:,} classes joined to others; {options.data} stays as it is."
    )
    if options.out.suffix != ".csv":
        print(f"look at {options.out / 'report.html'} before you train on it.")


def require_photographs(folder: Path) -> list[Path]:
    photographs = photographs_in(folder) if folder.is_dir() else []
    if not photographs:
        raise DataError(f"{folder} is not a folder with photographs in it: name one as FOLDER/anna/1.jpg.")
    return photographs


def refuse_to_overwrite(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise DataError(f"{path} is there already: choose another place, or replace it with --overwrite.")


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("dataset", __doc__)
    commands = parser.add_subparsers(required=True, metavar="draw|detect|align|pack|pairs|inspect|clean")

    def add(run: Callable[[argparse.Namespace], None], text: str) -> Callable[..., Any]:
        sub = commands.add_parser(
            run.__name__, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(run=run)
        return sub.add_argument

    a = add(draw, "draw faces of people who do not exist: train.rec, and drawn.bin with pairs of other people")
    a("out", type=Path, help="folder to write")
    a("--identities", type=int, default=500, help="people to train on")
    a("--photos", type=int, default=24, help="photos of each")
    a("--seed", type=int, default=0, help="the same seed draws the same faces")
    a("--pairs", type=int, default=3000, help="verification pairs")
    a("--pair-identities", type=int, default=100, help="people in these pairs, none of whom is trained on")
    a("--difficulty", type=float, default=1.0, help="spread of pose, light, blur and occlusion")
    a("--mix", metavar="ATTRIBUTE=A,B", help="shares of two groups of the people to train on, as skin=0.9,0.1 for "
      f"light and dark; also {' '.join(list(GROUPS)[1:])}; half of the people in the pairs are of either")  # fmt: skip
    a("--workers", type=int, help="processes; None is one per core")
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(detect, "find the largest face in each photo, and five points in it")
    a("photos", type=Path, help="folder of photos, with folders in it or without")
    a("out", type=Path, help="table to write, for `align`; look at it and correct it")
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(align, "turn each photo so that its face lies as networks know it, by five points, into 112x112 PNGs")
    a("photos", type=Path, help="folder of photos, with folders in it or without")
    columns = " ".join(HEADER)
    a("landmarks", type=Path, help=f"CSV with a header and a line a photo: {columns}; the path is that in the folder, "
      "pixels are those of the upright photo, left is left as the viewer sees it")  # fmt: skip
    a("out", type=Path, help="folder to write, with the same folders in it")
    a("--overwrite", action="store_true", help="write into a folder that holds something")

    a = add(pack, "pack a folder of photos per person into train.rec, train.idx, property and identities.txt")
    a("folder", type=Path, help="photos, as FOLDER/anna/1.jpg")
    a("out", type=Path, help="folder to write")
    a("--hold-out", type=int, default=0, metavar="N", help="leave out the last N people, for `pairs`")
    a("--align", action="store_true", help="detect and align the faces first, into OUT_aligned/, with a contact sheet")
    a("--quality", type=int, default=95, help="of the JPEGs; photos that are 112x112 JPEGs stay as they are")
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(pairs, "make a .bin of verification pairs: ten folds, in each as many of one person as of two")
    a("folder", type=Path, help="photos, as FOLDER/anna/1.jpg")
    a("out", type=Path, help="file to write, such as mine.bin; beside train.rec, training finds it")
    a("--hold-out", type=int, default=0, metavar="N", help="only the last N people; 0 is everybody in the folder")
    a("--pairs", type=int, default=DEFAULT_PAIRS, metavar="N", help="at most so many; fewer if fewer exist")
    a("--seed", type=int, default=0, help="the same seed chooses the same pairs")
    a(
        "--list",
        type=Path,
        metavar="TXT",
        help="the pairs that a list in the form of LFW's pairs.txt names, in its order",
    )
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(inspect, "count, measure and read everything in a data set, and name what is broken")
    a("path", type=Path, help="folder of photos, folder with train.rec, that file, or .bin file")
    a("--sheet", type=Path, metavar="PNG", default=Path("contact_sheet.png"), help="picture of some of the faces")

    a = add(clean, "copy a data set without the labels that a network trained on it contradicts; a report shows them")
    a("run_folder", type=Path, metavar="RUN", help="run trained on the data; loss=subcenter_arcface shows most")
    a("data", type=Path, help="folder with train.rec, or of photos, as FOLDER/anna/1.jpg")
    a("out", type=Path, help="folder to write, or a .csv for the list of changes alone")
    a(
        "--relabel",
        action="store_true",
        help="give suspects that lie near another person that label; else leave them out",
    )
    a("--join", action="store_true", help="make one of classes that look like one person")
    a("--limit", type=float, metavar="DEG", help="leave out also what is further from the centre of its class")
    a("--device", help="cpu, cuda, mps; the accelerator if there is one")
    a("--overwrite", action="store_true", help="replace what is there")
    return parser


if __name__ == "__main__":
    main()
