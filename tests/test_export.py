"""`python -m arcface_edu.export`: what is written computes what was trained, or is not written."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from arcface_edu import angles, build_model, embed, embed_images, evaluate, export, load_model, read_pairs
from arcface_edu.data.images import decode
from arcface_edu.errors import ExportError
from arcface_edu.exporting import variants
from arcface_edu.exporting.to_onnx import check_parity, to_onnx
from arcface_edu.models.onnx_graph import OnnxGraph
from arcface_edu.models.weights import hash_of

CONFIG = dict(network="r10", embedding_size=32, loss="arcface", rec="/home/me/faces/drawn", output="/home/me/runs/x")


def small_net(seed=0):
    """An untrained network whose BN statistics are not the trivial ones."""
    torch.manual_seed(seed)
    model = build_model("r10", 32)
    model(torch.rand(16, 3, 112, 112) * 2 - 1)
    return model.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    folder.mkdir()
    torch.save(small_net().state_dict(), folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def written(run, pairs):
    """Three forms of a graph."""
    export.main([str(word) for word in (run, "--onnx", run / "face.onnx", "--fp16", "--int8", "--pairs", pairs)])
    return run / "face.onnx"


def fails(capsys, *arguments):
    """The one sentence on stderr of a command that leaves with status 2."""
    with pytest.raises(SystemExit) as left:
        export.main([str(argument) for argument in arguments])
    assert left.value.code == 2
    return capsys.readouterr().err


def as_a_client(path, images):
    """Embeddings by onnxruntime and numpy alone, from what the file says of itself."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["color"], facts["size"]) == ("RGB", "112x112")
    pixels = np.stack([decode(image).numpy() for image in images]).astype(np.float32)
    return session.run(None, {"input.1": (pixels - float(facts["mean"])) / float(facts["std"])})[0]


def cosines(one, other):
    return F.cosine_similarity(torch.as_tensor(one).double(), torch.as_tensor(other).double())


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_onnxruntime_computes_the_same(run, written, pairs, batch):
    images = read_pairs(pairs)[0][:batch]
    ours = embed_images(load_model(run)[0], images, flip=False)
    theirs = as_a_client(written, images)
    assert theirs.shape == (batch, 32)
    assert cosines(ours, theirs).min() > 0.999999
    np.testing.assert_allclose(ours.norm(dim=1), np.linalg.norm(theirs, axis=1), rtol=1e-4)
    for form, least in (("fp16", 0.99999), ("int8", 0.95)):
        assert cosines(ours, as_a_client(written.with_stem(f"face_{form}"), images)).min() > least


def test_the_form_of_the_files(run, written):
    sizes = []
    for file in (written, written.with_stem("face_fp16"), written.with_stem("face_int8")):
        content = file.read_bytes()
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
        assert model.ir_version == 8  # onnxruntime reads both from 1.14 on; torch's own choice of IR needs 1.18
        (taken,), (given,) = model.graph.input, model.graph.output
        shape = taken.type.tensor_type.shape.dim
        assert (taken.name, taken.type.tensor_type.elem_type) == ("input.1", onnx.TensorProto.FLOAT)
        assert ([size.dim_value for size in shape], shape[0].dim_param) == ([0, 3, 112, 112], "batch")
        assert (given.name, given.type.tensor_type.elem_type) == ("embedding", onnx.TensorProto.FLOAT)
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert (facts["mean"], facts["std"], facts["network"]) == ("127.5", "127.5", "r10")
        assert (facts["opset"], facts["ir_version"]) == ("18", "8")
        assert facts["weights_sha256"] == hash_of(run / "model.pt")
        assert json.loads(facts["training_config"]) == {key: CONFIG[key] for key in CONFIG if key != "output"} | {
            "rec": "drawn"
        }
        for place in (str(Path(__file__).parents[1]), sys.prefix, "/home/me"):  # nothing of this machine
            assert place.encode() not in content
        # InsightFace's client gives unscaled pixels where the first nodes are called so
        assert not [
            node.name for node in model.graph.node[:8] if node.name.startswith(("Sub", "_minus", "Mul", "_mul"))
        ]
        sizes.append(len(content))
    assert sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.4 * sizes[0]


@pytest.mark.slow
def test_the_whole_embedding(run, pairs, tmp_path, capsys):
    export.main([str(word) for word in (run / "model.pt", "--onnx", tmp_path / "w.onnx", "--whole", "--pairs", pairs)])
    images = read_pairs(pairs)[0][:5]
    theirs = as_a_client(tmp_path / "w.onnx", images)
    np.testing.assert_allclose(F.normalize(embed_images(load_model(run)[0], images)), theirs, atol=2e-6)
    facts = OnnxGraph(tmp_path / "w.onnx").metadata
    assert facts["embedding"] == "image and mirror added, length 1"
    assert json.loads(facts["training_config"]) == {}  # a file of weights knows nothing of its run


@pytest.mark.slow
def test_the_table(run, pairs, tmp_path, capsys):
    export.main([str(word) for word in (run, "--onnx", tmp_path / "x.onnx", "--int8", "--pairs", pairs)])
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["form", "-----", "torch", "onnx", "int8"]
    off = [float(row[4]) for row in rows[2:]]
    assert off[0] == off[1] == 0 and 0.1 < off[2] < 20
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows[2:])
    assert rows[2][6] == rows[3][6] and re.fullmatch(r"\d+\.\d\d%", rows[2][6])
    assert "60 pairs of few.bin" in said
    assert f"{(tmp_path / 'x.onnx').stat().st_size / 1e6:.1f}" == rows[3][1]


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_not_written(run, pairs, tmp_path, monkeypatch, capsys):
    other = to_onnx(small_net(seed=1), {})
    monkeypatch.setattr(variants, "to_onnx", lambda model, facts: other)
    said = fails(capsys, run, "--onnx", tmp_path / "x.onnx", "--pairs", pairs)
    assert re.search(r"gives other embeddings than the network: on faces, 1 at a time, their cosine is", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_parity_sees_a_small_difference(pairs):
    """A thousandth of the weights' size is enough."""
    model, images = small_net(), read_pairs(pairs)[0][:4]
    content = to_onnx(model, {})
    check_parity(model, content, images)
    with torch.no_grad():
        model.fc.weight += 0.02 * model.fc.weight.std() * torch.randn_like(model.fc.weight)
    with pytest.raises(ExportError, match=r"0\.9999\d\d instead of more than 0\.99999|0\.999\d\d\d instead"):
        check_parity(model, content, images)


@pytest.fixture
def bare(run, tmp_path):
    """The run's weights alone, as somebody else gets them."""
    return Path(shutil.copy(run / "model.pt", tmp_path / "weights.pt"))


def test_evaluate_says_the_same_of_the_graph(bare, written, pairs, tmp_path):
    found = []
    for subject in (bare, written):
        words = (subject, "--pairs", pairs, "--output", tmp_path, "--report", tmp_path / "report.html")
        (finding,) = evaluate.main([str(word) for word in words])
        found.append(finding.numbers)
    assert found[0]["accuracy"] == found[1]["accuracy"] > 0.5
    report = (tmp_path / "report.html").read_text()
    assert hash_of(written) in report and re.search(r"face\.onnx, [\d,]{7,} parameters", report)


def test_angles_says_the_same_of_the_graph(bare, written, drawn, tmp_path):
    tables = []
    for subject in (bare, written):
        angles.main([str(word) for word in (subject, "--faces", drawn, "--photos", 3, "--output", tmp_path)])
        tables += json.loads((tmp_path / "angles.json").read_text())["trained"].values()
    known = [key for key, value in tables[0].items() if value is not None]
    assert {"intra", "inter"} <= set(known)
    assert {key: tables[1][key] for key in known} == pytest.approx({key: tables[0][key] for key in known}, abs=0.01)


def test_embed_says_the_same_of_the_graph(bare, written, pairs, tmp_path):
    for number, image in enumerate(read_pairs(pairs)[0][:5]):
        (tmp_path / f"{number}.jpg").write_bytes(image)
    rows = []
    for subject in (bare, written):
        embed.main([str(word) for word in (subject, *sorted(tmp_path.glob("*.jpg")), "-o", tmp_path / "rows.npy")])
        rows.append(np.load(tmp_path / "rows.npy"))
    np.testing.assert_allclose(*rows, atol=1e-5)
    assert rows[0].shape == (5, 32) and rows[0].std(0).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("network", ["r18", "mbf", "vit_t"])
def test_every_family(network, pairs):
    torch.manual_seed(0)
    model = build_model(network, 64).eval()
    check_parity(model, to_onnx(model, {}), read_pairs(pairs)[0][:4])


def test_sentences(run, written, pairs, tmp_path, monkeypatch, capsys):
    assert "add --onnx FILE" in fails(capsys, run)
    assert "face.onnx is an ONNX graph already" in fails(capsys, written, "--onnx", tmp_path / "y.onnx")
    assert "does not exist: name the folder of a run" in fails(capsys, tmp_path / "no", "--onnx", tmp_path / "y.onnx")
    assert "it fits r10 with 32" in fails(capsys, run / "model.pt", "--onnx", tmp_path / "y.onnx", "--network", "r18")
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "onnxscript", None)
        said = fails(capsys, run, "--onnx", tmp_path / "y.onnx", "--pairs", pairs)
    assert said == 'arcface_edu: an ONNX export takes the package onnxscript: pip install -e ".[export]".\n'
    assert not list(tmp_path.iterdir())
