"""The pages and the site: versions agree, the citation is valid, the map is complete, the site builds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import arcface_edu

ROOT = Path(__file__).parent.parent


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
