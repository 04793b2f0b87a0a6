"""The exported file in other people's hands: the `insightface` package of PyPI takes it as one of its own models.

Its own code is run, as PyPI has it, in a folder of this test; it is no dependency of ours (110 MB to fetch). The other
clients, onnxruntime and the browser's onnxruntime-web: tests/test_export.py and tests/browser/test_demo.py.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_edu import build_model, embed_images
from arcface_edu.data.alignment.align import TEMPLATE
from arcface_edu.data.images import decode
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_person
from arcface_edu.exporting.to_onnx import WholeEmbedding, to_onnx
from arcface_edu.exporting.variants import to_fp16, to_int8

pytestmark = pytest.mark.full

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


def small_net(network):
    """An untrained network whose BN statistics are not the trivial ones."""
    torch.manual_seed(0)
    model = build_model(network, 32)
    model(torch.rand(16, 3, 112, 112) * 2 - 1)
    return model.eval()


def test_insightface_takes_the_file_as_its_own(insightface, tmp_path):
    images = [photo for person in range(4) for photo in draw_person(0, UNSEEN + person, 2)]
    ours, least = {}, {}  # by file: our embeddings, and the smallest cosine to them that is still the same network
    for network in ("r10", "mbf", "vit_t"):
        model = small_net(network)
        plain, whole = to_onnx(model, {}), to_onnx(WholeEmbedding(model).eval(), {})
        for name, content, flip, cosine in (
            ("plain", plain, False, 0.99999),
            ("whole", whole, True, 0.99999),
            ("fp16", to_fp16(plain), False, 0.9999),
            ("int8", to_int8(plain), False, 0.9),
        ):
            path = tmp_path / f"{network}_{name}.onnx"
            path.write_bytes(content)
            ours[path], least[path] = embed_images(model, images, flip=flip), cosine

    np.save(tmp_path / "faces.npy", [decode(image).numpy()[::-1].transpose(1, 2, 0) for image in images])  # BGR
    np.save(tmp_path / "kps.npy", TEMPLATE.astype(np.float32))  # so that its alignment has nothing to turn
    places = [str(path) for path in (tmp_path / "faces.npy", tmp_path / "kps.npy", tmp_path / "found.npz", *ours)]
    path = os.pathsep.join(filter(None, [str(insightface), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *places], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert said == [[127.5, 127.5, [112, 112]]] * len(ours)  # it reads them off the names of the first nodes
    found = np.load(tmp_path / "found.npz")
    for path in ours:
        for way in ("list", "alone", "get"):
            theirs = torch.as_tensor(found[f"{path} {way}"])
            cosines = F.cosine_similarity(ours[path].double(), theirs.double())
            assert theirs.shape == ours[path].shape
            assert cosines.min() > least[path], f"{path.name}, {way}: {cosines.min():.6f}"
