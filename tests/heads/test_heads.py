"""The heads of other papers, sharded, sampled and in chunks, against the formula written down once more in float64."""

import math

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from torch.nn import functional as F

from arcface_edu.config import load_config
from arcface_edu.errors import ConfigError
from arcface_edu.heads import HEADS, PartialFC, build_head
from arcface_edu.heads.adaface import AdaFace
from arcface_edu.heads.elasticface import ElasticFace
from arcface_edu.heads.hard_negatives import CurricularFace, MVSoftmax
from arcface_edu.heads.magface import MagFace
from arcface_edu.heads.sphereface import SphereFace, SphereFaceR

D, CLASSES, S = 16, 11, 8.0
SIZES = (5, 3)  # images of ranks 0 and 1
STEPS = 3  # what a head remembers of earlier steps shows in the third

# name: class, options. The margins are small beside the angles here, so that neither side of a bound is rare.
HEADS_OF_PAPERS = {
    "adaface": (AdaFace, dict(momentum=0.5)),
    "magface": (MagFace, dict(l_a=6.0, u_a=9.0)),
    "curricularface": (CurricularFace, dict(m=0.2, momentum=0.5)),
    "mv_softmax": (MVSoftmax, dict(margin=(1.0, 0.0, 0.1))),
    "mv_softmax with an angle": (MVSoftmax, dict(margin=(1.0, 0.2, 0.0), t=1.3)),
    "elasticface": (ElasticFace, dict(std=0.2)),
    "sphereface of 2017": (SphereFace, dict(base=3.0, lambda_min=0.5)),
    "sphereface_r": (SphereFaceR, {}),
    "subcenter": (PartialFC, dict(sub_centers=3, gradient="exact")),
    "subcenter, filtered": (PartialFC, dict(sub_centers=2, interclass_filtering_threshold=0.3)),
}
WAYS = {"all": {}, "in chunks": dict(chunk_size=2), "sampled": dict(sample_rate=0.5, chunk_size=3)}
CASES = [(head, way) for head in HEADS_OF_PAPERS for way in WAYS]


def batch():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (sum(SIZES),), generator=generator)
    towards = torch.randn(CLASSES, D, generator=generator)
    images = 2 * torch.randn(sum(SIZES), D, generator=generator)
    return images, labels, towards


def steps(head_name, way, dtype=torch.float64):
    """Take `STEPS` forward passes; the last one's loss, gradients and sample, of this rank."""
    head_class, options = HEADS_OF_PAPERS[head_name]
    head = head_class(D, CLASSES, scale=S, seed=5, **options, **WAYS[way]).to(dtype)
    images, labels, _ = batch()
    if dist.is_initialized():
        images, labels = images.split(SIZES)[dist.get_rank()], labels.split(SIZES)[dist.get_rank()]
    images = images.to(dtype).requires_grad_()
    for _ in range(STEPS):
        images.grad = head.weight.grad = None
        loss = head(images, labels)
        loss.backward()
    grad = head.weight.grad
    used = grad.coalesce().indices()[0] if grad.is_sparse else torch.arange(len(grad))
    return dict(
        loss=loss.detach(), images=images.grad, weight=grad.to_dense(), start=head.weight.detach(),
        used=head.first_class + used,
    )  # fmt: skip


def work():
    return {case: steps(*case) for case in CASES}


@pytest.fixture(scope="module")
def found():
    return {1: [work()]} | run_on_ranks(work, [2])


def plain_loss(name, images, labels, centres, used):
    """The loss of step `STEPS` from all logits, (N, C): float64 images (N, D), centres (C, D) or (C, K, D)."""
    options, true = HEADS_OF_PAPERS[name][1], (torch.arange(len(labels)), labels)
    cosines = torch.einsum("nd,ckd->nck", F.normalize(images), F.normalize(centres.view(CLASSES, -1, D), dim=-1))
    cosine = cosines.amax(2)
    norms, own, logits, penalty = images.norm(dim=1), cosine[true], cosine, 0.0
    theta = torch.acos(own)
    if name == "adaface":
        mean, std = 20.0, 100.0
        for _ in range(STEPS):
            mean, std = 0.5 * mean + 0.5 * norms.mean().item(), 0.5 * std + 0.5 * norms.std().item()
        q = (0.333 * (norms.detach() - mean) / (std + 1e-3)).clamp(-1, 1)
        new = torch.cos(theta - 0.4 * q) - (0.4 + 0.4 * q)
    elif name == "magface":
        a = norms.clamp(6, 9)
        m = (0.8 - 0.45) / (9 - 6) * (a - 6) + 0.45
        assert (theta + m < math.pi).all()
        new, penalty = torch.cos(theta + m), 35 * (a / 81 + 1 / a)
    elif name == "curricularface":
        new, t = torch.cos(theta + 0.2), 0.0
        for _ in range(STEPS):
            t = 0.5 * t + 0.5 * own.mean().item()
        logits = torch.where(cosine > new.detach()[:, None], cosine * (t + cosine), cosine)
    elif name.startswith("mv_softmax"):
        (_, m2, m3), t = options["margin"], options.get("t", 1.12)
        new = torch.cos(theta + m2) - m3
        logits = torch.where(cosine > new.detach()[:, None], t * cosine + t - 1, cosine)
    elif name == "elasticface":
        generator = torch.Generator().manual_seed((5 << 32) + STEPS - 1)
        new = torch.cos(theta + 0.5 + 0.2 * torch.randn(len(own), generator=generator, dtype=torch.float64))
    elif name == "sphereface of 2017":
        k = (4 * theta.detach() / math.pi).floor()
        weight = max(0.5, 3 / (1 + 0.12 * (STEPS - 1)))
        new = (weight * own + (-1) ** k * torch.cos(4 * theta) - 2 * k) / (1 + weight)
    elif name == "sphereface_r":
        new = own + (torch.cos((1.5 * theta).clamp(max=math.pi)) - own).detach()
    else:
        new = torch.cos(theta + 0.5)
        if "filtered" in name:
            new = own + (new - own).detach()
            logits = torch.where(cosine > 0.3, 0, cosine)
    scale = norms[:, None] if name == "sphereface of 2017" else S
    logits = scale * logits.index_put(true, new)
    unused = torch.ones(CLASSES, dtype=torch.bool).index_fill(0, used, False)
    return (F.cross_entropy(logits.masked_fill(unused, -math.inf), labels, reduction="none") + penalty).mean()


def close(actual, expected):
    """Within 1e-6 of the largest entry."""
    assert (actual.double() - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=": ".join)
def test_loss_and_every_gradient_equal_the_formula(found, case, world):
    ranks = [rank[case] for rank in found[world]]
    images, labels, _ = batch()
    images = images.double().requires_grad_()
    centres = torch.cat([rank["start"] for rank in ranks]).requires_grad_()
    loss = plain_loss(case[0], images, labels, centres, torch.cat([rank["used"] for rank in ranks]))
    loss.backward()
    for rank in ranks:
        close(rank["loss"], loss.detach())
    close(torch.cat([rank["images"] for rank in ranks]), world * images.grad)
    close(torch.cat([rank["weight"] for rank in ranks]), centres.grad)


@pytest.mark.parametrize("name", HEADS_OF_PAPERS)
def test_fp32_is_within_1e_5_of_float64(name):
    single, double = (steps(name, "in chunks", dtype) for dtype in (torch.float32, torch.float64))
    for part in ("loss", "images", "weight"):
        assert (single[part] - double[part]).abs().max() <= 1e-5 * double[part].abs().max()


@pytest.mark.parametrize("loss", HEADS)
def test_a_config_names_every_head(loss):
    config = load_config("drawn_faces", [f"loss={loss}", "embedding_size=32"])
    head = build_head(config, 7)
    with torch.autocast("cpu", torch.bfloat16):
        value = head(torch.randn(4, 32, requires_grad=True), torch.arange(4))
    assert value.dtype == torch.float32 and torch.isfinite(value)
    value.backward()


@pytest.mark.parametrize("loss", [name for name, (head, _) in HEADS.items() if head is not PartialFC])
def test_what_a_head_remembers_is_in_its_state(loss):
    """The fourth step of a head that was saved after three is that of one that went on."""
    torch.manual_seed(0)
    images, labels = 3 * torch.randn(6, 32), torch.arange(6)
    config = load_config("drawn_faces", [f"loss={loss}", "embedding_size=32"])
    head = build_head(config, 7)
    for _ in range(3):
        head(images, labels)
    resumed = build_head(config, 7)
    resumed.load_state_dict(head.state_dict())
    assert torch.equal(head(images, labels), resumed(images, labels))


def test_the_options_of_a_head_come_from_the_config():
    config = load_config("drawn_faces", ["loss=subcenter_arcface", "head_options={'sub_centers': 5}"])
    assert build_head(config, 7).weight.shape == (7, 5, config.embedding_size)


@pytest.mark.parametrize(
    ("loss", "options", "sentence"),
    [
        ("subcenter_arcface", dict(sub_centers=0), "sub_centers is 0; it counts the centres of a class"),
        ("magface", dict(l_a=0.0), "lengths are above 0"),
        ("mv_softmax", dict(t=0.5), "t is 0.5; hard negatives"),
        ("elasticface", dict(std=-1.0), "std is -1.0; the standard deviation"),
        ("sphereface_2017", dict(m=5), "m is 5; SphereFace multiplies the angle by 1, 2, 3 or 4"),
        ("sphereface_r", dict(m=0.5), "m is 0.5; SphereFace-R multiplies"),
        ("adaface", dict(quality=1), "adaface has no option quality; it has m, h, momentum"),
        ("arcface", dict(m=1), "arcface has no option m"),
        ("softmax", dict(m=1), "softmax has no option m"),
    ],
)
def test_what_a_head_cannot_be_is_a_sentence(loss, options, sentence):
    config = load_config("drawn_faces", [f"loss={loss}", f"head_options={options}"])
    with pytest.raises(ConfigError, match=sentence):
        build_head(config, 7)
