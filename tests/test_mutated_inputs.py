"""Damaged inputs end in a sentence or are read: a few of each; benchmarks/mutated_inputs.py tries twenty thousand."""

import runpy
from pathlib import Path

import pytest

CAMPAIGN = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "mutated_inputs.py"))
READERS, FEW = CAMPAIGN["READERS"], {"onnx": 8, "weights": 10}


@pytest.mark.parametrize("name", READERS)
def test_a_few_of_each(name, tmp_path, monkeypatch):
    if name == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("arcface_edu.data.labels.WORTH_KEEPING", 10**9)  # the campaign changes it
    found = list(CAMPAIGN["try_inputs"](name, 0, range(FEW.get(name, 25)), tmp_path))
    assert [what for _, _, what in found if what] == []
    assert {verdict for verdict, _, _ in found} <= {"read", "refused"}


def test_the_same_number_is_the_same_input():
    damage, rng = CAMPAIGN["damage"], CAMPAIGN["random"].Random
    contents = [damage(bytes(range(256)) * 4, rng(f"{seed} x {number}"), []) for seed in (0, 0, 1) for number in (1, 2)]
    assert contents[:2] == contents[2:4]
    assert len(set(contents)) > 2


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (lambda folder: 1 / 0, "ZeroDivisionError"),
        (lambda folder: __import__("os").system("true"), "ran os.system"),
        (lambda folder: (_ for _ in ()).throw(SystemExit), "SystemExit"),
    ],
)
def test_what_is_wrong_is_found(fault, what, tmp_path, monkeypatch):
    calls = []

    def read(folder):
        calls.append(folder)
        return fault(folder) if len(calls) > 1 else None  # the first is the sound input

    write = lambda folder: (folder / "a").write_bytes(b"abcd")  # noqa: E731
    monkeypatch.setitem(READERS, "faulty", CAMPAIGN["Reader"](1, write, read))
    ((verdict, _, said),) = CAMPAIGN["try_inputs"]("faulty", 0, [0], tmp_path)
    assert (verdict, what in said) == ("wrong", True)
