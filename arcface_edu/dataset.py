"""Make, pack and look at face data sets.

python -m arcface_edu.dataset draw data/drawn --identities 500 --photos 24     faces that do not exist, from a seed
python -m arcface_edu.dataset detect photos/ points.csv                        five points of the face in each photo
python -m arcface_edu.dataset align photos/ points.csv faces/                  the faces by them, as 112x112 PNGs
python -m arcface_edu.dataset pack faces/ data/mine --hold-out 10              faces/anna/1.png ... -> train.rec
python -m arcface_edu.dataset pairs faces/ data/mine/mine.bin --hold-out 10    verification pairs of those held out
python -m arcface_edu.dataset inspect data/mine                                counts, sizes, broken files, a look
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from arcface_edu.cli import cli_main
from arcface_edu.data.alignment.landmarks import (
    HEADER,
    align_photographs,
    find_landmarks,
    read_landmarks,
    write_landmarks,
)
from arcface_edu.data.bins import read_pairs, write_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.folder import DEFAULT_PAIRS, FolderFaces, face_jpegs, held_out_pairs, photographs_in, tell_broken
from arcface_edu.data.images import decode, fit
from arcface_edu.data.recordio import write_face_records, written_beside
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.figures.faces import contact_sheet

SHEET_ROWS, SHEET_COLUMNS = 8, 8


@cli_main
def main(arguments=None):
    options = build_parser().parse_args(arguments)
    options.command(options)


def draw(options):
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
    )
    print(f"{options.out}: {options.identities:,} identities with {options.photos:,} photos, {options.pairs:,} pairs.")


def detect(options):
    refuse_to_overwrite(options.out, options.overwrite)
    broken = []
    photographs = photos_of(options.photos, broken)
    points, several = find_landmarks(options.photos, photographs, broken)
    tell_broken(broken)
    if not points:
        raise DataError(f"no face was found in the {len(photographs):,} photographs of {options.photos}.")
    write_landmarks(options.out, points)
    print(f"{options.out}: points in {len(points):,} of {len(photographs):,} photographs.")
    if several:
        print(f"{several:,} of them show several faces, of which the largest was taken: look at the aligned ones.")


def align(options):
    if options.out.resolve().is_relative_to(options.photos.resolve()):
        raise DataError(f"{options.out} lies in {options.photos}: choose a place outside, they would be mixed up.")
    if options.out.is_dir() and any(options.out.iterdir()):
        refuse_to_overwrite(options.out, options.overwrite)
    broken = []
    photographs = photos_of(options.photos, broken)
    points = read_landmarks(options.landmarks, broken)
    faces = align_photographs(options.photos, points, options.out, broken)
    tell_broken(broken)
    if not faces:
        raise DataError(f"no face was aligned: {options.landmarks} names no photograph of {options.photos} rightly.")
    print(f"{options.out}: {faces:,} faces of 112x112, as PNG; `pack` and training take the folder.")
    if without := {str(path.relative_to(options.photos)) for path in photographs} - points.keys():
        print(f"without points in {options.landmarks}: {len(without):,} photographs, as {min(without)}.")


def photos_of(folder, left_out):
    """Paths of the photographs in a folder.   raises: DataError (none)."""
    photographs = photographs_in(folder, left_out) if folder.is_dir() else []
    if not photographs:
        raise DataError(f"{folder} is not a folder with photographs in it: name one as FOLDER/anna/1.jpg.")
    return photographs


def pack(options):
    refuse_to_overwrite(options.out / "train.rec", options.overwrite)
    faces, names, broken = FolderFaces(options.folder, options.hold_out), [], []

    def photos_by_label():
        for name, photos in face_jpegs(faces.people, broken, options.quality):
            names.append(name)
            yield photos

    identities, images = write_face_records(options.out, photos_by_label(), total=len(faces.people))
    with written_beside(options.out / "identities.txt") as file:
        file.write("".join(f"{name}\n" for name in names).encode(errors="surrogateescape"))
    tell_broken(broken)
    print(f"{options.out}: {images:,} images of {identities:,} identities; {options.hold_out} people held out.")


def pairs(options):
    refuse_to_overwrite(options.out, options.overwrite)
    images, is_same = held_out_pairs(options.folder, options.hold_out, options.pairs, options.seed)
    write_pairs(options.out, images, is_same)
    print(f"{options.out}: {len(is_same):,} pairs, {is_same.sum():,} of one person and as many of two.")


def inspect(options):
    rows, titles = (inspect_pairs if options.path.is_file() else inspect_faces)(options.path)
    with written_beside(options.sheet) as file:
        contact_sheet(rows, titles).savefig(file, format="png")
    print(f"contact sheet:       {options.sheet}")


def inspect_faces(path):
    """Print what a data folder holds; returns rows (one identity each) and titles for its contact sheet."""
    faces = open_faces(path)
    print(f"{path}: {len(faces):,} images of {faces.num_classes:,} identities")
    photos, rows = np.zeros(faces.num_classes, dtype=int), {}
    for label, image in look_through(faces.encoded, len(faces)):
        photos[label] += 1
        if label in rows or len(rows) < SHEET_ROWS:
            row = rows.setdefault(label, [])
            row += [fit(image)] if len(row) < SHEET_COLUMNS else []
    print(f"photos per identity: {photos.min():,} least, {np.median(photos):g} median, {photos.max():,} most")
    return list(rows.values()), [faces.names[label] for label in rows]


def inspect_pairs(path):
    """Print what a .bin file holds; returns rows (one pair each) and titles for its contact sheet."""
    images, is_same = read_pairs(path)
    print(f"{path}: {len(is_same):,} pairs, {is_same.sum():,} of one person and {(~is_same).sum():,} of two")
    shown = np.linspace(0, len(is_same) - 1, min(SHEET_ROWS, len(is_same))).astype(int).tolist()
    rows = {pair: [] for pair in shown}
    for index, image in look_through(lambda index: (images[index], index, f"{path}, image {index}"), len(images)):
        if index // 2 in rows:
            rows[index // 2].append(fit(image))
    return list(rows.values()), ["same" if is_same[pair] else "different" for pair in shown]


def look_through(read, count):
    """Yield (tag, uint8 (3, H, W) image) of all images that can be read; then print their sizes and name the others.

    read: index -> (encoded image, tag, words that name it), for the indices below `count`.
    """
    sizes, broken = Counter(), []
    for index in tqdm(range(count), unit="img", leave=False):
        try:
            encoded, tag, where = read(index)
            image = decode(encoded, where)
        except CorruptRecord as error:
            broken.append(str(error))
        else:
            sizes[f"{image.shape[2]}x{image.shape[1]}"] += 1
            yield tag, image
    frequent = ", ".join(f"{size} ({times:,})" for size, times in sizes.most_common(5))
    print(f"width x height:      {frequent or 'none'}{' and others' if len(sizes) > 5 else ''}")
    print(f"broken:              {len(broken):,}")
    tell_broken(broken)


def refuse_to_overwrite(path, overwrite):
    if path.exists() and not overwrite:
        raise DataError(f"{path} is there already: choose another place, or replace it with --overwrite.")


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="draw|detect|align|pack|pairs|inspect")

    def add(command, text):
        sub = commands.add_parser(
            command.__name__, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(command=command)
        return sub.add_argument

    a = add(draw, "draw faces of people who do not exist: train.rec, and drawn.bin with pairs of other people")
    a("out", type=Path, help="folder to write")
    a("--identities", type=int, default=500, help="people to train on")
    a("--photos", type=int, default=24, help="photos of each")
    a("--seed", type=int, default=0, help="the same seed draws the same faces")
    a("--pairs", type=int, default=3000, help="verification pairs")
    a("--pair-identities", type=int, default=100, help="people in these pairs, none of whom is trained on")
    a("--difficulty", type=float, default=1.0, help="spread of pose, light, blur and occlusion")
    a("--workers", type=int, help="processes; None is one per core")
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(detect, "find the largest face in each photo, and five points in it (takes the extra: detect)")
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
    a("--quality", type=int, default=95, help="of the JPEGs; photos that are 112x112 JPEGs stay as they are")
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(pairs, "make a .bin of verification pairs: ten folds, in each as many of one person as of two")
    a("folder", type=Path, help="photos, as FOLDER/anna/1.jpg")
    a("out", type=Path, help="file to write, such as mine.bin; beside train.rec, training finds it")
    a("--hold-out", type=int, default=0, metavar="N", help="only the last N people; 0 is everybody in the folder")
    a("--pairs", type=int, default=DEFAULT_PAIRS, metavar="N", help="at most so many; fewer if fewer exist")
    a("--seed", type=int, default=0, help="the same seed chooses the same pairs")
    a("--overwrite", action="store_true", help="replace what is there")

    a = add(inspect, "count, measure and read everything in a data set, and name what is broken")
    a("path", type=Path, help="folder of photos, folder with train.rec, or .bin file")
    a("--sheet", type=Path, metavar="PNG", default=Path("contact_sheet.png"), help="picture of some of the faces")
    return parser


if __name__ == "__main__":
    main()
