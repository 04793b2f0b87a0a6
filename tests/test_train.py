"""The training command: what it leaves behind, that it learns, and that nothing can stop it for good."""

import json
import os
import random
import re
import shutil
import signal
import struct
import time

try:
    import resource
except ImportError:  # Windows
    resource = None

import pytest
import torch
import trainer_of_tests
from ranks import run_ranks, start_ranks

from arcface_edu.config import load_config
from arcface_edu.config_schema import keys_table
from arcface_edu.data.recordio import RecordReader
from arcface_edu.models import build_model
from arcface_edu.recipes import configs_table
from arcface_edu.train import main, train
from arcface_edu.training import state
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint
from arcface_edu.training.metrics import read_metrics

TIMINGS = ("images_per_second", "waiting")


@pytest.fixture
def words(drawn, tmp_path):
    """The words of a small run: 3 epochs of 7 steps, a checkpoint at each epoch's end and at steps 5, 10 ..."""
    sizes = ["batch_size=16", "num_epoch=3", "lr=0.05", "num_workers=1"]
    return [f"rec={drawn}", f"output={tmp_path / 'run'}", *sizes, "save_every=5", "frequent=4", "keep_checkpoints=0"]


def start(words):
    """The training command in a process of its own."""
    return start_ranks(1, main, ["own_data", *words])


def metrics(run):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(run / "metrics.jsonl")]


def assert_same_run(first, second):
    """The same weights to the last bit, and the same log but for timings."""
    a, b = (torch.load(run / "model.pt", weights_only=True) for run in (first, second))
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert metrics(first) == metrics(second)


@pytest.mark.parametrize(("flag", "table"), [("--keys", keys_table), ("--configs", configs_table)])
def test_tables_of_keys_and_configs_are_printed_without_a_run(flag, table, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main([flag])
    assert capsys.readouterr().out.strip() == table().strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_leaves_what_it_promises_and_learns(words, tmp_path, capsys):
    results = train(load_config("own_data", [*words, "num_epoch=15"]))
    run = tmp_path / "run"
    assert json.loads((run / "config.json").read_text())["num_classes"] == 12
    lines = read_metrics(run / "metrics.jsonl")
    training = [line for line in lines if "loss" in line]
    keys = {"step", "epoch", "loss", "lr", "images_per_second", "target_angle", "waiting", "target_angle_histogram"}
    assert all(keys <= line.keys() for line in training)
    assert all(0 < line["gradient_norm"] < 10_000 for line in training)
    assert training[-1]["loss"] < 0.3 * training[0]["loss"]
    assert training[-1]["target_angle"] < training[0]["target_angle"] - 20
    assert [line["step"] for line in training] == [*range(4, 105, 4), 105]
    (verification,) = (line for line in lines if "pairs" in line)
    assert verification["pairs"] == "drawn"
    assert (verification["step"], verification["num_pairs"]) == (105, 100)
    assert verification["accuracy"] == results["drawn"]["accuracy"] > 0.6
    build_model("r10", 128).load_state_dict(torch.load(run / "model.pt", weights_only=True))
    figures = {path.name for path in (run / "figures").iterdir()}
    of_pairs = {f"{name}_drawn.png" for name in ("roc", "pair_angles", "hardest_pairs")}
    assert figures == {"curves.png", "target_angles.png"} | of_pairs
    said = capsys.readouterr().out
    assert "recipe: 15 epochs, learning rate 0.05, linear decay, 1 of warm-up, arcface margin, straight-through" in said
    for expected in ("120 images of 12 people", "first loss about", "TAR at FAR 1e-03", "raw pixels", "peak memory"):
        assert expected in said


@pytest.mark.slow
def test_same_seed_same_run_and_another_seed_another(words, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(load_config("own_data", [*words, f"output={tmp_path / name}", "num_epoch=1", f"seed={seed}"]))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "a", tmp_path / "c")


def wait_for(condition, process, seconds=120):
    for _ in range(seconds * 50):
        if condition():
            return
        assert process.alive(), process.finish()
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def wait_for_checkpoint(run, before, process):
    """Until there are more than `before`, or the process is done: killed after its last, it has none to add."""
    wait_for(lambda: len(list_checkpoints(run / "checkpoints")) > before or (run / "model.pt").exists(), process)


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_where_the_uninterrupted_run_ends(words, tmp_path):
    train(load_config("own_data", [*words, f"output={tmp_path / 'whole'}"]))
    rng = random.Random(time.time_ns())
    for _ in range(3):
        process = start([*words, "resume=True"])
        before = len(list_checkpoints(tmp_path / "run" / "checkpoints"))
        wait_for_checkpoint(tmp_path / "run", before, process)
        time.sleep(rng.uniform(0, 0.6))
        process.send(signal.SIGKILL)
        process.finish()
        if (tmp_path / "run" / "model.pt").exists():
            break
    (last,) = start([*words, "resume=True"]).finish()
    assert last.status == 0, last.errors
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_says_so(words, tmp_path, number, status):
    run = tmp_path / "run"
    words = [*words, "num_epoch=200", "save_every=0"]
    process = start(words)
    wait_for(lambda: metrics(run), process)
    process.send(number)
    (stopped,) = process.finish()
    assert stopped.status == status
    assert "Traceback" not in stopped.errors
    step = int(re.search(rf"stopped by {number.name} after step (\d+) of 1,400; all is saved", stopped.said).group(1))
    assert load_checkpoint(list_checkpoints(run / "checkpoints")[-1])["step"] == step
    (done,) = start([*words, "resume=True", f"num_epoch={step // 7 + 1}"]).finish()
    assert done.status == 0
    assert f"from step {step}" in done.said


@pytest.mark.slow
def test_gradient_accumulation_equals_the_big_batch(words, tmp_path):
    for batch, parts in ((24, 1), (6, 4)):
        more = [f"batch_size={batch}", f"gradient_acc={parts}", f"output={tmp_path / str(parts)}", "fp16=False"]
        (done,) = run_ranks(1, trainer_of_tests.main, ["own_data", *words, *more])
        assert done.status == 0, done.errors
    one, four = (torch.load(tmp_path / str(parts) / "model.pt", weights_only=True) for parts in (1, 4))
    torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(one["fc.weight"], trainer_of_tests.Linear().fc.weight, atol=1e-3)  # it did move


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(["amp_dtype=fp16"], marks=pytest.mark.full),  # convolutions in fp16 are slow on CPUs
        ["fp16=False"],
        ["optimizer=adamw", "lr=0.001"],
        ["loss=softmax"],
    ],
)
def test_other_ways_to_train_also_learn(words, tmp_path, more):
    train(load_config("own_data", [*words, "num_epoch=6", *more]))
    assert_learns(tmp_path / "run")


@pytest.mark.slow
def test_fp16_and_its_scaler_learn(words, tmp_path):
    """With the small network without convolutions."""
    (done,) = run_ranks(1, trainer_of_tests.main, ["own_data", *words, "num_epoch=6", "amp_dtype=fp16"])
    assert done.status == 0, done.errors
    assert "on cpu in float16" in done.said
    assert_learns(tmp_path / "run")


def assert_learns(run):
    training = [line for line in metrics(run) if "loss" in line]
    assert training[-1]["loss"] < 0.7 * training[0]["loss"]


@pytest.mark.slow
def test_a_new_run_moves_an_old_one_aside(words, tmp_path, capsys):
    for _ in range(2):
        train(load_config("own_data", [*words, "num_epoch=1"]))
    assert "is now in" in capsys.readouterr().out
    aside = tmp_path / "run" / "earlier-1"
    assert_same_run(tmp_path / "run", aside)
    assert len(list_checkpoints(aside / "checkpoints")) == 2


def broken_copy(drawn, tmp_path, records):
    """A copy of the set in which those records hold no image any more."""
    copy = tmp_path / "broken"
    shutil.copytree(drawn, copy)
    reader = RecordReader(copy / "train.rec")
    data = bytearray((copy / "train.rec").read_bytes())
    for key in records:
        offset = data.index(reader[key])
        data[offset + 24 : offset + 64] = bytes(40)  # behind the header, over the beginning of the JPEG
    (copy / "train.rec").write_bytes(data)
    return copy


@pytest.mark.slow
def test_broken_records_are_skipped_and_named_up_to_a_limit(drawn, words, tmp_path, capsys):
    copy = broken_copy(drawn, tmp_path, [3, 50, 77])
    train(load_config("own_data", [*words, f"rec={copy}", "num_epoch=1", "batch_size=20", "seed=5"]))
    said = "".join(capsys.readouterr())
    assert all(f"train.rec, record {key}" in said for key in (3, 50, 77))
    assert "skipped (3 of at most 100)" in said
    line = [line for line in metrics(tmp_path / "run") if "loss" in line][-1]
    assert line["step"] == 6  # 120 images // 20
    with pytest.raises(SystemExit) as stopped:
        main(["own_data", *words, f"rec={copy}", "num_epoch=1", "batch_size=20", "max_corrupt=1"])
    assert stopped.value.code == 2
    assert "more than 1 records could not be read" in capsys.readouterr().err


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_evidence(words, tmp_path, capsys, monkeypatch):
    class Sick(state.build_head(load_config(), 12).__class__):
        def forward(self, *batch):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(*batch) * (float("nan") if self.calls == 10 else 1)

    monkeypatch.setattr(state, "build_head", lambda config, classes: Sick(config.embedding_size, classes))
    with pytest.raises(SystemExit) as stopped:
        main(["own_data", *words])
    assert stopped.value.code == 2
    assert "the loss is nan at step 9" in capsys.readouterr().err
    evidence = torch.load(tmp_path / "run" / "non_finite_step_9.pt", weights_only=True)
    assert evidence["images"].shape == (16, 3, 112, 112)
    assert all(torch.isfinite(value).all() for value in evidence["model"].values())
    assert [load_checkpoint(path)["step"] for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == [5, 7]


def test_a_full_gpu_ends_in_a_sentence_that_says_what_to_change(words, capsys, monkeypatch):
    def too_much(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB.")

    monkeypatch.setattr("arcface_edu.train.augment", too_much)
    with pytest.raises(SystemExit, match="2"):
        main(["own_data", *words, "gradient_acc=2"])
    assert "the GPU's memory is full at batch_size=16. Try half of it with gradient_acc=4" in capsys.readouterr().err


def main_on_a_full_disk(words):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))
    main(words)


@pytest.mark.slow
@pytest.mark.skipif(not resource, reason="this system has no limits for a process")
def test_a_full_disk_ends_in_a_sentence_and_keeps_the_last_checkpoint(words, tmp_path):
    train(load_config("own_data", [*words, "num_epoch=1"]))
    checkpoints = tmp_path / "run" / "checkpoints"
    kept = [path.name for path in list_checkpoints(checkpoints)]
    (done,) = run_ranks(1, main_on_a_full_disk, ["own_data", *words, "num_epoch=2", "resume=True"])
    assert done.status == 2
    assert "step_00000010 could not be written" in done.errors
    assert "Traceback" not in done.errors
    assert sorted(path.name for path in checkpoints.iterdir()) == kept


def set_label(folder, key, label):
    """Write another label into an image record, in place."""
    reader = RecordReader(folder / "train.rec")
    data = bytearray((folder / "train.rec").read_bytes())
    at = data.index(reader[key])
    data[at + 4 : at + 8] = struct.pack("<f", label)
    (folder / "train.rec").write_bytes(data)


def prepare_label_out_of_range(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "wrong")
    set_label(tmp_path / "wrong", 3, 12.0)
    return [f"rec={tmp_path / 'wrong'}"]


def prepare_one_person(drawn, tmp_path):
    (tmp_path / "photos" / "anna").mkdir(parents=True)
    (tmp_path / "photos" / "anna" / "1.jpg").write_bytes(b"")
    return [f"rec={tmp_path / 'photos'}"]


def prepare_empty(drawn, tmp_path):
    (tmp_path / "photos").mkdir()
    return [f"rec={tmp_path / 'photos'}"]


def prepare_bad_bin(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "bad")
    (tmp_path / "bad" / "drawn.bin").write_bytes(b"cos\nsystem\n(S'touch harm'\ntR.")
    return [f"rec={tmp_path / 'bad'}"]


def prepare_output_below_a_file(drawn, tmp_path):
    (tmp_path / "file").write_text("")
    return [f"rec={drawn}", f"output={tmp_path / 'file' / 'run'}"]


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda d, t: ["num_clases=3"], 'did you mean "num_classes"'),
        (lambda d, t: ["lr=high"], "lr to 'high', which should be of type float"),
        (lambda d, t: [f"rec={d}", "num_classes=13"], "num_classes=13, but .* holds 12"),
        (lambda d, t: [f"rec={d}", "num_image=10"], "num_image=10, but .* holds 120"),
        (lambda d, t: [f"rec={d}", "val_targets=['lfw']"], 'val_targets names "lfw", .* beside the data: drawn'),
        (lambda d, t: [f"rec={d}", "batch_size=500"], "there are only 120"),
        (lambda d, t: ["rec=nowhere/"], "nowhere"),
        (prepare_label_out_of_range, "record 3 has label 12, .* from 0 to 11"),
        (prepare_one_person, "one identity"),
        (prepare_empty, "holds no photo"),
        (prepare_bad_bin, "asks for os.system"),
        (prepare_output_below_a_file, "Not a directory"),
        (lambda d, t: [f"rec={d}", "device=tpu9"], 'device="tpu9" cannot be used here'),
    ],
)
def test_bad_input_ends_in_one_sentence(drawn, tmp_path, capsys, prepare, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(["own_data", f"output={tmp_path / 'run'}", *prepare(drawn, tmp_path)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error), error
    assert "Traceback" not in error
    assert not os.path.exists("harm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "sentence"),
    [(["network=r18"], "network='r10', this run has 'r18'"), (["rec={other}"], "num_classes=12, this run has 11")],
)
def test_a_checkpoint_of_another_run_is_refused(drawn, words, tmp_path, capsys, more, sentence):
    train(load_config("own_data", [*words, "num_epoch=1"]))
    (tmp_path / "other").mkdir()
    for name in ("train.rec", "train.idx", "drawn.bin"):
        shutil.copy(drawn / name, tmp_path / "other" / name)
    for key in range(111, 121):  # the twelfth person's photographs
        set_label(tmp_path / "other", key, 10.0)
    reader = RecordReader(tmp_path / "other" / "train.rec")
    data = (tmp_path / "other" / "train.rec").read_bytes()
    header = reader[0]
    (tmp_path / "other" / "train.rec").write_bytes(data.replace(header, header[:24] + struct.pack("<ff", 121, 132), 1))
    with pytest.raises(SystemExit) as stopped:
        main(["own_data", *words, "resume=True", *(word.format(other=tmp_path / "other") for word in more)])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_photographs_in_folders_train_with_one_argument(drawn, tmp_path, monkeypatch, capsys):
    reader = RecordReader(drawn / "train.rec")
    for key in range(1, 121):
        photo = tmp_path / "my photos" / f"Ünal {(key - 1) // 10}" / f"{key}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(reader[key][24:])
    monkeypatch.chdir(tmp_path)
    main(["rec=my photos/", "num_epoch=1"])
    said = capsys.readouterr().out
    assert "100 images of 10 people" in said  # a fifth of twelve is held out
    assert "held_out: people the network has never seen" in said
    assert (tmp_path / "runs" / "own_data" / "model.pt").exists()
