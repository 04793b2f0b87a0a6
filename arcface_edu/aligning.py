"""Photographs as they come, on the way into a command: are their faces aligned? If not, `--align` aligns them.

The aligned faces stay in a folder beside the command's output, with a contact sheet to look at. Only photographs that
are new or changed are searched again.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from easydict import EasyDict
from torch import Tensor
from tqdm import tqdm

from arcface_edu.data.alignment.align import TEMPLATE, align
from arcface_edu.data.alignment.detector import Mtcnn
from arcface_edu.data.alignment.landmarks import free_name
from arcface_edu.data.folder import read_photo, warn_of_broken
from arcface_edu.data.images import decode, encode_png, fit
from arcface_edu.data.photographs import photographs_in
from arcface_edu.data.recordio import find_records
from arcface_edu.errors import ConfigError, CorruptRecord, DataError
from arcface_edu.io import StrPath, parse_json, write_atomically, write_json_atomically

log = logging.getLogger(__name__)

INDEX = "photographs.json"  # in the folder: aligned face -> [photograph, bytes, time of its last change]
SAMPLE = 12  # photographs that are looked at to see whether a folder is aligned
OFF = 8.0  # pixels of 112, mean of five points: aligned faces of ORL lie up to 5.3 off the template, drawn ones 5.2
SHEET = (6, 10)  # rows and columns
SIZE = 112


def warn_if_unaligned(photographs: Sequence[StrPath], command: str) -> None:
    """Log one warning where most of a few photographs that are looked at hold no aligned face.

    Args:
        photographs: Their paths.
        command: What aligns them on the way, for the sentence.
    """
    looked = [photographs[i] for i in np.unique(np.linspace(0, len(photographs) - 1, SAMPLE).astype(int))]
    detector, off = Mtcnn(), []
    for path in looked:
        try:
            off.append(distance_from_template(decode(read_photo(path), path), detector))
        except CorruptRecord:
            continue  # whoever reads them all says so
    known = [pixels for pixels in off if pixels is not None]
    beyond = sum(pixels > OFF for pixels in known)
    if 2 * beyond > len(known):
        log.warning(
            f"of {len(off)} photographs looked at, {beyond} hold no aligned face (eyes, nose and mouth in one place), "
            f"and a network knows only such faces: `{command}` detects and aligns them first."
        )


def distance_from_template(image: Tensor, detector: Mtcnn) -> float | None:
    """Return how far the points of the largest face lie from the template, in pixels of 112 (the mean of five).

    Infinite where the image is not square, or of another size than 112 and without a face. None where one of 112 x 112
    shows none: the face may be too close for the detector.
    """
    height, width = image.shape[1:]
    if height != width:
        return np.inf
    points = detector(fit(image))[1]
    if not len(points):
        return None if height == SIZE else np.inf
    return float(np.linalg.norm(points[0].numpy() - TEMPLATE, axis=1).mean())


def aligned_config(config: Any) -> Any:
    """Return a run's config with the aligned faces of its photographs as `rec`.

    Raises:
        ConfigError: `rec` is no folder of photographs, or this is one of several processes.
        DataError: As `align_into`.
    """
    if not config.rec or not Path(config.rec).is_dir() or find_records(Path(config.rec)):
        raise ConfigError("--align takes a folder of photographs: name it, as rec=photos/.")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("--align takes one process: align first, as `dataset pack photos/ data/mine --align` does.")
    output = Path(config.output)
    folder = output.with_name(f"{output.name}_aligned")
    align_into([Path(config.rec)], folder)
    return EasyDict(config, rec=str(folder))


def align_into(sources: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Write the aligned largest face of each photograph into a folder, and a contact sheet beside it.

    Args:
        sources: Folders, whose subfolders are kept, and files.
        folder: For the faces; one that an earlier call has made is brought up to date.

    Returns:
        Aligned face -> its photograph, in the order of the photographs.

    Raises:
        DataError: The folder holds something else or lies in the photographs' one, or there is no face.
    """
    known = read_index(folder)
    for source in sources:
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise DataError(f"{folder} lies in {source}: choose another output, they would be mixed up.")
    photographs = [(path, path.relative_to(source) if source.is_dir() else Path(path.name))
                   for source in sources for path in photographs_in(source)]  # fmt: skip
    if not photographs:
        raise DataError(f"there is no photograph in {', '.join(map(str, sources))}: name others.")
    faces: dict[Path, Path] = {}
    index: dict[str, list[Any]] = {}
    broken: list[str] = []
    used: set[Path] = set()
    sheet: list[Tensor] = []
    detector, kept = Mtcnn(), 0
    shown = {int(i) for i in np.linspace(0, len(photographs) - 1, SHEET[0] * SHEET[1])}
    for number, (path, within) in enumerate(tqdm(photographs, desc="detecting and aligning", unit="img", leave=False)):
        place = free_name((folder / within).with_suffix(".png"), used)
        name, state = str(place.relative_to(folder)), state_of(path)
        try:
            if known.get(name) == state and place.is_file():
                face = decode(place.read_bytes(), place) if number in shown else None
                kept += 1
            else:
                face = largest_face(path, detector)
                with write_atomically(place) as file:
                    file.write(encode_png(face))
        except CorruptRecord as error:
            broken.append(str(error))
            continue
        faces[place], index[name] = path, state
        if number in shown and face is not None:
            sheet.append(face)
    for gone in known.keys() - index.keys():
        (folder / gone).unlink(missing_ok=True)
    warn_of_broken(broken)
    if not faces:
        raise DataError(f"no face was found in the {len(photographs):,} photographs of {', '.join(map(str, sources))}.")
    write_json_atomically(folder / INDEX, index)
    look = draw_sheet(sheet, folder)
    again = f", {kept:,} of them already" if kept else ""
    log.info(f"{folder}: {len(faces):,} faces of {len(photographs):,} photographs aligned{again}; look at {look}.")
    return faces


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a folder of aligned faces, {} where there is no folder; DataError where it is another one."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    try:
        index = parse_json((folder / INDEX).read_bytes())
    except (OSError, ValueError):
        index = None
    if not isinstance(index, dict) or any(Path(name).is_absolute() or ".." in Path(name).parts for name in index):
        raise DataError(f"{folder} is there, and no folder of faces aligned by --align: choose another output.")
    return index


def state_of(path: Path) -> list[Any]:
    """Return what tells whether a photograph is the one that was aligned: its path, size and time of change."""
    try:
        status = path.stat()
    except OSError:
        return [str(path.absolute()), 0, 0]
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def largest_face(path: Path, detector: Mtcnn) -> Tensor:
    """Return the aligned largest face of a photograph, uint8 (3, 112, 112); CorruptRecord where there is none."""
    image = decode(read_photo(path), path)
    points = detector(image)[1]
    if not len(points):
        raise CorruptRecord(f"{path}: no face of 20 pixels and a twentieth of its shorter side was found.")
    return align(image, points[0].numpy().astype(np.float64))


def draw_sheet(faces: Iterable[Tensor], folder: Path) -> Path:
    """Draw some of the aligned faces beside their folder, and return the picture's path."""
    from arcface_edu.figures.faces import contact_sheet  # matplotlib, which the commands do without

    path, shown = folder.with_name(f"{folder.name}.png"), list(faces)
    rows = [shown[start : start + SHEET[1]] for start in range(0, len(shown), SHEET[1])]
    with write_atomically(path) as file:
        contact_sheet(rows).savefig(file, format="png")
    return path
