"""The exported file in other people's hands: the `insightface` package of PyPI takes it as one of its own models.

Its own code is run, as PyPI has it, in a folder of this test; it is no dependency of ours (110 MB to fetch). onnxruntime
and the browser's onnxruntime-web are the other clients: tests/test_export.py and tests/browser/test_demo.py.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_edu import build_model, embed, export, load_model
from arcface_edu.data.align import TEMPLATE
from arcface_edu.data.bins import write_pairs
from arcface_edu.data.images import decode
from arcface_edu.exporting.facts import drawn_pairs

pytestmark = pytest.mark.slow

# What importing its recognition model takes beside numpy, onnx, onnxruntime and tqdm, which are here. Without --no-deps
# pip would fetch those again, and the OpenCV that takes a screen's libraries.
PACKAGES = ["insightface", "opencv-python-headless", "scikit-image", "scipy", "lazy_loader"]
PACKAGES += ["requests", "urllib3", "idna", "certifi", "charset_normalizer"]

CLIENT = """
import json, sys
from types import SimpleNamespace
import numpy as np
from insightface.model_zoo import get_model
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

faces, kps, found = np.load(sys.argv[1]), np.load(sys.argv[2]), {}
for path in sys.argv[4:]:
    model = get_model(path, providers=["CPUExecutionProvider"])
    assert type(model) is ArcFaceONNX, type(model)
    found[path + " list"] = model.get_feat(list(faces))
    found[path + " alone"] = np.concatenate([model.get_feat(face) for face in faces])
    found[path + " get"] = np.stack([model.get(face, SimpleNamespace(kps=kps)) for face in faces])
    print(json.dumps([model.input_mean, model.input_std, model.input_size]))
np.savez(sys.argv[3], **found)
"""


@pytest.fixture(scope="module")
def insightface(tmp_path_factory):
    """A folder with the package and what it imports."""
    folder = tmp_path_factory.mktemp("insightface")
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([sys.executable, *words, "--target", folder, *PACKAGES], capture_output=True, text=True)
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"pip cannot fetch insightface here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder


def a_run(folder, network):
    """A folder with an untrained network whose BN statistics are not the trivial ones."""
    torch.manual_seed(0)
    model = build_model(network, 32)
    model(torch.rand(16, 3, 112, 112) * 2 - 1)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(dict(network=network, embedding_size=32)))
    return folder


def test_insightface_takes_the_file_as_its_own(insightface, tmp_path):
    images, is_same = drawn_pairs(people=4, photos=2, pairs=8)
    write_pairs(tmp_path / "few.bin", images, is_same)
    ours, files = {}, {}
    for network in ("r10", "mbf", "vit_t"):
        run = a_run(tmp_path / network, network)
        for name, flip, words in (("plain", False, ["--fp16", "--int8"]), ("whole", True, ["--whole"])):
            path = tmp_path / f"{network}_{name}.onnx"
            export.main([str(word) for word in (run, "--onnx", path, *words, "--pairs", tmp_path / "few.bin")])
            files[path], ours[path] = 0.99999, embed(load_model(run)[0], images, flip=flip)
            for form, least in (("fp16", 0.9999), ("int8", 0.9)) if name == "plain" else ():
                smaller = path.with_stem(f"{path.stem}_{form}")
                files[smaller], ours[smaller] = least, ours[path]

    np.save(tmp_path / "faces.npy", [decode(image).numpy()[::-1].transpose(1, 2, 0) for image in images])  # BGR
    np.save(tmp_path / "kps.npy", TEMPLATE.astype(np.float32))  # so that its alignment has nothing to turn
    places = [str(path) for path in (tmp_path / "faces.npy", tmp_path / "kps.npy", tmp_path / "found.npz", *files)]
    path = os.pathsep.join(filter(None, [str(insightface), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *places], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert said == [[127.5, 127.5, [112, 112]]] * len(files)  # it reads them off the names of the first nodes
    found = np.load(tmp_path / "found.npz")
    for path, least in files.items():
        for way in ("list", "alone", "get"):
            theirs = torch.as_tensor(found[f"{path} {way}"]).double()
            cosines = F.cosine_similarity(ours[path].double(), theirs)
            assert theirs.shape == ours[path].shape
            assert cosines.min() > least, f"{path.name}, {way}: {cosines.min():.6f}"
