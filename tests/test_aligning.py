"""Photographs as they come: commands notice that their faces are not aligned, and `--align` aligns them on the way."""

import logging

import numpy as np
import pytest
import torch
from easydict import EasyDict
from PIL import Image
from torch.nn import functional as F

from arcface_edu import aligning, build_model, dataset, embed, train
from arcface_edu.aligning import INDEX, align_into, aligned_config, warn_if_unaligned
from arcface_edu.config import load_config
from arcface_edu.data.alignment.align import TEMPLATE, align
from arcface_edu.data.alignment.detector import Mtcnn
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.images import decode, encode_png
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.training.launch import World
from arcface_edu.training.prepare import prepare
from arcface_edu.training.schedule import Schedule
from arcface_edu.training.state import build_state


@pytest.fixture
def snapshots(tmp_path):
    """Two photographs each of three drawn people who stand somewhere in a larger picture, and one without a person."""
    folder = tmp_path / "snapshots"
    for person in range(3):
        (folder / f"p{person}").mkdir(parents=True)
        for number, photo in enumerate(draw_person(0, person, 2, difficulty=0.0)):
            scene = F.pad(decode(photo), (60, 90, 40, 70), value=120)
            (folder / f"p{person}" / f"{number}.png").write_bytes(encode_png(scene))
    (folder / "p0" / "wall.png").write_bytes(encode_png(torch.full((3, 100, 150), 90, dtype=torch.uint8)))
    return folder


@pytest.fixture
def aligned(tmp_path):
    folder = tmp_path / "aligned"
    for person in range(3):
        (folder / f"p{person}").mkdir(parents=True)
        for number, photo in enumerate(draw_person(0, person, 4, difficulty=0.3)):
            (folder / f"p{person}" / f"{number}.png").write_bytes(encode_png(decode(photo)))
    return folder


def photographs(folder):
    return sorted(folder.rglob("*.png"))


def test_unaligned_photographs_are_noticed_and_aligned_ones_are_not(snapshots, aligned, tmp_path, caplog):
    warn_if_unaligned(photographs(snapshots), "train --align")
    (said,) = caplog.messages
    assert said.startswith("of 7 photographs looked at, 7 hold no aligned face")
    assert "`train --align` detects and aligns them first" in said
    caplog.clear()
    warn_if_unaligned(photographs(aligned), "")
    assert caplog.messages == []
    for path in photographs(aligned):  # the same faces at a corner of as many pixels
        small = F.interpolate(decode(path.read_bytes())[None].float(), size=(56, 56), mode="area")[0].byte()
        path.write_bytes(encode_png(F.pad(small, (56, 0, 0, 56), value=100)))
    warn_if_unaligned(photographs(aligned), "")
    assert len(caplog.messages) == 1


def test_align_into_writes_what_detect_and_align_write_and_a_sheet(snapshots, tmp_path, caplog):
    caplog.set_level(logging.INFO, "arcface_edu")
    out = tmp_path / "faces"
    faces = align_into([snapshots], out)
    assert list(faces) == [out / f"p{person}" / f"{number}.png" for person in range(3) for number in range(2)]
    for face, photo in faces.items():
        assert photo == snapshots / face.relative_to(out)
        image = decode(photo.read_bytes())
        assert torch.equal(decode(face.read_bytes()), align(image, Mtcnn()(image)[1][0].numpy().astype(np.float64)))
    assert (
        "wall.png: no face of 20 pixels" in caplog.text and "6 faces of 7 photographs aligned; look at" in caplog.text
    )
    with Image.open(tmp_path / "faces.png") as sheet:
        assert sheet.width > 6 * 112


def test_only_what_is_new_or_changed_is_searched_again(snapshots, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "arcface_edu")
    out, searched = tmp_path / "faces", []
    align_into([snapshots], out)
    find = aligning.largest_face
    monkeypatch.setattr(
        aligning, "largest_face", lambda path, *rest: (searched.append(path.name), find(path, *rest))[1]
    )
    changed, gone = snapshots / "p1" / "0.png", snapshots / "p2" / "1.png"
    changed.write_bytes((snapshots / "p0" / "1.png").read_bytes() + b"\0")
    gone.unlink()
    faces = align_into([snapshots], out)
    assert searched == ["wall.png", "0.png"] and len(faces) == 5
    assert "5 faces of 6 photographs aligned, 4 of them already" in caplog.text
    assert not (out / "p2" / "1.png").exists() and sorted(out.rglob("*.png")) == sorted(faces)
    assert (out / "p1" / "0.png").read_bytes() == (out / "p0" / "1.png").read_bytes()


def test_sentences_of_align(snapshots, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match="mine is there, and no folder of faces aligned by --align"):
        align_into([snapshots], tmp_path / "mine")
    (tmp_path / "mine" / INDEX).write_text('{"../../thesis.txt": 1}')  # it would be deleted
    with pytest.raises(DataError, match="mine is there, and no folder of faces aligned by --align"):
        align_into([snapshots], tmp_path / "mine")
    with pytest.raises(DataError, match=r"lies in .*snapshots: choose another output"):
        align_into([snapshots], snapshots / "faces")
    with pytest.raises(DataError, match=r"no face was found in the 1 photographs of .*wall.png"):
        align_into([snapshots / "p0" / "wall.png"], tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no photograph in .*empty"):
        align_into([tmp_path / "empty"], tmp_path / "none")


def test_embed_aligns_and_names_the_photographs(snapshots, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(build_model("r10", 32).state_dict(), tmp_path / "model.pt")
    words = [str(tmp_path / "model.pt"), str(snapshots), "-o"]
    embed.main([*words, str(tmp_path / "raw.npy")])
    assert f"{snapshots} -o {tmp_path / 'raw.npy'} --align` detects and aligns them first" in capsys.readouterr().out
    embed.main([*words, str(tmp_path / "rows.npy"), "--align"])
    said = capsys.readouterr().out
    assert "hold no aligned face" not in said and "had another size" not in said
    names = (tmp_path / "rows.txt").read_text().splitlines()
    assert names == [str(path) for path in photographs(snapshots) if path.name != "wall.png"]
    embed.main([words[0], str(tmp_path / "rows_aligned"), "-o", str(tmp_path / "again.npy")])
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), np.load(tmp_path / "again.npy"))


def test_pack_aligns(snapshots, tmp_path, capsys):
    dataset.main(["pack", str(snapshots), str(tmp_path / "packed"), "--align"])
    assert "6 images of 3 identities" in capsys.readouterr().out
    image, _ = open_faces(tmp_path / "packed")[0]
    off = Mtcnn()(image)[1][0].numpy() - TEMPLATE
    assert np.abs(off).max() < 6 and (tmp_path / "packed_aligned.png").exists()


def test_train_takes_the_aligned_faces_as_its_data(snapshots, tmp_path, monkeypatch):
    config = EasyDict(rec=str(snapshots), output=str(tmp_path / "run"))
    found = aligned_config(config)
    assert found == EasyDict(config, rec=str(tmp_path / "run_aligned")) and config.rec == str(snapshots)
    assert len(open_faces(found.rec)) == 6
    for rec in (None, "synthetic", str(tmp_path / "model.pt")):
        with pytest.raises(ConfigError, match=r"--align takes a folder of photographs: name it, as rec=photos/"):
            aligned_config(EasyDict(config, rec=rec))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--align takes one process: align first"):
        aligned_config(config)


def test_train_notices_unaligned_photographs_at_its_first_start_on_rank_0(snapshots, aligned, tmp_path, caplog):
    def started(rec, step=0, rank=0):
        caplog.clear()
        config = load_config("own_data", [f"rec={rec}", f"output={tmp_path / 'run'}", "network=r10", "hold_out=0"])
        world = World(rank, 2, rank)
        config, output, faces, _ = prepare(EasyDict(config, embedding_size=32), world)
        state = build_state(config, faces.num_classes, torch.device("cpu"), torch.float32)
        state.progress.step = step
        train.log_start(config, output, faces, Schedule.of(config, len(faces), 2), state, world)
        return [message for message in caplog.messages if "hold no aligned face" in message]

    (said,) = started(snapshots)
    assert f"`python -m arcface_edu.train rec={snapshots} --align`" in said
    assert not started(snapshots, step=1) and not started(snapshots, rank=1) and not started(aligned)


def test_an_empty_folder_is_left_to_the_data_sets_own_sentence(tmp_path, capsys):
    (tmp_path / "nobody").mkdir()
    with pytest.raises(SystemExit, match="2"):
        train.main([f"rec={tmp_path / 'nobody'}", f"output={tmp_path / 'run'}"])
    assert "nobody holds no photo: give each person a folder" in capsys.readouterr().err
