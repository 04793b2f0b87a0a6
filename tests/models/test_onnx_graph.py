"""ONNX graphs of all sorts as the embedder, and a sentence about those that are none."""

import random
import sys

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from arcface_edu import build_model, embed_images, load_model
from arcface_edu.errors import CheckpointError, ConfigError
from arcface_edu.models.onnx_graph import OnnxGraph
from arcface_edu.models.onnx_input import range_by_probes

FACE = ("batch", 3, 112, 112)


def graph(shape=FACE, kind=TensorProto.FLOAT, outputs=(), first=(), rank=2, unused=()):
    """An .onnx file's bytes: the mean colour of each image, (B, 3).

    Args:
        shape: of the input.
        outputs: names of more outputs: "norm" is (B, 1), "map" (B, 3, 112, 112), "other" (B, 3).
        first: operators and constants, or operators alone, which the pixels pass first.
        rank: of the output.
        unused: names of more inputs.
    """
    nodes, constants = [helper.make_node("Cast", ["x"], ["step0"], to=1)], []
    for number, (operator, *values) in enumerate(first):
        names = [f"c{number}_{i}" for i in range(len(values))]
        constants += [
            numpy_helper.from_array(np.float32(value), name) for name, value in zip(names, values, strict=True)
        ]
        words = [f"step{number}", *names]
        if operator.startswith("From"):  # the constant minus or by the pixels
            operator, words = operator.removeprefix("From"), words[::-1]
        nodes.append(helper.make_node(operator, words, [f"step{number + 1}"], f"_{operator.lower()}scalar{number}"))
    last = f"step{len(first)}"
    if shape[3] == 3:
        nodes.append(helper.make_node("Transpose", [last], ["turned"], perm=[0, 3, 1, 2]))
        last = "turned"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten" if rank == 2 else "Identity", ["pooled"], ["colour"]))
    more = {"norm": ("ReduceMax", (shape[0], 1)), "map": ("Identity", shape), "other": ("Neg", (shape[0], 3))}
    given = [helper.make_tensor_value_info("colour", TensorProto.FLOAT, (shape[0], 3, 1, 1)[:rank])]
    for name in outputs:
        operator, size = more[name]
        how = dict(axes=[1], keepdims=1) if name == "norm" else {}
        nodes.append(helper.make_node(operator, [last if name == "map" else "colour"], [name], **how))
        given.insert(0, helper.make_tensor_value_info(name, TensorProto.FLOAT, size))
    taken = [helper.make_tensor_value_info("x", kind, shape)]
    taken += [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 5)) for name in unused]
    taken += [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.dims) for one in constants if unused]
    parts = helper.make_graph(nodes, "test", taken, given, constants)
    model = helper.make_model(parts, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
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


BN = [np.ones(3), np.zeros(3), [127.5] * 3, [16256.25 - 1e-5] * 3]  # gamma, beta, mean, variance
IMAGENET = np.float32([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1), np.float32([58.4, 57.1, 57.4]).reshape(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("first", "wants"),
    [
        ([("Sub", 127.5), ("Mul", 1 / 128)], "[0, 255]"),
        ([("Sub", 127.5), ("Div", 127.5)], "[0, 255]"),
        ([("Sub", 127.5), ("Mul", 0.0078125)], "[0, 255]"),
        ([("Mul", 1 / 127.5), ("Sub", 1)], "[0, 255]"),
        ([("Div", 255), ("Sub", 0.5), ("Div", 0.5)], "[0, 255]"),
        ([("Div", 255)], "[0, 255]"),
        ([("Add", -127.5)], "[0, 255]"),
        ([("FromSub", 127.5), ("Mul", -1 / 128)], "[0, 255]"),
        ([("Sub", IMAGENET[0]), ("Div", IMAGENET[1])], "[0, 255]"),
        ([("BatchNormalization", *BN)], "[0, 255]"),
        ([("Identity",), ("Sub", [127.5]), ("Mul", [1 / 128])], "[0, 255]"),
        ([("Sub", 0.5), ("Div", 0.5)], "[0, 1]"),
        ([("Mul", 0.5), ("Add", 0.5), ("Sub", 0.45), ("Div", 0.22)], "[-1, 1]"),
        ([("Mul", 1.0)], "[-1, 1]"),
        ([], "[-1, 1]"),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_come_in_the_range_that_the_graph_normalises(faces, first, wants, channels_last):
    if channels_last:
        if any(operator == "BatchNormalization" for operator, *_ in first):
            return  # it normalises the second dimension
        first = [
            (one, *(np.moveaxis(value, 1, -1) if np.ndim(value) == 4 else value for value in v)) for one, *v in first
        ]
    made = OnnxGraph(graph(("b", 112, 112, 3) if channels_last else FACE, first=first), "x")
    assert (made.wants, made.channels_last) == (wants, channels_last)
    scale, shift = {"[-1, 1]": (1 / 127.5, -1), "[0, 1]": (1 / 255, 0), "[0, 255]": (1, 0)}[wants]
    x = faces.permute(0, 2, 3, 1).double().numpy() if channels_last else faces.double().numpy()
    x = x * scale + shift
    steps = {"Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Add": np.add}
    for operator, *values in first:
        if operator in steps:
            x = steps[operator](x, values[0])
        elif operator == "FromSub":
            x = values[0] - x
        elif operator == "BatchNormalization":
            x = (x - 127.5) / 127.5
    found = embed_images(made, faces, flip=False)
    np.testing.assert_allclose(found, x.mean((1, 2) if channels_last else (2, 3)), atol=2e-3, rtol=1e-4)


def run_inside(network, normalised):
    """What `range_by_probes` runs: a network that normalises pixels by itself, or not, where no node says so."""

    @torch.inference_mode()
    def run(pictures):
        pixels = torch.from_numpy(pictures)
        return network((pixels - 127.5) / 128 if normalised else pixels).numpy()

    return run


@pytest.mark.parametrize("network", ["r10", "r18", "mbf", "vit_t"])
def test_two_probes_find_what_no_node_says(network):
    torch.manual_seed(0)
    model = build_model(network, 32).eval()
    assert range_by_probes(run_inside(model, True)) == "[0, 255]"
    assert range_by_probes(run_inside(model, False)) == "[-1, 1]"


def test_a_normalisation_within_the_first_convolution_is_found_by_probes(faces):
    """As optimisers fold it: W ((x - 127.5) / 127.5) = (W / 127.5) x - W."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 112, 112)).astype(np.float32)

    def convolution(weight, bias):
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])]
        constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
        taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, FACE)]
        given = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ("batch", 4))]
        parts = helper.make_graph(nodes, "test", taken, given, constants)
        model = helper.make_model(parts, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return OnnxGraph(model.SerializeToString(), "x")

    plain = convolution(kernel, np.zeros(4, np.float32))
    inside = convolution(kernel / 127.5, -kernel.sum((1, 2, 3)))
    assert (plain.wants, inside.wants) == ("[-1, 1]", "[0, 255]")
    ours, theirs = (embed_images(one, faces, flip=False) for one in (plain, inside))
    np.testing.assert_allclose(ours, theirs, atol=0.02, rtol=1e-3)


def test_inputs_that_nothing_uses_and_those_of_initializers(faces, caplog):
    caplog.set_level("INFO")
    content = graph((1, *FACE[1:]), first=[("Sub", 127.5), ("Mul", 1 / 128)], unused=["w1", "w2", "w3"])
    assert len(onnx.load_model_from_string(content).graph.input) == 6  # two more are of its constants
    found = embed_images(OnnxGraph(content, "x.onnx"), faces, flip=False)
    torch.testing.assert_close(found.double(), (faces.double().mean((2, 3)) - 127.5) / 128, atol=1e-4, rtol=0)
    assert caplog.messages == [
        "x.onnx: it normalises pixels by itself, and gets them in [0, 255]; 3 inputs that no node uses get zeros."
    ]


@pytest.mark.parametrize("outputs", [["norm"], ["map"], ["norm", "map"]])
def test_of_several_outputs_the_embedding_is_taken(faces, outputs, caplog):
    caplog.set_level("INFO")
    found = embed_images(OnnxGraph(graph(outputs=outputs), "x"), faces, flip=False)
    torch.testing.assert_close(found.double(), (faces.double() / 127.5 - 1).mean((2, 3)), atol=1e-6, rtol=0)
    assert f'of its {1 + len(outputs)} outputs "colour" is taken, the one of (batch, dimensions)' in caplog.text


def external(tmp_path, where="x.onnx.data"):
    """An .onnx file whose constants are in a file beside it, as newer exporters write them."""
    model = onnx.load_model_from_string(graph(first=[("Mul", np.ones((1, 3, 112, 112)))]))
    onnx.save_model(model, tmp_path / "x.onnx", save_as_external_data=True, location="x.onnx.data", size_threshold=64)
    if where != "x.onnx.data":
        model = onnx.load(tmp_path / "x.onnx", load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = where if entry.key == "location" else entry.value
        (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "x.onnx"


def test_weights_in_a_file_beside_the_graph(tmp_path, faces):
    path = external(tmp_path)
    model, _ = load_model(path)
    found = embed_images(model, faces, flip=False)
    torch.testing.assert_close(found.double(), (faces.double() / 127.5 - 1).mean((2, 3)), atol=1e-6, rtol=0)
    assert model.files == [path, tmp_path / "x.onnx.data"] and model.size == 3 * 112 * 112
    content = path.read_bytes()
    (tmp_path / "x.onnx.data").unlink()
    with pytest.raises(
        CheckpointError, match=r"x\.onnx keeps its weights in .*x\.onnx\.data, which is not there: copy"
    ):
        load_model(path)
    with pytest.raises(CheckpointError, match=r"the graph keeps weights in x\.onnx\.data, outside of its folder"):
        OnnxGraph(content)


@pytest.mark.parametrize("where", ["../secret", "/etc/passwd", "a/../../secret"])
def test_weights_outside_of_the_folder_are_not_read(tmp_path, where):
    with pytest.raises(CheckpointError, match=r"x\.onnx keeps weights in .*, outside of its folder, and is not read"):
        load_model(external(tmp_path, where))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_every_damaged_graph_gives_a_sentence(seed, count):
    rng, content = random.Random(seed), bytearray(graph(first=[("Sub", 127.5), ("Mul", 1 / 128)], outputs=["norm"]))
    for _ in range(count):
        content[rng.randrange(len(content))] = rng.randrange(256)
    try:
        OnnxGraph(bytes(content), "x.onnx")
    except CheckpointError as error:
        assert str(error).startswith("x.onnx ")


def test_the_opener_takes_a_file(tmp_path, faces):
    (tmp_path / "colour.onnx").write_bytes(graph())
    model, name = load_model(tmp_path / "colour.onnx")
    assert name == "colour.onnx" and not model.training
    np.testing.assert_allclose(embed_images(model, faces), 2 * (faces.double() / 127.5 - 1).mean((2, 3)), atol=1e-5)


def test_sentences(tmp_path):
    whole = graph()
    for content, words in {
        graph(("b", 3, 160, 160)): r"takes images of \(b, 3, 160, 160\), and faces are aligned here to \(batch, 3, 112",
        graph(("b", 112, 3, 112)): r"takes images of \(b, 112, 3, 112\).*for that size",
        graph(outputs=["other"]): "has 1 inputs and 2 outputs, and a face embedder has one of each",
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
