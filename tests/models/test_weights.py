"""Files of weights into the network they belong to; a file is data, never code."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from arcface_edu.errors import CheckpointError
from arcface_edu.models import NETWORKS, build_model
from arcface_edu.models.weights import embedding_size_of, guess_network, hash_of, read_state
from arcface_edu.runs import load_into, load_model


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
    ],
)
def test_wrapped_as_trainers_do_it(tmp_path, state, wrap):
    model, network = load_model(saved(tmp_path, wrap(state)))
    assert network == "r10" and not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


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
    for content in ([1, 2], {}, {"a": 1}, {"state_dict": {"a": "b"}}):
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
