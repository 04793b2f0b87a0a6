"""The margin softmax in a few plain lines: what the heads have to equal, with the logits that they never hold."""

import math

import torch
from torch.nn import functional as F

from arcface_edu.heads import target_logit


def plain_losses(
    embeddings,
    labels,
    centres,
    *,
    margin=(1.0, 0.5, 0.0),
    scale=64.0,
    gradient="straight-through",
    interclass_filtering_threshold=0.0,
):
    """(B, D), (B,), (C, D) -> (B,) losses, in the precision of what comes in; autograd finds the gradients."""
    cosine = F.normalize(embeddings) @ F.normalize(centres).T  # (B, C)
    true = torch.arange(len(labels)), labels
    kept = cosine
    if interclass_filtering_threshold > 0:
        kept = cosine.masked_fill(cosine > interclass_filtering_threshold, 0)
    marked = target_logit(cosine[true], margin, gradient)
    others = (scale * kept).index_put(true, torch.tensor(-math.inf, dtype=cosine.dtype)).logsumexp(1)
    return F.softplus(others - scale * marked, threshold=100)  # -log(e^true / (e^true + e^others))


def plain_step(embeddings, labels, centres, **options):
    """Mean loss, and the gradients for embeddings and centres, in float64."""
    embeddings, centres = (tensor.detach().double().requires_grad_() for tensor in (embeddings, centres))
    loss = plain_losses(embeddings, labels, centres, **options).mean()
    return loss.detach(), *torch.autograd.grad(loss, (embeddings, centres))
