"""From photographs of faces to embeddings: in memory, as files, as folders of people.

embeddings = embed_images(model, images)          (N, D): image and mirror added
rows, names = embed_files(model, paths)           a row for each photograph that can be read
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from arcface_edu.data.datasets import open_faces
from arcface_edu.data.folder import read_photo, warn_of_broken
from arcface_edu.data.images import decode, fit, to_input
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.io import has_direction

log = logging.getLogger(__name__)

IMAGE_SIZE = 112
READERS = 4  # threads that read and decode

Images = Tensor | np.ndarray | Sequence[bytes]  # uint8 (N, 3, H, W) RGB, or N encoded images
Reading = Future[tuple[Tensor, tuple[int, ...]]]


def embed_images(
    model: nn.Module, images: Images, flip: bool = True, batch_size: int = 128, progress: str | None = None
) -> Tensor:
    """Return the embeddings of faces, not normalised.

    Args:
        model: (B, 3, H, W) float in [-1, 1] -> (B, D). It runs on its own device, in eval mode; the mode of each of its
            modules is restored.
        images: uint8 (N, 3, H, W) RGB, or N encoded images, which are decoded a batch at a time to 112 x 112.
        flip: add the embedding of each image's mirror to that of the image, as the protocols do.
        batch_size: images at once.
        progress: name of a progress bar, as "embedding lfw", which an error names too; None = no bar.

    Returns:
        (N, D) float32 on the CPU.

    Raises:
        DataError: There is no image, or images are of another type, or one cannot be decoded.
    """
    device = next(model.parameters(), torch.empty(0)).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            parts = []
            for batch in image_batches(images, batch_size, progress):
                faces = to_input(batch.to(device, memory_format=torch.channels_last))  # (B, 3, H, W) float in [-1, 1]
                embeddings = model(faces).float()
                if flip:
                    embeddings = embeddings + model(faces.flip(3)).float()
                parts.append(embeddings.cpu())
    finally:
        for module, training in modes:
            module.training = training
    return torch.cat(parts)


def image_batches(images: Images, batch_size: int, progress: str | None = None) -> Iterator[Tensor]:
    """Yield uint8 (B, 3, H, W) RGB batches of `images`, given as to `embed_images`.

    Only one batch is decoded at a time: InsightFace's script holds three validation sets as float, which took 11 GB.
    """
    if not isinstance(images, (list, tuple)):
        images = torch.as_tensor(images)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"images are {images.dtype} {tuple(images.shape)}; embedding wants uint8 (N, 3, H, W), RGB")
    if len(images) == 0:
        raise DataError("there are no images to embed")
    where = f"{progress}, image" if progress else "image"
    for start in tqdm(range(0, len(images), batch_size), desc=progress, disable=progress is None, leave=False):
        batch = images[start : start + batch_size]
        if not isinstance(batch, Tensor):
            faces = (decode(image, f"{where} {number}") for number, image in enumerate(batch, start))
            batch = torch.stack([fit(face, IMAGE_SIZE) for face in faces])
        yield batch


def embed_files(
    model: nn.Module, paths: Sequence[Path], raw: bool = False, batch_size: int = 128
) -> tuple[np.ndarray, list[Path]]:
    """Return the embeddings of files of photographs, and the paths of those that could be read.

    In memory are never more photographs than those of two batches, at 112 x 112.

    Args:
        raw: embed the photographs alone and do not normalise; else mirrors are added and rows have length 1.

    Returns:
        float32 (N, D), and N paths.

    Raises:
        DataError: No photograph can be read, or an embedding is not finite or all zeros.
    """
    rows, names, broken, others = [], [], [], 0
    with tqdm(total=len(paths), desc="embedding", unit="img") as bar:
        for batch in _read_ahead(paths, batch_size):
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
                embeddings = embed_images(model, torch.stack(faces), flip=not raw, batch_size=batch_size)
                usable = has_direction(embeddings.norm(dim=1))
                if not usable.all():
                    name = names[len(names) - len(faces) + int(usable.argmin())]
                    raise DataError(f"{name}: its embedding is zero or not finite; the weights are broken: try others.")
                rows.append((embeddings if raw else F.normalize(embeddings)).numpy())
            bar.update(len(batch))
    warn_of_broken(broken)
    if not names:
        raise DataError(f"none of the {len(paths):,} photographs can be read: name others.")
    if others:
        log.warning(
            f"{others:,} of {len(names):,} photographs had another size than {IMAGE_SIZE}x{IMAGE_SIZE} "
            f"and were fitted into it."
        )
    return np.concatenate(rows), names


def _read_ahead(paths: Sequence[Path], batch_size: int) -> Iterator[list[tuple[Path, Reading]]]:
    """Yield batches of paths with what `_read_face` returns for each, while threads read the next batch."""
    ready: list[tuple[Path, Reading]] = []
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(paths), batch_size):
            reading = [(path, readers.submit(_read_face, path)) for path in paths[start : start + batch_size]]
            if ready:
                yield ready
            ready = reading
        yield ready


def _read_face(path: Path) -> tuple[Tensor, tuple[int, ...]]:
    """Return a photograph fitted to uint8 (3, 112, 112), and the (height, width) it had."""
    if len(str(path).splitlines()) != 1:
        raise CorruptRecord(f"{str(path)!r}: a line break in the name cannot stand in a list of names; rename it.")
    image = decode(read_photo(path), path)
    return fit(image, IMAGE_SIZE), tuple(image.shape[1:])


class People(NamedTuple):
    """A gallery and the probes that are searched in it; a person has the same number in both."""

    gallery: Tensor  # (G, D)
    gallery_labels: np.ndarray  # (G,) ints
    probes: Tensor  # (P, D)
    probe_labels: np.ndarray  # (P,)


def embed_people(model: nn.Module, gallery: Path, probes: Path, batch_size: int = 128) -> People:
    """Embed two data sets, given as to `open_faces`; people are the same when their names are."""
    number: dict[str, int] = {}

    def embed_folder(place: Path) -> tuple[Tensor, np.ndarray]:
        faces = open_faces(place)
        images = [faces.encoded(i)[:2] for i in range(len(faces))]
        names = faces.names or [str(label) for label in range(faces.num_classes)]
        labels = np.array([number.setdefault(names[label], len(number)) for _, label in images])
        encoded = [image for image, _ in images]
        return embed_images(model, encoded, batch_size=batch_size, progress=f"embedding {place}"), labels

    return People(*embed_folder(gallery), *embed_folder(probes))
