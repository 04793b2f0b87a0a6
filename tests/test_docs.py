"""The pages and the site: versions agree, the citation is valid."""

import re
import subprocess
import sys
from pathlib import Path

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
