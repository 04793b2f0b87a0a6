"""What GitHub and pre-commit run: the workflow has the form that GitHub reads, and what is called exists."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings the second


def test_the_workflows_hold_to_githubs_schema():
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    checked = subprocess.run([*checker, *map(str, WORKFLOWS)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_workflow_calls_only_what_make_knows():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = [name for path in WORKFLOWS for name in re.findall(r": make ([\w-]+)", path.read_text())]
    assert {"test", "test-all", "mutants"} <= set(called) <= targets


def test_the_oldest_packages_are_the_lower_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = {
        *project["dependencies"],
        *(bound for name in ("course", "export", "heif") for bound in extras[name]),
    }
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} == {bound.replace(">=", "==") for bound in bounds}
    assert f'python: "{project["requires-python"].removeprefix(">=")}"' in WORKFLOWS[0].read_text()


def test_pre_commit_calls_the_programs_of_make_lint():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].replace(".venv/bin", "$(BIN)").split(" --")[0] for hook in local["hooks"]]
    makefile = (ROOT / "Makefile").read_text()
    assert entries and all(entry in makefile for entry in entries)
