"""Embed photographs of faces: a row of numbers for each, for a database, a search, a plot.

    python -m arcface_edu.embed runs/drawn_faces photos/ -o faces.npy     a folder, with the folders in it
    python -m arcface_edu.embed backbone.pth a.jpg b.jpg -o two.npy       files; of weights in any form
    python -m arcface_edu.embed runs/drawn_faces snapshots/ -o s.npy --align   photographs as they come
    python -m arcface_edu.embed face.onnx photos/ -o faces.npy --raw      what the network says, and no more

faces.npy is float32 (N, D); faces.txt beside it names the photograph of each row, one a line. A row is the embedding
of the photograph plus that of its mirror, brought to length 1: the product of two rows is the cosine of their angle.
Photographs are read a batch at a time. What cannot be read is named and left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_edu.aligning import align_into, warn_if_unaligned
from arcface_edu.cli import add_inference_flags, add_model_flags, cli_main, command_parser, parse_args
from arcface_edu.data.photographs import photographs_in
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.evaluation.embedding import embed_files
from arcface_edu.io import write_atomically
from arcface_edu.runs import load_model, weights_file
from arcface_edu.training.precision import choose_device


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    """Embed the photographs, and write the rows and their names."""
    options = parse_args(build_parser(), argv)
    if options.output.suffix != ".npy":
        raise ConfigError(f"the rows are written as .npy: name {options.output.with_suffix('.npy')} with -o.")
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size {options.batch_size}: a batch has one photograph at least.")
    beside = options.output.with_suffix(".txt")
    if beside.exists() and not options.output.exists():
        raise DataError(f"{beside} is there, and no {options.output.name} that it belongs to: choose another name.")
    weights_file(options.subject)  # a wrong name is told before all photographs are looked for
    aligned: dict[Path, Path] = {}
    if options.align:
        aligned = align_into(options.photographs, options.output.with_name(f"{options.output.stem}_aligned"))
    paths = list(aligned) or [path for place in options.photographs for path in photographs_in(place)]
    if not paths:
        raise DataError(f"there is no photograph in {', '.join(map(str, options.photographs))}: name others.")
    model, network = load_model(options.subject, options.network, options.embedding_size)
    model = model.to(choose_device(options.device))
    if not aligned:
        named = " ".join(map(str, options.photographs[:3])) + (" ..." if len(options.photographs) > 3 else "")
        warn_if_unaligned(paths, f"python -m arcface_edu.embed {options.subject} {named} -o {options.output} --align")
    rows, names = embed_files(model, paths, raw=options.raw, batch_size=options.batch_size)
    with write_atomically(options.output) as file, write_atomically(beside) as lines:  # both are there, or neither
        np.save(file, rows)
        lines.write("".join(f"{aligned.get(name, name)}\n" for name in names).encode(errors="surrogateescape"))
    print(f"{options.output}: {len(rows):,} rows of {rows.shape[1]} numbers, by {network}; names in {beside}")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("embed", __doc__)
    a = parser.add_argument
    a("subject", type=Path, metavar="RUN|WEIGHTS", help="a run's or model's folder, or a file of weights or .onnx")
    a("photographs", type=Path, nargs="+", metavar="FOLDER|FILE", help="aligned faces; others: --align")
    a("-o", "--output", type=Path, required=True, metavar="NPY", help="the rows; their names go beside it as .txt")
    a("--align", action="store_true", help="detect and align the faces first, into NPY_aligned/, with a contact sheet")
    a("--raw", action="store_true", help="of the photograph alone, not normalised")
    add_model_flags(parser)
    add_inference_flags(parser)
    return parser


if __name__ == "__main__":
    main()
