"""What processes agree on before they are a group: which attempt this is, and whether the run has begun before."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist
from ranks import run_ranks

from arcface_edu.errors import ConfigError
from arcface_edu.train import build_parser
from arcface_edu.training import launch
from arcface_edu.training.collectives import all_gather_object, patient_start
from arcface_edu.training.launch import World, agree_on_attempt, join_world, mark_started, was_restarted


@pytest.fixture
def server():
    return dist.TCPStore("localhost", 0, is_master=True)


def attempt(server, size, last=0, timeout=20):
    """The names that ranks 0 ... size - 1 agree on, of which one comes last, when the others have waited a while."""

    def join(rank):
        store = dist.TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=timeout))
        if rank == last:
            time.sleep(0.5)
        return agree_on_attempt(store, World(rank, size), timedelta(seconds=timeout))

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(join, range(size)))


def test_every_attempt_on_one_store_has_a_name_of_its_own(server):
    """Also with another number of processes, and where some arrive while only dead ones have been there."""
    names = []
    for size, last in ((3, 0), (2, 0), (4, 3), (4, 0)):
        mine = attempt(server, size, last)
        assert len(set(mine)) == 1
        names.append(mine[0])
    assert len(set(names)) == 4


def test_an_attempt_that_came_to_nothing_is_forgotten(server):
    """Rank 0 named it and died before rank 1 came; or rank 1 answered and died."""
    server.set("attempt", "abandoned")
    assert len({*attempt(server, 2), "abandoned"}) == 2
    server.set("attempt", "abandoned too")
    server.set("abandoned too/1", "somebody who is dead now")
    server.set("abandoned too/heard", "somebody who is dead now")
    assert len({*attempt(server, 2), "abandoned too"}) == 2


def test_who_finds_nobody_says_so_in_time(server):
    store = dist.TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=1))
    for rank in (0, 1):  # the other one never comes
        with pytest.raises(dist.DistStoreError):
            agree_on_attempt(store, World(rank, 2), timedelta(seconds=1))


def test_machines_whose_own_name_leads_nowhere_are_told_the_remedy(monkeypatch):
    def fail(**_):  # what torch says where host1 means 127.0.1.1 on both machines
        raise RuntimeError("Gloo connectFullMesh failed with timed out connecting: Connection refused, 127.0.1.1")

    place = dict(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="host1", MASTER_PORT="29400")
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "meet", lambda timeout: dist.HashStore())
    monkeypatch.setattr(launch, "agree_on_attempt", lambda *_: "one")
    monkeypatch.setattr(dist, "init_process_group", fail)
    with pytest.raises(ConfigError, match=r"at host1:29400 .*GLOO_SOCKET_IFNAME"), join_world(1):
        pass


def test_the_flag_of_an_old_launcher_is_taken_or_answered_with_the_line_of_today(monkeypatch):
    for name in launch.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    launch.take_local_rank(None)
    for flag in ("--local-rank=1", "--local_rank=1"):
        options = build_parser().parse_args([flag, "own_data", "lr=1"])
        assert (options.local_rank, options.words) == (1, ["own_data", "lr=1"])
    with pytest.raises(ConfigError, match=r"torchrun --nproc_per_node=8 -m arcface_edu.train"):
        launch.take_local_rank(1)
    for name, value in dict(RANK="3", WORLD_SIZE="4", MASTER_ADDR="host1", MASTER_PORT="29400").items():
        monkeypatch.setenv(name, value)
    launch.take_local_rank(1)  # launchers before torch 1.9 say it by the flag alone
    assert launch.read_world() == World(3, 4, 1)
    launch.take_local_rank(7)  # and those of today say both
    assert launch.read_world() == World(3, 4, 1)
    monkeypatch.delenv("LOCAL_RANK")


def work(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def start_up(first):
    """Rank 0 does something, for which rank 1 waits."""
    with join_world(2) as world, patient_start(world, 2):
        if world.is_main:
            first(7)
        return all_gather_object(world.rank)


def test_a_rank_that_works_at_the_start_is_waited_for():
    ranks = run_ranks(2, start_up, work)
    assert [rank.value for rank in ranks] == [[0, 1]] * 2, ranks[1].errors


def test_a_rank_that_does_nothing_at_the_start_is_named():
    _, waiting = run_ranks(2, start_up, time.sleep)
    assert "rank 0 has done nothing for 2 s at the start of the run" in waiting.errors


def test_a_rank_that_fails_at_the_start_is_not_waited_for():
    began = time.monotonic()
    failing, waiting = run_ranks(2, start_up, fail)
    assert "it is broken" in failing.errors and "has lost another process" in waiting.errors
    assert time.monotonic() - began < 30


def fail(_seconds):
    raise ConfigError("it is broken")


def test_a_process_started_again_by_the_same_torchrun_knows_that_the_run_has_begun(tmp_path, monkeypatch):
    def live(torchrun, life, local_rank=0):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / torchrun / life / str(local_rank) / "error.json"))
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        return was_restarted()

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    assert not live("first", "attempt_0")
    assert not live("first", "attempt_1")  # it had died before the run began
    mark_started()
    assert live("first", "attempt_1")  # machines come and go without a new number
    assert live("first", "attempt_2")
    assert not live("first", "attempt_0", local_rank=1)  # the one beside it may be slower
    assert not live("second", "attempt_0")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    mark_started()
    assert not was_restarted()
