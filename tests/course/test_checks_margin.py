"""The checks of the margin's exercises: the right answer passes, each usual mistake is named."""

import math

import pytest
import torch
from torch.nn import functional as F

from arcface_edu import MarginSoftmax
from arcface_edu.course.checks.margin import check_ablation, check_head, check_margin
from arcface_edu.heads import target_logit


def mended(cosine, m):
    past = cosine < math.cos(math.pi - m)
    return torch.where(past, cosine - m * math.sin(m), (cosine.clamp(-1 + 1e-7, 1 - 1e-7).acos() + m).cos())


def test_the_right_margin_passes(capsys):
    assert check_margin(mended) is True
    assert check_margin(lambda cosine, m: target_logit(cosine, (1.0, m, 0.0), "exact")) is True
    assert "Right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda cosine, m: None, "returns nothing"),
        (lambda cosine, m: cosine.sum(), "shape"),
        (lambda cosine, m: cosine, "no margin"),
        (lambda cosine, m: cosine - m, "CosFace"),
        (lambda cosine, m: (cosine.acos() - m).cos(), "wrong sign"),
        (lambda cosine, m: (cosine.acos() + 2 * m).cos(), "should be cos"),
        (lambda cosine, m: (cosine.acos() + m).cos(), "worse one"),
        (lambda cosine, m: mended(cosine, m).detach(), "no gradient"),
        (lambda cosine, m: mended(cosine, m) * 1 - (cosine < -0.9) * 0.1, "the line has"),
        (
            lambda cosine, m: torch.where(
                cosine < math.cos(math.pi - m), cosine - m * math.sin(m), (cosine.acos() + m).cos()
            ),
            "exactly 1",
        ),
    ],
)
def test_a_wrong_margin_is_told_what_is_wrong(attempt, said, capsys):
    assert check_margin(attempt) is False
    assert said in capsys.readouterr().out


def head_of(normalise=True, use=True, root=False, check="ours", m=0.5):
    """ArcFace's loss, with the bugs that are asked for."""

    def head(embeddings, weight, labels):
        if check == "ours" and labels.max() >= len(weight):
            raise ValueError("label out of range")
        if check == "none":
            labels = labels.clamp(max=len(weight) - 1)
        cosine = F.normalize(embeddings) @ (F.normalize(weight) if normalise else weight / 3).T
        true = cosine.gather(1, labels[:, None])
        if root:
            marked = true * math.cos(m) - (1 - true**2).sqrt() * math.sin(m)
        else:
            marked = target_logit(true, (1.0, m, 0.0))
        return F.cross_entropy(64 * (cosine.scatter(1, labels[:, None], marked) if use else cosine), labels)

    return head


def test_a_right_head_passes(capsys):
    def package(embeddings, weight, labels):
        head = MarginSoftmax(8, 5)
        head.weight.data.copy_(weight)
        return head(embeddings, labels)

    assert check_head(head_of()) is True
    assert check_head(package) is True
    assert "Right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda embeddings, weight, labels: None, "mean loss"),
        (head_of(normalise=False), "weights are not normalised"),
        (lambda e, w, labels: F.cross_entropy(e @ F.normalize(w).T, labels), "Embeddings three times"),
        (head_of(use=False), "nothing uses it"),
        (head_of(m=0.3), "MarginSoftmax has"),
        (head_of(root=True), "cos θ = 1"),
        (head_of(check="none"), "unnoticed"),
        (head_of(check="torch's"), "say it yourself"),
    ],
)
def test_a_wrong_head_is_told_what_is_wrong(attempt, said, capsys):
    assert check_head(attempt) is False
    assert said in capsys.readouterr().out


def ablation_of(margins=(0, 0.25, 0.5), scales=(8, 16), seeds=(0, 1, 2), skip=None, summary=None):
    """A study with the faults that are asked for."""

    def study(judge):
        found = {(m, s): [judge(m, s, seed) for seed in seeds] for m in margins for s in scales if (m, s) != skip}
        whole = summary or (lambda values: (sum(values) / len(values), min(values), max(values)))
        return {setting: whole(values) for setting, values in found.items()}

    return study


def test_a_fair_ablation_passes(capsys):
    assert check_ablation(ablation_of()) is True
    assert "6 settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda judge: None, "returns nothing"),
        (lambda judge: [judge(0, 16, 0)], "a key (m, s)"),
        (lambda judge: {(0, 8): (0, 0, 0)}, "not those that it has judged"),
        (ablation_of(margins=(0.25, 0.5, 0.75)), "no control"),
        (ablation_of(margins=(0, 0.5)), "2 margins"),
        (ablation_of(skip=(0.5, 8)), "missing"),
        (ablation_of(seeds=(0, 1, 1)), "three different seeds"),
        (ablation_of(summary=lambda values: (values[0], min(values), max(values))), "should be"),
    ],
)
def test_an_unfair_ablation_is_told_why(attempt, said, capsys):
    assert check_ablation(attempt) is False
    assert said in capsys.readouterr().out


def test_settings_with_seeds_of_their_own_are_no_comparison(capsys):
    def study(judge):
        found = {(m, s): [judge(m, s, seed + m + s) for seed in (0, 1, 2)] for m in (0, 1, 2) for s in (8, 16)}
        return {key: (sum(values) / 3, min(values), max(values)) for key, values in found.items()}

    assert check_ablation(study) is False
    assert "different seeds: compare" in capsys.readouterr().out
