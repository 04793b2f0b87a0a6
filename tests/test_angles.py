"""`python -m arcface_edu.angles`: runs, weights and arrays in, statistics and figures out, or one sentence."""

import json
import shutil

import numpy as np
import pytest
import torch

from arcface_edu import angle_statistics, angles, embed_images, open_faces
from arcface_edu.config import load_config
from arcface_edu.data.datasets import sample_faces
from arcface_edu.data.folder import FolderFaces, list_people
from arcface_edu.data.images import encode_png
from arcface_edu.errors import DataError
from arcface_edu.models import build_model
from arcface_edu.runs import open_run
from arcface_edu.training.checkpoint import save_checkpoint

SMALL = ["--people", "6", "--photos", "4"]


def make_run(folder, rec, classes=12, **keys):
    """A run as training leaves it, but with random weights."""
    torch.manual_seed(0)
    config = load_config("drawn_faces", [f"rec={rec}", f"output={folder}", "embedding_size=16"])
    config.update(keys)
    model = build_model(config.network, 16)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "model.pt")
    head = dict(weight=torch.randn(classes, 16))
    save_checkpoint(folder / "checkpoints", 20, dict(model=model.state_dict(), head=head))
    lines = [dict(step=s, loss=1.0, target_angle=80.0, target_angle_histogram=[0] * 40 + [5] * 50) for s in (10, 20)]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines, dict(step=20, pairs="x")])
    )
    return folder


def noise_photos(folder, people, photos):
    """A folder per person, with pictures of nothing."""
    for person in range(people):
        (folder / f"s{person}").mkdir(parents=True)
        for photo in range(photos):
            noise = torch.randint(0, 256, (3, 112, 112), dtype=torch.uint8)
            (folder / f"s{person}" / f"{photo}.png").write_bytes(encode_png(noise))
    return folder


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "one", drawn)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 6)
    return dict(embeddings=(rng.standard_normal((5, 8))[labels] + 0.3 * rng.standard_normal((30, 8))), labels=labels)


def fails(capsys, *words):
    """The one sentence on stderr of a command that leaves with status 2."""
    with pytest.raises(SystemExit) as left:
        angles.main([str(word) for word in words])
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2 and said.startswith("arcface_edu: ")
    return said.splitlines()[-1]


def test_a_run_is_shown_with_its_own_centres_data_and_pairs(run, drawn, tmp_path, capsys):
    angles.main([str(run), *SMALL, "--unseen", str(noise_photos(tmp_path / "others", 3, 3))])
    said, found = capsys.readouterr().out, json.loads((run / "figures" / "angles.json").read_text())
    assert "24 images of 6 people" in said and "9 images of 3 unseen people" in said
    assert "quoted from memory" in said and "pairs of drawn: same person" in said
    trained = open_run(run)
    images, labels = sample_faces(open_faces(drawn), 6, 4)
    expected = angle_statistics(embed_images(trained.model, images, flip=False), labels, trained.centres)
    assert found["trained"] == {"ArcFace": pytest.approx(expected)} and expected.keys() >= {"w_ec", "w_inter"}
    assert found["unseen"]["ArcFace"].keys() == {"intra", "inter"}
    names = {path.stem for path in (run / "figures").glob("angles_*.png")}
    assert names == {
        f"angles_{what}"
        for what in ("history", "own_and_other", "nearest_centres", "closest", "norms", "norm_faces", "pairs_drawn")
    }


def test_runs_stand_side_by_side(run, drawn, tmp_path, capsys):
    other = make_run(tmp_path / "two", drawn, loss="softmax")
    angles.main([str(run), str(other), str(run), *SMALL, "--output", str(tmp_path / "figures")])
    said = capsys.readouterr().out
    assert "| ArcFace | softmax | ArcFace, one | paper's norm-softmax * |" in said
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {"angles_own_centre", "angles_pairs_drawn", "angles_history_softmax", "angles_history_ArcFace__one"} <= names


def test_weights_alone_need_faces_and_have_no_centres(run, drawn, tmp_path, capsys):
    weights = tmp_path / "backbone.pth"
    torch.save(build_model("r18", 8).state_dict(), weights)
    assert "name a folder with --faces" in fails(capsys, weights)
    angles.main([str(weights), "--faces", str(drawn), *SMALL, "--output", str(tmp_path / "figures")])
    said = capsys.readouterr().out
    assert "| backbone.pth |" in said and "nearest other centre | – | 69.66" in said
    in_run, alone = open_run(run / "model.pt"), open_run(run)  # the file in a run's folder stands for the run
    assert in_run.config == alone.config and torch.equal(in_run.centres, alone.centres)


def test_people_held_out_of_a_photo_folder_are_the_unseen(tmp_path, capsys):
    photos = noise_photos(tmp_path / "photos", 8, 8)
    run = make_run(tmp_path / "run", photos, classes=5, hold_out=3)
    angles.main([str(run), "--photos", "3"])
    said = capsys.readouterr().out
    assert "15 images of 5 people" in said and "9 images of 3 unseen people" in said and "pairs of held_out" in said

    *people, first, second, third = list_people(photos)
    names = dict(people=people, held_out=[first, second, third], num_classes=5, num_image=40, content=None)
    (run / "people.json").write_text(json.dumps(names))
    shutil.copytree(photos / first, photos / "0 came later")  # labels and held-out people move by one
    angles.main([str(run), "--photos", "3"])
    assert capsys.readouterr().out == said


def test_arrays_are_enough(arrays, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **arrays)
    angles.main([str(tmp_path / "mine.npz"), "--output", str(tmp_path / "a")])
    np.save(tmp_path / "x.npy", arrays["embeddings"])
    np.save(tmp_path / "y.npy", arrays["labels"])
    angles.main([str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy"), "--output", str(tmp_path / "b")])
    one, two = (json.loads((tmp_path / folder / "angles.json").read_text())["trained"] for folder in "ab")
    assert one["mine"] == two["x"] == pytest.approx(angle_statistics(**arrays))
    assert {path.stem for path in (tmp_path / "a").glob("*.png")} == {
        "angles_own_and_other", "angles_nearest_centres", "angles_norms",
    }  # fmt: skip


def test_what_is_no_run_or_network_is_named(run, drawn, tmp_path, capsys):
    assert "nowhere does not exist: name the folder of a run" in fails(capsys, tmp_path / "nowhere")
    assert "holds neither model.pt nor model.safetensors" in fails(capsys, drawn)
    (tmp_path / "broken.pt").write_bytes(b"neither zip nor pickle")
    assert "broken.pt cannot be read as weights" in fails(capsys, tmp_path / "broken.pt", "--faces", drawn)
    torch.save(dict(evil=print), tmp_path / "code.pt")
    assert "code.pt cannot be read as weights" in fails(capsys, tmp_path / "code.pt", "--faces", drawn)
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "linear.pt")
    assert "none of the networks r10, r10_quick, r18" in fails(capsys, tmp_path / "linear.pt", "--faces", drawn)
    assert "linear.pt does not fit r18" in fails(capsys, tmp_path / "linear.pt", "--network", "r18")
    changed = make_run(tmp_path / "changed", drawn)
    torch.save(build_model("r18", 16).state_dict(), changed / "model.pt")
    assert "does not fit r10 with 16 dimensions; it fits r18 with 16" in fails(capsys, changed)
    (changed / "config.json").write_text("[]")
    assert "config.json is not the config of a run" in fails(capsys, changed)
    assert "two of each at least" in fails(capsys, run, "--photos", "1")


def test_a_run_cut_short_is_shown_from_its_checkpoint(run, drawn, tmp_path, capsys):
    young = make_run(tmp_path / "young", drawn)
    (young / "model.pt").unlink()
    first, second = open_run(young).model.state_dict(), open_run(run).model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in second)
    for path in (young / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    assert "holds neither model.pt nor model.safetensors: let the run finish" in fails(capsys, young)


def test_arrays_that_cannot_be_meant_are_named(arrays, tmp_path, capsys):
    def says(name, *words, **found):
        np.savez(tmp_path / name, **found)
        return fails(capsys, tmp_path / f"{name}.npz", *words)

    nan, one = arrays["embeddings"].copy(), np.zeros(30, int)
    nan[7] = np.nan
    assert "embedding in row 7 is not finite" in says("nan", embeddings=nan, labels=arrays["labels"])
    assert "all embeddings are of one class" in says("one", embeddings=arrays["embeddings"], labels=one)
    assert "holds embeddings, but no `labels`" in says("bare", embeddings=arrays["embeddings"])
    assert "(29,) for 30 embeddings" in says("short", embeddings=arrays["embeddings"], labels=one[1:])
    pickled = np.array([dict(harm="done")] * 30, dtype=object)
    assert "pickles and are never opened" in says("pickled", embeddings=pickled, labels=one)
    np.save(tmp_path / "pickled.npy", pickled, allow_pickle=True)
    assert "pickles and are never opened" in fails(capsys, tmp_path / "pickled.npy")
    np.save(tmp_path / "x.npy", arrays["embeddings"])
    assert "has no labels" in fails(capsys, tmp_path / "x.npy")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:99])
    assert "not readable as plain arrays" in fails(capsys, tmp_path / "cut.npz")
    assert "does not exist" in fails(capsys, tmp_path / "none.npy", "--labels", tmp_path / "x.npy")


class Faces:
    """A set with as many photographs of a person as its number; the image tells its place."""

    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(8), np.arange(8)))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        return torch.full((3, 2, 2), place, dtype=torch.uint8), int(self.labels[place])


def test_a_sample_takes_so_many_of_so_many_by_its_seed():
    faces = Faces()
    images, labels = sample_faces(faces, 4, 3, seed=1)
    people, counts = np.unique(labels, return_counts=True)
    assert len(people) <= 4 and set(counts) <= {2, 3} and (faces.labels[images[:, 0, 0, 0]] == labels).all()
    assert len(set(images[:, 0, 0, 0].tolist())) == len(images)
    again, other = sample_faces(faces, 4, 3, seed=1), sample_faces(faces, 4, 3, seed=2)
    assert torch.equal(images, again[0]) and not np.array_equal(np.unique(other[1]), people)
    assert set(sample_faces(faces, 99, 99)[1]) == set(range(2, 8))  # of one photograph there is no angle
    assert set(sample_faces(faces, 99, 99, among=range(3, 5))[1]) == {3, 4}
    with pytest.raises(DataError, match="at least two people"):
        sample_faces(faces, 1, 5)


def test_a_set_too_large_to_know_its_labels_is_sampled_in_runs(tmp_path, monkeypatch):
    for person in range(6):
        (tmp_path / f"{person}").mkdir()
        for photo in range(4):
            (tmp_path / f"{person}" / f"{photo}.png").write_bytes(encode_png(torch.zeros(3, 9, 9, dtype=torch.uint8)))
    faces = FolderFaces(tmp_path)
    known = faces.labels
    monkeypatch.setattr(
        faces, "encoded", lambda place: ((tmp_path / "0" / "0.png").read_bytes(), int(known[place]), "")
    )
    faces.labels = None
    labels = sample_faces(faces, 3, 4)[1]
    assert sorted(np.unique(labels, return_counts=True)[1]) == [4, 4, 4]
