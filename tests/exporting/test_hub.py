"""`export --hub`: a model folder that every command takes, and a card that claims what the run's files say."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from arcface_edu import angles, build_model, embed, embed_images, evaluate, export, load_model, read_pairs
from arcface_edu.exporting.facts import public
from arcface_edu.models.weights import hash_of
from arcface_edu.runs import open_run

CONFIG = dict(network="r10", embedding_size=32, loss="arcface", scale=32.0, lr=0.1, rec="/home/me/faces/drawn_12x10_x")
CONFIG |= dict(draw_identities=12, num_classes=12, num_image=120, val_targets=["/home/me/lfw.bin", "agedb_30"])
CONFIG |= dict(output="/home/me/runs/x", num_epoch=3)
EARLY = dict(step=5, pairs="drawn", num_pairs=60, accuracy=0.1234, accuracy_std=0.01, tar_at_far={"0.01": 0.1111})
LATE = dict(step=9, pairs="drawn", num_pairs=60, accuracy=0.9317, accuracy_std=0.0421, tar_at_far={"0.01": 0.8765})


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    model = build_model("r10", 32)
    model(torch.rand(16, 3, 112, 112) * 2 - 1)
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (EARLY, dict(step=9), LATE)))
    return folder


def hub(*arguments):
    export.main([str(argument) for argument in arguments])


def fails(capsys, command, *arguments):
    with pytest.raises(SystemExit) as left:
        command([str(argument) for argument in arguments])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("arcface_edu: ") and said.count("\n") == 1
    return said


def front_matter(card):
    """The fields of the YAML, whose values are JSON here; of model-index the data sets."""
    head = card.split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in head.splitlines() if re.match(r"\w+: ", line))
    results = [json.loads(line.strip(" -")) for line in head.splitlines() if line.startswith("  - ")]
    return {key: json.loads(value) for key, value in fields.items()}, results


def test_weights_in_half_precision_take_half_the_room(run, tmp_path):
    hub(run, "--hub", tmp_path / "face")
    hub(run, "--hub", tmp_path / "half", "--fp16")
    files = [tmp_path / name / "model.safetensors" for name in ("face", "half")]
    sizes = [file.stat().st_size for file in files]
    assert sizes[1] < 0.55 * sizes[0]
    whole, half = (load_model(tmp_path / name)[0].state_dict() for name in ("face", "half"))
    for name, value in whole.items():
        torch.testing.assert_close(half[name], value, rtol=1e-3 if value.ndim > 1 else 0, atol=1e-6)


def test_a_round_trip_changes_no_embedding(run, pairs, tmp_path):
    hub(run, "--hub", tmp_path / "face")
    assert sorted(path.name for path in (tmp_path / "face").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    images = read_pairs(pairs)[0][:8]
    (ours, _), (theirs, network) = load_model(run), load_model(tmp_path / "face")
    assert network == "r10"
    assert torch.equal(embed_images(ours, images), embed_images(theirs, images))
    state = load_file(tmp_path / "face" / "model.safetensors")
    assert state.keys() == ours.state_dict().keys()
    with safe_open(tmp_path / "face" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # without it, transformers refuses to load


@pytest.mark.slow
def test_every_command_takes_the_folder_as_it_takes_the_run(run, pairs, drawn, tmp_path, monkeypatch, capsys):
    hub(run, "--hub", tmp_path / "face", "--license", "mit")
    monkeypatch.chdir(tmp_path)
    found, tables, rows = [], [], []
    (tmp_path / "photo.jpg").write_bytes(read_pairs(pairs)[0][0])
    for subject in (run, tmp_path / "face"):
        (finding,) = evaluate.main([str(word) for word in (subject, "--pairs", pairs)])
        found.append(finding.numbers)
        weights = subject if subject != run else shutil.copy(run / "model.pt", tmp_path / "bare.pt")
        angles.main([str(word) for word in (weights, "--faces", drawn, "--photos", 3)])
        tables.append(json.loads((tmp_path / "runs" / "angles" / "angles.json").read_text())["trained"].popitem()[1])
        embed.main([str(subject), str(tmp_path / "photo.jpg"), "-o", str(tmp_path / "x.npy")])
        rows.append(np.load(tmp_path / "x.npy"))
    assert found[0] == found[1] and found[0]["accuracy"] > 0.5
    assert tables[0]["intra"] == tables[1]["intra"] > 0
    np.testing.assert_array_equal(*rows)
    assert (tmp_path / "evaluation" / "face" / "results.json").is_file()
    assert len(list((tmp_path / "face").iterdir())) == 3  # nothing was written into what may be uploaded
    assert open_run(tmp_path / "face").config == {}
    hub(tmp_path / "face", "--hub", tmp_path / "again", "--license", "mit")
    first, again = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("face", "again"))
    assert first["training_config"] == again["training_config"]


def test_the_config_names_network_data_and_no_place(run, tmp_path):
    hub(run, "--hub", tmp_path / "face")
    about = json.loads((tmp_path / "face" / "config.json").read_text())
    assert (about["network"], about["embedding_size"]) == ("r10", 32)
    assert about["preprocessing"] == {"color": "RGB", "size": "112x112", "mean": "127.5", "std": "127.5"}
    assert about["made_from_sha256"] == hash_of(run / "model.pt")
    assert about["training_config"] == public(CONFIG)
    assert about["training_config"]["rec"] == "drawn_12x10_x"
    assert about["training_config"]["val_targets"] == ["lfw.bin", "agedb_30"]
    for name in ("config.json", "README.md"):
        assert "/home/me" not in (tmp_path / "face" / name).read_text()


def test_the_card_says_where_the_weights_began(run, tmp_path):
    hub(run, "--hub", tmp_path / "new")
    assert "The network has never seen a real photograph." in (tmp_path / "new" / "README.md").read_text()
    (run / "config.json").write_text(json.dumps(CONFIG | dict(init="/home/me/photographs/w.pt", augment="photo")))
    hub(run, "--hub", tmp_path / "face")
    card = (tmp_path / "face" / "README.md").read_text()
    assert "began with the weights of `w.pt`" in card and "never seen" not in card and "/home/me" not in card
    assert '| `augment` | "photo" |' in card


def test_the_card_holds_the_numbers_of_the_run_and_no_others(run, tmp_path, capsys):
    hub(run, "--hub", tmp_path / "face", "--license", "cc-by-nc-4.0")
    card = (tmp_path / "face" / "README.md").read_text()
    fields, (result,) = front_matter(card)
    assert fields["license"] == "cc-by-nc-4.0" and fields["datasets"] == ["drawn_12x10_x"]
    assert {"face-recognition", "r10", "arcface"} <= set(fields["tags"])
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert (result["dataset"]["name"], values) == ("drawn", {"accuracy": 0.9317, "TAR at FAR 0.01": 0.8765})
    assert re.findall(r"\d+\.\d+ %", card) == ["93.17 %", "87.65 %"] and "± 4.21" in card
    assert "12.34" not in card and "11.11" not in card  # of a verification before the end
    assert "12 people in 120 photographs" in card and "These people do not exist" in card
    for section in ("Use", "Intended use", "Data", "Training", "Results", "Limits", "Licence"):
        assert f"\n## {section}\n" in card


def test_results_of_evaluate_come_first_if_they_are_of_these_weights(run, pairs, tmp_path):
    (finding,) = evaluate.main([str(run), "--pairs", str(pairs)])
    hub(run, "--hub", tmp_path / "one")
    _, results = front_matter((tmp_path / "one" / "README.md").read_text())
    assert [result["dataset"]["name"] for result in results] == ["few", "drawn"]
    numbers = finding.numbers
    expected = {f"TAR at FAR {far}": point["tar"] for far, point in numbers["tar_at_far"].items()}
    found = {metric["name"]: metric["value"] for metric in results[0]["metrics"]}
    assert found == {"accuracy": numbers["accuracy"], **expected}
    torch.save(build_model("r10", 32).state_dict(), run / "model.pt")
    hub(run, "--hub", tmp_path / "two")
    assert "few" not in (tmp_path / "two" / "README.md").read_text()


def test_what_is_not_known_is_not_claimed(run, tmp_path, capsys):
    hub(run / "model.pt", "--hub", tmp_path / "face")
    assert "no licence was named" in capsys.readouterr().out
    card = (tmp_path / "face" / "README.md").read_text()
    fields, results = front_matter(card)
    assert results == [] and "model-index" not in card and "datasets" not in fields
    assert fields["license"] == "unknown" and "None has been chosen" in card
    assert " %" not in card and "so none is claimed" in card
    assert "What it was trained on is not known" in card and "How it was trained is not known" in card


def test_names_of_any_kind_stay_within_their_places(run, tmp_path):
    rec = 'faces: #1 | "best" \udce9\n---\nlicense: mit'
    (run / "config.json").write_text(json.dumps(CONFIG | {"rec": rec, "loss": "a|b"}))
    (run / "metrics.jsonl").write_text(json.dumps(LATE | {"pairs": "x | y: [z]"}) + "\n")
    hub(run, "--hub", tmp_path / 'it\'s "mine": #1')
    card = (tmp_path / 'it\'s "mine": #1' / "README.md").read_text()
    fields, (result,) = front_matter(card)
    assert fields["license"] == "unknown" and fields["datasets"] == [rec.replace("\udce9", "?")]
    assert result["dataset"]["name"] == "x | y: [z]"
    assert "| x \\| y: [z] | accuracy | 93.17 % |" in card and '| `loss` | "a\\|b" |' in card


def test_nothing_is_overwritten_unasked(run, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "mine holds something else (thesis.txt)" in fails(capsys, export.main, run, "--hub", tmp_path / "mine")
    again = (run, "--hub", run, "--overwrite")
    assert "holds something else" in fails(capsys, export.main, *again)  # a run keeps its config.json
    assert json.loads((run / "config.json").read_text()) == CONFIG
    (tmp_path / "face" / ".git").mkdir(parents=True)
    hub(run, "--hub", tmp_path / "face")
    (tmp_path / "face" / "README.md").write_text("edited by hand")
    assert "holds a model already" in fails(capsys, export.main, run, "--hub", tmp_path / "face")
    assert (tmp_path / "face" / "README.md").read_text() == "edited by hand"
    hub(run, "--hub", tmp_path / "face", "--overwrite")
    assert (tmp_path / "face" / "README.md").read_text().startswith("---\n")


def test_sentences(run, pairs, tmp_path, capsys):
    hub(run, "--hub", tmp_path / "face")
    weights, config = tmp_path / "face" / "model.safetensors", tmp_path / "face" / "config.json"
    whole, about = weights.read_bytes(), config.read_text()
    for content in (b"", whole[:1000], b"\xff" * 7 + b"\x7f" + whole[8:], b"cos\nsystem\n(S'touch harmed'\ntR."):
        weights.write_bytes(content)
        said = fails(capsys, evaluate.main, tmp_path / "face", "--pairs", pairs)
        assert "model.safetensors cannot be read as weights" in said
    weights.write_bytes(whole)
    sizes = ('{"embedding_size": 1e12}', '{"embedding_size": 1000000000000}', '{"embedding_size": -1}')
    for content in ("[]", '"r10"', '{"network": ["r10"]}', '{"embedding_size": "many"}', '{"rec": 3}', *sizes):
        config.write_text(content)
        assert "is not the config of a run" in fails(capsys, evaluate.main, tmp_path / "face", "--pairs", pairs)
    config.write_text("{")
    assert "config.json is not JSON" in fails(capsys, evaluate.main, tmp_path / "face", "--pairs", pairs)
    config.write_text(about.replace('"r10"', '"r18"', 1))
    assert "it fits r10 with 32" in fails(capsys, evaluate.main, tmp_path / "face", "--pairs", pairs)
    assert "is a file: name a folder" in fails(capsys, export.main, run, "--hub", weights)
    assert "no word for a licence" in fails(capsys, export.main, run, "--hub", tmp_path / "b", "--license", "a: b\n")
    (run / "evaluation").mkdir()
    (run / "evaluation" / "results.json").write_text('{"results": []}')
    assert "results.json is not as" in fails(capsys, export.main, run, "--hub", tmp_path / "b")
    assert not (tmp_path / "b").exists()
