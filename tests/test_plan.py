"""python -m arcface_edu.plan, as a user calls it."""

import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from arcface_edu import plan

SEED_BLOCK = Path(__file__).with_name("fixtures").joinpath("config_of_the_seed.py").read_text()
TINY = ["drawn_faces", "num_classes=1000", "num_image=50000", "batch_size=16"]


def said(capsys, *words):
    plan.main(list(words))
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as left:
        plan.main(list(words))
    assert left.value.code == 2
    return capsys.readouterr().err


def test_the_seeds_block_as_written(tmp_path, capsys):
    config, picture = tmp_path / "ms1mv3_r50.py", tmp_path / "plan.png"
    config.write_text(SEED_BLOCK)
    page = said(capsys, str(config), "--gpus", "8", "--gpu", "v100", "--output", str(picture))
    assert (
        "8 x Tesla V100 SXM2 32 GB, float16: 1,024 images a step, 126,450 steps in 25 epochs, learning rate 0.2" in page
    )
    assert "r50: 43,590,848 parameters, 6.309 G multiply-adds an image" in page
    assert "93,431 x 512, 11,679 on each GPU" in page
    assert re.search(r"all-reduce +backward +6 of +174\.36 MB together, each GPU sends +305\.13 MB", page)
    assert re.search(r"fits: \d+\.\d GiB of 31\.7 to spare", page)
    rate, hours = re.search(r"([\d,]+) images/s, ([\d.]+) hours", page).groups()
    assert float(hours) == pytest.approx(126_450 * 1024 / float(rate.replace(",", "")) / 3600, abs=0.05)
    assert "Partial FC (sample_rate=0.1) takes 5 % off a step from about" in page
    assert imread(picture).shape[1] > 600


def test_keys_and_batch_from_the_command_line(tmp_path, capsys):
    words = ["--gpus", "1", "--gpu", "t4", "--batch", "32", "loss=softmax", "--output", str(tmp_path / "plan.png")]
    page = said(capsys, *TINY, *words)
    assert "1 x Tesla T4, float16: 32 images a step" in page
    assert "one GPU sends nothing" in page
    assert "Partial FC" not in page


@pytest.mark.slow
def test_what_does_not_fit_is_told_by_how_much_and_what_would(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from arcface_edu.planning import gpus

    monkeypatch.setitem(gpus.GPUS, "l4", gpus.GPUS["l4"]._replace(memory=0.9))
    page = said(capsys, *TINY, "--gpus", "1", "--gpu", "l4", "--batch", "256", "fp16=False")
    assert re.search(r"but it does not fit: 0\.\d GiB more than the GPU's 0\.9", page)
    assert re.search(r"batch_size=\d+ +fits, \d\.\d GiB to spare", page)
    assert (tmp_path / "runs" / "plan_drawn_faces.png").is_file()


def test_bad_input_ends_in_a_sentence(capsys):
    assert "known are t4, v100" in refused(capsys, *TINY, "--gpu", "h1000")
    assert "the least that makes sense is 1" in refused(capsys, *TINY, "--gpus", "0")
    assert "batch_size to 0" in refused(capsys, *TINY, "--batch", "0")
    assert "there is no config called" in refused(capsys, "ms1mv33_r50")
    assert "set num_classes=" in refused(capsys, "own_data")
    assert "no network called" in refused(capsys, *TINY, "network=r51")
    assert "images, but there are only" in refused(capsys, *TINY, "num_image=100")
