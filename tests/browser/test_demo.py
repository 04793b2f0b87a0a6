"""docs/demo in a real browser: the angle on its dial is the one that torch computes, and nothing leaves the page."""

import contextlib
import importlib.util
import json
import math
import re
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from arcface_edu import build_model, embed_images
from arcface_edu.data.alignment.align import TEMPLATE, align
from arcface_edu.data.alignment.detector import NETWORKS, Mtcnn
from arcface_edu.data.images import decode, encode_png, fit
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_person
from arcface_edu.exporting.to_onnx import WholeEmbedding, to_onnx
from arcface_edu.exporting.variants import to_fp16
from arcface_edu.figures import style
from arcface_edu.models.onnx_graph import OnnxGraph

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
LOOKS = {
    "light": dict(viewport=dict(width=1100, height=800), color_scheme="light"),
    "dark": dict(viewport=dict(width=1100, height=800), color_scheme="dark"),
    "phone": dict(viewport=dict(width=390, height=844), color_scheme="light", has_touch=True),
}
HOPPER = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"  # public domain
CLOSE = 0.3  # degrees: fp16 in two runtimes, and a dial that shows one decimal

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("demo")]

described = importlib.util.spec_from_file_location("make_demo", ROOT / "docs" / "demo" / "make_demo.py")
make_demo = importlib.util.module_from_spec(described)
described.loader.exec_module(make_demo)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the page as committed, with onnxruntime-web beside it as `make demo` fetches it."""
    folder = tmp_path_factory.mktemp("demo") / "site"
    shutil.copytree(ROOT / "docs" / "demo", folder, ignore=shutil.ignore_patterns("ort", "__pycache__"))
    make_demo.fetch_ort(folder / "ort")
    return folder


@pytest.fixture
def open_page(browser):
    """open_page(folder, **look): the page of that folder, served; .errors and .requests are what it said and asked."""
    with contextlib.ExitStack() as stack:

        def opened(folder, expect="done", prepare=lambda page: None, **look):
            address = stack.enter_context(make_demo.served(folder))
            page = browser.new_page(**look)
            stack.callback(page.close)
            page.errors, page.requests = [], []
            page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.on("request", lambda request: page.requests.append(request))
            page.set_default_timeout(120_000)
            prepare(page)
            page.goto(address)
            page.wait_for_selector(f"main[data-state={expect}]")
            return page

        yield opened


def choose(page, number, name):
    """Choose an included drawn face for the first (0) or second (1) slot."""
    page.locator(f".slot >> nth={number}").locator(f'label:has(img[src="{name}"]) input').check()
    page.wait_for_timeout(100)


def angle_shown(page, other_than=None):
    """Degrees on the dial, once the number is another."""
    if other_than is not None:
        page.wait_for_function(
            "before => parseFloat(document.querySelector('#angle').textContent) !== before", arg=other_than
        )
    return float(page.inner_text("#angle").rstrip("°"))


def degrees(model, first, second, flip):
    """The angle between two encoded pictures, by our own code."""
    one, other = F.normalize(embed_images(model, [first, second], flip=flip).double())
    return math.degrees(torch.acos((one @ other).clamp(-1, 1)))


def facts(site):
    return json.loads((site / "demo.json").read_text())


@pytest.mark.parametrize("look", LOOKS)
def test_the_dial_shows_the_angle_of_the_network_as_committed(site, open_page, look):
    page = open_page(site, **LOOKS[look])
    graph, people = OnnxGraph(site / "face.onnx"), facts(site)["faces"]
    names = [name for person in people for name in person]
    assert page.locator(".slot img").count() == 2 * len(names) == 16
    for first, second in ((names[0], names[1]), (names[2], names[5]), (names[3], names[7]), (names[3], names[3])):
        choose(page, 0, first)
        choose(page, 1, second)
        expected = degrees(graph, (site / first).read_bytes(), (site / second).read_bytes(), flip=False)
        page.wait_for_function(
            "e => Math.abs(parseFloat(document.querySelector('#angle').textContent) - e) < 0.3", arg=expected
        )
        said, threshold = page.inner_text("#verdict"), facts(site)["threshold"]
        assert f"threshold of {threshold}°" in said
        assert ("one person" in said) == (expected < threshold)
        same = any({first, second} <= set(person) for person in people)
        assert ("It is right" in said) == (same == (expected < threshold))
        assert f"stands at {angle_shown(page):.1f}" in page.get_attribute(".dial svg", "aria-label")
    choose(page, 0, names[0])
    choose(page, 1, names[5])
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"demo_{look}.png", full_page=True)
    assert page.errors == []
    assert all(request.method == "GET" and request.url.startswith(page.url) for request in page.requests)


def test_what_export_writes_today_runs_in_the_browser_and_gives_torchs_angle(site, open_page, tmp_path):
    """Fresh weights through the whole chain: torch, torch.onnx, fp16 or not, wasm, a canvas; pictures of one's own."""
    torch.manual_seed(0)
    model = build_model("r10", 128)
    model(torch.rand(16, 3, 112, 112) * 2 - 1)  # BN statistics that are not the trivial ones
    content = to_onnx(WholeEmbedding(model.eval()).eval(), {})
    pictures = []
    for person in range(2):
        (tmp_path / f"{person}.png").write_bytes(encode_png(decode(draw_person(0, UNSEEN + person, 1)[0])))
        pictures.append(tmp_path / f"{person}.png")
    expected = degrees(model, *(path.read_bytes() for path in pictures), flip=True)
    for form, written in (("fp32", content), ("fp16", to_fp16(content))):
        folder = shutil.copytree(site, tmp_path / form)
        (folder / "face.onnx").write_bytes(written)
        page = open_page(folder)
        before = angle_shown(page)
        for number, path in enumerate(pictures):
            page.locator("input[type=file]").nth(number).set_input_files(path)
            before = angle_shown(page, other_than=before)
        assert before == pytest.approx(expected, abs=CLOSE), form
        assert "It is" not in page.inner_text("#verdict")  # of these it cannot know
        assert page.locator(".slot :checked").count() == 0
        assert page.errors == []


def test_own_pictures_and_files_that_are_none(site, open_page, tmp_path):
    page = open_page(site)
    angle = angle_shown(page)
    (tmp_path / "notes.txt").write_text("no face")
    slot = page.locator(".slot").first
    slot.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    slot.locator(".said", has_text="notes.txt is no picture that this browser can read: choose a PNG").wait_for()
    assert angle_shown(page) == angle  # what was there stays

    wide = torch.linspace(0, 255, 224).byte().expand(3, 112, 224).contiguous()  # no face: fitted, as ours, on black
    (tmp_path / "wide.png").write_bytes(encode_png(wide))
    slot.locator("input[type=file]").set_input_files(tmp_path / "wide.png")
    slot.locator(".said", has_text="No face was found").wait_for()
    assert "All 224 × 112 pixels, fitted to 112 × 112." in slot.locator(".said").inner_text()
    assert slot.locator(".photo, .found").first.is_hidden()
    second = (site / facts(site)["faces"][0][1]).read_bytes()
    expected = degrees(OnnxGraph(site / "face.onnx"), encode_png(fit(wide)), second, flip=False)
    assert angle_shown(page, other_than=angle) == pytest.approx(expected, abs=2)  # two ways to shrink
    assert page.errors == []


def test_the_warp_is_the_packages(site, open_page):
    """Any five points in any picture: `align` here and there, to a grey level (and nearly always to none)."""
    page, rng = open_page(site), np.random.default_rng(0)
    picture = torch.from_numpy(rng.integers(0, 256, (3, 90, 120), dtype=np.uint8))
    for turn in range(20):
        points = (TEMPLATE + rng.normal(0, 4, (5, 2))) * rng.uniform(0.3, 3) + rng.uniform(-40, 60, 2)
        points = points @ rotation(turn * 18)
        ours = align(picture, points)
        off = (align_in(page, picture, points).int() - ours.int()).abs()
        assert off.max() <= 1 and off.float().mean() < 0.01


@pytest.mark.parametrize("name", ["grace_hopper.jpg", "turned", "large"])
def test_a_photograph_of_a_real_person_is_found_and_aligned_as_in_python(site, open_page, tmp_path, name):
    """By a phone: a JPEG; the same turned by its EXIF; one of 6,000 pixels."""
    path, page = HOPPER if name == HOPPER.name else tmp_path / f"{name}.jpg", open_page(site)
    with Image.open(HOPPER) as photo:
        if name == "turned":
            exif = photo.getexif()
            exif[0x0112] = 6  # shown turned by 90 degrees to the right
            photo.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
        elif name == "large":
            photo.resize((5120, 6000)).save(path)
    photograph = decode(path.read_bytes())
    _, points = Mtcnn()(photograph)
    assert len(points) == 1
    expected = align(photograph, points[0].numpy())
    before = angle_shown(page)
    slot = page.locator(".slot").first
    slot.locator("input[type=file]").set_input_files(path)
    said = slot.locator(".said", has_text="One face was found")
    said.wait_for()
    assert ("5120 × 6000 pixels were reduced to 1365 × 1600" in said.inner_text()) == (name == "large")
    angle_shown(page, other_than=before)
    face = pixels_of(slot, "canvas >> nth=0")
    off = (face.int() - expected.int()).abs().float()
    assert off.mean() < (20 if name == "large" else 0.5)  # a reduced one is searched in fewer pixels
    assert f"{path.name}: faces: 1" in slot.locator(".photo").get_attribute("aria-label")
    assert slot.locator(".found").is_hidden() and slot.locator(".photo").is_visible()
    assert page.errors == []
    assert all(request.method == "GET" and request.url.startswith(page.url) for request in page.requests)


def test_the_detector_finds_the_packages_points(site, open_page, tmp_path):
    """In PNGs, which both sides read alike: every face, box and point to a twentieth of a pixel, in the same order."""
    page = open_page(site)
    photograph = decode(HOPPER.read_bytes())
    crowd = F.pad(photograph[:, 80:360, 120:420], (40, 300, 20, 20), value=90)
    crowd[:, 120:320, 420:620] = F.interpolate(photograph[None, :, 100:340, 160:400].float(), size=(200, 200))[0].byte()
    for picture in (photograph, crowd, crowd[:, ::2, ::2].contiguous(), torch.zeros(3, 20, 20, dtype=torch.uint8)):
        boxes, points = Mtcnn()(picture)
        found = page.evaluate(
            """async ([data, width, height]) => {
                const { findFaces } = await import("./faces.js");
                const { ort, sessions } = window.detector ??= await (async () => {
                    const ort = await import(new URL("ort/ort.wasm.bundle.min.mjs", document.baseURI).href);
                    const sessions = {};
                    for (const name of ["pnet", "rnet", "onet"]) sessions[name] = await ort.InferenceSession.create(
                        new Uint8Array(await (await fetch(`${name}.onnx`)).arrayBuffer()));
                    return { ort, sessions };
                })();
                const run = async (name, pixels, shape) => {
                    const outputs = await sessions[name].run({ pictures: new ort.Tensor("float32", pixels, shape) });
                    return sessions[name].outputNames.map((output) => outputs[output]);
                };
                return findFaces(new ImageData(new Uint8ClampedArray(data), width, height), run);
            }""",
            rgba(picture),
        )
        assert len(found) == len(boxes)
        for one, box, five in zip(found, boxes, points, strict=True):
            torch.testing.assert_close(torch.tensor(one["box"]), box, atol=0.05, rtol=0)
            torch.testing.assert_close(torch.tensor(one["points"]), five, atol=0.05, rtol=0)


def test_several_faces_are_chosen_among_by_the_keyboard(site, open_page, tmp_path):
    page = open_page(site, **LOOKS["phone"], reduced_motion="reduce")
    photograph = Image.open(HOPPER).crop((100, 60, 440, 400))
    group = Image.new("RGB", (1100, 420), (120, 120, 120))
    for number, size in enumerate((360, 300, 240)):
        group.paste(photograph.resize((size, size)), (20 + 400 * number, 10))
    group.save(tmp_path / "group.png")
    slot = page.locator(".slot").nth(1)
    slot.locator("input[type=file]").set_input_files(tmp_path / "group.png")
    slot.locator(".said", has_text="3 faces were found: this is number 1").wait_for()
    faces = slot.get_by_role("radiogroup", name="Faces in the photograph").get_by_role("radio")
    assert [face.get_attribute("aria-label") for face in faces.all()] == [
        f"face {number} of 3 in group.png" for number in (1, 2, 3)
    ]
    before = angle_shown(page)
    faces.first.focus()
    page.keyboard.press("ArrowRight")
    slot.locator(".said", has_text="this is number 2").wait_for()
    assert faces.nth(1).is_checked() and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    angle_shown(page, other_than=before)
    page.screenshot(path=SCREENSHOTS / "demo_group.png", full_page=True)
    choose(page, 1, facts(site)["faces"][0][0])  # a drawn face instead: the photograph goes
    assert slot.locator(".photo").is_hidden() and slot.locator(".found").is_hidden()
    assert page.errors == []


def test_without_webassembly_and_without_the_detector(site, open_page, tmp_path):
    page = open_page(site, "failed", lambda page: page.add_init_script("delete globalThis.WebAssembly"))
    assert page.inner_text("#verdict") == "This browser has no WebAssembly, which runs the network: take another."
    for name, content, sentence in (
        ("rnet", None, "rnet.onnx, a part of the detector, could not be loaded (404): run make demo"),
        ("onet", b"no graph", "onet.onnx is no part of the detector: run make demo"),
    ):
        folder = shutil.copytree(site, tmp_path / name)
        (folder / f"{name}.onnx").write_bytes(content) if content else (folder / f"{name}.onnx").unlink()
        page = open_page(folder)
        page.locator("input[type=file]").first.set_input_files(HOPPER)
        page.locator(".slot").first.locator(".said", has_text=f"No face was looked for: {sentence}").wait_for()


def test_a_photograph_after_the_network_is_gone(site, open_page):
    """What is loaded once works offline."""
    page = open_page(site)
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.locator("input[type=file]").first.set_input_files(HOPPER)
    page.locator(".slot").first.locator(".said", has_text="One face was found").wait_for()


def test_the_detector_of_the_page_is_the_packages(site, tmp_path):
    make_demo.make_detector(tmp_path)
    for name in NETWORKS:
        assert (tmp_path / f"{name}.onnx").read_bytes() == (site / f"{name}.onnx").read_bytes()


@pytest.mark.parametrize("source", ["a network of the package", "a run"])
def test_facts_of_any_run_or_model(tmp_path, monkeypatch, source):
    """The package's network has no log of verifications: it is judged on the spot. A run says what it has measured."""
    asked = []
    line = dict(num_pairs=10, accuracy=0.9, threshold=dict(degrees=61.23))
    monkeypatch.setattr(make_demo, "judge", lambda model: asked.append(model) or line)
    if source == "a run":
        (tmp_path / "run").mkdir()
        torch.save(build_model("r10", 32).state_dict(), tmp_path / "run" / "model.pt")
        (tmp_path / "run" / "config.json").write_text('{"num_classes": 7, "embedding_size": 32, "network": "r10"}')
        (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"step": 1} | line | {"accuracy": 0.8}) + "\n")
    make_demo.write_facts(tmp_path / "run" if source == "a run" else Path("drawn_crowd"), tmp_path)
    found = facts(tmp_path)
    expected = (7, 32, 0.8) if source == "a run" else (2000, 128, 0.9)
    assert (found["people"], found["dimensions"], found["accuracy"]) == expected
    assert (found["pairs"], found["threshold"], len(asked)) == (10, 61.2, 0 if source == "a run" else 1)


def rotation(degrees):
    theta = math.radians(degrees)
    return np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])


def rgba(picture):
    """What the page's ImageData takes of uint8 (3, H, W): [values, width, height]."""
    opaque = torch.cat([picture, torch.full_like(picture[:1], 255)]).permute(1, 2, 0)
    return [opaque.flatten().tolist(), picture.shape[2], picture.shape[1]]


def align_in(page, picture, points):
    """uint8 (3, 112, 112), the face at `points` as the page's own code cuts it out."""
    values = page.evaluate(
        """async ([[data, width, height], points]) => {
            const { align } = await import("./faces.js");
            return [...align(new ImageData(new Uint8ClampedArray(data), width, height), points).data];
        }""",
        [rgba(picture), points.tolist()],
    )
    return torch.tensor(values, dtype=torch.uint8).view(112, 112, 4)[..., :3].permute(2, 0, 1)


def pixels_of(slot, selector):
    """uint8 (3, 112, 112) of a canvas."""
    values = slot.locator(selector).evaluate("c => [...c.getContext('2d').getImageData(0, 0, 112, 112).data]")
    return torch.tensor(values, dtype=torch.uint8).view(112, 112, 4)[..., :3].permute(2, 0, 1)


def test_the_keyboard_and_a_drop(site, open_page, tmp_path):
    page = open_page(site, reduced_motion="reduce")
    before = angle_shown(page)
    page.locator(".slot").nth(1).locator(":checked").focus()
    page.keyboard.press("ArrowRight")
    before = angle_shown(page, other_than=before)
    content = draw_person(0, UNSEEN + 7, 1)[0]
    page.evaluate(
        """bytes => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
            const drop = new DragEvent("drop", { dataTransfer: carried, bubbles: true });
            document.querySelector(".slot").dispatchEvent(drop);
        }""",
        list(content),
    )
    second = page.locator(".slot").nth(1).locator("label:has(:checked) img").get_attribute("src")
    expected = degrees(OnnxGraph(site / "face.onnx"), content, (site / second).read_bytes(), flip=False)
    assert angle_shown(page, other_than=before) == pytest.approx(expected, abs=CLOSE)
    assert page.errors == []


def test_where_ort_is_missing_its_public_copy_is_taken(site, open_page, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("ort"))
    asked = []

    def stand_in(page):
        def answer(route):
            asked.append(route.request.url)
            name = route.request.url.rsplit("/", 1)[1]
            kind = "text/javascript" if name.endswith(".mjs") else "application/wasm"
            route.fulfill(body=(site / "ort" / name).read_bytes(), content_type=kind,
                          headers={"Access-Control-Allow-Origin": "*"})  # fmt: skip

        page.route("https://cdn.jsdelivr.net/**", answer)

    page = open_page(folder, prepare=stand_in)
    angle_shown(page)
    version = re.search(r'"(onnxruntime-web@[\d.]+)"', (site / "demo.js").read_text()).group(1)
    assert asked == [f"https://cdn.jsdelivr.net/npm/{version}/dist/{name}" for name in make_demo.ORT]
    assert page.errors == ["Failed to load resource: the server responded with a status of 404 (File not found)"]


def test_sentences_where_something_is_missing(site, open_page, tmp_path):
    for name, sentence in (
        ("face.onnx", "face.onnx, the network, could not be loaded (404): run make demo, which makes it anew."),
        ("demo.json", "demo.json, the list of drawn faces, could not be loaded (404)"),
        ("ort", "which runs the network, is neither in ort/ nor to be had from cdn.jsdelivr.net: run make demo"),
    ):
        folder = shutil.copytree(site, tmp_path / f"no_{name}", ignore=shutil.ignore_patterns(name))
        page = open_page(folder, "failed", lambda page: page.route("https://cdn.jsdelivr.net/**", lambda r: r.abort()))
        assert sentence in page.inner_text("#verdict")
        assert page.locator(".slot:enabled").count() == 0
    folder = shutil.copytree(site, tmp_path / "broken")
    (folder / "face.onnx").write_bytes(b"no graph")
    page = open_page(folder, "failed")
    assert page.inner_text("#verdict").startswith("onnxruntime-web cannot run face.onnx (")


def test_the_colours_are_the_houses(site):
    css = (site / "demo.css").read_text()
    for name in ("same", "different", "ink", "faint"):
        assert f"--{name}: {getattr(style, name.upper())};" in css


def test_the_drawn_faces_are_drawn_by_the_package(site, tmp_path):
    make_demo.make_faces(tmp_path)
    for name in (name for person in facts(site)["faces"] for name in person):
        with Image.open(site / name) as picture:
            assert picture.size == (112, 112)
        ours, theirs = (decode((folder / name).read_bytes()).double() for folder in (tmp_path, site))
        assert (ours - theirs).abs().mean() < 1  # another machine's arithmetic may round otherwise
