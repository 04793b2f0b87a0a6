"""Several machines: network namespaces as hosts, each with its own torchrun, which meet at host1's address."""

import itertools
import os
import re
import subprocess
import sys
import time

import pytest
from hosts import Hosts, why_not
from test_ddp import TRAINER, assert_equal_runs

from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint
from arcface_edu.training.metrics import read_metrics

pytestmark = [
    pytest.mark.full,
    pytest.mark.xdist_group("hosts"),
    pytest.mark.skipif(bool(why_not()), reason=str(why_not())),
]
# torchrun's own patience, which is minutes where machines are really far apart.
QUICK = "last_call_timeout=2,keep_alive_interval=1,join_timeout=60,read_timeout=20"
# Without it, torchrun's agents share a store, which one that is started later never finds.
ENVIRONMENT = dict(OMP_NUM_THREADS="1", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")


def torchrun(nnodes, words, endpoint="10.9.0.1"):
    """The same command for every host."""
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nnodes}", "--nproc_per_node=1"]
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}:29400", "--rdzv-id=run1", f"--rdzv-conf={QUICK}"]
    return [*launch, *meet, "--max-restarts=10", str(TRAINER), "own_data", *words]


@pytest.fixture
def words(drawn, tmp_path):
    sizes = ["lr=0.02", "num_workers=0", "frequent=2", "fp16=False", "keep_checkpoints=2", "timeout_seconds=8"]
    return [f"rec={drawn}", f"output={tmp_path / 'run'}", *sizes]


def finish(process, log):
    try:
        assert process.wait(timeout=200) == 0, log.read_text()
    except subprocess.TimeoutExpired:
        pytest.fail(f"it hangs: {log.read_text()}")


def wait_for(text, *logs, times=1):
    """Until a text is `times` times in the logs; printed lines of progress before it do not matter."""
    for _ in range(600):
        said = "".join(log.read_text() for log in logs)
        if said.count(text) >= times:
            return
        time.sleep(0.1)
    pytest.fail(f'"{text}" is not said within a minute, but: {said}')


def wait_for_epoch(run, epoch):
    for _ in range(600):
        if any(line.get("epoch", 0) >= epoch for line in read_metrics(run / "metrics.jsonl")):
            return
        time.sleep(0.1)
    pytest.fail(f"epoch {epoch} is not reached within a minute")


def assert_whole(run, epochs):
    """One run in one folder, which began once, skipped nothing, logged nothing twice, and learnt something."""
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    passed = [line["epoch"] for line in lines]
    assert passed[-1] == epochs
    # Lines are two steps of at most a fifth of an epoch apart, or three around a change of machines, where the place in
    # the epoch is rounded to a whole step.
    assert all(0 < later - earlier < 0.7 for earlier, later in itertools.pairwise([0, *passed])), passed
    newest = load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
    assert newest["step"] == epochs * newest["steps_per_epoch"]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert (run / "model.pt").exists()
    assert not (run / "earlier-1").exists()


def test_two_hosts_train_what_one_process_does_although_one_is_killed(words, tmp_path):
    """The host whose process died counts a restart, the other none; they meet again all the same."""
    words = [*words, "num_epoch=2", "save_every=2"]
    alone = [sys.executable, str(TRAINER), "own_data", *words, "batch_size=24", f"output={tmp_path / 'alone'}"]
    subprocess.run(alone, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True)
    logs = [tmp_path / "host1.log", tmp_path / "host2.log"]
    with Hosts(2, tmp_path) as hosts:
        command = torchrun(2, [*words, "batch_size=12"])
        first = hosts.start(1, command, logs[0], **ENVIRONMENT)
        second = hosts.start(2, command, logs[1], **ENVIRONMENT, FAULT="1:7:kill")
        finish(first, logs[0])
        finish(second, logs[1])
    said = "".join(log.read_text() for log in logs)
    assert re.search("resuming .* on 2 processes.* from step 6", said)
    assert_equal_runs(tmp_path / "alone", tmp_path / "run")


def test_a_host_joins_a_run_that_one_began(words, tmp_path):
    """No fault, so that no torchrun counts a restart; the run goes on instead of beginning anew.

    To each host its own name means 127.0.1.1, as on Debian: gloo has to be told the card that leads to the others.
    """
    command = torchrun("1:3", [*words, "num_epoch=8", "batch_size=12"], endpoint="host1")
    environment = dict(ENVIRONMENT, PACE="0.6", GLOO_SOCKET_IFNAME="eth0")
    logs = [tmp_path / "host1.log", tmp_path / "host2.log"]
    with Hosts(2, tmp_path, knows_itself=False) as hosts:
        first = hosts.start(1, command, logs[0], **environment)
        wait_for_epoch(tmp_path / "run", 1)
        second = hosts.start(2, command, logs[1], **environment)
        finish(first, logs[0])
        finish(second, logs[1])
    said = "".join(log.read_text() for log in logs)
    assert "stopped by SIGTERM" in said
    assert re.search("resuming .* on 2 processes", said)
    assert_whole(tmp_path / "run", 8)


def test_a_host_that_is_cut_off_is_done_without_and_may_come_back(words, tmp_path):
    run, logs = tmp_path / "run", [tmp_path / f"host{number}.log" for number in (1, 2, 3)]
    command = torchrun("1:3", [*words, "num_epoch=12", "save_every=5", "batch_size=8"])
    environment = dict(ENVIRONMENT, PACE="0.9")
    with Hosts(3, tmp_path) as hosts:
        first, second, third = (hosts.start(n, command, logs[n - 1], **environment) for n in (1, 2, 3))
        wait_for_epoch(run, 2)
        hosts.cut(3)
        wait_for(" on 2 processes", *logs)
        third.kill()
        third.wait()
        hosts.mend(3)
        logs.append(tmp_path / "host3_again.log")
        again = hosts.start(3, command, logs[3], **environment)
        for process, log in ((first, logs[0]), (second, logs[1]), (again, logs[3])):
            finish(process, log)
    said = "".join(log.read_text() for log in logs)
    assert re.search("arcface_edu: rank (2 did not answer in time|[01] has lost another process)", said)
    assert len(re.findall("training .* on 3 processes", said)) == 1
    assert re.search("resuming .* on 2 processes", said)
    assert re.search("resuming .* on 3 processes", said)  # a slow machine may be given up, and come back, once more
    assert_whole(run, 12)
