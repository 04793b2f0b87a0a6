"""The house itself: every version stands in one place, and every command of README and docs exists."""

import re
from pathlib import Path

import pytest
from ranks import run_module, run_ranks

ROOT = Path(__file__).parent.parent
CARD = {"torch", "torchvision", "matplotlib", "easydict", "numpy", "tqdm", "pillow"}  # the course has an extra
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def requirements(text):
    """The requirement strings of pyproject's `dependencies` list."""
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE).group(1)
    return re.findall(r'"([^"]+)"', block)


def test_dependencies_are_the_cards_and_none_is_pinned():
    found = requirements((ROOT / "pyproject.toml").read_text())
    assert {re.match(r"[\w-]+", requirement).group() for requirement in found} == CARD
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", requirement) for requirement in found)


def test_conda_environment_takes_its_versions_from_pyproject():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    listed = [line.split("#")[0].strip(" -") for line in lines if line.lstrip().startswith("- ")]
    assert listed == ["conda-forge", "python>=3.10", "pip", "pip:", "e .[course,test,export]"]
    python = re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text()).group(1)
    assert f"python{python}" in listed


def test_make_installs_the_extras_of_course_and_tests():
    text = (ROOT / "pyproject.toml").read_text()
    offered = re.search(r"^\[project.optional-dependencies\]\n(.*?)^\[", text, re.DOTALL | re.MULTILINE).group(1)
    extras = dict(re.findall(r"^(\w+) = (.+)$", offered, re.MULTILINE))
    installed = re.search(r'-e "\.\[(.+?)\]"', (ROOT / ".ci" / "set_up").read_text()).group(1).split(",")
    assert {"course", "export", "test"} <= set(installed) <= set(extras)
    assert {"jupyterlab", "ipywidgets", "anywidget"} <= set(re.findall(r'"([a-z]+)', extras["course"]))


def test_ci_runs_the_test_command_of_the_readme_and_then_the_rest():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make test", "make test-rest"]
    recipes = re.findall(r"^(test[\w-]*):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    markers = {target: re.search('-m "(.+)"', recipe) for target, recipe in recipes}
    assert markers["test"][1] == "not full and not browser"  # the one or the other runs each test
    assert markers["test-rest"][1] == "full or browser"
    assert "make test" in (ROOT / "README.md").read_text()


def page_commands():
    text = "\n".join(path.read_text() for path in PAGES)
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_make_targets_of_the_pages_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.split()[1] for command in page_commands() if command.startswith("make ")}
    assert named
    assert named <= targets


@pytest.mark.parametrize(
    "module",
    ["train", "evaluate", "angles", "plan", "dataset", "embed", "export", "course.workers", "course.shards"],
)
def test_help_is_there_for_every_command(module):
    (program,) = run_ranks(1, run_module, f"arcface_edu.{module}", ["--help"])
    assert program.status == 0
    assert f"-m arcface_edu.{module}" in program.said


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_of_the_pages_exist(page):
    named = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text())
    named = [first or second for first, second in named]
    for path in (path for path in named if not path.startswith("http")):
        assert (page.parent / path).is_file(), path


def test_readme_has_pictures_and_is_short():
    text = (ROOT / "README.md").read_text()
    assert "(pics/" in text
    assert len(text.splitlines()) <= 200
