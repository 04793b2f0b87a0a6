"""Kill runs at random moments, 200 times: each must end, bit for bit, as the run that nobody disturbed.

    python benchmarks/kills.py [--kills 170] [--ranks 30] [--seed 0] [--keep FOLDER]

Most kills (SIGKILL) hit a run of one process and its reader: the trainer, in one of ten the reader alone, in one of ten
both at once. What was killed is started again with resume=True until the run gets to its end; then comes the next run.
The processes begin from a server that has imported the package, so that a life takes seconds. The others (--ranks) hit
one rank of two under torchrun, as `kill_ranks.py` does it, imports and restarts included. A moment follows from the
seed; what it hits follows from the machine. Exit status 1 if anything differs. Linux only.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kill_ranks import differences, doing, kill_and_compare, prepare

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["arcface_edu.train", "torch.distributed.checkpoint", "matplotlib.pyplot"])
PATIENCE = 300  # seconds; a life that takes longer hangs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=170, help="of runs of one process")
    parser.add_argument("--ranks", type=int, default=30, help="of one rank of two")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims")
    parser.add_argument("--epochs", type=int, default=3, help="of 10 steps each, for runs of one process")
    parser.add_argument("--keep", type=Path, help="folder for the runs, instead of a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        wrong = kill_singles(place, options.kills, options.seed, options.epochs) if options.kills else []
        if options.ranks and not wrong:
            wrong = kill_and_compare(place, options.ranks, options.seed, processes=2, epochs=12)
    raise SystemExit(1 if wrong else 0)


class Life:
    """One process of a run, from its start to its end or its death; its readers are in its group."""

    def __init__(self, output, words):
        self.log = Path(f"{output}.log")
        self.log.write_text("")
        self.began, self.poll = time.time(), lambda: None
        self.process = SERVER.Process(target=be_trainer, args=([f"output={output}", *words, "resume=True"], self.log))
        self.process.start()

    def reader(self):
        """The id of a process that the trainer has started, or None."""
        try:
            return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])
        except (OSError, IndexError):
            return None

    def kill(self, victim):
        """Kill the trainer, its reader, or both.  returns: what was hit; the trainer where there is no reader."""
        reader = self.reader()
        victim = victim if reader else "trainer"
        with contextlib.suppress(ProcessLookupError):
            if victim != "trainer":
                os.kill(reader, signal.SIGKILL)
            if victim != "reader":
                os.kill(self.process.pid, signal.SIGKILL)
        return victim

    def end(self):
        """Wait for the end.  returns: its exit status."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"a run has not ended in {PATIENCE} s: {self.log.read_text()[-2000:]}")
        return self.process.exitcode


def be_trainer(words, log):
    """Be the training command: one thread, readers as this Python starts them, what is said goes into a file."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    multiprocessing.set_start_method(None, force=True)
    import torch

    from arcface_edu import train

    torch.set_num_threads(1)
    train.main(["own_data", *words])


def kill_singles(place, kills, seed, epochs):
    """Undisturbed and killed runs of one process.  returns: a sentence for each thing that differs."""
    words = [*prepare(place, 1, epochs), "verbose=15"]
    whole, chance, hit, wrong = place / f"undisturbed_{epochs}", random.Random(seed), Counter(), []
    began = time.time()
    if (status := Life(whole, words).end()) != 0:
        return [f"the undisturbed run failed: {status}"]
    longest = time.time() - began
    print(f"undisturbed: {longest:.1f} s", flush=True)
    runs, done = 0, 0
    while done < kills and not wrong:
        output, lives = place / f"killed_{seed}_{runs}", 0
        runs += 1
        while True:
            life, moment = Life(output, words), chance.uniform(0, longest)
            victim = chance.choices(["trainer", "reader", "both"], [8, 1, 1])[0]
            lives += 1
            if done < kills:
                life.process.join(moment)
            if done >= kills or not life.process.is_alive():
                status = life.end()
                if lives == 1:  # the first run of all waited for its server as well
                    longest = min(longest, time.time() - life.began)
                break
            phase, victim = doing(life, output, life.began), life.kill(victim)
            done += 1
            hit[f"{victim}, {phase}"] += 1
            print(f"kill {done:3d} of {kills}: {victim}, {moment:4.1f} s after its start, {phase}", flush=True)
            if (status := life.end()) not in (-signal.SIGKILL, 2):  # 2: the trainer has told that its reader died
                break
        if status != 0:
            wrong = [f"{output.name} ended with status {status}: {life.log.read_text()[-3000:]}"]
        else:
            wrong = list(differences(whole, output))
        print(f"{output.name}: {lives} lives, {len(wrong)} differences", *wrong, sep="\n", flush=True)
    minutes = (time.time() - began) / 60
    print(f"{done} kills in {minutes:.1f} minutes, {runs} runs:", dict(hit.most_common()), flush=True)
    return wrong


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("processes are found in /proc: Linux only")
    main()
