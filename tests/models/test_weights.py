"""Files of weights into the network they belong to; a file is data, never code."""

import pickle
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from arcface_edu.errors import CheckpointError
from arcface_edu.models import NETWORKS, build_model
from arcface_edu.models.weights import (
    HEAD,
    PREFIXES,
    SAFETENSORS,
    WRAPPINGS,
    embedding_size_of,
    guess_network,
    hash_of,
    read_state,
)
from arcface_edu.runs import architecture_of, load_into, load_model


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return build_model("r10", 32).state_dict()


def saved(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict_backbone": {f"module.{n}": v for n, v in state.items()}},
        lambda state: {"state_dict": state},
        lambda state: {"network": state, "head": {"weight": torch.ones(9, 32)}},
        lambda state: {"model_state_dict": {f"module._orig_mod.net.{n}": v for n, v in state.items()}},
        lambda state: {"model": {"state_dict": {f"arcface.encoder.backbone.{n}": v for n, v in state.items()}}},
        lambda state: {f"model.{n}": v for n, v in state.items()} | {"fc.weight": torch.ones(9, 32)},
        lambda state: dict(state) | {"head.weight": torch.ones(9, 32), "classifier.0.bias": torch.ones(9)},
        lambda state: {f"student.backbone.{n}": v for n, v in state.items()} | {"student.margin.w": torch.ones(9, 32)},
        lambda state: {n: v for n, v in state.items() if "num_batches_tracked" not in n},
    ],
)
def test_wrapped_as_trainers_do_it(tmp_path, state, wrap):
    model, network = load_model(saved(tmp_path, wrap(state)))
    assert network == "r10" and not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_was_done_is_said(tmp_path, state, caplog):
    caplog.set_level("INFO")
    content = {f"model.backbone.{name}": value for name, value in state.items() if "num_batches" not in name}
    content = {name: value.half() for name, value in content.items()} | {"model.head.weight": torch.ones(9, 32)}
    path = saved(tmp_path, {"state_dict": content})
    assert architecture_of(path) == ("r10", 32) and not caplog.messages  # who fills a network with them says it
    model, _ = load_model(path)
    assert caplog.messages == [
        f"{path}: took the tensors under state_dict; without the prefix `model.backbone.`; left out, as of a head: "
        "model.head.weight; it has no num_batches_tracked, which start at 0; float16 becomes float32."
    ]
    assert torch.equal(model.fc.weight, state["fc.weight"].half().float())
    read_state(saved(tmp_path, state))
    assert len(caplog.messages) == 1


PARTS = ["module", "_orig_mod", "model", "backbone", "network", "net", "wrapped"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(WRAPPINGS), max_size=3),
    st.lists(st.sampled_from(PARTS), max_size=4),
    st.sampled_from(
        [{}, {"head.weight": torch.ones(9, 32)}, {"kernel": torch.ones(32, 9)}, {"loss_fn.w": torch.ones(2)}]
    ),
)
def test_any_nesting(tmp_path_factory, keys, parts, beside):
    with torch.device("meta"):
        names = list(build_model("r10", 32).state_dict())
    prefix = "".join(f"{part}." for part in parts)
    inner = "" if "wrapped" in parts and beside else prefix  # an unknown part has to be before every name
    outer = prefix.removesuffix(inner) if inner else prefix
    content = {f"{outer}{inner}{name}": torch.tensor([float(i)]) for i, name in enumerate(names)}
    content |= {f"{outer}{name}": value for name, value in beside.items()}
    for key in keys:
        content = {"epoch": 1, key: content}
    path = tmp_path_factory.mktemp("nested") / "weights.pth"
    torch.save(content, path)
    assert {name: value.item() for name, value in read_state(path).items()} == {name: i for i, name in enumerate(names)}


def test_no_network_has_the_names_of_a_head_or_a_wrapping():
    for network in NETWORKS:
        with torch.device("meta"):
            names = build_model(network, 64).state_dict()
        assert not [name for name in names if HEAD.search(name.partition(".")[0]) or PREFIXES.match(name).group()]


def test_two_networks_in_one_file(tmp_path, state):
    twice = {f"{part}.{name}": value for name, value in state.items() for part in ("model", "backbone")}
    with pytest.raises(CheckpointError, match=r"holds a network twice, under model\. and backbone\.: save the one"):
        load_model(saved(tmp_path, twice))


def test_torchscript_is_refused_as_such(tmp_path, recwarn):
    path = tmp_path / "program.pt"
    torch.jit.script(torch.nn.PReLU(4)).save(path)
    recwarn.clear()
    with pytest.raises(CheckpointError, match=r"program\.pt is a TorchScript program, .* save its `state_dict\(\)`"):
        read_state(path)
    assert not recwarn.list


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from(["flip", "cut", "swap"]), st.booleans())
def test_every_damaged_file_gives_a_sentence_about_the_file(tmp_path_factory, seed, count, how, zipped):
    rng, path = random.Random(seed), tmp_path_factory.mktemp("damaged") / "weights.pth"
    torch.save({"a": torch.arange(40.0), "b": torch.ones(3, 3)}, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for _ in range(count):
        at = rng.randrange(len(content))
        if how == "flip":
            content[at] = rng.randrange(256)
        elif how == "swap":
            other = rng.randrange(len(content))
            content[at : at + 8], content[other : other + 8] = content[other : other + 8], content[at : at + 8]
    path.write_bytes(content[: rng.randrange(len(content))] if how == "cut" else content)
    try:
        read_state(path)
    except CheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_what_the_system_says_of_a_damaged_file_is_said_of_the_file(tmp_path, state, monkeypatch):
    def load(*_, **__):
        raise OSError(22, "Invalid argument")  # of seeking where the file says, and not of opening it

    path = saved(tmp_path, state)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(CheckpointError, match=r"weights\.pth cannot be read as weights"):
        read_state(path)


def test_safetensors_and_folders(tmp_path, state):
    run, published = tmp_path / "run", tmp_path / "published"
    run.mkdir()
    published.mkdir()
    torch.save(state, run / "model.pt")
    save_file({f"module.{name}": value for name, value in state.items()}, published / "model.safetensors")
    for source in (run, published, published / "model.safetensors"):
        model, network = load_model(source)
        assert network == "r10"
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(load_into(build_model("r10", 32), source).fc.weight, state["fc.weight"])


@pytest.mark.parametrize("dtype", SAFETENSORS.values())
def test_safetensors_of_every_type(tmp_path, dtype):
    state = dict(matrix=torch.arange(6).view(2, 3).to(dtype), number=torch.tensor(1).to(dtype), none=torch.empty(0, 2))
    save_file(state, tmp_path / "w.safetensors", metadata={"format": "pt"})
    found = read_state(tmp_path / "w.safetensors")
    kept = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in kept)
    assert all(found[name].dtype == kept[name].dtype for name in kept)


def test_safetensors_that_lie_about_their_size(tmp_path, state):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    beyond = whole.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"\xff" * 7 + b"\x7f" + whole[8:], beyond):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"weights\.safetensors cannot be read as weights"):
            read_state(path)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_known_by_its_shapes(network):
    with torch.device("meta"):
        shapes = build_model(network, 64).state_dict()
    plain = network.split("_dp005")[0]  # how it was trained does not show in its shapes
    assert guess_network(shapes) == plain and embedding_size_of(shapes) == 64


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran')",)


def test_what_is_no_state_dict_is_refused(tmp_path, state):
    path = saved(tmp_path, state)
    whole = path.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2], pickle.dumps(Harmful()), pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"weights\.pth cannot be read as weights"):
            read_state(path)
    for content in ([1, 2], {}, {"a": 1}, {"state_dict": {"a": "b"}}, {"a": torch.eye(2).to_sparse()}):
        with pytest.raises(CheckpointError, match="holds no state dict of tensors"):
            read_state(saved(tmp_path, content))


def test_another_network_is_named(tmp_path, state):
    path = saved(tmp_path, state)
    with pytest.raises(CheckpointError, match="does not fit r18 with 32 dimensions; it fits r10 with 32"):
        load_model(path, "r18")
    with pytest.raises(CheckpointError, match="does not fit r10 with 64 dimensions; it fits r10 with 32"):
        load_model(path, "r10", 64)
    strange = saved(tmp_path, {name: value for name, value in state.items() if name != "fc.weight"})
    with pytest.raises(CheckpointError, match="fits none of the networks r10, r10_quick, r18"):
        load_model(strange)
    with pytest.raises(
        CheckpointError, match=r"; the nearest is r10 with 32 dimensions; missing: fc\.weight\. Name the"
    ):
        load_model(saved(tmp_path, {f"model.{name}": value for name, value in torch.load(strange).items()}))
    with pytest.raises(CheckpointError, match=r"; its first tensors are a \(2,\), b \(1, 3\)\. Name"):
        load_model(saved(tmp_path, {"a": torch.ones(2), "b": torch.ones(1, 3)}))
    strange = saved(tmp_path, {name: value for name, value in state.items() if name != "fc.weight"})
    with pytest.raises(CheckpointError, match=r"does not fit r10 .*missing: fc\.weight\."):
        load_model(strange, "r10")
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more; unknown: z; of another shape: conv1\.weight"):
        load_into(build_model("r10", 32), saved(tmp_path, {"conv1.weight": torch.ones(2), "z": torch.ones(2)}))


def test_where_there_are_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither model\.pt nor model\.safetensors: let the run finish"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"/absent does not exist: name the folder of a run"):
        load_into(build_model("r10", 32), tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is an ONNX graph, which can embed but not be trained"):
        read_state(tmp_path / "net.onnx")


def test_hash(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert hash_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_count_of_no_layer_is_named(tmp_path):
    model = build_model("r10_quick", 8)
    torch.save(model.state_dict() | {"bn1*num_batches_tracked": torch.tensor(1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"does not fit .*; unknown: bn1\*num_batches_tracked"):
        load_model(tmp_path / "w.pt", "r10_quick", 8)
