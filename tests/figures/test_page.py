"""The page holds everything itself, and shows text as text."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from arcface_edu.figures import page


def test_the_page_needs_nothing_else_and_is_well_formed():
    figure = Figure(figsize=(4, 3), dpi=100)
    figure.add_subplot().plot([1, 2])
    text = page.page(
        "A <title>", "lead & more", page.heading("<h>"), page.table(("a", ""), [["<1>", "2"], ["3", "4"]], ours=(1,)),
        page.notes(["a < b"]), page.notes([]), page.figures({'the "curve"': figure}), page.paragraph("x"),
    )  # fmt: skip
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|<script', text)
    for raw in ("A <title>", "<h>", "<1>", "a < b", "lead & more"):
        assert raw not in text
    assert text.count('<tr class="ours">') == 1 and "prefers-color-scheme: dark" in text

    opened, seen = [], HTMLParser()
    seen.handle_starttag = lambda tag, _: opened.append(tag) if tag not in ("meta", "img") else None
    seen.handle_endtag = lambda tag: opened.pop() if opened[-1] == tag else pytest.fail(f"</{tag}> in {opened}")
    seen.feed(text)
    assert not opened

    picture = re.search(r'<img width="(\d+)" alt="the &quot;curve&quot;" src="data:image/png;base64,([^"]+)"', text)
    assert Image.open(io.BytesIO(base64.b64decode(picture.group(2)))).width == 2 * int(picture.group(1)) == 800


def test_a_picture_that_is_wide_gets_the_whole_width():
    assert 'class="wide"' in page.figures({"wide": Figure(figsize=(10, 1), dpi=100)})
