"""What a path names: a run, a model folder, a file of weights; or one sentence, the same for every command."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from arcface_edu import build_model, embed, runs
from arcface_edu.cli import set_up_logging
from arcface_edu.config import load_config
from arcface_edu.data.images import encode_png
from arcface_edu.errors import CheckpointError
from arcface_edu.runs import architecture_of, find_data, is_run, load_model, locate, open_run, resolve, weights_file
from arcface_edu.training.prepare import fit_to_weights


@pytest.fixture
def state():
    torch.manual_seed(0)
    return build_model("r10", 32).state_dict()


@pytest.fixture
def run(tmp_path, state):
    """A run's folder beside the folder of its data."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "faces").mkdir()
    torch.save(state, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(dict(network="r10", embedding_size=32, rec="faces")))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return folder


@pytest.fixture
def published(tmp_path, state):
    folder = tmp_path / "face"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(network="r10", embedding_size=32, training_config={})))
    return folder


def test_a_run(run, tmp_path):
    source = resolve(run)
    assert source.weights == run / "model.pt" == weights_file(run) and source.is_run and is_run(run)
    assert (source.name, source.results_folder) == ("mine", run / "evaluation")
    assert source.data == tmp_path / "faces"  # `rec` as seen from where the run was started
    opened = open_run(run)
    assert (opened.network, opened.config.rec, opened.data) == ("r10", "faces", source.data)
    assert opened.log == [{"step": 1, "loss": 2.0}] and opened.centres is None  # no checkpoint is there
    assert open_run(run / "model.pt").log == opened.log  # its weights stand for it
    (tmp_path / "faces").rmdir()
    assert resolve(run).data is None


def test_a_model_folder(published):
    source = resolve(published)
    assert source.weights == published / "model.safetensors" and not source.is_run and not is_run(published)
    assert source.results_folder.parts == ("evaluation", "face")  # what others may fetch stays as it is
    opened = open_run(published)
    assert (opened.network, opened.config, opened.data, opened.centres, opened.log) == ("r10", {}, None, None, [])


def test_a_file(run, state):
    source = resolve(run / "model.pt")
    assert (source.config, source.is_run, source.data) == ({}, False, None)
    assert source.results_folder.parts == ("evaluation", "model")
    assert architecture_of(run / "model.pt") == architecture_of(run) == ("r10", 32)


def test_the_config_of_a_folder_says_which_network_it_is(run):
    (run / "config.json").write_text('{"network": "r18"}')
    with pytest.raises(CheckpointError, match="does not fit r18 with 32 dimensions; it fits r10 with 32"):
        load_model(run)
    assert load_model(run, "r10")[1] == load_model(run / "model.pt")[1] == "r10"  # a word of the caller comes first


@pytest.mark.parametrize("answer", [resolve, weights_file, load_model, open_run, architecture_of])
def test_the_same_sentence_for_all(answer, run, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist: name the folder of a run, as runs/drawn_faces"):
        answer(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"faces holds neither model\.pt nor model\.safetensors: let the run"):
        answer(tmp_path / "faces")
    if answer in (weights_file, architecture_of):  # which need no config
        return
    for content, sentence in (("{", "is not JSON"), ("[]", "is not the config"), ('{"rec": 3}', "is not the config")):
        (run / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=rf"config\.json {sentence}.*or name the file of weights itself"):
            answer(run)


def test_data_of_an_impossible_name_are_gone(tmp_path):
    assert find_data(tmp_path, {"rec": "x" * 5000}) is None


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory without anything in it; what is logged goes to standard output."""
    monkeypatch.chdir(tmp_path)
    runs._log_once.cache_clear()
    set_up_logging()
    return tmp_path


def test_a_name_alone_is_the_network_that_comes_with_the_package(elsewhere, capsys):
    model, network = load_model("drawn_crowd")
    assert network == "r10" and architecture_of("drawn_crowd") == ("r10", 128)
    assert not model.training and all(parameter.isfinite().all() for parameter in model.parameters())
    source = resolve("drawn_crowd")
    assert source.weights.stat().st_size <= 3e6 and not source.is_run
    assert (source.name, source.results_folder.parts) == ("drawn_crowd", ("evaluation", "drawn_crowd"))
    opened = open_run("drawn_crowd")
    assert (opened.network, opened.data, opened.centres, opened.log) == ("r10", None, None, [])
    said = [line for line in capsys.readouterr().out.splitlines() if "comes with the package" in line]
    assert len(said) == 1 and "people who do not exist, and has seen no photograph" in said[0]
    assert "not for use on people" in said[0]
    card = (source.path / "README.md").read_text()
    assert 'license: "mit"' in card and "These people do not exist" in card


@pytest.mark.parametrize("place", ["drawn_crowd", "runs/drawn_crowd"])
def test_a_folder_of_that_name_comes_first(run, elsewhere, place, capsys):
    (elsewhere / place).parent.mkdir(exist_ok=True)
    run.rename(elsewhere / place)
    assert architecture_of("drawn_crowd") == ("r10", 32) and is_run(locate("drawn_crowd"))
    assert f"{elsewhere / place}, not the network of this name that comes with the package" in capsys.readouterr().out


def test_only_a_name_alone_means_a_network_of_the_package(elsewhere):
    for path in ("nowhere/drawn_crowd", "drawn_crowd.pt", "..", "drawn"):
        with pytest.raises(CheckpointError):
            weights_file(path)
    with pytest.raises(CheckpointError, match=r"or a network that comes with the package: drawn_crowd\."):
        weights_file("drawn")


def test_a_run_may_start_from_it_and_photographs_be_embedded_by_it(elsewhere, capsys):
    config = fit_to_weights(load_config("fine_tune", ["init=drawn_crowd", "rec=photos"]))
    assert (config.network, config.embedding_size) == ("r10", 128)
    (elsewhere / "photos").mkdir()
    for number in range(2):
        picture = torch.full((3, 112, 112), 90 * number, dtype=torch.uint8)
        (elsewhere / "photos" / f"{number}.png").write_bytes(encode_png(picture))
    embed.main(["drawn_crowd", "photos", "-o", "rows.npy"])
    assert np.load("rows.npy").shape == (2, 128)
    assert "people who do not exist" in capsys.readouterr().out
