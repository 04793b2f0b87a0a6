"""ONNX graphs of all sorts as the embedder, and a sentence about those that are none."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from arcface_edu import embed_images, load_model
from arcface_edu.errors import CheckpointError, ConfigError
from arcface_edu.models.onnx_graph import OnnxGraph

FACE = ("batch", 3, 112, 112)


def graph(shape=FACE, kind=TensorProto.FLOAT, outputs=1, names=("a", "b"), rank=2):
    """An .onnx file's bytes: the mean colour of each image, (B, 3), through a few nodes of these names."""
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], names[0], to=1),
        helper.make_node("Identity", ["y"], ["z"], names[1]),
    ]
    nodes.append(helper.make_node("GlobalAveragePool", ["z"], ["pooled"]))
    nodes.append(helper.make_node("Flatten" if rank == 2 else "Identity", ["pooled"], ["colour"]))
    given = [helper.make_tensor_value_info("colour", TensorProto.FLOAT, (shape[0], 3, 1, 1)[:rank])]
    given += [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)] * (outputs - 1)
    parts = helper.make_graph(nodes, "test", [helper.make_tensor_value_info("x", kind, shape)], given)
    model = helper.make_model(parts, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


@pytest.fixture
def faces():
    return torch.randint(0, 256, (5, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch", ["batch", None, 1, 2, 5, 8])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_any_batch_and_float(faces, batch, kind):
    """Of a file for a fixed number of images at a time, too, all rows come in their order."""
    means = (faces.double() / 127.5 - 1).mean((2, 3))
    found = embed_images(OnnxGraph(graph((batch, *FACE[1:]), kind), "x"), faces, flip=False)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), means, atol=2e-3 if kind == TensorProto.FLOAT16 else 1e-6, rtol=0)


def test_a_graph_that_scales_by_itself_gets_pixels(faces):
    """As InsightFace's client has it: nodes called Sub... and Mul... at the beginning."""
    found = embed_images(OnnxGraph(graph(names=("_minusscalar0", "_mulscalar0")), "x"), faces, flip=False)
    torch.testing.assert_close(found.double(), faces.double().mean((2, 3)), atol=1e-3, rtol=0)
    found = embed_images(OnnxGraph(graph(names=("Subtle", "b")), "x"), faces, flip=False)
    assert found.abs().max() < 1


def test_the_opener_takes_a_file(tmp_path, faces):
    (tmp_path / "colour.onnx").write_bytes(graph())
    model, name = load_model(tmp_path / "colour.onnx")
    assert name == "colour.onnx" and not model.training
    np.testing.assert_allclose(embed_images(model, faces), 2 * (faces.double() / 127.5 - 1).mean((2, 3)), atol=1e-5)


def test_sentences(tmp_path):
    whole = graph()
    for content, words in {
        graph(("b", 3, 160, 160)): r"takes images of \(b, 3, 160, 160\), and faces are aligned here to \(batch, 3, 112",
        graph(("b", 112, 112, 3)): r"takes images of \(b, 112, 112, 3\).*for that size and order",
        graph(outputs=2): "has 1 inputs and 2 outputs, and a face embedder has one of each",
        graph(kind=TensorProto.UINT8): r"turns tensor\(uint8\) into tensor\(float\)",
        graph(rank=4): r"turns .* into tensor\(float\) of \(batch, 3, 1, 1\); wanted is an embedder",
        whole[: len(whole) // 2]: "cannot be read as an ONNX graph",
        b"": "cannot be read as an ONNX graph",
        b"cos\nsystem\n(S'touch harmed'\ntR.": "cannot be read as an ONNX graph",
    }.items():
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"x\.onnx {words}"):
            load_model(tmp_path / "x.onnx")


def test_without_the_extra(monkeypatch):
    for package in ("onnxruntime", "onnx"):
        with monkeypatch.context() as missing, pytest.raises(ConfigError) as error:
            missing.setitem(sys.modules, package, None)
            OnnxGraph(graph(), "x.onnx")
        assert str(error.value) == f'x.onnx takes the package {package}: pip install -e ".[export]".'


def test_numbers_in_it():
    """The count of parameters that a report names."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3), np.zeros(12, np.float32))
    model = onnx.load_model_from_string(graph())
    model.graph.initializer.append(weight)
    assert OnnxGraph(model.SerializeToString(), "x").size == 12
