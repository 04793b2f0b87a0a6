"""Many processes, one run: the same weights as one process, resumed on another number, and no fault that hangs it.

Most runs here are processes of ranks.py, as torchrun would start them. torchrun itself starts those that it has to end,
start again or stop.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import trainer_of_tests
from ranks import run_ranks, start_ranks
from test_train import set_label
from trainer_of_tests import Linear

from arcface_edu.train import main
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint
from arcface_edu.training.metrics import read_metrics
from arcface_edu.training.profiling import read_timeline

pytestmark = pytest.mark.slow
TRAINER = Path(__file__).parent / "trainer_of_tests.py"
SIZES = ["num_epoch=2", "lr=0.02", "num_workers=0", "frequent=2", "fp16=False", "keep_checkpoints=0"]


class Done(NamedTuple):
    """A run that is over."""

    status: list[int]  # exit status of each rank, or torchrun's
    said: str
    errors: str


def all_words(processes, words):
    """A run of 24 images a step, 5 steps an epoch, however many processes share it."""
    return ["own_data", f"batch_size={24 // processes}", *words]


def run(processes, words, **environment):
    """Run the training command in so many processes."""
    ranks = run_ranks(processes, trainer_of_tests.main, all_words(processes, words), **environment)
    return Done([r.status for r in ranks], "".join(r.said for r in ranks), "".join(r.errors for r in ranks))


def start_torchrun(processes, words, restarts=0, **environment):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command = [*torchrun, f"--nproc_per_node={processes}", f"--max-restarts={restarts}", str(TRAINER)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([*command, *all_words(processes, words)], env=environment, **pipes)


def run_torchrun(processes, words, restarts=0, **environment):
    """The same by torchrun."""
    process = start_torchrun(processes, words, restarts, **environment)
    try:
        said, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    return Done([process.returncode], said, errors)


def succeed(done):
    assert not any(done.status), done.errors
    return done


def complaints(errors):
    """What the training command said, without what torchrun says about it."""
    return re.findall(r"^arcface_edu: (.*)$", errors, re.MULTILINE)


@pytest.fixture
def words(drawn, tmp_path):
    return [f"rec={drawn}", f"output={tmp_path / 'run'}", *SIZES]


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory):
    """Folders of an undisturbed run of one process and of two, with a checkpoint after each step."""
    folders = [tmp_path_factory.mktemp("whole") / str(processes) for processes in (1, 2)]
    for processes, folder in zip((1, 2), folders, strict=True):
        done = succeed(run(processes, [f"rec={drawn}", f"output={folder}", *SIZES, "save_every=1"]))
        assert "10 steps of 24 images" in done.said
        assert done.said.count("first loss about") == 1  # one process speaks
    return folders


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


def test_two_ranks_train_what_one_does(whole):
    assert_equal_runs(*whole)
    assert read_metrics(whole[1] / "metrics.jsonl")[0]["loss"] > 1


def test_two_ranks_accumulate_what_one_does(words, whole):
    succeed(run(2, [*words, "batch_size=4", "gradient_acc=3"]))
    assert_equal_runs(whole[0], Path(words[1].removeprefix("output=")))


def test_two_ranks_learn_plain_softmax_as_one_does(words, tmp_path):
    for processes in (1, 2):
        succeed(run(processes, [*words, "loss=softmax", f"output={tmp_path / str(processes)}"]))
    assert_equal_runs(tmp_path / "1", tmp_path / "2")
    assert read_metrics(tmp_path / "2" / "metrics.jsonl")[0]["loss"] > 1


def test_two_ranks_fine_tune_what_one_does(words, tmp_path):
    torch.save({name: value / 2 for name, value in Linear().state_dict().items()}, tmp_path / "w.pt")
    words = [*words, f"init={tmp_path / 'w.pt'}", "head_epoch=1", "backbone_rate=0.5"]
    for processes in (1, 2):
        done = succeed(run(processes, [*words, f"output={tmp_path / str(processes)}"]))
        assert f"from {tmp_path / 'w.pt'} in" in done.said
        assert "the head alone for the first 5 steps" in done.said
        first, _ = list_checkpoints(tmp_path / str(processes) / "checkpoints")
        assert torch.equal(load_checkpoint(first)["model"]["fc.weight"], Linear().fc.weight / 2)
    assert_equal_runs(tmp_path / "1", tmp_path / "2")
    assert not torch.equal(weights(tmp_path / "1")["fc.weight"], Linear().fc.weight / 2)


def test_resumed_on_another_number_of_processes_it_ends_as_if_never_stopped(words, tmp_path):
    """1 -> 2 -> 3 -> 1: the weights, the momentum, the schedule and the order of the data all go on."""
    words = [*words, "num_epoch=4", "save_every=1"]
    succeed(run(1, [*words, f"output={tmp_path / 'whole'}"]))
    for processes, stop in ((1, 3), (2, 8), (3, 13)):
        done = run(processes, [*words, "resume=True"], FAULT=f"{processes - 1}:{stop}:term")
        assert done.status == [128 + signal.SIGTERM] * processes, done.errors
        assert not complaints(done.errors), done.errors
        assert load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["step"] in (stop + 1, stop + 2)
    assert "from step 1" in succeed(run(1, [*words, "resume=True"])).said
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_killed_rank_is_started_again_and_the_run_finishes(words, whole, tmp_path):
    done = succeed(run_torchrun(2, [*words, "save_every=2"], restarts=2, FAULT="1:7:kill"))
    assert "resuming" in done.said
    assert not (tmp_path / "run" / "earlier-1").exists()
    assert_equal_runs(whole[1], tmp_path / "run")


def assert_one_sentence(done, sentence):
    """All ranks end with status 2, one of them says why, and none shows a traceback."""
    assert set(done.status) == {2}
    (complaint,) = complaints(done.errors)
    assert re.search(sentence, complaint), complaint
    assert "Traceback" not in done.errors


def test_different_configs_are_named_by_rank_and_key(words):
    assert_one_sentence(run(2, words, FAULT="1:0:diverge"), "rank 1 has seed=7 and rank 0 has 2048")


def test_too_many_processes(words):
    assert_one_sentence(run(2, [*words, "batch_size=100"]), "x 2 processes = 200 images, but there are only 120")


def test_a_wrong_label_that_one_rank_reads_ends_all_with_one_sentence(words, drawn, tmp_path):
    """Also under torchrun, which ends the others as soon as it notices that one has failed."""
    shutil.copytree(drawn, tmp_path / "wrong")
    set_label(tmp_path / "wrong", 3, 12.0)
    words = [*words, f"rec={tmp_path / 'wrong'}"]
    assert_one_sentence(run(2, words), "record 3 has label 12")
    done = run_torchrun(2, words, STATUS_FOLDER=str(tmp_path))
    assert done.status != [0]
    statuses = [int((tmp_path / str(rank)).read_text()) for rank in (0, 1)]
    assert_one_sentence(Done(statuses, done.said, done.errors.split("torch/distributed/elastic")[0]), "record 3 has")
    assert len(complaints(done.errors)) == 1


def test_a_rank_that_hangs_is_named_after_the_time_out(words):
    """torchrun then asks it to end, and kills it half a minute later."""
    done = run_torchrun(2, [*words, "timeout_seconds=5"], FAULT="0:3:hang")
    assert done.status != [0]
    (complaint,) = complaints(done.errors)
    assert "rank 0 did not answer in time" in complaint
    assert "resume=True" in complaint


@pytest.mark.parametrize(
    "few",
    [
        pytest.param(["draw_identities=100", "draw_photos=6", "frequent=9"], id="100 people"),
        pytest.param(["draw_photos=4", "frequent=31"], id="500 people", marks=pytest.mark.full),
    ],
)
def test_loss_curve_of_the_default_run_is_that_of_one_process(few, tmp_path):
    """Alike, and not the same: BN normalises over 32 images of a process instead of 64."""
    curves = []
    for processes in (1, 2):
        output = f"output=run_{processes}"
        words = ["drawn_faces", f"batch_size={64 // processes}", output, *few, "draw_pairs=60", "num_epoch=4"]
        for rank in run_ranks(processes, main_in_folder, tmp_path, [*words, "num_workers=0"], timeout=600):
            assert rank.status == 0, rank.errors
        lines = read_metrics(tmp_path / f"run_{processes}" / "metrics.jsonl")
        curves.append([line for line in lines if "loss" in line])
    one, two = curves
    assert len(one) == len(two) == 4
    assert one[-1]["loss"] < 0.8 * one[0]["loss"]
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)
        assert b["target_angle"] == pytest.approx(a["target_angle"], abs=2)


def main_in_folder(folder, words):
    os.chdir(folder)
    main(words)


def test_a_port_in_use_is_a_sentence_and_all_end(words):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        # No torchrun keeps a store for them, so that rank 0 opens that port.
        place = dict(MASTER_ADDR="localhost", MASTER_PORT=port, TORCHELASTIC_USE_AGENT_STORE="False")
        done = run(2, [*words, "timeout_seconds=5"], **place)
    assert_one_sentence(done, f"rank 0 cannot meet the other processes at localhost:{port}")


def test_variables_of_torchrun_that_are_missing_are_named(words):
    done = run(1, words, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost")
    assert_one_sentence(done, "but not MASTER_PORT; .*torchrun")


def test_a_checkpoint_folder_half_written_is_passed_over_by_all(words, whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "run")
    checkpoints = list_checkpoints(tmp_path / "run" / "checkpoints")
    for later in checkpoints[5:]:
        shutil.rmtree(later)
    (checkpoints[4] / "__1_0.distcp").unlink()
    done = succeed(run(2, [*words, "num_epoch=1", "resume=True"]))
    assert f"{checkpoints[4].name} cannot be read" in done.errors + done.said
    assert "from step 4" in done.said


def test_background_saves_leave_the_same_checkpoints(words, whole, tmp_path):
    succeed(run(2, [*words, "save_every=1", "async_save=True"]))
    pairs = [list_checkpoints(folder / "checkpoints") for folder in (whole[1], tmp_path / "run")]
    for plain, background in zip(*pairs, strict=True):
        assert plain.name == background.name
        one, other = load_checkpoint(plain), load_checkpoint(background)
        for part in ("model", "head", "step"):
            torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
        torch.testing.assert_close(one["optimizer"]["state"], other["optimizer"]["state"], rtol=0, atol=0)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))


def test_compressed_gradients_and_small_buckets_train_nearly_the_same(words, whole, tmp_path):
    ways = {"buckets": "ddp_bucket_mb=1"} | {kind: f"gradient_compression={kind}" for kind in ("bf16", "fp16")}
    plain, found = weights(whole[1])["fc.weight"], {}
    for name, key in ways.items():
        succeed(run(2, [*words, key, f"output={tmp_path / name}"]))
        found[name] = weights(tmp_path / name)["fc.weight"]
    assert torch.equal(found["buckets"], plain)
    for kind in ("bf16", "fp16"):
        assert not torch.equal(found[kind], plain)
        torch.testing.assert_close(found[kind], plain, rtol=0, atol=1e-2 * plain.abs().max().item())


def test_sync_bn_without_gpus_and_dp_under_torchrun_are_sentences(words):
    assert_one_sentence(run(2, [*words, "sync_bn=True"]), "sync_bn=True needs GPUs")
    assert_one_sentence(run(2, [*words, "parallel=dp"]), "parallel=dp is one process with many GPUs")


def test_sampled_centres_train_on_two_ranks_and_go_on_on_three(words, tmp_path):
    words = [*words, "sample_rate=0.5"]
    succeed(run(2, words))
    assert "from step 10" in succeed(run(3, [*words, "num_epoch=3", "resume=True"])).said
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_profile_records_every_rank(words, tmp_path):
    done = succeed(run(2, [*words, "profile=True", "num_epoch=3"]))
    folder = tmp_path / "run" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["rank_0.json.gz", "rank_1.json.gz", "timeline.png"]
    for rank in (0, 1):
        timeline = read_timeline(folder / f"rank_{rank}.json.gz")
        assert len(timeline["steps"]) >= 1
        names = {phase[0] for phase in timeline["phases"]}
        assert {"agree", "forward: network", "forward: head", "backward", "update"} <= names
        assert len(timeline["compute"]) and len(timeline["communication"])
        assert f"rank {rank}: a step takes" in done.said
    assert re.search(r"what rank 0 computes in a step:\n.+\n(.+\n)*matrix product +[\d.]+ +[\d.]+% ", done.said)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(words, tmp_path):
    assert_one_sentence(run(2, words, FAULT="1:4:nan"), "the loss is nan at step 4")
    for rank in (0, 1):
        evidence = torch.load(tmp_path / "run" / f"non_finite_step_4_rank_{rank}.pt", weights_only=True)
        assert all(torch.isfinite(value).all() for value in evidence["model"].values())


@pytest.mark.parametrize(("number", "verbose"), [(signal.SIGUSR1, 0), (signal.SIGTERM, 3)], ids=["step", "verify"])
def test_a_signal_to_all_ranks_saves_and_ends_all(words, tmp_path, number, verbose):
    log = tmp_path / "run" / "metrics.jsonl"
    keys = [*words, "num_epoch=2000", "save_every=0", f"verbose={verbose}"]
    ranks = start_ranks(2, trainer_of_tests.main, all_words(2, keys), PACE="0.02")
    for _ in range(1200):
        if read_metrics(log):
            break
        time.sleep(0.05)
    ranks.send(number)
    first, second = ranks.finish()
    assert [first.status, second.status] == [128 + number] * 2, first.errors + second.errors
    assert "Traceback" not in first.errors + second.errors
    assert re.search(rf"stopped by {number.name}( after step|; all is saved)", first.said + first.errors)
    assert list_checkpoints(tmp_path / "run" / "checkpoints")


def test_asked_to_stop_torchrun_saves_and_leaves(words, tmp_path):
    process = start_torchrun(2, [*words, "num_epoch=2000", "save_every=0"])
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
