"""Are these two photographs of one person? Embeddings, the LFW-type ten-fold protocol and what it yields.

In three lines, image 2i and image 2i + 1 being pair i:
    embeddings = embed(model, images)
    result = verify_pairs(embeddings, is_same)
    print(summary(result))
"""

import io

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from arcface_edu.data.images import decode, fit, to_input
from arcface_edu.errors import DataError
from arcface_edu.evaluation.roc import check_both_kinds, in_three_units, tar_at_far, too_few

IMAGE_SIZE = 112
REPORTED_FARS = (1e-2, 1e-3)
VAL_FAR = 1e-3


def embed(model, images, flip=True, batch_size=128, progress=None):
    """Embeddings of faces; with `flip` the embedding of each image plus that of its mirror (not normalised).

    model: nn.Module, (B, 3, H, W) float in [-1, 1] -> (B, D); it runs on its own device, in eval mode
    (its modes are restored).
    images: uint8 (N, 3, H, W) RGB, or a list of N encoded images, decoded a batch at a time to 112 x 112.
    progress: a text shows a progress bar of that name.
    returns: (N, D) float32 on the CPU.   raises: DataError (no image, wrong type, an image that cannot be decoded).
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


def image_batches(images, batch_size, progress=None):
    """Yield uint8 (B, 3, H, W) RGB batches of `images`, as `embed` takes them.

    Only one batch is ever decoded: three validation sets held as float took the reference 11 GB.
    """
    encoded = isinstance(images, (list, tuple))
    if not encoded:
        images = torch.as_tensor(images)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"images are {images.dtype} {tuple(images.shape)}; embedding wants uint8 (N, 3, H, W), RGB")
    if len(images) == 0:
        raise DataError("there are no images to embed")
    for start in tqdm(range(0, len(images), batch_size), desc=progress, disable=progress is None, leave=False):
        batch = images[start : start + batch_size]
        if encoded:
            batch = torch.stack([fit(decode(image, f"image {start + i}"), IMAGE_SIZE) for i, image in enumerate(batch)])
        yield batch


def check_sizes(images, where):
    """Raise DataError unless all encoded images are IMAGE_SIZE square: a protocol's faces are aligned to just that.

    Only their first bytes are looked at.   where: names the list.
    """
    for number, encoded in enumerate(images):
        try:
            width, height = Image.open(io.BytesIO(encoded)).size
        except Exception as error:  # on broken files Pillow raises nearly anything
            raise DataError(f"{where}, image {number} is not an image that can be read ({error}).") from None
        if (width, height) != (IMAGE_SIZE, IMAGE_SIZE):
            raise DataError(
                f"{where}, image {number} has {width}x{height} pixels; protocols take faces aligned to "
                f"{IMAGE_SIZE}x{IMAGE_SIZE}: align them and write the file again."
            )


def verify_pairs(embeddings, is_same, folds=10):
    """The protocol of LFW, CFP-FP and AgeDB-30: how well do distances tell same-identity pairs from the others?

    The pairs are cut into `folds` contiguous runs (their sizes differ by one at most). For each run, the threshold
    0, 0.01 ... 3.99 on the squared distance that decides most pairs of all *other* runs rightly (the first such) is
    applied to the run; a pair counts as the same person when its distance is strictly smaller.

    embeddings: (2N, D) array or tensor; rows 2i and 2i + 1 are pair i; L2-normalised here.   is_same: (N,) bools.
    returns a dict:
      accuracy, accuracy_std   mean and population standard deviation over the folds
      thresholds               (folds,) squared L2 distance in [0, 4)
      val, val_std, far        TAR, its std, and FAR in the held-out folds, at thresholds set for FAR 1e-3 in the others
      fpr, tpr                 (400,) mean over folds at the thresholds 0, 0.01 ... 3.99 (a fold without pairs of the
                               kind counts as 0; `one_kind_folds` says how many there are)
      tar_at_far               dict FAR -> TAR at FAR 1e-2 and 1e-3 over all pairs at once
      cosines                  (N,) cosine of each pair
      threshold                the operating threshold of `suggested_threshold`
      pairs, same_pairs, different_pairs, one_kind_folds   counts
    raises: DataError (counts that do not match, one kind of pair only, fewer pairs than folds, embeddings that are not
    finite or have no length).   Source: Huang et al., LFW (2007); VAL: Schroff et al., FaceNet, sec. 4.
    """
    is_same = np.asarray(is_same, dtype=bool)
    distances = pair_distances(embeddings)
    if is_same.shape != distances.shape:
        raise DataError(
            f"{2 * len(distances)} embeddings make {len(distances)} pairs, but is_same has shape {is_same.shape}"
        )
    check_both_kinds(is_same)
    if not 2 <= folds <= len(is_same):
        raise DataError(f"{len(is_same)} pairs cannot be cut into {folds} folds; take 2 to {len(is_same)} folds")

    fold_same, fold_different = [], []  # per fold: the sorted distances of its pairs of either kind
    for distance, same in zip(np.array_split(distances, folds), np.array_split(is_same, folds), strict=True):
        fold_same.append(np.sort(distance[same]))
        fold_different.append(np.sort(distance[~same]))
    n_same = np.array([len(fold) for fold in fold_same])
    n_different = np.array([len(fold) for fold in fold_different])

    thresholds = np.arange(0, 4, 0.01)
    true_accepts = _accepted(fold_same, thresholds)  # (folds, 400) counts
    false_accepts = _accepted(fold_different, thresholds)
    correct = true_accepts + n_different[:, None] - false_accepts
    best = np.argmax(correct.sum(0) - correct, axis=1)  # on the other folds; argmax returns the first maximum
    accuracy = correct[np.arange(folds), best] / (n_same + n_different)

    val_thresholds = _thresholds_at_far(fold_different, VAL_FAR)
    val_true = [np.searchsorted(fold, t) for fold, t in zip(fold_same, val_thresholds, strict=True)]
    val_false = [np.searchsorted(fold, t) for fold, t in zip(fold_different, val_thresholds, strict=True)]
    val = _rate(np.array(val_true), n_same)

    cosines = 1 - distances / 2
    return {
        "accuracy": float(accuracy.mean()),
        "accuracy_std": float(accuracy.std()),
        "thresholds": thresholds[best],
        "val": float(val.mean()),
        "val_std": float(val.std()),
        "far": float(_rate(np.array(val_false), n_different).mean()),
        "fpr": _rate(false_accepts, n_different[:, None]).mean(0),
        "tpr": _rate(true_accepts, n_same[:, None]).mean(0),
        "tar_at_far": tar_at_far(cosines, is_same, REPORTED_FARS),
        "cosines": cosines,
        "threshold": suggested_threshold(thresholds[best]),
        "pairs": len(is_same),
        "same_pairs": int(n_same.sum()),
        "different_pairs": int(n_different.sum()),
        "one_kind_folds": int(((n_same == 0) | (n_different == 0)).sum()),
    }


def _accepted(sorted_folds, thresholds):
    """(folds, T) counts of distances strictly below each threshold."""
    return np.stack([np.searchsorted(fold, thresholds, side="left") for fold in sorted_folds])


def _rate(count, total):
    """count / total, and 0 where there is nothing to count, as the reference has it."""
    return count / np.maximum(total, 1)


def _thresholds_at_far(fold_different, target):
    """(folds,) squared distance at which the *other* folds have the target FAR; 0 where they never reach it.

    FAR is known at 0, 0.001 ... 3.999 and a straight line joins its points. Where FAR stands still over several
    thresholds the line has no unique inverse; it is then left at the last of them: the largest threshold whose FAR is
    at most the target, and from there towards the next one (what np.interp does as well).
    """
    thresholds = np.arange(0, 4, 0.001)
    accepted = _accepted(fold_different, thresholds)
    total = np.array([len(fold) for fold in fold_different])
    fars = _rate(accepted.sum(0) - accepted, (total.sum() - total)[:, None])  # (folds, 4000), rising
    found = np.zeros(len(fold_different))
    for fold, far in enumerate(fars):
        left = np.searchsorted(far, target, side="right") - 1
        if left < len(far) - 1:
            share = (target - far[left]) / (far[left + 1] - far[left])
            found[fold] = thresholds[left] + share * (thresholds[left + 1] - thresholds[left])
        elif far[left] == target:
            found[fold] = thresholds[left]
    return found


def pair_distances(embeddings, chunk=64):
    """Squared L2 distance of the normalised embeddings of each pair, in [0, 4], as float64.

    embeddings: (2N, D) array or tensor; rows 2i and 2i + 1 are pair i.   returns: (N,).
    raises: DataError (shape, odd length, an embedding that is not finite or has no length).
    """
    embeddings = torch.as_tensor(embeddings).detach()
    if embeddings.ndim != 2 or len(embeddings) % 2 or len(embeddings) == 0:
        raise DataError(
            f"embeddings have the shape {tuple(embeddings.shape)}; pairs need (2N, D): rows 2i and 2i + 1 are pair i"
        )
    # numpy converts on one thread: to wake others for so little, and to wait for them, costs more than it brings.
    embeddings = (embeddings.float() if embeddings.dtype == torch.bfloat16 else embeddings).cpu().numpy()
    distances = np.empty(len(embeddings) // 2)
    # 64 pairs of 512 numbers take half a megabyte and stay in the processor's cache: more at once take thrice as long.
    for start in range(0, len(embeddings), 2 * chunk):
        rows = embeddings[start : start + 2 * chunk].astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(wrong):
            row = start + wrong[0]
            what = "has no length (all zeros)" if lengths[wrong[0], 0] == 0 else "is not finite (NaN or inf)"
            raise DataError(f"the embedding in row {row} (pair {row // 2}) {what}: look at that image and the network")
        first, second = (rows / lengths).reshape(-1, 2, rows.shape[1]).transpose(1, 0, 2)
        distances[start // 2 : start // 2 + len(first)] = ((first - second) ** 2).sum(1)
    return distances.clip(0, 4)  # rounding may pass 4 by a hair


def pair_cosines(embeddings):
    """(2N, D) embeddings -> (N,) cosine of each pair, since |x - y|^2 = 2 - 2 cos(x, y) for unit vectors."""
    return 1 - pair_distances(embeddings) / 2


def suggested_threshold(thresholds):
    """One threshold to work with, the mean of the folds', in the three units people ask for.

    thresholds: (folds,) squared L2 distances.   returns: dict `cosine`, `degrees`, `squared_l2`. Same person when the
    cosine is above, the angle and the distance below.
    """
    return in_three_units(1 - float(np.mean(thresholds)) / 2)


def hardest_pairs(cosines, is_same, count):
    """The pairs a network is most wrong about, worst first.

    cosines: (N,).   is_same: (N,) bools.   returns: two arrays of at most `count` pair indices: same-identity pairs of
    the lowest cosine, different-identity pairs of the highest.
    """
    order, is_same = np.argsort(cosines, kind="stable"), np.asarray(is_same, dtype=bool)
    return order[is_same[order]][:count], order[~is_same[order]][::-1][:count]


def summary(result):
    """The lines to print about a result of `verify_pairs`."""
    threshold, folds = result["threshold"], len(result["thresholds"])
    lines = [
        f"accuracy         {result['accuracy']:8.2%} +- {result['accuracy_std']:.2%}   in {folds} folds of"
        f" {result['pairs']:,} pairs ({result['same_pairs']:,} same, {result['different_pairs']:,} different people)"
    ]
    for far, tar in result["tar_at_far"].items():
        few = too_few(result["different_pairs"], far)
        lines.append(f"TAR at FAR {far:.0e} {tar:8.2%}{f'   {few}' if few else ''}")
    lines.append(
        f"threshold        same person above cosine {threshold['cosine']:.3f}"
        f" = below {threshold['degrees']:.1f} degrees = below squared L2 {threshold['squared_l2']:.3f}"
    )
    if result["one_kind_folds"]:
        lines.append(
            f"note             {result['one_kind_folds']} folds hold one kind of pair only; mix the list's order"
        )
    return "\n".join(lines)
