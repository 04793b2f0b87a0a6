"""ms1mv3_r50 as it is shipped: the true network and every one of the 93,431 classes, on a few small images."""

import math
import shutil

import pytest
import torch

from arcface_edu.data.bins import read_pairs, write_pairs
from arcface_edu.data.recordio import RecordReader, RecordWriter, pack_image, unpack_image
from arcface_edu.models import build_model
from arcface_edu.train import main
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint
from arcface_edu.training.metrics import read_metrics

CLASSES, IMAGES = 93_431, 24


@pytest.fixture
def spread(drawn, tmp_path):
    """A RecordIO folder as MS1MV3's, of which 24 images of 12 people are left, their labels spread over all classes."""
    folder = tmp_path / "ms1m"
    folder.mkdir()
    reader = RecordReader(drawn / "train.rec")
    with RecordWriter(folder / "train.rec") as writer:
        for key in range(1, IMAGES + 1):
            person = (key - 1) // 2
            _, image = unpack_image(reader[person * 10 + 1 + (key - 1) % 2])
            writer.write(key, pack_image(person * (CLASSES - 1) // 11, image, key))
    (folder / "property").write_text(f"{CLASSES},112,112\n")
    images, is_same = read_pairs(drawn / "drawn.bin")
    write_pairs(folder / "lfw.bin", images[:40], is_same[:20])
    for name in ("cfp_fp", "agedb_30"):
        shutil.copy(folder / "lfw.bin", folder / f"{name}.bin")
    return folder


@pytest.mark.full
def test_the_seeds_run_trains_saves_resumes_and_verifies(spread, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["ms1mv3_r50", f"rec={spread}", "num_image=None", "batch_size=8", "num_workers=0", "frequent=1"]
    words += [f"output={run}", "keep_checkpoints=1", "val_targets=['lfw']"]
    main([*words, "num_epoch=1"])
    main([*words, "num_epoch=2", "resume=True"])
    said = capsys.readouterr().out
    assert "training r50 (43.6 M parameters)" in said
    assert "24 images of 93,431 people" in said
    assert "resuming r50" in said
    assert "from step 3" in said

    lines = read_metrics(run / "metrics.jsonl")
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [1, 2, 3, 4, 5, 6]
    # ln C + s^2 / 2d + s sin m of random weights; the 8 images of a batch scatter around it
    expected = math.log(CLASSES) + 64**2 / 1024 + 64 * math.sin(0.5)
    assert training[0]["loss"] == pytest.approx(expected, abs=3)
    assert {line["lr"] for line in training} == {0.1 * 8 / 512}  # the seed's rate is meant for 512 images
    assert [line["pairs"] for line in lines if "pairs" in line] == ["lfw", "lfw"]
    build_model("r50").load_state_dict(torch.load(run / "model.pt", weights_only=True))
    saved = load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
    assert saved["step"] == 6
    assert saved["head"]["weight"].shape == (CLASSES, 512)
