"""`python -m arcface_edu.labs` and `dataset clean`: small runs, and a sentence where that cannot be."""

import csv
import json

import numpy as np
import pytest
import torch

from arcface_edu import dataset, labs
from arcface_edu.cleaning import decide
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.label_noise import write_noisy
from arcface_edu.evaluation.suspects import inspect_labels
from arcface_edu.labs.noise import Case, as_table, list_cases

SMALL = ["--set", "batch_size=8", "embedding_size=32", "frequent=1"]


def fails(capsys, main, *arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("arcface_edu: ") and "Traceback" not in said
    return said


@pytest.mark.slow
def test_the_lab_of_wrong_labels(drawn, tmp_path, capsys):
    words = ["noise", "--faces", drawn, "--output", tmp_path, "--epochs", 1, "--kinds", "flip", "--heads",
             "arcface", "subcenter_arcface", "--shares", 0, 0.5]  # fmt: skip
    labs.main([str(word) for word in [*words, *SMALL]])
    said = capsys.readouterr().out
    assert "4 trainings with" in said and "| flip, 50% | subcenter_arcface |" in said and "| none | arcface |" in said
    (folder,) = tmp_path.iterdir()
    results = json.loads((folder / "results.json").read_text())
    faces = open_faces(drawn)
    assert [one["suspects"]["wrong"] for one in results if one["share"] == 0] == [0, 0]
    assert (folder / "humps.png").stat().st_size > 10_000
    before = (folder / "flip_0.5_2048_arcface" / "model.pt").stat().st_mtime_ns
    labs.main([str(word) for word in [*words, *SMALL]])
    assert (folder / "flip_0.5_2048_arcface" / "model.pt").stat().st_mtime_ns == before  # not trained again
    assert len(open_faces(folder / "data" / "flip_0.5_2048")) == len(faces)


@pytest.mark.slow
def test_the_lab_of_groups(tmp_path, capsys):
    words = ["groups", "--output", tmp_path, "--people", 4, "--photos", 6, "--epochs", 1, "--shares", 0.25,
             "--unseen", 8, *SMALL]  # fmt: skip
    labs.main([str(word) for word in words])
    said = capsys.readouterr().out
    assert "1 trainings with 4 people" in said and "FMR light" in said and "| 25% |" in said
    (folder,) = (path for path in tmp_path.iterdir() if path.name != "data")
    results = json.loads((folder / "results.json").read_text())
    assert results["0.25"][0]["groups"] == ["dark", "light"]


def test_shares_that_are_none(tmp_path, capsys):
    assert "--shares 1.5: a share of wrong labels is 0 to 1" in fails(capsys, labs.main, "noise", "--shares", 1.5)
    assert "--shares -1: the share of a group is 0 to 1" in fails(capsys, labs.main, "groups", "--shares", -1)


def test_cases_are_those_that_differ():
    cases = list_cases(["flip", "merge"], [0, 0.2], ["arcface", "softmax"], [1, 2])
    assert len(cases) == len(set(cases)) == 2 * (2 + 4)
    assert Case("flip", 0, "arcface", 1).name == "clean_1_arcface"


def test_the_table_has_means_and_ends():
    scores = dict(suspected=3, precision=0.5, recall=float("nan"))
    found = {
        Case("flip", 0.2, "arcface", seed): dict(accuracy=acc, tar=None, suspects=scores, alike=scores)
        for seed, acc in ((1, 0.9), (2, 0.92))
    }
    assert as_table(found).splitlines()[-1].startswith("| flip, 20% | arcface | 91.0 (90.0 to 92.0) | – | 3 (3 to 3)")


@pytest.fixture(scope="module")
def knowing(tmp_path_factory, drawn):
    """A noisy set, and embeddings that tell its people apart."""
    noisy = write_noisy(tmp_path_factory.mktemp("noisy") / "set", open_faces(drawn), "flip", 0.2, seed=0)
    rng = np.random.default_rng(0)
    embeddings = np.eye(64)[noisy.people] + 0.03 * rng.standard_normal((len(noisy.people), 64))
    return noisy, torch.tensor(embeddings, dtype=torch.float32)


@pytest.fixture
def run(knowing, tmp_path, monkeypatch):
    """A run whose network gives those embeddings."""
    from arcface_edu import cleaning
    from arcface_edu.models import build_model

    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(build_model("r10", 32).state_dict(), folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(dict(network="r10", embedding_size=32)))
    _, embeddings = knowing
    monkeypatch.setattr(cleaning, "embed_faces", lambda model, faces: (embeddings, np.arange(len(embeddings))))
    return folder


@pytest.mark.parametrize("relabel", [False, True])
def test_a_cleaned_set_holds_right_labels_only(run, knowing, tmp_path, capsys, relabel):
    noisy, _ = knowing
    before = (noisy.folder / "train.rec").read_bytes()
    words = ["clean", run, noisy.folder, tmp_path / "out", *(["--relabel"] if relabel else [])]
    dataset.main([str(word) for word in words])
    out, dirty = open_faces(tmp_path / "out"), open_faces(noisy.folder)
    person_of = {dirty.encoded(i)[0]: noisy.people[i] for i in range(len(dirty))}
    pairs = {(int(out.labels[i]), int(person_of[out.encoded(i)[0]])) for i in range(len(out))}
    assert len(pairs) == len(np.unique(noisy.people))  # each class shows one person, and nobody is in two
    wrong = sum(noisy.people[i] != dirty.labels[i] for i in range(len(dirty)))
    assert len(out) == len(dirty) - (0 if relabel else wrong)
    changed = list(csv.DictReader((tmp_path / "out" / "changes.csv").open()))
    assert len(changed) == wrong and all((row["is"] != "") == relabel for row in changed)
    assert "<img" in (tmp_path / "out" / "report.html").read_text()
    assert (noisy.folder / "train.rec").read_bytes() == before  # nothing is deleted
    assert "train.rec is there already" in fails(capsys, dataset.main, *words)


def test_a_list_alone(run, knowing, tmp_path):
    noisy, _ = knowing
    dataset.main(["clean", str(run), str(noisy.folder), str(tmp_path / "list.csv")])
    assert (tmp_path / "list.csv").read_text().startswith("image,was,is,degrees_to_own")


def test_what_cannot_be_cleaned(run, knowing, tmp_path, capsys):
    noisy, _ = knowing
    assert "is the data itself" in fails(capsys, dataset.main, "clean", run, noisy.folder, noisy.folder, "--overwrite")
    words = ("clean", run, noisy.folder, tmp_path / "out")
    assert "--limit 200: an angle is above 0" in fails(capsys, dataset.main, *words, "--limit", 200)
    assert "fewer than two people would be left" in fails(capsys, dataset.main, *words, "--limit", 0.001)


def test_classes_of_one_person_are_joined_on_demand():
    people = np.repeat(np.arange(6), 8)
    labels = np.where((people == 2) & (np.arange(48) % 2 == 0), 6, people)
    embeddings = torch.tensor(np.eye(32)[people] + 0.05 * np.random.default_rng(0).standard_normal((48, 32)))
    seen = inspect_labels(embeddings.float(), labels)
    kept = decide(seen, labels)
    joined = decide(seen, labels, join=True, relabel=True)
    assert set(kept[people == 2]) <= {-1, 2, 6}
    assert set(joined[people == 2]) == {2} and np.array_equal(joined, people)
