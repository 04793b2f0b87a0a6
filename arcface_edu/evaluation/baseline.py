"""What no learning at all achieves: compare the pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_edu.evaluation.embedding import Images, image_batches

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # grey as ITU-R BT.601 mixes it from R, G, B


def pixel_embeddings(images: Images, size: int = 28) -> Tensor:
    """Return faces as small grey pictures less their own mean, so that a cosine is the correlation of the pixels.

    uint8 (N, 3, H, W) RGB or N encoded images -> (N, size * size) float32 in grey levels; errors as `embed_images`. A
    picture of one flat colour correlates with nothing: it becomes a constant vector, at 90 degrees to every other.
    """
    parts = []
    for batch in image_batches(images, batch_size=256):
        grey = (batch.float().cpu() * LUMA).sum(1, keepdim=True)
        small = F.interpolate(grey, size=(size, size), mode="bilinear", antialias=True).flatten(1)  # (B, size * size)
        centred = small - small.mean(1, keepdim=True)
        flat = centred.abs().amax(1, keepdim=True) < 0.01
        parts.append(torch.where(flat, 1.0, centred))
    return torch.cat(parts)
