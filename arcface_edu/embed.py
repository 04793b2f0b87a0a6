"""Embed photographs of faces: a row of numbers for each, for a database, a search, a plot.

    python -m arcface_edu.embed runs/drawn_faces photos/ -o faces.npy     a folder, with the folders in it
    python -m arcface_edu.embed backbone.pth a.jpg b.jpg -o two.npy       files; of weights in any form
    python -m arcface_edu.embed face.onnx photos/ -o faces.npy --raw      what the network says, and no more

faces.npy is float32 (N, D); faces.txt beside it names the photograph of each row, one a line. A row is the embedding
of the photograph plus that of its mirror, brought to length 1: the product of two rows is the cosine of their angle.
Photographs are read a batch at a time. What cannot be read is named and left out.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from arcface_edu.cli import cli_main
from arcface_edu.data.folder import photographs_in, read_photo, tell_broken
from arcface_edu.data.images import decode, fit
from arcface_edu.data.recordio import written_beside
from arcface_edu.errors import ConfigError, CorruptRecord, DataError
from arcface_edu.evaluation.sources import find_weights
from arcface_edu.evaluation.verification import IMAGE_SIZE, embed
from arcface_edu.models.weights import load_model
from arcface_edu.training.precision import choose_device

READERS = 4  # threads that read and decode


@cli_main
def main(arguments=None):
    options = build_parser().parse_args(arguments)
    if options.output.suffix != ".npy":
        raise ConfigError(f"the rows are written as .npy: name {options.output.with_suffix('.npy')} with -o.")
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size {options.batch_size}: a batch has one photograph at least.")
    beside = options.output.with_suffix(".txt")
    if beside.exists() and not options.output.exists():
        raise DataError(f"{beside} is there, and no {options.output.name} that it belongs to: choose another name.")
    weights, config, _ = find_weights(options.subject)
    broken = []
    paths = [path for place in options.photographs for path in photographs_in(place, broken)]
    tell_broken(broken)
    if not paths:
        raise DataError(f"there is no photograph in {', '.join(map(str, options.photographs))}: name others.")
    model, network = load_model(
        weights, options.network or config.get("network"), options.embedding_size or config.get("embedding_size")
    )
    model = model.to(choose_device(options.device))
    rows, names = embed_files(model, paths, raw=options.raw, batch_size=options.batch_size)
    with written_beside(options.output) as file, written_beside(beside) as lines:  # both are there, or neither
        np.save(file, rows)
        lines.write("".join(f"{name}\n" for name in names).encode(errors="surrogateescape"))
    print(f"{options.output}: {len(rows):,} rows of {rows.shape[1]} numbers, by {network}; names in {beside}")


def embed_files(model, paths, raw=False, batch_size=128):
    """Embeddings of files of photographs, and the paths of those that could be read.

    raw: True = of the photographs alone, not normalised; else those of the mirrors added, at length 1.
    returns: float32 (N, D), list of N paths.   raises: DataError (none can be read, an embedding that is not finite).
    In memory are never more photographs than those of two batches, at 112 x 112; what is kept of each is its row.
    """
    rows, names, broken, others = [], [], [], 0
    with tqdm(total=len(paths), desc="embedding", unit="img") as bar:
        for batch in read_ahead(paths, batch_size):
            faces = []
            for path, reading in batch:
                try:
                    face, size = reading.result()
                except CorruptRecord as error:
                    broken.append(str(error))
                    continue
                faces.append(face)
                names.append(path)
                others += size != (IMAGE_SIZE, IMAGE_SIZE)
            if faces:
                embeddings = embed(model, torch.stack(faces), flip=not raw, batch_size=batch_size)
                check_finite(embeddings, names[-len(faces) :])
                rows.append((embeddings if raw else F.normalize(embeddings)).numpy())
            bar.update(len(batch))
    tell_broken(broken)
    if not names:
        raise DataError(f"none of the {len(paths):,} photographs can be read: name others.")
    if others:
        print(
            f"arcface_edu: {others:,} of {len(names):,} photographs had another size than {IMAGE_SIZE}x{IMAGE_SIZE} "
            f"and were fitted into it. A network knows faces in one place: `python -m arcface_edu.dataset align` puts "
            f"them there.",
            file=sys.stderr,
        )
    return np.concatenate(rows), names


def read_ahead(paths, batch_size):
    """Yield batches of (path, future of what `read_face` gives), each while the next one is being read."""
    ready = []
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(paths), batch_size):
            reading = [(path, readers.submit(read_face, path)) for path in paths[start : start + batch_size]]
            if ready:
                yield ready
            ready = reading
        yield ready


def read_face(path):
    """A file's photograph fitted to uint8 (3, 112, 112), and the (height, width) it had.   raises: CorruptRecord."""
    if len(str(path).splitlines()) != 1:
        raise CorruptRecord(f"{str(path)!r}: a line break in the name cannot stand in a list of names; rename it.")
    image = decode(read_photo(path), path)
    return fit(image, IMAGE_SIZE), tuple(image.shape[1:])


def check_finite(embeddings, names):
    """Raise DataError for a row that has no direction."""
    lengths = embeddings.norm(dim=1)
    wrong = ~(lengths.isfinite() & (lengths > 0))
    if wrong.any():
        name = names[wrong.nonzero()[0].item()]
        raise DataError(f"{name}: its embedding is zero or not finite; the weights are broken: try others.")


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a = parser.add_argument
    a("subject", type=Path, metavar="RUN|WEIGHTS", help="a run's or model's folder, or a file of weights or .onnx")
    a("photographs", type=Path, nargs="+", metavar="FOLDER|FILE", help="aligned faces; others are fitted, and counted")
    a("-o", "--output", type=Path, required=True, metavar="NPY", help="the rows; their names go beside it as .txt")
    a("--raw", action="store_true", help="of the photograph alone, not normalised")
    a("--network", help="of bare weights, where their shapes do not tell: r18 r50 r100 ...")
    a("--embedding-size", type=int, metavar="D", help="likewise")
    a("--batch-size", type=int, default=128, metavar="N", help="photographs at once (128)")
    a("--device", help="cpu, cuda, mps; the accelerator if there is one")
    return parser


if __name__ == "__main__":
    main()
else:
    sys.modules[__name__] = embed  # whoever imports `arcface_edu.embed` means the function
