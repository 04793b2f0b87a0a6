"""A dry run builds, steps and saves every kind of config without data, and finds what does not go together."""

import re
from unittest import mock

import pytest
import torch
from torch import nn

from arcface_edu import train
from arcface_edu.training import state

SMALL = ["drawn_faces", "dry_run=True", "num_classes=1000", "num_image=50000", "batch_size=8", "device=cpu"]


def dry(capsys, *words):
    train.main([*SMALL, *words])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("dry_run_gpus=1",),
        ("sample_rate=0.1", "amp_dtype=fp16"),
        ("optimizer=adamw", "sample_rate=0.5", "gradient_acc=2"),
        ("optimizer=adamw", "amp_dtype=fp16"),
        ("loss=softmax", "gradient_compression=bf16"),
        ("gradient_checkpointing=True", "amp_dtype=bf16", "interclass_filtering_threshold=0.4"),
    ],
)
def test_it_reports_shapes_and_writes_nothing(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = dry(capsys, *words)
    assert re.search(r"images +\(8, 3, 112, 112\) float32", said)
    assert re.search(r"layer4 +\(8, 192, 4, 4\)", said)
    assert re.search(r"embeddings +\(8, 128\) float32", said)
    assert re.search(r"loss +\(\) float32", said)
    assert "nothing wrong" in said
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_as_large_as_its_tensors(capsys):
    said = dry(capsys, "dry_run_gpus=4")
    whole, own = map(float, re.search(r"head +2 tensors, +([\d.]+) MB, ([\d.]+) on one rank", said).groups())
    assert whole == pytest.approx(1000 * 128 * 4 / 1e6, abs=0.01)
    assert own == pytest.approx(250 * 128 * 4 / 1e6, abs=0.01)


def test_steps_and_rate_are_those_of_the_run(capsys):
    said = dry(capsys, "dry_run_gpus=4", "num_epoch=3", "decay_epoch=[2]", "lr=0.1")
    assert f"{3 * (50_000 // 32):,} steps of 32 images, learning rate {0.1 * 32 / 512:g}" in said


def test_shapes_that_do_not_go_together_are_named_with_the_place(capsys):
    class Askew(nn.Module):
        def __init__(self, *_):
            super().__init__()
            self.fc = nn.Linear(7, 128)

        def forward(self, images):
            return self.fc(images.flatten(1))

    with mock.patch.object(state, "build_model", Askew), pytest.raises(SystemExit) as left:
        dry(capsys, "amp_dtype=bf16")
    assert left.value.code == 2
    assert "the dry run went wrong at the first step" in capsys.readouterr().err
    assert not torch.distributed.is_initialized()


def test_without_data_the_counts_are_asked_for(capsys):
    with pytest.raises(SystemExit) as left:
        train.main(["own_data", "dry_run=True"])
    assert left.value.code == 2
    assert "set num_classes=" in capsys.readouterr().err
