"""The examples of CONTRIBUTING.md, added to a copy of the package: its commands run, and a training with all three."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SECTIONS = ("Add a network", "Add a head", "Add a data format")


def blocks(section, language):
    """The fenced blocks of one language in a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]
    return re.findall(rf"^```{language}\n(.*?)^```", body, re.DOTALL | re.MULTILINE)


def apply(diff, root):
    """Carry out a diff without line numbers: `--- FILE`, then hunks divided by `@@`, each found once in the file."""
    header, *lines = diff.splitlines()
    path = root / header.removeprefix("--- ")
    for hunk in "\n".join(lines).split("\n@@\n"):
        old = "\n".join(line[1:] for line in hunk.split("\n") if line[0] != "+")
        new = "\n".join(line[1:] for line in hunk.split("\n") if line[0] != "-")
        text = path.read_text()
        assert text.count(old) == 1, f"{header}: {text.count(old)} places for\n{old}"
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A folder with the package as the examples change it, and six people with four photographs each as arrays."""
    root = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "arcface_edu", root / "arcface_edu", ignore=shutil.ignore_patterns("__pycache__"))
    for section in SECTIONS:
        for source in blocks(section, "python"):
            path = root / source.split("\n")[0].removeprefix("# ")
            assert not path.exists()
            path.write_text(source.split("\n", 1)[1])
        for diff in blocks(section, "diff"):
            apply(diff, root)
    (root / "my_arrays").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (24, 112, 112, 3), dtype=np.uint8)
    np.savez(root / "my_arrays" / "faces.npz", images=images, labels=np.arange(24) % 6)
    return root


def run(command, root):
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True)


@pytest.mark.full
@pytest.mark.parametrize("section", SECTIONS)
def test_commands_of_an_example_run(changed, section):
    for command in "".join(blocks(section, "bash")).splitlines():
        done = run(command, changed)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_network_head_and_data_of_the_examples_train_together_and_their_weights_are_recognised(changed):
    words = "network=plain_cnn loss=smoothed rec=my_arrays hold_out=0 batch_size=8 num_epoch=2 num_workers=0 output=run"
    done = run(f"python -m arcface_edu.train {words}", changed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (changed / "run" / "model.pt").exists()
    done = run("python -m arcface_edu.angles run/model.pt --faces my_arrays --output angles", changed)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_example_is_in_the_style_of_the_house(changed):
    added = [source.split("\n")[0].removeprefix("# ") for section in SECTIONS for source in blocks(section, "python")]
    for command in (["check", "--ignore=I001"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", *added],
            cwd=changed,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
