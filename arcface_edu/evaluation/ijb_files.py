"""The folder of IJB-B or IJB-C: its meta files, and the embeddings of its images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from arcface_edu.data.alignment.align import align
from arcface_edu.data.folder import read_photo
from arcface_edu.data.images import decode
from arcface_edu.data.loader import identity_collate
from arcface_edu.data.readers import be_reader, iterate
from arcface_edu.errors import DataError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.io import StrPath


class Protocol(NamedTuple):
    """The meta files of an IJB folder. N images, T templates, P pairs."""

    name: str  # "IJBB" or "IJBC"
    folder: Path
    images: np.ndarray  # (N,) names of files in loose_crop/
    points: np.ndarray  # (N, 5, 2) x, y in pixels of the loose crop
    detector: np.ndarray  # (N,) the detector's score
    templates: np.ndarray  # (N,) template of each image
    media: np.ndarray  # (N,) medium (photograph or video) of each image
    first: np.ndarray  # (P,) template ids
    second: np.ndarray
    is_same: np.ndarray  # (P,) bools


def read_protocol(folder: StrPath) -> Protocol:
    """Read the meta files of an IJB-B or IJB-C folder.

    The folder holds loose_crop/ and, in meta/, ijbc_face_tid_mid.txt, ijbc_template_pair_label.txt and
    ijbc_name_5pts_score.txt (or the same with ijbb).

    Raises:
        DataError: A file is missing or wrong; the sentence names it and the line.
    """
    folder = Path(folder)
    found = sorted((folder / "meta").glob("*_face_tid_mid.txt"))
    if len(found) != 1:
        raise DataError(
            f"{folder / 'meta'} holds {len(found)} files *_face_tid_mid.txt, wanted is one: name the folder IJBB or "
            f"IJBC of the InsightFace release, which holds meta/ and loose_crop/."
        )
    prefix = found[0].name.removesuffix("_face_tid_mid.txt")
    images = _columns(found[0], "name template medium", [("name", "U64"), ("template", "i8"), ("medium", "i8")])
    coordinates = [(f"p{i}", "f4") for i in range(10)]
    path = folder / "meta" / f"{prefix}_name_5pts_score.txt"
    points = _columns(path, "name x1 y1 ... x5 y5 score", [("name", "U64"), *coordinates, ("score", "f4")])
    if len(images) != len(points):
        raise DataError(f"{found[0]} lists {len(images):,} images and {path} {len(points):,}: take both of one release")
    unlike = np.flatnonzero(images["name"] != points["name"])
    if len(unlike):
        names = images["name"][unlike[0]], points["name"][unlike[0]]
        raise DataError(f"line {unlike[0] + 1} is {names[0]} in {found[0]} and {names[1]} in {path}: both list the "
                        f"same images in the same order")  # fmt: skip
    _, index, times = np.unique(images[["name", "template"]], return_index=True, return_counts=True)
    if (times > 1).any():
        line = images[index[times > 1][0]]
        raise DataError(f"{found[0]} lists {line['name']} in template {line['template']} twice: it would count double")
    numbers = np.stack([points[name] for name, _ in coordinates], 1).reshape(-1, 5, 2)
    broken = np.flatnonzero(~(np.isfinite(numbers).all((1, 2)) & np.isfinite(points["score"])))
    if len(broken):
        raise DataError(f"{path}, line {broken[0] + 1}: a point or the score is not a number")
    path = folder / "meta" / f"{prefix}_template_pair_label.txt"
    pairs = _columns(path, "template template label", np.int32, columns=3)
    strange = np.flatnonzero((pairs[:, 2] != 0) & (pairs[:, 2] != 1))
    if len(strange):
        raise DataError(f"{path}, line {strange[0] + 1}: the label is {pairs[strange[0], 2]}, and may be 0 or 1")
    return Protocol(
        prefix.upper(), folder, images["name"], numbers, points["score"], images["template"], images["medium"],
        pairs[:, 0], pairs[:, 1], pairs[:, 2] == 1,
    )  # fmt: skip


def _columns(path: Path, form: str, dtype: Any, columns: int | None = None) -> np.ndarray:
    """Return a text file of columns between blanks as an array."""
    try:
        table = np.loadtxt(path, dtype=dtype, comments=None, ndmin=2 if columns else 1, encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: an IJB folder holds three such files in meta/.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f'{path} is not of the form "{form}", a line each ({str(error).rstrip(".")}).') from None
    if not len(table) or (columns and table.shape[1] != columns):
        raise DataError(f'{path} holds {table.shape} numbers, not lines of the form "{form}".')
    return table


class Crops(Dataset):
    """The aligned faces of a protocol, a batch at a time: (uint8 (B, 3, 112, 112), "" or what could not be read)."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def __len__(self) -> int:
        return len(self.protocol.images)

    def face(self, index: int) -> Tensor:
        """Return the face of one image, uint8 (3, 112, 112). Raises DataError."""
        path = self.protocol.folder / "loose_crop" / str(self.protocol.images[index])
        try:
            return align(decode(read_photo(path), path), self.protocol.points[index])
        except DataError as error:
            raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, str]:
        try:
            return torch.stack([self.face(index) for index in indices]), ""
        except DataError as error:  # raised in a worker process, it would end in a traceback
            return torch.empty(0), str(error)


def embed_crops(
    model: nn.Module, protocol: Protocol, flip: bool = True, batch_size: int = 128, workers: int = 0
) -> np.ndarray:
    """Return (N, D) float32 embeddings of all images of a protocol, aligned by their five points; shows a progress bar.

    Raises:
        DataError: A file cannot be read; without it a template would silently be another.
    """
    loader = DataLoader(
        Crops(protocol), batch_size, num_workers=workers, collate_fn=identity_collate, worker_init_fn=be_reader
    )
    features: np.ndarray | None = None
    done = 0
    with tqdm(total=len(protocol.images), desc=f"embedding {protocol.name}", unit="img", leave=False) as progress:
        for faces, unread in iterate(loader):
            if unread:
                raise DataError(unread)
            part = embed_images(model, faces, flip, batch_size).numpy()
            if features is None:
                features = np.empty((len(protocol.images), part.shape[1]), np.float32)
            features[done : done + len(part)] = part
            done += len(part)
            progress.update(len(part))
    assert features is not None  # a protocol lists at least one image
    return features
