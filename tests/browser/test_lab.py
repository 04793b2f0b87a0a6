"""The course in JupyterLab, through a browser: notebooks run whole, sliders and drags change the pictures."""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import playwright.sync_api
import pytest

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
NOTEBOOKS = ("02_angular_margin", "04_dataparallel_vs_ddp")
PICTURE = 'img[alt="a figure that follows the controls"]'
MINUTE = 60_000  # milliseconds; limits are generous, nothing is timed

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("lab")]


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab over a copy of the notebooks, and the folder of its own settings."""
    home = tmp_path
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    for path in (home / "notebooks").glob("*.ipynb"):
        empty(path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = home / "settings"
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "TQDM_DISABLE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1",
    ]
    command += ["--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={home / 'notebooks'}"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    address = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) as server:
        try:
            wait_for(f"{address}/api", server, home / "log")
            yield address, settings
        finally:
            server.terminate()


def empty(path):
    """Take all outputs from a notebook: what a test then sees is its own run's."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def wait_for(address, server, log, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(address)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not come up:\n{log.read_text()[-3000:]}")


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport=dict(width=1200, height=950))
    page.set_default_timeout(2 * MINUTE)
    yield page
    page.close()


def set_up(settings, theme):
    """Lab's settings: its theme, all cells in the page at once, and no question about news."""
    for name, values in {
        "apputils-extension/themes": {"theme": theme},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def open_and_run(page, address, name):
    """Open a notebook and choose Run > Run All Cells.  returns: when every code cell has its number."""
    page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell")
    page.locator(".jp-KernelName", has_text="Python 3").first.wait_for()
    page.wait_for_function("document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'")
    page.wait_for_timeout(5_000)
    # Asked while the kernel is still connecting, Lab lets the command drop, or asks in a dialog which kernel is meant;
    # one that comes up between look and click is answered in the next round.
    for _ in range(20):
        for dialog in page.locator(".jp-Dialog").all():
            dialog.locator("button.jp-mod-accept").click()
        with contextlib.suppress(playwright.sync_api.TimeoutError):
            page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click(timeout=10_000)
            page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click(timeout=10_000)
        page.wait_for_timeout(5_000)
        if re.search(r"[*\d]", "".join(page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts())):
            break
    page.wait_for_function(
        """() => {
            const shown = '.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)';  // a folded cell has both
            const prompts = [...document.querySelectorAll(shown)].map(p => p.textContent);
            const status = document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status;
            return status === 'idle' && prompts.length > 0 && prompts.every(p => /\\[\\d+\\]/.test(p));
        }""",
        timeout=15 * MINUTE,
    )


def listen(page):
    """A list that fills with what the page reports as an error."""
    said = []
    page.on("console", lambda message: message.type == "error" and said.append(f"{message.text} {message.location}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def picture_bytes(picture):
    """The PNG that an <img> shows now."""
    encoded = picture.evaluate(
        """async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
        }"""
    )
    return base64.b64decode(encoded)


def changed(page, picture, before):
    """The picture's bytes once they differ from `before`."""
    for _ in range(300):
        if (now := picture_bytes(picture)) != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError("the picture did not change")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_whole_and_its_first_panel_answers(lab, page, name, theme):
    address, settings = lab
    set_up(settings, theme)
    errors = listen(page)
    open_and_run(page, address, name)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    stem = f"{name}_{theme.split()[-1].lower()}"

    assert page.evaluate("document.body.dataset.jpThemeName") == theme
    for kind in ("error", "stderr"):
        outputs = page.locator(f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]')
        assert outputs.all_inner_texts() == []

    picture = page.locator(PICTURE).first
    panel = page.locator(".widget-vbox", has=picture).first
    picture.scroll_into_view_if_needed()
    now = picture_bytes(picture)
    assert now.startswith(b"\x89PNG")
    handles = panel.locator(".noUi-handle")
    assert handles.count() >= 1
    for place in range(handles.count()):
        handles.nth(place).focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        now = changed(page, picture, now)
    if "grab" in picture.get_attribute("style"):
        settle(page, picture)
        now, box = picture_bytes(picture), picture.bounding_box()
        page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + 0.4 * box["height"])
        page.mouse.down()
        now = changed(page, picture, now)
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
        page.mouse.up()
        changed(page, picture, now)
    settle(page, picture)
    picture.scroll_into_view_if_needed()
    page.screenshot(path=SCREENSHOTS / f"{stem}_panel.png")
    for number, output in enumerate(page.locator(".jp-OutputArea-output img").all()):
        output.scroll_into_view_if_needed()
        page.screenshot(path=SCREENSHOTS / f"{stem}_{number:02d}.png")
    assert [error for error in errors if "colab-badge" not in error] == []  # its badge is a picture of Colab


def settle(page, picture):
    """Wait until the picture has been the same for a second."""
    last = None
    while last != (last := picture_bytes(picture)):
        page.wait_for_timeout(1000)
