"""The vision transformer (arXiv 2010.11929) as InsightFace trains it on WebFace42M.

What sets it apart from torchvision's: no class token (the embedding is a linear layer's that reads all tokens at once),
ReLU6 for GELU, no bias before the attention, whole blocks left out at random (arXiv 1603.09382), and in training some
patches are hidden from the blocks, to come back as one learned token at the end (after arXiv 2111.06377). Module names
are those of the published checkpoints, so these load with `strict=True`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry
from torchvision.ops import StochasticDepth

from arcface_edu.models.gradient_checkpointing import checkpointed

PATCH = 9  # pixels a side; 112 = 12 * 9 + 4: the last four rows and columns belong to no patch
TOKENS = (112 // PATCH) ** 2  # 144

# PyTorch's FLOP counter has a rule for attention on GPUs, and up to 2.14 none for the CPU's kernel: it is the same.
for way in ("", "_backward"):
    on_gpu, on_cpu = f"_scaled_dot_product_flash_attention{way}", f"_scaled_dot_product_flash_attention_for_cpu{way}"
    flop_registry.setdefault(getattr(torch.ops.aten, on_cpu), flop_registry[getattr(torch.ops.aten, on_gpu)])


class PatchEmbed(nn.Module):
    """Cut the image into patches and map each linearly: (B, 3, 112, 112) -> (B, 144, D)"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762, eq. 1): (B, T, D) -> (B, T, D)"""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        # (B, T, 3 * D) -> q, k, v, each (B, heads, T, D / heads)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Map each token by itself through a layer four times as wide: (B, T, D) -> (B, T, D)"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu6(self.fc1(x)))


class Block(nn.Module):
    """x + attention(LN(x)), then x + mlp(LN(x)): (B, T, D) -> (B, T, D)

    Args:
        drop_path: chance, for each image by itself, that either sum is left out in training.
    """

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """(B, 3, 112, 112) float RGB in [-1, 1] -> (B, embedding_size) float32, not normalised.

    Args:
        dim: features of a token, D.
        depth: blocks, the k-th of which drops a share of drop_path * k / (depth - 1).
        mask_ratio: share of the patches that are hidden in training; at 0.1, 129 of 144 are left.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        drop_path: float = 0.1,
        mask_ratio: float = 0.1,
        heads: int = 8,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.kept = int(TOKENS * (1 - mask_ratio))
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList([Block(dim, heads, drop_path * k / (depth - 1)) for k in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.feature = nn.Sequential(
            nn.Linear(TOKENS * dim, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
            nn.Linear(dim, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, eps=2e-5),
        )
        self.initialise()

    def initialise(self) -> None:
        """Draw positions, mask token and linear weights from N(0, 0.02); biases are 0."""
        nn.init.normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Without masking it has no gradient, and DDP would wait for one; the published files hold it all the same.
        self.mask_token.requires_grad_(self.kept < TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x) + self.pos_embed  # (B, T, D)
        masked = self.training and self.kept < TOKENS
        if masked:
            # A shuffle of its own for each image; the first `kept` positions go through the blocks.  (B, T, D)
            positions = torch.rand(x.shape[:2], device=x.device).argsort(1)[..., None].expand_as(x)
            x = x.gather(1, positions[:, : self.kept])
        for block in self.blocks:
            x = checkpointed(block, x) if self.gradient_checkpointing and self.training else block(x)
        # The end leaves autocast: the 3 digits of bf16 are too few for the angle between embeddings.
        with torch.autocast(x.device.type, enabled=False):
            x = self.norm(x.float())
            if masked:  # each token back to its position, and the learned one to those that were hidden
                x = self.mask_token.expand(len(x), TOKENS, -1).scatter(1, positions[:, : self.kept], x)
            wide, wide_bn, narrow, narrow_bn = self.feature
            return narrow_bn(narrow(self.dropout(wide_bn(wide(x.flatten(1))))))  # (B, embedding_size)


TINY: dict[str, Any] = dict(dim=256, depth=12)
SMALL: dict[str, Any] = dict(dim=512, depth=12)
BASE: dict[str, Any] = dict(dim=512, depth=24)
LARGE: dict[str, Any] = dict(dim=768, depth=24)
# A name without more drops 0.1 and hides 0.1; the others say what they do, under the names that InsightFace's configs
# use. There the code hides 0.1 whenever the ratio is not 0 (deepinsight/insightface issue 2219); here the name holds.
NETWORKS: dict[str, dict[str, Any]] = {
    "vit_t": TINY,
    "vit_s": SMALL,
    "vit_b": BASE,
    "vit_l": LARGE,
    "vit_t_dp005_mask0": dict(TINY, drop_path=0.05, mask_ratio=0.0),
    "vit_s_dp005_mask_0": dict(SMALL, drop_path=0.05, mask_ratio=0.0),
    "vit_b_dp005_mask_005": dict(BASE, drop_path=0.05, mask_ratio=0.05),
    "vit_l_dp005_mask_005": dict(LARGE, drop_path=0.05, mask_ratio=0.05),
    "vit_h": dict(dim=1024, depth=48, mask_ratio=0.0),
}
