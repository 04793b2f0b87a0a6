"""Many processes, one run: the same weights as one process, resumed on another number, and no fault that hangs it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_train import set_label
from trainer_of_tests import Linear

from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint
from arcface_edu.training.metrics import read_metrics
from arcface_edu.training.profiling import read_timeline

pytestmark = pytest.mark.slow
TRAINER = Path(__file__).parent / "trainer_of_tests.py"


def command(processes, words, restarts=0):
    """A run of 24 images a step, 5 steps an epoch, however many processes share it."""
    return [*launcher(processes, restarts), str(TRAINER), "own_data", f"batch_size={24 // processes}", *words]


def launcher(processes, restarts=0):
    """Python, or torchrun where there are several processes."""
    if processes == 1:
        return [sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return [*torchrun, f"--nproc_per_node={processes}", f"--max-restarts={restarts}"]


def start(processes, words, restarts=0, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command(processes, words, restarts), env=environment, **pipes)


def run(processes, words, restarts=0, **environment):
    """(exit status, what it printed, what it complained of)"""
    process = start(processes, words, restarts, **environment)
    try:
        said, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    return process.returncode, said, errors


def complaints(errors):
    """What the training command said, without what torchrun says about it."""
    return re.findall(r"^arcface_edu: (.*)$", errors, re.MULTILINE)


@pytest.fixture
def words(drawn, tmp_path):
    sizes = ["num_epoch=2", "lr=0.02", "num_workers=0", "frequent=2", "fp16=False", "keep_checkpoints=0"]
    return [f"rec={drawn}", f"output={tmp_path / 'run'}", *sizes]


def weights(run):
    return torch.load(run / "model.pt", weights_only=True)


def head_and_momentum(run):
    state = load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
    return state["head"]["weight"], state["optimizer"]["state"]


def assert_equal_runs(one, other):
    """The same network, centres, momentum, log and verification, but for the order in which floats were added."""
    near = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights(one), weights(other), **near)
    torch.testing.assert_close(head_and_momentum(one), head_and_momentum(other), **near)
    first, second = (read_metrics(run / "metrics.jsonl") for run in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for a, b in zip(first, second, strict=True):
        for key in {"loss", "target_angle", "lr", "epoch", "accuracy"} & a.keys():
            assert a[key] == pytest.approx(b[key], rel=1e-3)


@pytest.mark.parametrize(("one", "two"), [([], []), (["loss=softmax"],) * 2, ([], ["batch_size=4", "gradient_acc=3"])])
def test_two_ranks_train_what_one_does(words, tmp_path, one, two):
    for processes, more in ((1, one), (2, two)):
        output = [f"output={tmp_path / str(processes)}"]
        status, said, errors = run(processes, [*words, *more, *output])
        assert status == 0, errors
        assert "10 steps of 24 images" in said
        assert said.count("first loss about") == 1  # one process speaks
    assert_equal_runs(tmp_path / "1", tmp_path / "2")
    assert read_metrics(tmp_path / "2" / "metrics.jsonl")[0]["loss"] > 1


def test_two_ranks_fine_tune_what_one_does(words, tmp_path):
    torch.save({name: value / 2 for name, value in Linear().state_dict().items()}, tmp_path / "w.pt")
    words = [*words, f"init={tmp_path / 'w.pt'}", "head_epoch=1", "backbone_rate=0.5"]
    for processes in (1, 2):
        status, said, errors = run(processes, [*words, f"output={tmp_path / str(processes)}"])
        assert status == 0, errors
        assert f"from {tmp_path / 'w.pt'} in" in said
        assert "the head alone for the first 5 steps" in said
        first, _ = list_checkpoints(tmp_path / str(processes) / "checkpoints")
        assert torch.equal(load_checkpoint(first)["model"]["fc.weight"], Linear().fc.weight / 2)
    assert_equal_runs(tmp_path / "1", tmp_path / "2")
    assert not torch.equal(weights(tmp_path / "1")["fc.weight"], Linear().fc.weight / 2)


def test_resumed_on_another_number_of_processes_it_ends_as_if_never_stopped(words, tmp_path):
    """1 -> 2 -> 3 -> 1: the weights, the momentum, the schedule and the order of the data all go on."""
    words = [*words, "num_epoch=4", "save_every=1"]
    assert run(1, [*words, f"output={tmp_path / 'whole'}"])[0] == 0
    for processes, stop in ((1, 3), (2, 8), (3, 13)):
        status, _, errors = run(processes, [*words, "resume=True"], FAULT=f"{processes - 1}:{stop}:term")
        assert status != 0
        assert not complaints(errors), errors
        assert load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["step"] in (stop + 1, stop + 2)
    status, said, errors = run(1, [*words, "resume=True"])
    assert status == 0, errors
    assert "from step 1" in said
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_killed_rank_is_started_again_and_the_run_finishes(words, tmp_path):
    words = [*words, "save_every=2"]
    assert run(2, [*words, f"output={tmp_path / 'whole'}"])[0] == 0
    status, said, errors = run(2, words, restarts=2, FAULT="1:7:kill")
    assert status == 0, errors
    assert "resuming" in said
    assert not (tmp_path / "run" / "earlier-1").exists()
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def assert_one_sentence(processes, words, sentence, tmp_path, **environment):
    status, _, errors = run(processes, words, STATUS_FOLDER=str(tmp_path), **environment)
    assert status != 0  # torchrun's own
    (complaint,) = complaints(errors)
    assert re.search(sentence, complaint), complaint
    assert "Traceback" not in errors.split("torch/distributed/elastic")[0], errors
    assert {(tmp_path / str(rank)).read_text() for rank in range(processes)} == {"2"}


def test_different_configs_are_named_by_rank_and_key(words, tmp_path):
    assert_one_sentence(2, words, "rank 1 has seed=7 and rank 0 has 2048", tmp_path, FAULT="1:0:diverge")


def test_too_many_processes(words, tmp_path):
    assert_one_sentence(2, [*words, "batch_size=100"], "x processes = 200 images, but there are only 120", tmp_path)


def test_a_wrong_label_that_one_rank_reads_ends_all_with_one_sentence(words, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "wrong")
    set_label(tmp_path / "wrong", 3, 12.0)
    more = [f"rec={tmp_path / 'wrong'}"]
    assert_one_sentence(2, [*words, *more], "record 3 has label 12", tmp_path)


def test_a_rank_that_hangs_is_named_after_the_time_out(words):
    """torchrun then asks it to end, and kills it half a minute later."""
    status, _, errors = run(2, [*words, "timeout_seconds=5"], FAULT="0:3:hang")
    assert status != 0
    (complaint,) = complaints(errors)
    assert "rank 0 did not answer in time" in complaint
    assert "resume=True" in complaint


def test_loss_curve_of_the_default_run_is_that_of_one_process(tmp_path):
    """Alike, and not the same: BN normalises over 32 images of a process instead of 64."""
    curves = []
    for processes in (1, 2):
        few = ["draw_photos=4", "draw_pairs=60", "num_epoch=4", "frequent=31", "num_workers=0"]
        words = ["drawn_faces", f"batch_size={64 // processes}", f"output=run_{processes}", *few]
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        started = [*launcher(processes), "-m", "arcface_edu.train", *words]
        subprocess.run(started, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=600)
        curves.append(
            [line for line in read_metrics(tmp_path / f"run_{processes}" / "metrics.jsonl") if "loss" in line]
        )
    one, two = curves
    assert len(one) == len(two) == 4
    assert one[-1]["loss"] < 0.8 * one[0]["loss"]
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)
        assert b["target_angle"] == pytest.approx(a["target_angle"], abs=2)


def by_hand(rank, words, **environment):
    """One process as torchrun would start it, without torchrun."""
    environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"} | environment
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MASTER_", "TORCHELASTIC_"))}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command(1, words), env=inherited | environment, **pipes)


def test_a_port_in_use_is_a_sentence_and_all_end(words):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        place = dict(MASTER_ADDR="localhost", MASTER_PORT=str(taken.getsockname()[1]))
        processes = [by_hand(rank, [*words, "timeout_seconds=5"], **place) for rank in (0, 1)]
        for rank, process in enumerate(processes):
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 2
            cannot = f"rank 0 cannot meet the other processes at localhost:{place['MASTER_PORT']}"
            assert (cannot in errors) == (rank == 0)  # once is enough
            assert "Traceback" not in errors


def test_variables_of_torchrun_that_are_missing_are_named(words):
    process = by_hand(0, words, MASTER_ADDR="localhost")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    (complaint,) = complaints(errors)
    assert "but not MASTER_PORT" in complaint
    assert "torchrun" in complaint


def test_a_checkpoint_folder_half_written_is_passed_over_by_all(words, tmp_path):
    assert run(2, [*words, "num_epoch=1", "save_every=2"])[0] == 0
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    (newest / "__1_0.distcp").unlink()
    status, said, errors = run(2, [*words, "resume=True"])
    assert status == 0, errors
    assert f"{newest.name} cannot be read" in errors + said
    assert "from step 4" in said


def test_background_saves_leave_the_same_checkpoints(words, tmp_path):
    for name, more in (("plain", []), ("background", ["async_save=True"])):
        status, _, errors = run(2, [*words, "save_every=1", *more, f"output={tmp_path / name}"])
        assert status == 0, errors
    pairs = [list_checkpoints(tmp_path / name / "checkpoints") for name in ("plain", "background")]
    for plain, background in zip(*pairs, strict=True):
        assert plain.name == background.name
        one, other = load_checkpoint(plain), load_checkpoint(background)
        for part in ("model", "head", "step"):
            torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
        torch.testing.assert_close(one["optimizer"]["state"], other["optimizer"]["state"], rtol=0, atol=0)
    assert not list((tmp_path / "background" / "checkpoints").glob("*.tmp"))


def test_compressed_gradients_and_small_buckets_train_nearly_the_same(words, tmp_path):
    ways = {"plain": [], "buckets": ["ddp_bucket_mb=1"]}
    ways |= {kind: [f"gradient_compression={kind}"] for kind in ("bf16", "fp16")}
    found = {}
    for name, keys in ways.items():
        assert run(2, [*words, "num_epoch=1", *keys, f"output={tmp_path / name}"])[0] == 0
        found[name] = weights(tmp_path / name)["fc.weight"]
    assert torch.equal(found["buckets"], found["plain"])
    for kind in ("bf16", "fp16"):
        assert not torch.equal(found[kind], found["plain"])
        torch.testing.assert_close(found[kind], found["plain"], rtol=0, atol=1e-2 * found["plain"].abs().max().item())


def test_sync_bn_without_gpus_and_dp_under_torchrun_are_sentences(words, tmp_path):
    assert_one_sentence(2, [*words, "sync_bn=True"], "sync_bn=True needs GPUs", tmp_path)
    assert_one_sentence(2, [*words, "parallel=dp"], "parallel=dp is one process with many GPUs", tmp_path)


def test_sampled_centres_train_on_two_ranks_and_go_on_on_three(words, tmp_path):
    words = [*words, "sample_rate=0.5"]
    status, _, errors = run(2, words)
    assert status == 0, errors
    status, said, errors = run(3, [*words, "num_epoch=3", "resume=True"])
    assert status == 0, errors
    assert "from step 10" in said
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_profile_records_every_rank(words, tmp_path):
    status, said, errors = run(2, [*words, "profile=True", "num_epoch=3"])
    assert status == 0, errors
    folder = tmp_path / "run" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["rank_0.json.gz", "rank_1.json.gz", "timeline.png"]
    for rank in (0, 1):
        timeline = read_timeline(folder / f"rank_{rank}.json.gz")
        assert len(timeline["steps"]) >= 1
        assert {"agree", "forward: network", "forward: head", "backward", "update"} <= {
            p[0] for p in timeline["phases"]
        }
        assert len(timeline["compute"]) and len(timeline["communication"])
        assert f"rank {rank}: a step takes" in said


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(words, tmp_path):
    assert_one_sentence(2, words, "the loss is nan at step 4", tmp_path, FAULT="1:4:nan")
    for rank in (0, 1):
        evidence = torch.load(tmp_path / "run" / f"non_finite_step_4_rank_{rank}.pt", weights_only=True)
        assert all(torch.isfinite(value).all() for value in evidence["model"].values())


def test_asked_to_stop_torchrun_saves_and_leaves(words, tmp_path):
    process = start(2, [*words, "num_epoch=2000", "save_every=0"])
    log = tmp_path / "run" / "metrics.jsonl"
    for _ in range(600):
        if read_metrics(log):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    step = re.search(r"stopped by SIGTERM after step ([\d,]+) of 10,000; all is saved", said)[1]
    step = int(step.replace(",", ""))
    assert load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["step"] == step
    assert not complaints(errors)
