"""The wheel: it builds, holds all that the package needs, and its commands run where only the wheel is installed."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import arcface_edu

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.full, pytest.mark.xdist_group("wheel")]  # takes a wheel of setuptools from the package index


def call(*command, cwd=None):
    """Standard output of a command that has to succeed, called without a way to this checkout."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the files that git knows: build/ or *.egg-info of this checkout must not help."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ours = ["arcface_edu", "pyproject.toml", "README.md", "LICENSE"]
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ours]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    done = subprocess.run(list(map(str, pip)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The bin folder of an environment with the wheel alone, and the packages that it depends on seen from here."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(list(map(str, pip)), check=True)
    # `.pth` lines of the other environment are not read this way, nor is its editable arcface_edu.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_wheel_holds_recipes_and_types_and_nothing_of_the_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "arcface_edu").rglob("*.py")}
    assert ours <= names
    assert {f"arcface_edu/data/alignment/{name}" for name in ("mtcnn.npz", "MTCNN_LICENSE.txt")} <= names
    assert {"arcface_edu/py.typed", "arcface_edu/configs/insightface/ms1mv3_r50.py"} <= names
    crowd = {f"arcface_edu/pretrained/drawn_crowd/{name}" for name in ("model.safetensors", "config.json", "README.md")}
    assert crowd <= names
    assert {name.split("/")[0] for name in names} == {"arcface_edu", f"arcface_edu-{arcface_edu.__version__}.dist-info"}


def test_wheel_says_version_and_addresses(wheel):
    facts = Parser().parsestr(
        zipfile.ZipFile(wheel).read(f"arcface_edu-{arcface_edu.__version__}.dist-info/METADATA").decode()
    )
    assert facts["Version"] == arcface_edu.__version__
    assert {line.split(",")[0] for line in facts.get_all("Project-URL")} >= {"Paper", "Reference"}


def test_commands_run_from_the_wheel(clean, tmp_path):
    place = call(clean / "python", "-c", "import arcface_edu; print(arcface_edu.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(clean.parent)
    listed = call(clean / "arcface-edu", "--help", cwd=tmp_path)
    assert all(name in listed for name in ("train", "evaluate", "angles", "plan", "dataset", "embed", "export", "labs"))
    assert "-m arcface_edu.train" in call(clean / "python", "-m", "arcface_edu.train", "--help", cwd=tmp_path)
    dry = call(clean / "arcface-edu", "train", "ms1mv3_r50", "dry_run=True", "dry_run_gpus=8", cwd=tmp_path)
    assert "93,431" in dry
