"""Photographs and the five landmarks of the face in each, from a table, to aligned faces.

The table is a CSV file with a header and a line a photograph: its path within the folder, then x and y of the left
eye, the right eye, the nose, the left and the right corner of the mouth, as the viewer sees them, in pixels of the
photograph as it is shown, upright.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from arcface_edu.data.alignment.align import align
from arcface_edu.data.alignment.detector import Mtcnn
from arcface_edu.data.folder import read_photo
from arcface_edu.data.images import decode, encode_png
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import StrPath, write_atomically, write_text_atomically

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
HEADER = ("photo", *(f"{point}_{axis}" for point in POINTS for axis in "xy"))


def read_landmarks(path: StrPath, broken: list[str]) -> dict[str, np.ndarray]:
    """Read a table of landmarks.

    Args:
        path: The CSV file.
        broken: A sentence is added for each line left out: a wrong count, no numbers, a path that leads out of the
            folder, a photograph that an earlier line has named. (A second face would be another person, in the
            folder of the first.)

    Returns:
        Path within the photographs' folder -> (5, 2) float64, in pixels.

    Raises:
        DataError: No file, no text, no header, no line.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, line) for line in reader if line]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): wanted is CSV with {describe_line()}") from None
    if not lines or _numbers(lines[0][1][1:]) is not None:
        raise DataError(f"{path} has no header: wanted is a line {','.join(HEADER)}, and below it {describe_line()}")
    points: dict[str, np.ndarray] = {}
    first_line: dict[str, int] = {}
    for number, (photo, *texts) in lines[1:]:
        where, values = f"{path}, line {number} ({photo})", _numbers(texts)
        if len(texts) != 10:
            broken.append(f"{where}: has {len(texts)} numbers instead of 10.")
        elif values is None:
            broken.append(f"{where}: {', '.join(texts)} are not ten finite numbers.")
        elif Path(photo).is_absolute() or ".." in Path(photo).parts:
            broken.append(f"{where}: leads out of the folder of photographs; wanted is a path within it.")
        elif photo in points:
            earlier = first_line[photo]
            broken.append(f"{where}: line {earlier} names this photograph too; the first counts, one face each.")
        else:
            points[photo], first_line[photo] = values.reshape(5, 2), number
    if not points and not broken:
        raise DataError(f"{path} holds no line below its header: wanted is {describe_line()}")
    return points


def write_landmarks(path: StrPath, points: Mapping[str, np.ndarray]) -> None:
    """Write the table of what `read_landmarks` returns, to hundredths of a pixel."""
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(HEADER)
    lines.writerows((photo, *(f"{x:.2f}" for x in np.ravel(of_photo))) for photo, of_photo in points.items())
    write_text_atomically(path, table.getvalue())


def find_landmarks(
    folder: StrPath, photographs: Iterable[Path], broken: list[str]
) -> tuple[dict[str, np.ndarray], int]:
    """Detect the landmarks of the largest face in each photograph.

    Args:
        folder: The points go by the photographs' paths within it.
        photographs: Their paths.
        broken: A sentence is added for each that cannot be read or has no face.

    Returns:
        The points, as `read_landmarks` returns them, and the number of photographs with more than one face.

    Raises:
        DataError: The detector's file is damaged.
    """
    detector = Mtcnn()
    points: dict[str, np.ndarray] = {}
    several = 0
    for path in tqdm(photographs, desc="looking for faces", unit="img", leave=False):
        try:
            _, found = detector(decode(read_photo(path), path))
        except CorruptRecord as error:
            broken.append(str(error))
            continue
        if not len(found):
            broken.append(f"{path}: no face of 20 pixels and a twentieth of its shorter side was found.")
            continue
        points[str(path.relative_to(folder))] = found[0].numpy().astype(np.float64)
        several += len(found) > 1
    return points, several


def align_photographs(folder: StrPath, points: Mapping[str, np.ndarray], out: StrPath, broken: list[str]) -> int:
    """Write the aligned face of each photograph as a PNG of 112x112, in the same subfolder of `out`.

    Args:
        folder: Of the photographs.
        points: As `read_landmarks` returns them.
        out: Where to write.
        broken: A sentence is added for each photograph that is left out.

    Returns:
        The number of faces written.
    """
    written: set[Path] = set()
    for photo, of_photo in tqdm(points.items(), desc="aligning", unit="img", leave=False):
        try:
            face = align_photograph(folder, photo, of_photo)
        except DataError as error:
            broken.append(str(error))
            continue
        with write_atomically(free_name((Path(out) / photo).with_suffix(".png"), written)) as file:
            file.write(encode_png(face))
    return len(written)


def align_photograph(folder: StrPath, photo: str, points: np.ndarray) -> Tensor:
    """Return uint8 (3, 112, 112), the face at `points` (5, 2) of a photograph; CorruptRecord where that cannot be."""
    path = Path(folder) / photo
    if Path(photo).is_absolute() or ".." in Path(photo).parts:
        raise CorruptRecord(f"{photo}: lies outside of {folder}; name photographs by their path within it.")
    image = decode(read_photo(path), path)
    check_points(points, image.shape[2], image.shape[1], path)
    try:
        return align(image, points)
    except DataError as error:
        raise CorruptRecord(f"{path}: {error}") from None


def check_points(points: np.ndarray, width: int, height: int, where: object) -> None:
    """Raise CorruptRecord for points that are in other units, outside of the picture, or left and right mixed up."""
    x, y = points.T
    if not ((x >= 0) & (x < width) & (y >= 0) & (y < height)).any():
        raise CorruptRecord(f"{where}: none of its points lies in the photograph, which has {width}x{height} pixels.")
    if points.max() <= 2:
        raise CorruptRecord(f"{where}: its points lie within two pixels; wanted are pixels, not shares of the width.")
    left, right, _, left_mouth, right_mouth = points
    (eye_x, eye_y), (mouth_x, mouth_y) = right - left, left_mouth + right_mouth - left - right
    if eye_x * mouth_y - eye_y * mouth_x <= 0:  # seen from the eyes' line, the mouth is on the wrong side
        raise CorruptRecord(f"{where}: left and right are mixed up; wanted is left as the viewer sees it.")


def free_name(path: Path, used: set[Path]) -> Path:
    """Add to `used` and return `path`, or, where it is used (1.jpg beside 1.png), the next free name: 1_2.png."""
    name, number = path, 1
    while name in used:
        number += 1
        name = path.with_stem(f"{path.stem}_{number}")
    used.add(name)
    return name


def describe_line() -> str:
    """Return the part of an error that says what a line of the table holds."""
    named = ", ".join(POINTS).replace("_", " ")
    return f"a line a photograph: its path, and x and y of {named}, left and right as the viewer sees them, in pixels."


def _numbers(texts: Sequence[str]) -> np.ndarray | None:
    """Return the finite float64 numbers of texts, or None."""
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        return None
    return values if len(values) and np.isfinite(values).all() else None
