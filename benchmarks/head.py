"""The head and its optimizer: logits of all classes at once, against a walk over the classes in chunks.

    OMP_NUM_THREADS=2 python benchmarks/head.py [--classes 10000 93431 1000000] [--batch 128] [--rounds 7]

Way A goes through the steps of InsightFace's head: every centre normalised, the logits of all classes in one matrix,
clamped, the margin by arccos and cos of that matrix outside autograd, cross-entropy, then torch.optim.SGD. Way B is
arcface_edu's, with its optimizer by rows. They alternate in one process, and the medians are compared. Memory is the
peak of a step beyond weights, momentum and gradient, on a CPU in a fresh process for each way. The errors are those of
the gradients for embeddings and centres against float64, over the first 10,000 classes, as a share of the gradient's
length. All is done on the accelerator, if there is one.
"""

import argparse
import ctypes
import multiprocessing
import re
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from arcface_edu.heads import MarginSoftmax
from arcface_edu.training.precision import choose_device
from arcface_edu.training.row_optim import RowSGD

DIMENSION, SCALE, MARGIN = 512, 64.0, 0.5
SGD = dict(lr=0.1, momentum=0.9, weight_decay=5e-4)
DEVICE = choose_device()


class AllAtOnce(torch.nn.Module):
    """Way A: (B, D) embeddings, (B,) labels -> scalar loss."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, embeddings, labels):
        cosine = F.linear(F.normalize(embeddings), F.normalize(self.weight)).clamp(-1, 1)  # (B, C)
        with torch.no_grad():
            theta = cosine.acos_()
            theta[torch.arange(len(labels), device=labels.device), labels] += MARGIN
            theta.cos_()
        return F.cross_entropy(SCALE * cosine, labels)


def build(ways, classes):
    """{way: (head, optimizer)}, all on the same weight and momentum, so that a million classes fit."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(0.01 * torch.randn(classes, DIMENSION, device=DEVICE))
    momentum = torch.zeros_like(weight)
    built = {}
    for way in ways:
        head = AllAtOnce(weight) if way == "A" else MarginSoftmax(DIMENSION, 1)
        head.weight, head.num_classes = weight, classes
        optimizer = (torch.optim.SGD if way == "A" else RowSGD)([weight], **SGD)
        optimizer.state[weight]["momentum_buffer"] = momentum
        built[way] = head, optimizer
    return built


def draw_batch(size, classes):
    embeddings = torch.randn(size, DIMENSION, device=DEVICE, requires_grad=True)
    return embeddings, torch.randint(classes, (size,), device=DEVICE)


def step(head, optimizer, embeddings, labels):
    """returns: seconds of forward and backward pass, seconds of all."""
    began = now()
    head(embeddings, labels).backward()
    between = now()
    optimizer.step()
    optimizer.zero_grad()
    return between - began, now() - began


def now():
    """Seconds, once the device has done what was asked of it."""
    if DEVICE.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def memory_of(way, classes, batch):
    """Peak bytes of a step beyond what was there before it, weight, momentum and gradient."""
    head, optimizer = build(way, classes)[way]
    embeddings, labels = draw_batch(batch, classes)
    step(head, optimizer, embeddings, labels)  # whatever is allocated only once
    return peak_beyond(step, head, optimizer, embeddings, labels) - head.weight.nbytes


def peak_beyond(work, *arguments):
    """Bytes at the peak of work(*arguments), beyond what is held before it.  On a CPU for Linux only."""
    if DEVICE.type != "cpu":
        before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()
        work(*arguments)
        return torch.accelerator.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew
    work(*arguments)
    return resident("VmHWM") - before


def resident(name):
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measured_apart(function, *arguments):
    """On a CPU in a fresh process, since freed memory may stay with this one; accelerators count what is in use."""
    return in_fresh_process(function, *arguments) if DEVICE.type == "cpu" else function(*arguments)


def in_fresh_process(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def errors(way, batch, classes=10000):
    """Of the gradients for embeddings and centres against those of way A in float64."""
    embeddings, labels = draw_batch(batch, classes)
    head, _ = build(way, classes)[way]
    exact = AllAtOnce(torch.nn.Parameter(head.weight.detach().double()))
    found = torch.autograd.grad(head(embeddings, labels), (embeddings, head.weight))
    embeddings = embeddings.detach().double().requires_grad_()
    expected = torch.autograd.grad(exact(embeddings, labels), (embeddings, exact.weight))
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]


def compare(classes, batch, rounds, ways):
    """Lines of a table: seconds and megabytes of each way, and how often A takes them."""
    memory = {way: measured_apart(memory_of, way, classes, batch) for way in ways}
    seconds = {way: [] for way in ways}
    built = build(ways, classes)
    for number in tqdm(range(rounds + 1), unit="round", desc=f"{classes:,} classes", leave=False):
        embeddings, labels = draw_batch(batch, classes)
        for way in ways:
            taken = step(*built[way], embeddings, labels)
            if number:  # the first round fills caches
                seconds[way].append(taken)
    for way in ways:
        passes, whole = zip(*seconds[way], strict=True)
        cells = [f"{classes:,}", way, f"{statistics.median(passes):.4f}", f"{statistics.median(whole):.4f}"]
        cells += [ratio(*([pair[part] for pair in seconds[w]] for w in ("A", way))) for part in (0, 1)]
        cells += [f"{memory[way] / 2**20:,.0f}", f"{memory['A'] / memory[way]:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def ratio(slow, fast):
    ratios = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10000, 93431, 1000000])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ways", default="AB", help="which to compare; A is always among them")
    options = parser.parse_args()
    for way in "AB":
        print("{}: gradients off by {:.1e} (embeddings) and {:.1e} (centres)".format(way, *errors(way, options.batch)))
    print("| classes | way | forward + backward, s | with optimizer, s | A / it | A / it | transient MiB | A / it |")
    print("|---|---|---|---|---|---|---|---|")
    for classes in options.classes:
        compare(classes, options.batch, options.rounds, options.ways)


if __name__ == "__main__":
    main()
