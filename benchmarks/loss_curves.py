"""The default run by one process and by two: do both learn alike?

    python benchmarks/loss_curves.py [key=value ...]        runs/one_process, runs/two_processes: about two minutes each

Both take the same images in the same order. What differs is BN, which normalises over the 32 images that a process has
instead of 64, and the order in which numbers are added. Prints the differences, and draws both into loss_curves.png.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

from arcface_edu.figures.style import FAINT, SAME, canvas, dress, save
from arcface_edu.training.metrics import read_metrics

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
WAYS = {
    "one process": (["-m"], "2", ["output=runs/one_process"]),
    "two processes": ([*TORCHRUN, "-m"], "1", ["batch_size=32", "num_workers=0", "output=runs/two_processes"]),
}


def main():
    found = {}
    for name, (launch, threads, words) in WAYS.items():
        command = [sys.executable, *launch, "arcface_edu.train", "drawn_faces", *words, *sys.argv[1:]]
        subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS=threads), check=True)
        lines = read_metrics(Path(words[-1].removeprefix("output=")) / "metrics.jsonl")
        found[name] = [line for line in lines if "loss" in line]
    save(plot_both(found), Path("loss_curves.png"))
    one, two = found.values()
    for key in ("loss", "target_angle"):
        apart = [abs(a[key] - b[key]) for a, b in zip(one, two, strict=True)]
        print(f"{key}: apart by {statistics.median(apart):.3f} (median), at most by {max(apart):.3f}")
    for name, lines in found.items():
        print(f"{name}: ends at a loss of {lines[-1]['loss']:.2f} and {lines[-1]['target_angle']:.1f} degrees")


def plot_both(found):
    """Loss and target angle over the steps, of each run by name."""
    figure, ax = canvas(size=(9.6, 3.6))
    ax.remove()
    axes = figure.subplots(1, 2)
    for (name, lines), (color, width) in zip(found.items(), ((FAINT, 3.5), (SAME, 1.2)), strict=True):
        for ax, key in zip(axes, ("loss", "target_angle"), strict=True):
            ax.plot([line["step"] for line in lines], [line[key] for line in lines], color=color, lw=width, label=name)
    dress(axes[0], "Two processes learn as one does", "step", "loss", key=True)
    dress(axes[1], "and faces come as near to their centres", "step", "target angle (degrees)", key=True)
    return figure


if __name__ == "__main__":
    main()
