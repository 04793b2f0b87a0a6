"""The browser of the tests here: Debian's chromium."""

import shutil

import playwright.sync_api
import pytest


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_api.sync_playwright() as engines:
        chromium = engines.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()
