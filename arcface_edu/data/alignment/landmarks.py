"""Photographs and the five points of the face in each, from a table, to aligned faces.

The table is a CSV file with a header and a line a photograph: its path within the folder, then x and y of the left
eye, the right eye, the nose, the left and the right corner of the mouth, as the viewer sees them, in pixels of the
photograph as it is shown, upright.
"""

import csv
import io
from pathlib import Path

import numpy as np
from tqdm import tqdm

from arcface_edu.data.alignment.align import align
from arcface_edu.data.alignment.detector import Mtcnn
from arcface_edu.data.folder import read_photo
from arcface_edu.data.images import decode, encode_png
from arcface_edu.data.recordio import written_beside
from arcface_edu.errors import CorruptRecord, DataError

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
HEADER = ("photo", *(f"{point}_{axis}" for point in POINTS for axis in "xy"))


def read_landmarks(path, broken):
    """dict path within the photographs' folder -> float64 (5, 2), from a table.

    broken: list to which a sentence is added for each line left out: a wrong count, no numbers, a photograph that an
    earlier line has named. (A second face would be another person, in the folder of the first.)
    raises: DataError (no file, no text, no header, no line).
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, line) for line in reader if line]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): wanted is CSV with {describe()}") from None
    if not lines or _numbers(lines[0][1][1:]) is not None:
        raise DataError(f"{path} has no header: wanted is a line {','.join(HEADER)}, and below it {describe()}")
    points, first = {}, {}
    for number, (photo, *texts) in lines[1:]:
        where, values = f"{path}, line {number} ({photo})", _numbers(texts)
        if len(texts) != 10:
            broken.append(f"{where}: has {len(texts)} numbers instead of 10.")
        elif values is None:
            broken.append(f"{where}: {', '.join(texts)} are not ten finite numbers.")
        elif photo in points:
            broken.append(f"{where}: line {first[photo]} names this photograph too; the first counts, one face each.")
        else:
            points[photo], first[photo] = values.reshape(5, 2), number
    if not points and not broken:
        raise DataError(f"{path} holds no line below its header: wanted is {describe()}")
    return points


def write_landmarks(path, points):
    """The table of a dict as `read_landmarks` gives it, to hundredths of a pixel."""
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(HEADER)
    lines.writerows((photo, *(f"{x:.2f}" for x in np.ravel(places))) for photo, places in points.items())
    with written_beside(path) as file:
        file.write(table.getvalue().encode(errors="surrogateescape"))


def find_landmarks(folder, photographs, broken):
    """The points of the largest face of each photograph, found by a detector, as `read_landmarks` gives them.

    photographs: their paths.   broken: list to which a sentence is added for each that cannot be read or has no face.
    returns: dict, number of photographs with several faces.   raises: ConfigError (the detector is not installed).
    """
    detector, points, several = Mtcnn(), {}, 0
    for path in tqdm(photographs, desc="looking for faces", unit="img", leave=False):
        try:
            _, found = detector(decode(read_photo(path), path))
        except CorruptRecord as error:
            broken.append(str(error))
            continue
        if not len(found):
            broken.append(f"{path}: no face of a tenth of its shorter side or more was found.")
            continue
        points[str(path.relative_to(folder))] = found[0].numpy().astype(np.float64)
        several += len(found) > 1
    return points, several


def align_photographs(folder, points, out, broken):
    """Write the aligned face of each photograph as a PNG of 112x112, in the same subfolder of `out`.

    points: as `read_landmarks` gives them.   broken: list to which a sentence is added for each that is left out.
    returns: number of faces written.
    """
    taken = set()
    for photo, places in tqdm(points.items(), desc="aligning", unit="img", leave=False):
        try:
            face = aligned(folder, photo, places)
        except DataError as error:
            broken.append(str(error))
            continue
        target = free_name((Path(out) / photo).with_suffix(".png"), taken)
        with written_beside(target) as file:
            file.write(encode_png(face))
    return len(taken)


def aligned(folder, photo, places):
    """uint8 (3, 112, 112), the face at `places` (5, 2) of a photograph.   raises: DataError (it cannot be had)."""
    path = Path(folder) / photo
    if Path(photo).is_absolute() or ".." in Path(photo).parts:
        raise CorruptRecord(f"{photo}: lies outside of {folder}; name photographs by their path within it.")
    image = decode(read_photo(path), path)
    check_points(places, image.shape[2], image.shape[1], path)
    try:
        return align(image, places)
    except DataError as error:
        raise CorruptRecord(f"{path}: {error}") from None


def check_points(places, width, height, where):
    """Raise CorruptRecord for points that are in other units, outside of the picture, or left and right mixed up."""
    x, y = places.T
    if not ((x >= 0) & (x < width) & (y >= 0) & (y < height)).any():
        raise CorruptRecord(f"{where}: none of its points lies in the photograph, which has {width}x{height} pixels.")
    if places.max() <= 2:
        raise CorruptRecord(f"{where}: its points lie within two pixels; wanted are pixels, not shares of the width.")
    left, right, _, left_mouth, right_mouth = places
    (ex, ey), (mx, my) = right - left, left_mouth + right_mouth - left - right
    if ex * my - ey * mx <= 0:  # seen from the eyes' line, the mouth is on the wrong side
        raise CorruptRecord(f"{where}: left and right are mixed up; wanted is left as the viewer sees it.")


def free_name(path, taken):
    """`path`, or where an earlier photograph has that name (1.jpg beside 1.png), the next that is free: 1_2.png."""
    name, number = path, 1
    while name in taken:
        number += 1
        name = path.with_stem(f"{path.stem}_{number}")
    taken.add(name)
    return name


def describe():
    named = ", ".join(POINTS).replace("_", " ")
    return f"a line a photograph: its path, and x and y of {named}, left and right as the viewer sees them, in pixels."


def _numbers(texts):
    """Finite float64 of texts, or None."""
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        return None
    return values if len(values) and np.isfinite(values).all() else None
