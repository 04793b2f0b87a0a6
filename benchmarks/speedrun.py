"""How soon is the default task learnt? Seconds of training until 97 % of unseen drawn people's pairs are told rightly.

    python benchmarks/speedrun.py [key=value ...] [--seeds 1 2 3] [--processes 2]

Trains the default run, changed by the keys, once for each seed, and prints a row of docs/speedrun.md: an entry counts
if the mean accuracy of its seeds reaches 97 %. Counted are the seconds of the training loop, reading included; starting
Python, drawing the faces and the verification at the end are the same for every entry. The data stay as they are: 500
drawn people, 20 photographs each, difficulty 1, and 3,000 pairs of 100 others. Settings are to be chosen by other pairs
(--choose draws a population for that), or the board would reward luck.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.training.metrics import read_metrics

PAIRS_TO_CHOOSE_BY = Path("data/drawn_2x20_pairs6000_seed5_hard1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=1, help="that share the machine's cores")
    parser.add_argument("--choose", action="store_true", help="judge by pairs that the board never shows")
    parser.add_argument("words", nargs="*", metavar="key=value")
    options = parser.parse_args()
    if options.choose and not PAIRS_TO_CHOOSE_BY.exists():
        draw_faces(PAIRS_TO_CHOOSE_BY, identities=2, photos=20, seed=5, pairs=6000, pair_identities=100)
    seconds, accuracies = [], []
    for seed in tqdm(options.seeds, unit="run"):
        taken, accuracy = run(seed, options)
        seconds.append(taken)
        accuracies.append(100 * accuracy)
    changed = " ".join(options.words) or "as shipped"
    print("| changed | processes | seconds | accuracy, % |\n|---|---|---|---|")
    print(f"| {changed} | {options.processes} | {spread(seconds, 0)} | {spread(accuracies, 2)} |")


def run(seed, options):
    """(seconds of the training loop, accuracy) of one run."""
    launch = [sys.executable, "-m"]
    if options.processes > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}", "-m"]
    words = [*options.words, f"seed={seed}", "frequent=1"]
    words += [f"val_targets={[str(PAIRS_TO_CHOOSE_BY.resolve() / 'drawn.bin')]}"] if options.choose else []
    threads = max(1, len(os.sched_getaffinity(0)) // options.processes)
    with tempfile.TemporaryDirectory() as output:
        command = [*launch, "arcface_edu.train", "drawn_faces", *words, f"output={output}/run"]
        environment = {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", **os.environ}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        lines = read_metrics(Path(output) / "run" / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    images = sum(steps[0]["target_angle_histogram"])
    (accuracy,) = [line["accuracy"] for line in lines if "accuracy" in line]
    return sum(images / line["images_per_second"] for line in steps), accuracy


def spread(values, digits):
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
