"""`python -m arcface_edu.embed`: a row for every photograph that can be read, and its name in the same line."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import run_code, run_module, run_ranks
from torch.nn import functional as F

from arcface_edu import build_model, embed, embed_images
from arcface_edu.data.images import decode, encode_png, fit
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.evaluation import embedding
from arcface_edu.runs import load_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("r10", 32)
    model(torch.rand(16, 3, 112, 112) * 2 - 1)  # so that its BN statistics are not the trivial ones
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Nine photographs of three people in folders of their own, aligned."""
    folder = tmp_path / "photos"
    for person in range(3):
        (folder / f"s{person}").mkdir(parents=True)
        for number, photo in enumerate(draw_person(0, person, 3)):
            (folder / f"s{person}" / f"{number + 9}.png").write_bytes(encode_png(decode(photo)))
    return folder


def run(capsys, *arguments):
    embed.main([str(argument) for argument in arguments])
    return capsys.readouterr()


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        embed.main([str(argument) for argument in arguments])
    assert left.value.code == 2
    said = capsys.readouterr()
    assert sentences(said.err)[-1].startswith("arcface_edu: ") and "Traceback" not in said.err
    return said.out + said.err  # what is left out goes to the log, on standard output


def sentences(errors):
    """What was said, beside the bars of progress."""
    return [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "img/s" not in line]


def names_in(path):
    return path.read_text().splitlines()


@pytest.mark.parametrize("batch", [1, 4, 128])
def test_the_rows_are_those_of_evaluation(weights, photos, tmp_path, capsys, batch):
    said = run(capsys, weights, photos, "-o", tmp_path / "faces.npy", "--batch-size", batch)
    rows, names = np.load(tmp_path / "faces.npy"), names_in(tmp_path / "faces.txt")
    assert names == [str(photos / f"s{person}" / f"{photo}.png") for person in range(3) for photo in (9, 10, 11)]
    assert (rows.shape, rows.dtype) == ((9, 32), np.float32)
    assert "9 rows of 32 numbers, by r10" in said.out and sentences(said.err) == []
    with_mirror = embed_images(load_model(weights)[0], [Path(name).read_bytes() for name in names])
    np.testing.assert_allclose(rows, F.normalize(with_mirror), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows.std(0).max() > 0.01  # they differ


def test_raw_is_what_the_network_says(weights, photos, tmp_path, capsys):
    run(capsys, weights, photos / "s1", "-o", tmp_path / "faces.npy", "--raw")
    images = [(photos / "s1" / f"{photo}.png").read_bytes() for photo in (9, 10, 11)]
    alone = embed_images(load_model(weights)[0], images, flip=False)
    np.testing.assert_allclose(np.load(tmp_path / "faces.npy"), alone, rtol=1e-5, atol=1e-5)


def test_photographs_as_they_come(weights, photos, tmp_path, capsys):
    """Grey, CMYK, 16-bit, palette, turned on their side: what `decode` makes of each is embedded."""
    face = Image.open(photos / "s0" / "9.png")
    wild = tmp_path / "wild"
    wild.mkdir()
    face.convert("L").save(wild / "1_grey.jpg")
    face.convert("CMYK").save(wild / "2_cmyk.jpg")
    Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257).save(wild / "3_deep.png")
    face.convert("P").save(wild / "4_palette.gif")
    exif = Image.Exif()
    exif[274] = 6
    face.rotate(90, expand=True).save(wild / "5_turned.png", exif=exif)
    face.resize((300, 200)).save(wild / "6_wide.png")
    said = run(capsys, weights, wild, "-o", tmp_path / "rows.npy")
    assert "1 of 6 photographs had another size than 112x112 and were fitted" in said.out
    rows, names = np.load(tmp_path / "rows.npy"), names_in(tmp_path / "rows.txt")
    faces = torch.stack([fit(decode(Path(name).read_bytes())) for name in names])
    np.testing.assert_allclose(rows, F.normalize(embed_images(load_model(weights)[0], faces)), atol=1e-6)
    run(capsys, weights, photos / "s0" / "9.png", "-o", tmp_path / "one.npy")
    np.testing.assert_allclose(rows[4], np.load(tmp_path / "one.npy")[0], atol=1e-6)  # upright again


def test_what_is_no_photograph_is_named_and_left_out(weights, photos, tmp_path, capsys):
    (photos / "s0" / "9.png").write_bytes(b"broken")
    (photos / "s1" / "10.png").write_bytes((photos / "s1" / "9.png").read_bytes()[:500])
    (photos / "notes.txt").write_text("not a photograph")
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "two\nlines.png").write_bytes((photos / "s1" / "9.png").read_bytes())
    os.symlink(tmp_path / "gone.png", photos / "s2" / "link.png")
    said = run(capsys, weights, photos, "-o", tmp_path / "faces.npy", "--batch-size", 2)
    for words in (
        "s0/9.png: not an image",
        "s1/10.png: not an image",
        "3 files are not used: 1 with a dot before the name (.hidden.png); 1 not images, by their names (notes.txt); "
        "1 broken links (s2/link.png)",
        "two\\nlines.png': a line break",
    ):
        assert words in said.out
    rows, names = np.load(tmp_path / "faces.npy"), names_in(tmp_path / "faces.txt")
    assert len(rows) == len(names) == 7
    model = load_model(weights)[0]
    for row, name in zip(rows, names, strict=True):  # names stay beside their rows
        np.testing.assert_allclose(row, F.normalize(embed_images(model, [Path(name).read_bytes()]))[0], atol=1e-6)


def test_a_batch_at_a_time_is_in_memory(weights, photos, monkeypatch):
    seen = []
    monkeypatch.setattr(
        embedding, "embed_images", lambda model, faces, **how: seen.append(len(faces)) or embed_images(model, faces)
    )
    paths = [photos / f"s{i % 3}" / f"{9 + i // 3}.png" for i in range(9)]
    rows, names = embedding.embed_files(load_model(weights)[0], paths, batch_size=4)
    assert seen == [4, 4, 1] and names == paths and len(rows) == 9


def test_sentences_and_nothing_half_written(weights, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.jpg").write_bytes(b"broken")
    state = load_model(weights)[0].state_dict()
    torch.save(state | {"fc.bias": torch.full_like(state["fc.bias"], torch.nan)}, tmp_path / "nan.pt")
    (tmp_path / "thesis.txt").write_text("years of work")
    out = tmp_path / "out" / "x.npy"
    for arguments, sentence in {
        (weights, tmp_path / "empty", "-o", out): "there is no photograph in",
        (weights, tmp_path / "only", "-o", out): "none of the 1 photographs can be read",
        (weights, tmp_path / "missing.jpg", "-o", out): "none of the 1 photographs can be read",
        (weights, photos, "-o", out.with_suffix(".csv")): "the rows are written as .npy",
        (weights, photos, "-o", tmp_path / "thesis.npy"): "thesis.txt is there, and no thesis.npy",
        (weights, photos, "-o", out, "--batch-size", 0): "a batch has one photograph at least",
        (tmp_path / "no_run", photos, "-o", out): "does not exist",
        (tmp_path / "nan.pt", photos, "-o", out): "s0/9.png: its embedding is zero or not finite",
        (tmp_path / "only" / "a.jpg", photos, "-o", out): "cannot be read as weights",
        (weights, photos, "-o", weights / "x.npy"): "cannot be written",
    }.items():
        assert sentence in fails(capsys, *arguments)
    missing = fails(capsys, weights, tmp_path / "missing.jpg", "-o", out)
    assert "missing.jpg: cannot be read (No such file" in missing
    assert not out.parent.exists()


def test_as_a_program_and_beside_the_function(tmp_path):
    (program,) = run_ranks(1, run_module, "arcface_edu.embed", ["no", "no", "-o", "x.npy"])
    assert program.status == 2 and program.errors.startswith("arcface_edu: no does not exist")
    code = "import arcface_edu.embed; from arcface_edu import embed, embed_images; print(embed.main, embed_images)"
    (program,) = run_ranks(1, run_code, f"import warnings; warnings.simplefilter('error'); {code}")
    assert program.said.startswith("<function main ") and "<function embed_images " in program.said, program.errors
