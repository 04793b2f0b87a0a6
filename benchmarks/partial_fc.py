"""Partial FC: what a training step of head and row optimizer costs when a tenth of the centres takes part.

    OMP_NUM_THREADS=2 python benchmarks/partial_fc.py [--classes 10000 100000 1000000] [--rounds 7]

One process, D = 512, fp32, SGD with momentum and weight decay by rows, in a fresh process for every line: the median
time of a step, its peak of memory beyond weights and momentum (the gradient counts here, since its size is what
sampling changes), and the peak of the whole process. On the accelerator, if there is one.
"""

import argparse
import statistics

import torch
from head import DEVICE, DIMENSION, SGD, draw_batch, in_fresh_process, peak_beyond, resident, step
from tqdm import tqdm

from arcface_edu.heads import PartialFC
from arcface_edu.training.row_optim import RowSGD


def measure(classes, rate, batch, rounds):
    """Seconds of each step, bytes of a step at its peak, bytes of the process at its peak."""
    head = PartialFC(DIMENSION, classes, sample_rate=rate).to(DEVICE)
    optimizer = RowSGD(head.parameters(), **SGD)
    embeddings, labels = draw_batch(batch, classes)
    step(head, optimizer, embeddings, labels)  # makes the momentum
    highest, seconds = resident("VmHWM"), []

    def steps():
        seconds.extend(step(head, optimizer, embeddings, labels)[1] for _ in range(rounds))

    transient = peak_beyond(steps)
    return seconds, transient, max(highest, resident("VmHWM"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10000, 100000, 1000000])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, batch {options.batch}")
    print("| classes | rate | step, s | fastest to slowest | transient MiB | whole process, GiB |")
    print("|---|---|---|---|---|---|")
    for classes in options.classes:
        for rate in tqdm(options.rates, desc=f"{classes:,} classes", unit="rate", leave=False):
            seconds, transient, peak = in_fresh_process(measure, classes, rate, options.batch, options.rounds)
            cells = [f"{classes:,}", f"{rate:g}", f"{statistics.median(seconds):.4f}"]
            cells += [f"{min(seconds):.4f} to {max(seconds):.4f}", f"{transient / 2**20:,.0f}", f"{peak / 2**30:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
