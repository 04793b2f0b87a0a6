"""`make` sets up .venv by itself; where that cannot be, it says why in one sentence, and goes on the next time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("make"), reason="needs make, and this machine has none"),
]

# Instead of the project: one that needs nothing else, so that pip has nothing to fetch.
PYPROJECT = """
[project]
name = "nothing"
version = "1"
[project.optional-dependencies]
{extras}
[build-system]
requires = [{requires}]
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(folder + "/nothing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nothing.py", "")
        info = "nothing-1.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: nothing\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return "nothing-1-py3-none-any.whl"
"""


@pytest.fixture
def project(tmp_path):
    """A folder with this Makefile and its set-up, and a project that needs nothing."""
    (tmp_path / ".ci").mkdir()
    for name in ("Makefile", ".ci/set_up"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "backend.py").write_text(BACKEND)
    write_pyproject(tmp_path)
    return tmp_path


def write_pyproject(project, requires=""):
    extras = "\n".join(f"{extra} = []" for extra in ("course", "docs", "export", "test"))
    (project / "pyproject.toml").write_text(PYPROJECT.format(extras=extras, requires=requires))


def make(project, python=sys.executable, **environment):
    """make .venv/ready, which every target needs first, without any index of packages."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "VIRTUAL_"))}
    nowhere = dict(PIP_INDEX_URL="http://127.0.0.1:9", PIP_RETRIES="1", PIP_CONFIG_FILE=os.devnull)
    command = ["make", "--no-print-directory", f"PYTHON={python}", ".venv/ready"]
    return subprocess.run(
        command, cwd=project, env=variables | nowhere | environment, capture_output=True, text=True, timeout=300
    )


def assert_sentence(done, *parts):
    """The last word is one sentence and make's own line, with status 2."""
    assert done.returncode == 2
    sentence, of_make = done.stderr.splitlines()
    assert sentence.startswith("make: ") and of_make.startswith("make: *** ")
    for part in parts:
        assert part in sentence


def fake_python(project, answer):
    """A program that is this Python, but for one import."""
    path = project / "fake_python"
    path.write_text(f'#!/bin/sh\ncase "$*" in {answer} esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def test_without_venv_or_with_an_old_or_no_python(project):
    without_venv = fake_python(project, '*ensurepip*) echo "No module named ensurepip" >&2; exit 1;;')
    assert_sentence(make(project, without_venv), "cannot make virtual environments", "apt install python3-venv")
    old = fake_python(project, "*version_info*) exit 1;;")
    assert_sentence(make(project, old), "older than Python 3.10", "make PYTHON=")
    assert_sentence(make(project, "no-such-python"), "there is no no-such-python", "make PYTHON=")
    assert not (project / ".venv").exists()


def test_without_a_network_it_says_so_and_the_next_call_goes_on(project):
    write_pyproject(project, requires='"setuptools>=77"')
    done = make(project)
    assert_sentence(done, "cannot reach its package index", "the next make goes on")
    assert "making .venv" in done.stdout and "installing PyTorch" in done.stdout
    assert not (project / ".venv" / "ready").exists()
    write_pyproject(project)  # as if the network were there again
    done = make(project)
    assert done.returncode == 0, done.stderr
    assert "making .venv" not in done.stdout
    assert "Successfully installed nothing" in done.stdout  # pip tells what it does
    assert "up to date" in make(project).stdout


@pytest.mark.parametrize("half", ["bin without pip", "a Python that is gone"])
def test_a_half_made_venv_is_made_anew(project, half):
    programs = project / ".venv" / "bin"
    programs.mkdir(parents=True)
    if half == "bin without pip":
        (programs / "python").symlink_to(sys.executable)
    if half == "a Python that is gone":
        (programs / "python").symlink_to("/nowhere/python3.9")
        (programs / "python3").symlink_to("python")
    done = make(project)
    assert done.returncode == 0, done.stderr
    assert "making .venv" in done.stdout
    assert (project / ".venv" / "ready").exists()


def test_what_pip_cannot_do_is_said_with_its_reason(project):
    (project / "backend.py").write_text("raise RuntimeError('nothing can be built')")
    assert_sentence(make(project), "pip could not install all packages", "error:", ".venv/pip.log")
    assert "nothing can be built" in (project / ".venv" / "pip.log").read_text()
