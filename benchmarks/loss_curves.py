"""The default run by one process and by two: do both learn alike?

    python benchmarks/loss_curves.py [key=value ...]        three runs in runs/, one to two minutes each

All take the same images in the same order. What differs between one process and two is BN, which normalises over the 32
images that a process has instead of 64. So a third run, of one process that takes its 64 images in two halves, tells
BN's share from all else. Prints how far each is from the two processes, and draws all into loss_curves.png.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

from arcface_edu.figures.style import DIFFERENT, FAINT, SAME, canvas, dress, save
from arcface_edu.training.metrics import read_metrics

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
WAYS = {
    "one process": (["-m"], "2", ["output=runs/one_process"]),
    "one process, 32 + 32": (["-m"], "2", ["batch_size=32", "gradient_acc=2", "output=runs/two_halves"]),
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
    *_, two = found.values()
    print("| run | last loss | last target angle | loss off, median (most) | angle off |")
    print("|---|---|---|---|---|")
    for name, lines in found.items():
        off = [[abs(a[key] - b[key]) for a, b in zip(lines, two, strict=True)] for key in ("loss", "target_angle")]
        differences = " | ".join(f"{statistics.median(values):.3f} ({max(values):.3f})" for values in off)
        print(f"| {name} | {lines[-1]['loss']:.2f} | {lines[-1]['target_angle']:.1f} | {differences} |")


def plot_both(found):
    """Loss and target angle over the steps, of each run by name."""
    figure, ax = canvas(size=(9.6, 3.6))
    ax.remove()
    axes = figure.subplots(1, 2)
    for (name, lines), (color, width) in zip(found.items(), ((FAINT, 3.5), (DIFFERENT, 2.4), (SAME, 1)), strict=True):
        for ax, key in zip(axes, ("loss", "target_angle"), strict=True):
            ax.plot([line["step"] for line in lines], [line[key] for line in lines], color=color, lw=width, label=name)
    dress(axes[0], "Two processes learn as one does", "step", "loss", key=True)
    dress(axes[1], "and faces come as near to their centres", "step", "target angle (degrees)", key=True)
    return figure


if __name__ == "__main__":
    main()
