"""What no learning at all achieves: compare the pixels."""

import torch
import torch.nn.functional as F

from arcface_edu.evaluation.verification import image_batches

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # grey as ITU-R BT.601 mixes it from R, G, B


def pixel_embeddings(images, size=28):
    """Faces as small grey pictures, each with its own mean taken off: their cosine is the correlation of the pixels.

    images: uint8 (N, 3, H, W) RGB or a list of encoded images.   returns: (N, size * size) float32, in grey levels.
    raises: DataError as `embed`.   A picture of one flat colour correlates with nothing: it becomes a constant vector,
    at 90 degrees to every other picture.
    """
    parts = []
    for batch in image_batches(images, batch_size=256):
        grey = (batch.float().cpu() * LUMA).sum(1, keepdim=True)
        small = F.interpolate(grey, size=(size, size), mode="bilinear", antialias=True).flatten(1)  # (B, size * size)
        centred = small - small.mean(1, keepdim=True)
        flat = centred.abs().amax(1, keepdim=True) < 0.01
        parts.append(torch.where(flat, 1.0, centred))
    return torch.cat(parts)
