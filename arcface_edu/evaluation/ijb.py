"""IJB-B and IJB-C: templates, sets of photographs and video frames of one person, compared with one another.

On numpy arrays alone:
    pooled, ids = pool_templates(features, templates, media)
    print(tar_at_far(score_pairs(pooled, ids, first, second), is_same))

Three switches shift the result by half a percent, so they belong beside every number. N1: an image's embedding keeps
its length (N0: unit length). D1: it counts by the face detector's score. F1: image and mirror are added.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from arcface_edu.data.alignment.align import align
from arcface_edu.data.folder import read_photo
from arcface_edu.data.images import decode
from arcface_edu.data.loader import identity_collate
from arcface_edu.errors import DataError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.io import StrPath, has_direction

ROWS = 512  # templates whose cosines with all others are computed at once
DENSE = 64  # a matrix product makes so many cosines in the time that one pair, fetched by itself, takes


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


def pool_templates(
    features: ArrayLike | Tensor, templates: ArrayLike, media: ArrayLike, weights: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return one embedding per template: the mean over the images of each medium, summed over media, at unit length.

    Args:
        features: (N, D) embeddings of images.
        templates, media: (N,) ints; a medium belongs to its template, so that one number may stand for two media in two
            templates.
        weights: (N,), a factor on each image's feature.

    Returns:
        (T, D) float64 unit rows, and their template ids (T,), rising.

    Raises:
        DataError: Lengths differ, a feature is not finite, or a template sums up to zero.
    """
    features = torch.as_tensor(features).detach().cpu()
    templates, media = np.asarray(templates), np.asarray(media)
    if features.ndim != 2 or not len(features) or not templates.shape == media.shape == (len(features),):
        raise DataError(
            f"features of shape {tuple(features.shape)}, templates {templates.shape} and media {media.shape}: "
            f"wanted are (N, D), (N,) and (N,), N above 0"
        )
    features = features.float() if not features.is_floating_point() or features.itemsize < 4 else features
    # All is one sum with weights: an image counts by 1 / (images of its medium in its template).
    order = np.lexsort((media, templates))
    template, medium = templates[order], media[order]
    new_template = np.append(True, template[1:] != template[:-1])
    new_medium = np.append(True, medium[1:] != medium[:-1]) | new_template
    images_of_medium = np.diff(np.append(np.flatnonzero(new_medium), len(order)))
    share = np.repeat(1 / images_of_medium, images_of_medium)
    if weights is not None:
        share = share * np.asarray(weights)[order]
    sums = F.embedding_bag(
        torch.from_numpy(order),
        features,
        torch.from_numpy(np.flatnonzero(new_template)),
        mode="sum",
        per_sample_weights=torch.from_numpy(share).to(features.dtype),
    )
    pooled, ids = sums.double().numpy(), template[new_template]
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    wrong = np.flatnonzero(~has_direction(norms))
    if len(wrong):
        what = "has no length" if norms[wrong[0], 0] == 0 else "is not finite (NaN or inf)"
        rows = np.flatnonzero(templates == ids[wrong[0]])
        raise DataError(
            f"template {ids[wrong[0]]}, of {len(rows)} images from row {rows[0]} on, {what}: look at these images and "
            f"the network ({len(wrong)} of {len(ids)} templates are so)"
        )
    return pooled / norms, ids


def score_pairs(pooled: ArrayLike, ids: ArrayLike, first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return the cosine (P,) of each pair of templates.

    Args:
        pooled: (T, D) unit rows.
        ids: (T,) template ids of the rows.
        first, second: (P,) template ids.

    Raises:
        DataError: An id stands twice, a template has no row, or lengths differ.
    """
    pooled, first, second = np.asarray(pooled), np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(f"{first.shape} first and {second.shape} second templates: pairs need one of each, (P,)")
    find = row_finder(ids, len(pooled))
    one, other = find(first), find(second)
    rows, columns = (np.flatnonzero(np.bincount(side, minlength=len(pooled))) for side in (one, other))
    scores = np.empty(len(one), pooled.dtype)
    if len(rows) * len(columns) > DENSE * len(one):  # few of the possible pairs: each by itself
        for start in range(0, len(one), 8192):
            part = slice(start, start + 8192)
            np.einsum("pd,pd->p", pooled[one[part]], pooled[other[part]], out=scores[part])
        return scores
    # Most templates meet many others: all cosines of a block of them, of which the pairs at hand are picked.
    row, column = np.zeros((2, len(pooled)), np.int64)
    row[rows], column[columns] = np.arange(len(rows)), np.arange(len(columns))
    one, other = row[one], column[other]
    columns_t = pooled[columns].T
    blocks = -(-len(rows) // ROWS)
    block = (one // ROWS).astype(np.uint8 if blocks < 256 else np.int32)  # bytes are sorted in one pass
    by_block = np.argsort(block, kind="stable")
    ends = np.cumsum(np.bincount(block, minlength=blocks))
    for number, (begin, end) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
        pairs = by_block[begin:end]
        cosines = pooled[rows[number * ROWS : (number + 1) * ROWS]] @ columns_t
        scores[pairs] = cosines[one[pairs] - number * ROWS, other[pairs]]
    return scores


def row_finder(ids: ArrayLike, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from template ids (P,) to their rows (P,) in `ids` (T,); either may raise DataError."""
    ids = np.asarray(ids)
    if ids.shape != (count,):
        raise DataError(f"{count} pooled templates have ids of shape {ids.shape}; wanted is one each")
    order = np.argsort(ids, kind="stable")
    rising = ids[order]
    twice = rising[1:][rising[1:] == rising[:-1]]
    if len(twice):
        raise DataError(f"template {twice[0]} stands twice among the ids ({len(twice)} ids do): pool each once")

    smallest, span = rising[0], int(rising[-1]) - int(rising[0]) + 1
    table: np.ndarray | None = None
    if span <= 2**24:  # looked up in a table, which for millions of pairs is ten times as fast as searching
        table = np.zeros(span, np.int64)
        table[rising - smallest] = np.arange(count)

    def find(wanted: np.ndarray) -> np.ndarray:
        if table is None:
            position = np.searchsorted(rising, wanted).clip(max=count - 1)
        else:
            position = table[np.clip(wanted, smallest, rising[-1]) - smallest]
        missing = np.flatnonzero(rising[position] != wanted)
        if len(missing):
            raise DataError(
                f"pair {missing[0]} names template {wanted[missing[0]]}, which has no image ({len(missing)} of "
                f"{len(wanted)} pairs name such): the list of pairs and that of images are not of one set"
            )
        return order[position]

    return find


def image_weights(features: np.ndarray, detector: np.ndarray, switches: str = "N1D1F1") -> np.ndarray:
    """Return the factor (N,) on each image's feature (N, D) that the N and D switches mean.

    N0 divides by its length; D1 multiplies by the detector's score (N,).
    """
    weights = np.ones(len(features))
    if "N0" in switches:
        lengths = np.linalg.norm(features, axis=1)
        weights /= np.where(lengths > 0, lengths, 1)
    return weights * detector if "D1" in switches else weights


def subjects_of(
    ids: np.ndarray, first: np.ndarray, second: np.ndarray, is_same: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return who is in each pair, as far as the pairs tell: templates that same-person pairs join are one person.

    Args:
        ids: (T,) template ids.
        first, second, is_same: (P,).

    Returns:
        first and second, each (P,) ints: the numbers of people.
    """
    find = row_finder(ids, len(ids))
    one, other = find(first), find(second)
    person, joined = np.arange(len(ids)), np.flatnonzero(is_same)
    while True:  # the smallest number spreads along the pairs until nothing changes
        smallest = np.minimum(person[one[joined]], person[other[joined]])
        after = person.copy()
        np.minimum.at(after, one[joined], smallest)
        np.minimum.at(after, other[joined], smallest)
        after = after[after]
        if (after == person).all():
            break
        person = after
    person = np.unique(person, return_inverse=True)[1]
    return person[one], person[other]


# --- the folder ------------------------------------------------------------------------------------------------------


def read_protocol(folder: StrPath) -> Protocol:
    """Read the meta files of an IJB-B or IJB-C folder.

    The folder holds loose_crop/ and, in meta/, ijbc_face_tid_mid.txt, ijbc_template_pair_label.txt and
    ijbc_name_5pts_score.txt (or ijbb_...).

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
    loader = DataLoader(Crops(protocol), batch_size, num_workers=workers, collate_fn=identity_collate)
    features: np.ndarray | None = None
    done = 0
    with tqdm(total=len(protocol.images), desc=f"embedding {protocol.name}", unit="img", leave=False) as progress:
        for faces, unread in loader:
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
