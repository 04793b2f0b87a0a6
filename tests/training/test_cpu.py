"""What a run asks of Linux: freed memory is kept, ranks do not interrupt each other, each has its own cores."""

import os
import subprocess
import sys

import pytest
from ranks import run_code, run_ranks

from arcface_edu.training import cpu
from arcface_edu.training.launch import SINGLE_PROCESS, World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone is asked")


PRELUDE = "import os, resource, threading, torch\nfrom arcface_edu.training import cpu, launch\n"


def in_a_process(code, **environment):
    """What the code prints, in a process of its own: what is asked here stays for its whole life."""
    environment = os.environ | environment
    done = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


FAULTS = """
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""


@pytest.mark.slow
def test_freed_memory_is_not_taken_from_the_system_again():
    code = f"{FAULTS}\nbefore = faults()\ncpu.keep_freed_memory()\nfaults()\nprint(before, faults())"
    before, after = map(int, in_a_process(code, MALLOC_MMAP_THRESHOLD_="1000000"))
    assert before > 10 * (after + 10)  # 16 MB are 4,096 pages, and fewer where pages are huge


def test_all_threads_of_a_rank_are_batch_work_and_those_to_come():
    code = """
stay = threading.Event()
threading.Thread(target=stay.wait, daemon=True).start()
cpu.set_up(launch.World(0, 2, 0))
threading.Thread(target=stay.wait, daemon=True).start()
threads = os.listdir("/proc/self/task")
print(len(threads), *{os.sched_getscheduler(int(thread)) for thread in threads})
stay.set()
"""
    (process,) = run_ranks(1, run_code, PRELUDE + code)
    count, *policies = map(int, process.said.split())
    assert count >= 3
    assert policies == [os.SCHED_BATCH]


def test_a_run_whose_threads_wait_for_cores_says_so_once(monkeypatch, caplog):
    clock, delay = [0.0], [0.0]
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cpu.CrowdedCores, "delay", staticmethod(lambda: delay[0]))
    monkeypatch.setattr(cpu.torch, "get_num_threads", lambda: 2)
    cores = cpu.CrowdedCores()
    for seconds in (8, 1, 8, 2, 7, 7, 7):  # of 20 that two threads have in ten seconds; one long delay says nothing
        clock[0], delay[0] = clock[0] + 10, delay[0] + seconds
        cores.look()
    (warning,) = caplog.messages
    assert "wait for one 35% of the time" in warning and "OMP_NUM_THREADS=1" in warning
    monkeypatch.setattr(cpu.torch, "get_num_threads", lambda: 1)  # one thread waits for no other
    alone, delay[0], clock[0] = cpu.CrowdedCores(), delay[0] + 9, clock[0] + 10
    alone.look()
    assert len(caplog.messages) == 1


def test_the_delay_of_threads_grows_where_they_share_a_core():
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
def turn():
    while not stop.is_set():
        hashlib.sha256(bytes(1 << 22))  # without the lock of the interpreter
import hashlib
stop = threading.Event()
before = cpu.CrowdedCores.delay()
threads = [threading.Thread(target=turn) for _ in range(2)]
for thread in threads:
    thread.start()
stop.wait(0.5)
stop.set()
for thread in threads:
    thread.join()
print(cpu.CrowdedCores.delay() - before)
"""
    assert float(in_a_process(code)[0]) > 0


@pytest.fixture
def placed(monkeypatch):
    """Where threads were put, on a machine of 8 cores; `allowed` may be changed."""
    machine = dict(allowed=set(range(8)), put=set())
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: machine["allowed"])
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: machine["put"].add(tuple(cores)))
    return machine


@pytest.mark.parametrize(("rank", "processes", "cores"), [(0, 2, (0, 1, 2, 3)), (1, 2, (4, 5, 6, 7)), (2, 3, (4, 5))])
def test_each_rank_has_its_own_cores(placed, rank, processes, cores):
    cpu.take_own_cores(rank, processes)
    assert placed["put"] == {cores}


def test_who_has_been_placed_stays_and_so_do_more_processes_than_cores(placed):
    cpu.take_own_cores(8, 9)
    placed["allowed"] = {3, 4}
    cpu.take_own_cores(0, 2)
    assert placed["put"] == set()


def test_one_process_is_nobody_to_share_with(placed, monkeypatch):
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: pytest.fail("one process has nobody to interrupt"))
    cpu.set_up(SINGLE_PROCESS)
    assert placed["put"] == set()
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    cpu.set_up(World(3, 4, 1))
    assert placed["put"] == {(4, 5, 6, 7)}
