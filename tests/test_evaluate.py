"""`python -m arcface_edu.evaluate`: files in, numbers and a page out, and a sentence where that cannot be."""

import io
import json
import pickle
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from arcface_edu import (
    embed_images,
    evaluate,
    pool_templates,
    read_pairs,
    score_pairs,
    tar_at_far,
    verify_pairs,
    write_pairs,
)
from arcface_edu.data.alignment.align import TEMPLATE
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.images import decode, encode_png, fit
from arcface_edu.evaluation.leaderboard import HEAD, build_leaderboard, markdown
from arcface_edu.models import build_model
from arcface_edu.models.weights import hash_of
from arcface_edu.runs import load_model


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    """A run's folder as training leaves it, of a network that has learnt nothing."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(build_model("r10", 32).state_dict(), folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(dict(network="r10", embedding_size=32, rec=str(drawn))))
    return folder


def call(capsys, *arguments):
    findings = evaluate.main([str(argument) for argument in arguments])
    return SimpleNamespace(out=capsys.readouterr().out, findings=findings)


def fails(capsys, *arguments):
    """The one sentence on stderr of a command that leaves with status 2."""
    with pytest.raises(SystemExit) as left:
        evaluate.main([str(argument) for argument in arguments])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("arcface_edu: ") and "Traceback" not in said
    return said


def test_a_run_is_judged_on_the_pairs_beside_its_data(run, drawn, tmp_path, capsys):
    done = call(capsys, run, "--report", tmp_path / "out.html")
    results = json.loads((run / "evaluation" / "results.json").read_text())
    images, is_same = read_pairs(drawn / "drawn.bin")
    expected = verify_pairs(embed_images(load_model(run / "model.pt")[0], images), is_same)
    found = results["results"]["drawn"]
    for key in ("accuracy", "accuracy_std", "val", "threshold", "pairs"):
        assert found[key] == expected[key], key
    assert found["tar_at_far"]["0.01"]["tar"] == expected["tar_at_far"][1e-2]
    low, high = found["accuracy_interval"]
    assert low <= found["accuracy"] <= high
    assert results["SHA-256 of the weights"] == hash_of(run / "model.pt")
    assert f"{expected['accuracy']:.2%} ± {expected['accuracy_std']:.2%}" in done.out
    assert "few: 50 pairs of different people; 1,000 make it firm" in done.out
    assert re.search(rf"\| {drawn.name} +\| r10 +\| - ", done.out) and "no number for lfw: no lfw.bin" in done.out
    pictures = {path.name for path in (run / "evaluation").glob("*.png")}
    assert pictures == {f"{name}_drawn.png" for name in ("roc", "pair_angles", "false_accepts", "false_rejects")}
    html = (tmp_path / "out.html").read_text()
    assert html.count("data:image/png;base64,") == 4 and hash_of(run / "model.pt") in html
    assert "127.5" in html and f"{expected['accuracy']:.2%}" in html and drawn.name in html


def test_rejecting_the_worst_images(run, tmp_path, capsys):
    done = call(capsys, run, "--reject", "--output", tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())["results"]["drawn"]["lost_after_rejecting"]
    assert list(found) == ["length of the embedding", "sharpness", "best possible"]
    assert all(best <= lost for best, lost in zip(found["best possible"], found["sharpness"], strict=True))
    assert "lost after 20 % by sharpness" in done.out and (tmp_path / "reject_drawn.png").exists()


def test_weights_alone_on_named_sets_fill_the_row(run, drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "backbone.pth"
    torch.save({f"module.{name}": value for name, value in torch.load(run / "model.pt").items()}, weights)
    images, is_same = read_pairs(drawn / "drawn.bin")
    write_pairs(tmp_path / "lfw.bin", images, is_same)
    write_pairs(tmp_path / "agedb_30.bin", images[:-6], is_same[:-3])
    done = call(capsys, weights, "--pairs", "lfw.bin", "agedb_30.bin", "--json", "numbers.json")
    row = json.loads((tmp_path / "numbers.json").read_text())["table"][2]
    assert row["Datasets"] == "backbone" and row["backbone"] == "r10" and row["cfp_fp"] == "-"
    assert row["lfw"] == f"{100 * done.findings[0].numbers['accuracy']:.2f}"
    assert row["agedb30"] == f"{100 * done.findings[1].numbers['accuracy']:.2f}"
    assert "97 pairs do not cut evenly into 10 folds" in done.out
    assert (tmp_path / "evaluation" / "backbone" / "roc_lfw.png").is_file()
    assert fails(capsys, weights) and "nothing to judge by" in fails(capsys, weights)


def test_the_row_stands_between_the_published_ones():
    rows, ours, reasons = build_leaderboard(
        "mine", "r50", {"lfw": 0.998, "cfp_fp": 0.9, "agedb_30": 0.95}, {1e-5: 0.9, 1e-4: 0.95}
    )
    assert rows[ours] == ["mine", "r50", "90.00", "95.00", "95.00", "90.00", "99.80"] and reasons == []
    assert rows[0] == ["MS1MV3", "r50", "94.79", "96.46", "98.35", "98.96", "99.83"]  # the table of the seed
    assert rows[1] == ["MS1MV3", "r100", "95.31", "96.81", "98.48", "99.06", "99.85"]
    lines = markdown(HEAD, rows).splitlines()
    assert len({len(line) for line in lines}) == 1 and set(lines[1]) == set("|- ")
    assert len(build_leaderboard("mine", "r50", {}, {})[2]) == 4


@pytest.fixture
def ijb_folder(drawn, tmp_path):
    """IJB-C in small: 20 templates of 10 people, two faces each, in their place already."""
    faces = open_faces(drawn)
    (tmp_path / "meta").mkdir()
    (tmp_path / "loose_crop").mkdir()
    images, points, place = [], [], " ".join(map(str, TEMPLATE.ravel()))
    for template in range(20):
        for photo in range(2):
            name = f"{2 * template + photo + 1}.jpg"
            face = faces[template // 2 * 10 + template % 2 * 2 + photo][0]
            (tmp_path / "loose_crop" / name).write_bytes(encode_png(face))
            images.append(f"{name} {template} {photo}")
            points.append(f"{name} {place} 0.{50 + template}")
    pairs = [f"{a} {b} {int(a // 2 == b // 2)}" for a in range(20) for b in range(a)]
    for name, lines in (("face_tid_mid", images), ("name_5pts_score", points), ("template_pair_label", pairs)):
        (tmp_path / "meta" / f"ijbc_{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_ijb_with_its_switches(run, drawn, ijb_folder, tmp_path, capsys):
    output = tmp_path / "out"
    words = (run / "model.pt", "--ijb", ijb_folder, "--output", output, "--workers", 0)
    done = call(capsys, *words, "--switches", "N0D1F0", "--report", tmp_path / "out.html")
    assert "N0D1F0: embeddings have unit length, weighted by the detector's score, no mirror" in done.out
    results = json.loads((output / "results.json").read_text())
    found = results["results"]["IJBC N0D1F0"]["tar_at_far"]
    # The same by hand, from the faces as they are.
    faces = open_faces(drawn)
    images = torch.stack([faces[t // 2 * 10 + t % 2 * 2 + photo][0] for t in range(20) for photo in range(2)])
    features = embed_images(load_model(run / "model.pt")[0], images, flip=False).numpy().astype(float)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features *= (0.5 + np.repeat(np.arange(20), 2) / 100)[:, None]
    pooled, ids = pool_templates(features, np.repeat(np.arange(20), 2), np.tile([0, 1], 20))
    first, second = np.tril_indices(20, -1)
    expected = tar_at_far(score_pairs(pooled, ids, first, second), first // 2 == second // 2)
    assert {float(far): point["tar"] for far, point in found.items()} == expected
    assert results["table"][2]["IJBC(1e-04)"] == f"{100 * expected[1e-4]:.2f}"
    assert (output / "false_accepts_IJBC_N0D1F0.png").is_file()
    assert "N0D1F0" in (tmp_path / "out.html").read_text()
    (ijb_folder / "loose_crop" / "3.jpg").unlink()
    assert "3.jpg" in fails(capsys, *words)


def test_a_search(run, drawn, tmp_path, capsys):
    faces = open_faces(drawn)
    for folder, people, photos in (("known", range(6), range(3)), ("seen", range(9), range(3, 6))):
        for person in people:
            (tmp_path / folder / f"p{person}").mkdir(parents=True)
            for photo in photos:
                image = encode_png(faces[10 * person + photo][0])
                (tmp_path / folder / f"p{person}" / f"{photo}.png").write_bytes(image)
    words = (run / "model.pt", "--gallery", tmp_path / "known", "--output", tmp_path / "out")
    done = call(capsys, *words, "--probes", tmp_path / "seen")
    numbers = done.findings[0].numbers
    assert (numbers["people"], numbers["known"], numbers["strangers"]) == (6, 18, 9)
    assert 0 <= numbers["rank1"] <= numbers["cmc"][-1] == 1 and len(numbers["dir_at_far"]) == 3
    assert "few: 9 strangers" in done.out and (tmp_path / "out" / "cmc_identification.png").is_file()
    assert "both --gallery and --probes" in fails(capsys, *words)
    # Searching the gallery in itself finds everybody.
    assert call(capsys, *words, "--probes", tmp_path / "known").findings[0].numbers["rank1"] == 1


def test_bad_input_ends_in_a_sentence(run, drawn, tmp_path, capsys):
    images, is_same = read_pairs(drawn / "drawn.bin")
    bad = tmp_path / "bad.bin"

    def judged():
        return fails(capsys, run, "--pairs", bad)

    assert "bad.bin does not exist" in judged()
    bad.write_bytes(b"nothing")
    assert "bad.bin is not a readable file" in judged()
    bad.write_bytes(pickle.dumps((images[:-1], is_same.tolist())))
    assert "bad.bin holds 199 images for 100 pairs" in judged()
    for kind in (True, False):
        write_pairs(bad, images, [kind] * len(is_same))
        assert f"bad.bin holds only {'same' if kind else 'different'}-person pairs" in judged()
    write_pairs(bad, images[:8], [True, False] * 2)
    assert "bad: 4 pairs cannot be cut into 10 folds" in judged()
    write_pairs(bad, [encode_png(torch.zeros(3, 100, 90, dtype=torch.uint8)), *images[1:]], is_same)
    assert "bad, image 0 has 90x100 pixels" in judged()
    write_pairs(bad, [*images[:3], b"\xff\xd8\xff broken", *images[4:]], is_same)
    assert judged() == "arcface_edu: bad, image 3 (pair 1): not an image that can be read; replace or remove it."
    write_pairs(bad, [*images[:3], images[3][:700], *images[4:]], is_same)  # whose first bytes still say its size
    assert judged().startswith("arcface_edu: embedding bad, image 3: not an image that can be read (")
    assert "does not exist" in fails(capsys, tmp_path / "no_run")
    assert "holds neither model.pt nor model.safetensors" in fails(capsys, drawn)
    write_pairs(tmp_path / "lfw.bin", images, is_same)
    (tmp_path / "two").mkdir()
    write_pairs(tmp_path / "two" / "lfw.bin", images, is_same)
    both = (tmp_path / "lfw.bin", tmp_path / "two" / "lfw.bin")
    assert "two files of pairs are called lfw" in fails(capsys, run, "--pairs", *both)


def test_what_training_takes_is_judged_too(run, drawn, tmp_path, capsys):
    """Square faces of another size are fitted, with a warning; rec may name the file itself."""
    images, is_same = read_pairs(drawn / "drawn.bin")
    large = [encode_png(fit(decode(image), 160)) for image in images]
    write_pairs(tmp_path / "large.bin", large, is_same)
    done = call(capsys, run, "--pairs", tmp_path / "large.bin", "--output", tmp_path)
    assert "large: 200 of 200 images have another size than 112x112, as 160x160" in done.out
    expected = verify_pairs(embed_images(load_model(run)[0], large), is_same)
    assert done.findings[0].numbers["accuracy"] == expected["accuracy"]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.pt").write_bytes((run / "model.pt").read_bytes())
    config = dict(network="r10", embedding_size=32, rec=str(drawn / "train.rec"))
    (folder / "config.json").write_text(json.dumps(config))
    done = call(capsys, folder)
    assert done.findings[0].name == "drawn" and f"| {drawn.name} " in done.out


def test_a_terminal_without_the_degree_sign(run, drawn, tmp_path, monkeypatch):
    said = io.TextIOWrapper(io.BytesIO(), "ascii")  # as with PYTHONIOENCODING=ascii
    monkeypatch.setattr(sys, "stdout", said)
    evaluate.main([str(run), "--pairs", str(drawn / "drawn.bin"), "--output", str(tmp_path)])
    said.seek(0)
    assert r"\xb0" in said.read()


def test_embeddings_that_are_no_numbers_are_named(run, tmp_path, capsys):
    state = torch.load(run / "model.pt")
    state["fc.weight"][3] = float("nan")
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "model.pt")
    (tmp_path / "run" / "config.json").write_text((run / "config.json").read_text())
    assert "drawn: the embedding in row 0 (pair 0) is not finite" in fails(capsys, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    assert "config.json is not JSON" in fails(capsys, tmp_path / "run")


def test_a_run_on_photographs_is_judged_on_the_people_it_held_out(run, drawn, tmp_path, capsys):
    faces = open_faces(drawn)
    for person in range(6):
        (tmp_path / "photos" / f"p{person}").mkdir(parents=True)
        for photo in range(6):
            (tmp_path / "photos" / f"p{person}" / f"{photo}.png").write_bytes(encode_png(faces[10 * person + photo][0]))
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes((run / "model.pt").read_bytes())
    config = dict(network="r10", embedding_size=32, rec="photos", hold_out=3, draw_pairs=60, seed=1)
    (folder / "config.json").write_text(json.dumps(config))  # rec as seen from where the run was started
    done = call(capsys, folder)
    assert done.findings[0].name == "held_out" and done.findings[0].numbers["pairs"] == 60

    # Whoever has come since is not one of them; where somebody has gone, the last three are no longer those three.
    names = dict(people=["p0", "p1", "p2"], held_out=["p3", "p4", "p5"], num_classes=3, num_image=18, content=None)
    (folder / "people.json").write_text(json.dumps(names))
    shutil.copytree(tmp_path / "photos" / "p0", tmp_path / "photos" / "p9")
    assert call(capsys, folder).findings[0].numbers == done.findings[0].numbers
    shutil.rmtree(tmp_path / "photos" / "p4")
    assert "trained on or held out p4, who are no longer in" in fails(capsys, folder)


def test_groups_of_the_people_in_the_pairs(run, drawn, tmp_path, capsys):
    images, _ = read_pairs(drawn / "drawn.bin")
    path = tmp_path / "groups.csv"
    path.write_text("image,side\n" + "".join(f"{i},{'left' if i // 2 % 2 else 'right'}\n" for i in range(len(images))))
    done = call(capsys, run, "--groups", path, "--output", tmp_path)
    assert [finding.kind for finding in done.findings] == ["pairs", "groups"]
    assert "FMR left" in done.out and "FNMR worst to best" in done.out
    assert (tmp_path / "groups_drawn_by_side.png").exists()
    found = json.loads((tmp_path / "results.json").read_text())["results"]["drawn by side"]
    assert found["groups"] == ["left", "right"]


def test_groups_that_cannot_be_judged(run, drawn, tmp_path, capsys):
    path = tmp_path / "groups.csv"
    path.write_text("image,side\n0,left\n")
    assert "image 1 has no group" in fails(capsys, run, "--groups", path)
    assert "--list says who is in the pairs of --groups" in fails(capsys, run, "--list", path)
    two = [drawn / "drawn.bin", tmp_path / "other.bin"]
    two[1].write_bytes(two[0].read_bytes())
    assert "there are 2: name one with --pairs" in fails(capsys, run, "--groups", path, "--pairs", *two)
