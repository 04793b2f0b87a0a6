"""The pages and the site: versions agree, the citation is valid, the map is complete, the site builds."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import arcface_edu
from arcface_edu.config import load_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """Every line of shell and every `command` in the text of the pages that calls Python, without its comment."""
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
        lines += re.findall(
            r"`((?:\w+=\w+ )*(?:python|torchrun) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
        )
        for line in lines:
            words = shlex.split(line.replace("\n", " "))
            if {"python", "python3", "torchrun"} & set(words) and "-c" not in words and "..." not in words:
                yield pytest.param(words, id=f"{page.name}: {' '.join(words)[-70:]}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_of_the_pages_are_understood(words):
    called = next((word for word in words if word.startswith("arcface_edu.")), None)
    if called is None:  # a script, or a module of Python
        scripts = [word for word in words if word.endswith(".py")]
        assert all((ROOT / script).is_file() for script in scripts)
        return
    module = importlib.import_module(called)
    if called == "arcface_edu.course.workers":
        assert words[-1] in module.TASKS
        return
    arguments = [word for word in words[words.index(called) + 1 :] if word not in ("[key=value", "...]")]
    if not arguments or "--help" in arguments:
        return
    placeholders = {"my_config.py": "drawn_faces", "CONFIG": "ms1mv3_r50"}
    parser = module.build_parser()
    parse = parser.parse_intermixed_args if called == "arcface_edu.plan" else parser.parse_args
    options = parse([placeholders.get(word, word) for word in arguments])
    if keys := getattr(options, "words", None):
        source = getattr(options, "config", None) or ("own_data" if "=" in keys[0] else keys.pop(0))
        load_config(source, keys)  # refuses a misspelt key or a wrong value


def test_version_is_the_same_in_package_changelog_and_citation():
    released = re.findall(
        r"^## \[([\d.]+)\] - (\d{4}-\d\d(?:-\d\d)?)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    citation = (ROOT / "CITATION.cff").read_text()
    assert released[0] == (arcface_edu.__version__, re.search(r'^date-released: "(.+)"', citation, re.MULTILINE)[1])
    assert re.search(r"^version: (.+)", citation, re.MULTILINE)[1] == arcface_edu.__version__


def test_citation_is_valid():
    schema = "vendor.citation-file-format"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, ROOT / "CITATION.cff"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_map_shows_every_module_and_no_other():
    tree = (ROOT / "docs" / "architecture.md").read_text().split("```")[1].split("\ndeploy/")[0]
    worded = ("checks", "figures", "synthetic", "insightface", "configs")  # of these rooms the map lists some or none
    modules = [path for path in (ROOT / "arcface_edu").rglob("*.py") if not path.name.startswith("__")]
    shown = set(re.findall(r"\b\w+\.py\b", tree))
    assert {path.name for path in modules if path.parent.name not in worded} <= shown
    assert shown <= {path.name for path in modules}
    packages = {path.parent.name for path in (ROOT / "arcface_edu").rglob("__init__.py")}
    assert packages - set(re.findall(r"\b(\w+)/", tree)) == set()


@pytest.mark.full
def test_site_builds_without_a_warning_and_takes_nothing_from_the_network(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", ROOT / "docs", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 25
    for path, text in pages.items():
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"', text)
        assert not [address for address in loaded if "://" in address or address.startswith("//")], path
    reference = (tmp_path / "site" / "api" / "index.html").read_text()
    assert all(f">{name}</span>" in reference for name in arcface_edu.__all__)
