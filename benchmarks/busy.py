"""The default run's training step beside a busy neighbour, by ways to use the cores.

    python benchmarks/busy.py [--rounds 5] [--steps 4] [--neighbours 1]

Each way is a process of its own with other variables for its threads; all are loaded once and then take turns, without
and with so many programs that compute all the time beside them. Printed is the median of a step in milliseconds.
"""

import argparse
import os
import statistics
import subprocess
import sys

from tqdm import tqdm

TWO = dict(OMP_NUM_THREADS="2")
WAYS = {
    "two threads": TWO,
    "two threads, passive": TWO | dict(OMP_WAIT_POLICY="passive"),
    "two threads, short spin": TWO | dict(GOMP_SPINCOUNT="1000"),
    "two threads, each on its core": TWO | dict(OMP_PROC_BIND="true"),
    "one thread": dict(OMP_NUM_THREADS="1"),
}
WORKER = """
import sys, time, torch
from arcface_edu.config import load_config
from arcface_edu.training import cpu, launch
from arcface_edu.training.state import build_state
cpu.set_up(launch.SINGLE_PROCESS)
state = build_state(load_config("drawn_faces"), 500, torch.device("cpu"), torch.bfloat16)
for group in state.optimizer.param_groups:
    group["lr"] = 0.01
images = (torch.rand(64, 3, 112, 112) * 2 - 1).to(memory_format=torch.channels_last)
labels = torch.randint(500, (64,))
state.step([(images, labels)])
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
        state.step([(images, labels)])
    print((time.perf_counter() - began) / int(line), flush=True)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a way in a row")
    parser.add_argument("--neighbours", type=int, default=1)
    options = parser.parse_args()
    workers = {name: start(variables) for name, variables in WAYS.items()}
    seconds = {(name, busy): [] for name in WAYS for busy in (False, True)}
    try:
        for _ in tqdm(range(options.rounds), unit="round"):
            for busy in (False, True):
                count = options.neighbours if busy else 0
                beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
                for name, worker in workers.items():
                    print(options.steps, file=worker.stdin, flush=True)
                    seconds[name, busy].append(float(worker.stdout.readline()))
                for program in beside:
                    program.kill()
                    program.wait()
    finally:
        for worker in workers.values():
            worker.kill()
    print(f"| way | alone, ms | beside {options.neighbours} busy, ms | slower |\n|---|---|---|---|")
    for name in WAYS:
        alone, busy = (1000 * statistics.median(seconds[name, way]) for way in (False, True))
        print(f"| {name} | {alone:.0f} | {busy:.0f} | {busy / alone:.2f}x |")
    print(f"load of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def start(variables):
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=others | variables, **pipes)
    assert worker.stdout.readline() == "ready\n"
    return worker


if __name__ == "__main__":
    main()
