"""Kill random processes of a run at random moments, again and again: it must end as the run that nobody disturbed.

    python benchmarks/kill_ranks.py [--kills 30] [--seed 0] [--processes 2] [--epochs 12]

A small network is trained by the real command under `torchrun --max-restarts`, once undisturbed, then with SIGKILLs.
Half of the moments are drawn from the start of the processes on, half from when they have begun to train, so that
imports, loading, steps, checkpoints, verification and the report at the end are all hit. A run that gets to its end
before all kills are spent is followed by another. Compared are, bit for bit, the network and the last checkpoint with
its centres, momentum and random generators, and metrics.jsonl but for its timings and the last digits of its means.
Exit status 1 if anything differs. Linux only: processes are found in /proc.
"""

import argparse
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint, split_tensors
from arcface_edu.training.metrics import read_metrics

TIMINGS = ("images_per_second", "waiting")
PATIENCE = 120  # seconds: a run that says nothing for longer hangs
# Dropout and sampled centres draw random numbers at every step, and a resumed run has to draw the same.
WORDS = ["lr=0.05", "dropout=0.1", "sample_rate=0.7", "num_workers=1", "frequent=3", "save_every=4", "verbose=6"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of moments and ranks")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12, help="of 10 steps each")
    with tempfile.TemporaryDirectory() as place:
        wrong = kill_and_compare(Path(place), **vars(parser.parse_args()))
    raise SystemExit(1 if wrong else 0)


def kill_and_compare(place, kills, seed, processes, epochs):
    """An undisturbed run and killed ones, in the folder `place`.  returns: a sentence for each thing that differs."""
    words = prepare(place, processes, epochs)
    chance, phases, wrong = random.Random(seed), [], []
    whole, began = place / "undisturbed", time.perf_counter()
    run = start(whole, words, processes)
    wait_for(run, lambda: read_metrics(whole / "metrics.jsonl"))
    starting = time.perf_counter() - began
    wait_for(run)
    print(f"undisturbed: {time.perf_counter() - began:.0f} s, {starting:.1f} of them until the first line of its log")
    while len(phases) < kills and not wrong:
        killed, lives = place / f"killed_{len(phases)}", 1
        run = start(killed, words, processes, restarts=kills + 10)
        while len(phases) < kills and (phase := kill_one(run, killed, lives, processes, starting, chance)):
            phases.append(phase)
            print(f"kill {len(phases):2d}: {phase}", flush=True)
            lives += 1
        wait_for(run, lambda life=lives + 1, run=run: ranks(run, life))
        if run.poll() != 0:
            end(run)
            wrong = [f"{killed} failed by itself after {lives - 1} kills: {run.log.read_text()[-3000:]}"]
        else:
            wrong = list(differences(whole, killed))
        print(f"{killed.name}: {lives - 1} kills, {len(wrong)} differences", *wrong, sep="\n", flush=True)
    count = Counter(phase.split()[-1] for phase in phases)
    print(f"{len(phases)} kills in {(time.perf_counter() - began) / 60:.1f} minutes:", dict(count.most_common()))
    return wrong


def prepare(place, processes, epochs):
    """Draw 240 faces of 20 people, and pairs of others.  returns: the words of a run on them, 24 images a step."""
    if not (place / "faces").exists():
        draw_faces(place / "faces", 20, 12, pairs=100, pair_identities=10)
    return [f"rec={place / 'faces'}", f"num_epoch={epochs}", f"batch_size={24 // processes}", *WORDS]


def start(output, words, processes, restarts=0):
    """A training run under torchrun, in a session of its own; what it says goes into <output>.log."""
    torchrun = ["-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    torchrun += [f"--nproc_per_node={processes}", f"--max-restarts={restarts}", "-m", "arcface_edu.train", "own_data"]
    command = [sys.executable, *torchrun, f"output={output}", *words]
    with open(f"{output}.log", "w") as log:
        streams = dict(stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        run = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **streams)
    run.log = Path(log.name)
    return run


def kill_one(run, output, life, processes, longest, chance):
    """Wait for the processes of this life, then for a random moment, and kill one.  returns: where that hit, or None.

    life: 1 for the processes that torchrun starts first, 2 after its first restart ...
    longest: so many seconds a moment may be away, from the start of the processes or from their first step.
    """
    wait_for(run, lambda: len(ranks(run, life)) == processes)
    began, moment, since = time.time(), chance.uniform(0, longest), "its start"
    if chance.random() < 0.5:
        wait_for(run, lambda: doing(run, output, began) != "starting")
        since = "its first step"
    until = time.time() + moment
    while run.poll() is None and time.time() < until:
        time.sleep(0.01)
    alive = ranks(run, life)
    if not alive:  # the run is over
        return None
    rank = chance.choice(sorted(alive))
    phase = f"rank {rank}, {moment:4.1f} s after {since}, {doing(run, output, began)}"
    os.kill(alive[rank], signal.SIGKILL)
    return phase


def doing(run, output, began):
    """What the processes that began then are at, as far as it shows from outside."""
    log = output / "metrics.jsonl"
    if not log.exists() or log.stat().st_mtime < began:
        return "starting"
    if list((output / "checkpoints").glob("*.tmp")):
        return "saving"
    if (output / "model.pt").exists():
        return "reporting"
    last_bar = re.split(r"[\r\n]", run.log.read_text().rstrip())[-1]
    return "verifying" if last_bar.startswith("verifying") else "training"


def ranks(run, life):
    """{rank: process id} of the living processes that torchrun has started for that life."""
    found = {}
    for children in Path(f"/proc/{run.pid}/task").glob("*/children"):
        for pid in read(children).split():
            variables = dict(item.partition("=")[::2] for item in read(f"/proc/{pid}/environ").split("\0"))
            if variables.get("TORCHELASTIC_RESTART_COUNT") == str(life - 1):  # empty where the process is dead
                found[int(variables["RANK"])] = int(pid)
    return found


def read(path):
    try:
        return Path(path).read_text()
    except OSError:  # it ended meanwhile
        return ""


def wait_for(run, happened=lambda: False):
    """Until that has happened or the run is over; one that hangs is ended, and TimeoutError raised."""
    while run.poll() is None and not happened():
        if time.time() - run.log.stat().st_mtime > PATIENCE:
            end(run)
            raise TimeoutError(f"the run has said nothing for {PATIENCE} s, the last: {run.log.read_text()[-500:]}")
        time.sleep(0.05)


def end(run):
    """Kill torchrun and the processes that it has started."""
    for child in Path(f"/proc/{run.pid}/task").glob("*/children"):
        for pid in read(child).split():
            os.kill(int(pid), signal.SIGKILL)
    run.kill()
    run.wait()


def differences(one, other):
    """In what two finished runs differ, in sentences."""
    (weights, log, files), (weights_too, log_too, files_too) = (read_run(run) for run in (one, other))
    names = weights.keys() | weights_too.keys()
    unequal = [name for name in names if not same(weights.get(name), weights_too.get(name))]
    if unequal:
        yield f"{other}: {len(unequal)} of {len(weights)} tensors differ, as {sorted(unequal)[:3]}"
    steps, steps_too = ([(line["step"], line.get("pairs", "")) for line in lines] for lines in (log, log_too))
    if steps != steps_too:
        lost, more = Counter(steps) - Counter(steps_too), Counter(steps_too) - Counter(steps)
        yield f"{other}: metrics.jsonl lacks lines {list(lost)} and has too many {list(more)}"
    else:
        for a, b in zip(log, log_too, strict=True):
            if wrong := [key for key in a.keys() | b.keys() if not near(a.get(key), b.get(key))]:
                yield f"{other}: at step {a['step']}, {wrong} of metrics.jsonl differ"
    if files != files_too:
        yield f"{other}: files {sorted(files ^ files_too)} are in one folder only"


def read_run(run):
    """A finished run's tensors by name, its log without timings, and the set of its files.

    A file that begins with a dot is what a killed process was writing when it died; it never had its name.
    """
    tensors = torch.load(run / "model.pt", weights_only=True)
    split_tensors(load_checkpoint(list_checkpoints(run / "checkpoints")[-1]), "checkpoint", tensors)
    log = [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(run / "metrics.jsonl")]
    files = {str(path.relative_to(run)) for path in run.rglob("*") if not path.name.startswith(".")}
    return tensors, log, files


def same(a, b):
    return a is not None and b is not None and a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def near(a, b):
    """Equal, up to the order in which floats are added: after a resume, what all ranks had counted is one sum."""
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6))


if __name__ == "__main__":
    main()
