"""docs/explore.html in a real browser, opened as a file: its numbers are those of the package."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from arcface_edu.heads import MarginSoftmax
from arcface_edu.models import build_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explore.html").as_uri()
LOOKS = {
    "light": dict(viewport=dict(width=1100, height=900), color_scheme="light"),
    "dark": dict(viewport=dict(width=1100, height=900), color_scheme="dark"),
    "phone": dict(viewport=dict(width=390, height=844), color_scheme="light"),
}

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("demo")]


@pytest.fixture(params=LOOKS)
def page(browser, request):
    context = browser.new_context(**LOOKS[request.param])
    page = context.new_page()
    page.wrong = []
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(PAGE)
    yield page
    screenshot = ROOT / "build" / "browser" / f"explore_{request.param}.png"
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=screenshot, full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    assert not page.wrong
    context.close()


def put(page, **values):
    for name, value in values.items():
        page.locator(f"#{name}").fill(str(value))


def number(page, name):
    return float(re.search(r"-?[\d.]+", page.locator(f"#{name}").inner_text())[0])


@pytest.mark.parametrize(("photo", "m"), [(30, 0.5), (0, 0.3), (120, 0.8), (170, 0.5), (45, 0.0)])
def test_the_circle_shows_the_loss_of_the_head(page, photo, m):
    put(page, photo=photo, other=100, m=m, s=10)
    angles = torch.tensor([photo, 0.0, 100.0], dtype=torch.float64).deg2rad()
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    for column, margin in (("0", 0.0), ("m", m)):
        head = MarginSoftmax(2, 2, margin=(1.0, margin, 0.0), scale=10.0, gradient="exact").double()
        head.weight.data = directions[1:]
        loss = head(directions[:1], torch.tensor([0])).item()
        assert number(page, f"loss-{column}") == pytest.approx(loss, abs=6e-4)
        assert number(page, f"share-{column}") == pytest.approx(100 * math.exp(-loss), abs=0.06)


@pytest.mark.parametrize("gradient", ["exact", "straight-through"])
def test_the_arrow_on_the_sphere_is_the_gradient_of_the_head(page, gradient):
    put(page, m3=0.4, s3=6)
    page.locator("#exact").set_checked(gradient == "exact")
    head = MarginSoftmax(3, 3, margin=(1.0, 0.4, 0.0), scale=6.0, gradient=gradient).double()
    head.weight.data = torch.tensor(page.evaluate("CENTRES"), dtype=torch.float64)
    face = torch.tensor([page.evaluate("START")], dtype=torch.float64, requires_grad=True)
    loss = head(face, torch.tensor([0]))
    loss.backward()
    assert number(page, "loss3") == pytest.approx(loss.item(), abs=6e-4)
    assert number(page, "length") == pytest.approx(face.grad.norm().item(), abs=6e-4)
    before = number(page, "theta")
    for _ in range(20):
        page.locator("#step").click()
    assert number(page, "theta") < before


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_the_ring_ends_with_every_sum_on_every_rank(page, ranks):
    put(page, ranks=ranks)
    for _ in range(2 * (ranks - 1)):
        assert "Every rank has every sum" not in page.locator("#told").inner_text()
        page.locator("#next").click()
    sums = [sum(rank + 1 + part for rank in range(ranks)) for part in range(ranks)]
    rows = page.evaluate(
        "Array.from(document.querySelectorAll('#parts tr'), row => row.innerText.split('\\t').slice(1))"
    )
    assert [[int(cell) for cell in row] for row in rows[1:]] == [sums] * ranks
    assert page.locator("#parts .done").count() == ranks**2
    assert f"{2 * (ranks - 1) / ranks:.2f}" in page.locator("#told").inner_text()


def test_the_blocks_are_those_of_r50(page):
    model = build_model("r50", 512)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 112, 112))
    flops = {name.removeprefix("IResNet."): sum(of.values()) / 2e6 for name, of in counter.get_flop_counts().items()}
    blocks = page.evaluate("BLOCKS")
    for name, megabytes, operations in blocks:
        parts = dict(fc=["fc", "bn2"], conv1=["conv1", "bn1", "prelu"]).get(name, [name])
        weights = sum(p.numel() for part in parts for p in model.get_submodule(part).parameters())
        assert megabytes == pytest.approx(weights * 4 / 1e6, abs=0.005)
        assert operations == pytest.approx(flops[parts[0]], abs=0.5)
    assert len(blocks) == 3 + 4 + 14 + 3 + 2


@pytest.mark.parametrize(("size", "latency"), [(1, 0.2), (25, 0.2), (25, 1.0), (180, 0.5)])
def test_buckets_hide_what_the_model_says(page, size, latency):
    backward, speed = 80, 5
    put(page, size=size, speed=speed, latency=latency)
    page.locator("#pass").fill(str(backward))
    blocks = page.evaluate("BLOCKS")
    ready = torch.tensor([float(cost) for _, _, cost in blocks], dtype=torch.float64).cumsum(0)
    ready *= backward / ready[-1]
    ends, bucket = [0.0], []
    for (_, megabytes, _), moment in zip(blocks, ready.tolist(), strict=True):
        bucket.append(megabytes)
        if sum(bucket) >= size or moment == ready[-1]:
            ends.append(max(moment, ends[-1]) + latency + sum(bucket) / speed)
            bucket = []
    assert number(page, "messages") == len(ends) - 1
    assert number(page, "end-n") == pytest.approx(ends[-1], abs=0.06)
    assert number(page, "wait-n") == pytest.approx(ends[-1] - backward, abs=0.06)
    assert number(page, "end-1") == pytest.approx(backward + latency + sum(mb for _, mb, _ in blocks) / speed, abs=0.06)


def test_keys_and_the_pointer_move_the_photograph(page):
    slider = page.locator("#photo")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "31"
    box = page.locator("#circle svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
    assert slider.input_value() == "90"
    assert all(
        page.locator(f"label:has(#{name})").count()
        for name in ("photo", "other", "m", "s", "m3", "s3", "ranks", "size", "pass", "speed", "latency")
    )
