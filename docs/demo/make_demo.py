"""Make what the page beside this file shows: `make demo`.

    python docs/demo/make_demo.py runs/drawn_faces   the networks, the drawn faces, demo.json, and ort/
    python docs/demo/make_demo.py drawn_crowd        the same of a network of the package, or a model folder
    python docs/demo/make_demo.py                    ort/ alone: onnxruntime-web, so that the page needs no network

demo.js holds the version of onnxruntime-web; npm fetches it. Where chromium is, README's picture is taken too.
"""

import functools
import http.server
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from arcface_edu import export
from arcface_edu.cli import cli_main
from arcface_edu.data.alignment.detector import NETWORKS, Mtcnn
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_faces, draw_person
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.run_report import verification_line
from arcface_edu.evaluation.verification import verify_pairs
from arcface_edu.exporting.to_onnx import IR, OPSET
from arcface_edu.io import write_atomically
from arcface_edu.runs import open_run, resolve

PAGE = Path(__file__).parent
ORT = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PEOPLE, PHOTOGRAPHS = (504, 507, 508, 510), (2, 4)  # of those who are never trained on; chosen for their looks


@cli_main
def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments:
        write_facts(Path(arguments[0]), PAGE)
        make_faces(PAGE)
        make_network(Path(arguments[0]), PAGE)
        make_detector(PAGE)
    fetch_ort(PAGE / "ort")
    if arguments and shutil.which("chromium"):
        take_picture(PAGE.parents[1] / "pics" / "demo.png")
    print("now: python3 -m http.server --directory docs/demo")


def make_network(run, page):
    """face.onnx: a run's network in fp16, mirror and length 1 inside."""
    with tempfile.TemporaryDirectory() as folder:
        export.main([str(run), "--onnx", f"{folder}/face.onnx", "--whole", "--fp16"])
        with write_atomically(page / "face.onnx") as file:
            file.write(Path(folder, "face_fp16.onnx").read_bytes())


def make_detector(page):
    """pnet.onnx, rnet.onnx and onet.onnx: the package's detector, weights in fp16, arithmetic in float32."""
    detector = Mtcnn()
    for name in NETWORKS:
        with write_atomically(page / f"{name}.onnx") as file:
            file.write(stage_to_onnx(getattr(detector, name)))


def stage_to_onnx(stage):
    """ONNX file of a stage of the detector, for pictures of any number and size."""
    nodes, weights, value = [], [], "pictures"

    def add(kind, taken, name, *parameters, **attributes):
        for number, parameter in enumerate(parameters):
            weights.append(numpy_helper.from_array(parameter.detach().numpy().astype(np.float16), f"{name}.{number}"))
            nodes.append(helper.make_node("Cast", [f"{name}.{number}"], [f"{name}:{number}"], to=TensorProto.FLOAT))
        inputs = [taken, *(f"{name}:{number}" for number in range(len(parameters)))]
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def add_layer(layer, taken, name):
        match layer:
            case nn.Conv2d():
                return add("Conv", taken, name, layer.weight, layer.bias)
            case nn.PReLU():  # one slope a channel, the first dimension behind the batch
                slope = layer.weight if flat else layer.weight[:, None, None]
                return add("PRelu", taken, name, slope)
            case nn.MaxPool2d():
                return add("MaxPool", taken, name, kernel_shape=[layer.kernel_size] * 2, strides=[2, 2], ceil_mode=1)
            case nn.Flatten():
                return add("Flatten", taken, name)
            case nn.Linear():
                return add("Gemm", taken, name, layer.weight, layer.bias, transB=1)

    flat = False
    for number, layer in enumerate(stage.trunk):
        flat = flat or isinstance(layer, nn.Flatten)
        value = add_layer(layer, value, f"trunk{number}")
    outputs = [add_layer(head, value, f"head{number}") for number, head in enumerate(stage.heads)]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    pictures = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["number", 3, "height", "width"])
    graph = helper.make_graph(nodes, "detector", [pictures], described, weights)
    graph.doc_string = "MTCNN (Zhang et al. 2016). Weights: Copyright (c) 2019-2024 Iván de Paz Centeno, MIT licence."
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return model.SerializeToString()


def write_facts(source, page):
    """demo.json: what the network learnt from, its threshold and how often that is right, the names of the faces.

    source: a run, a model folder or the name of a network of the package; what it has not measured is measured now, on
    pairs of drawn people whom no run is trained on.
    """
    run = open_run(source)
    judged = [line for line in run.log if "threshold" in line] or [judge(run.model)]
    config = resolve(source).config
    people, dimensions = (config.get("training_config", config).get(key) for key in ("num_classes", "embedding_size"))
    if not people:
        raise DataError(f"{source} does not say what it was trained on: name a run or a model folder.")
    facts = {"people": people, "dimensions": dimensions, "pairs": judged[-1]["num_pairs"]}
    facts |= {"accuracy": round(judged[-1]["accuracy"], 4), "threshold": round(judged[-1]["threshold"]["degrees"], 1)}
    facts["faces"] = face_names()
    (page / "demo.json").write_text(json.dumps(facts, indent=1) + "\n")


def judge(model):
    """The line of a verification on the default run's pairs."""
    with tempfile.TemporaryDirectory() as folder:
        draw_faces(folder, identities=2, photos=20)
        images, is_same = read_pairs(Path(folder, "drawn.bin"))
        return verification_line(verify_pairs(embed_images(model, images, progress="embedding drawn pairs"), is_same))


def face_names():
    """For each person the names of the photographs."""
    return [[f"faces/{person}_{photo}.jpg" for photo in PHOTOGRAPHS] for person in PEOPLE]


def make_faces(page):
    """The photographs, as the drawn faces' own code draws and compresses them."""
    (page / "faces").mkdir(exist_ok=True)
    for person, names in zip(PEOPLE, face_names(), strict=True):
        drawn = draw_person(0, UNSEEN + person, max(PHOTOGRAPHS) + 1)
        for photo, name in zip(PHOTOGRAPHS, names, strict=True):
            (page / name).write_bytes(drawn[photo])


def fetch_ort(folder):
    """The two files of onnxruntime-web that the page takes, of the version in demo.js, by npm.  raises: ConfigError."""
    package = re.search(r"onnxruntime-web@[\d.]+", (PAGE / "demo.js").read_text()).group()
    if not shutil.which("npm"):
        raise ConfigError(f"{package} is fetched with npm: sudo apt install npm, or let the page take it from its CDN.")
    with tempfile.TemporaryDirectory() as download:
        done = subprocess.run(["npm", "pack", "--silent", package], cwd=download, capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"npm cannot fetch {package}: {done.stderr.strip() or 'it does not say why'}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(next(Path(download).glob("*.tgz"))) as archive:
            for name in ORT:
                with write_atomically(folder / name) as file:
                    file.write(archive.extractfile(f"package/dist/{name}").read())


@contextmanager
def served(folder):
    """Address of a server of the files in `folder`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def take_picture(path):
    """The page as a visitor finds it, as a PNG with a palette."""
    import playwright.sync_api

    with served(PAGE) as address, playwright.sync_api.sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=dict(width=1000, height=700))
        page.goto(address)
        page.wait_for_selector("main[data-state=done]", timeout=120_000)
        page.wait_for_timeout(1000)  # the dial comes to rest
        below = page.locator("footer").bounding_box()["y"]
        picture = Image.open(io.BytesIO(page.screenshot(clip=dict(x=0, y=0, width=1000, height=below - 4))))
        browser.close()
    picture.convert("RGB").quantize(160).save(path, optimize=True)


if __name__ == "__main__":
    main()
