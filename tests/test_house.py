"""The house itself: versions stand in one place, imports point one way, commands of README and docs exist."""

import ast
import re
import subprocess
import sys
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


BOTTOM = "errors io config signals"
BRICKS = f"{BOTTOM} data models heads"
# What each part of the package may import when it is imported, and what only a function of it may that needs it.
MAY_IMPORT = {
    "errors": ("", ""),
    "io": ("errors signals", ""),
    "signals": ("", ""),
    "config": (BOTTOM, ""),  # config_schema.py and configs/ with it
    "data": (BOTTOM, ""),
    "models": (BOTTOM, ""),
    "heads": (BOTTOM, ""),
    "runs": (f"{BOTTOM} models", "training"),  # opens what a run has left
    "training": (f"{BRICKS} runs", "figures"),
    "evaluation": (BRICKS, "figures"),
    "figures": ("errors io evaluation", ""),  # arrays in; closed forms that stand beside them
}
EVERYTHING_ELSE = "anything but figures and course", "figures"  # commands, exporting, planning: they tie it together


def part_of(module):
    """The part of the package that a dotted name belongs to: arcface_edu.data.bins -> data."""
    part = [*module.split("."), "package"][1]
    return "config" if part in ("config_schema", "configs") else part


def imports(path):
    """(dotted name, whether a function imports it, line) of all that a file imports from the package."""

    def visit(node, later):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom):
                whole = child.module == "arcface_edu"
                for name in child.names if whole else [None]:
                    yield f"arcface_edu.{name.name}" if whole else child.module, later, child.lineno
            elif isinstance(child, ast.Import):
                yield from ((name.name, later, child.lineno) for name in child.names)
            of_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from visit(child, later or of_types or isinstance(child, ast.FunctionDef))

    found = visit(ast.parse(path.read_text()), False)
    return [one for one in found if one[0] == "arcface_edu" or one[0].startswith("arcface_edu.")]


def test_imports_point_one_way():
    package, wrong = ROOT / "arcface_edu", []
    for path in sorted(package.rglob("*.py")):
        part = part_of(".".join(["arcface_edu", *path.relative_to(package).with_suffix("").parts]))
        if part == "course":  # it may use everything
            continue
        at_import, in_functions = MAY_IMPORT.get(part, EVERYTHING_ELSE)
        for module, later, line in imports(path):
            other = part_of(module)
            free = part not in MAY_IMPORT and other not in ("figures", "course")
            if other != part and not free and other not in f"{at_import} {in_functions if later else ''}".split():
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(["see MAY_IMPORT:", *wrong])


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["arcface_edu", "arcface_edu.train", "arcface_edu.training.state", "arcface_edu.runs"]
)
def test_a_rank_starts_without_what_it_does_not_need(module):
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {
        "matplotlib",
        "onnx",
        "onnxruntime",
        "sklearn",
        "IPython",
        "ipywidgets",
        "safetensors",
        "pandas",
    }


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
    ["train", "evaluate", "angles", "plan", "dataset", "embed", "export", "labs", "course.workers", "course.shards"],
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
