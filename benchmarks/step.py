"""A training step of r50 with MS1MV3's 93,431 classes: arcface_edu's against the plain way.

    python benchmarks/step.py [--network r50] [--classes 93431] [--batch 16] [--rounds 5] [--also compile=True]
    python benchmarks/step.py --no-plain --also loss=adaface loss=magface     heads against ArcFace
    python benchmarks/step.py --no-plain --also augment=photo                 with augmentation against without

The plain way is what one writes first: NCHW, torch's own modules, all logits held, arccos and cos over the whole table
of them, then SGD parameter by parameter. It runs in fp32 and under bf16 autocast. arcface_edu's step is the trainer's
own (TrainState.step). All take turns in one process, on the same images, from the same weights; the table shows
medians, the spread of the ratio, and what share of the machine's measured bf16 matrix product rate the step reaches.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from arcface_edu.config import SHIPPED, load_config
from arcface_edu.data.augment import augment_photo, draw_photo
from arcface_edu.models import build_model
from arcface_edu.models.prelu import PReLU
from arcface_edu.training.precision import choose_device
from arcface_edu.training.state import build_state

MARGIN, SCALE = 0.5, 64.0


class PlainStep:
    """The step of a training loop without any thought of speed."""

    def __init__(self, network, classes, dtype, device):
        self.model = build_model(network).to(device)
        replace_prelu(self.model)
        self.centres = nn.Parameter(torch.randn(classes, 512, device=device) * 0.01)
        self.dtype = dtype
        parameters = [*self.model.parameters(), self.centres]
        self.optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=5e-4, foreach=False)

    def __call__(self, images, labels):
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            embeddings = self.model(images)
        cosine = (F.normalize(embeddings.float()) @ F.normalize(self.centres).T).clamp(-1, 1)  # (B, C)
        with torch.no_grad():
            theta = cosine.arccos()
            theta[torch.arange(len(labels)), labels] += MARGIN
            shift = theta.cos() - cosine
        loss = F.cross_entropy(SCALE * (cosine + shift), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def replace_prelu(module):
    for name, child in module.named_children():
        if isinstance(child, PReLU):
            plain = nn.PReLU(len(child.weight))
            plain.weight = child.weight
            setattr(module, name, plain)
        replace_prelu(child)


class OurStep:
    def __init__(self, network, classes, device, *words):
        config = load_config(SHIPPED / "base.py", [f"network={network}", "lr=0.01", *words])
        dtype = torch.bfloat16 if config.fp16 else torch.float32
        self.state, self.photo, self.seed = build_state(config, classes, device, dtype), config.augment == "photo", 0
        for group in self.state.optimizer.param_groups:
            group["lr"] = 0.01

    def __call__(self, images, labels):
        images = images.to(memory_format=torch.channels_last)
        if self.photo:
            self.seed += 1
            images = augment_photo(images, draw_photo(1, 1, len(images), 0, self.seed)[0, 0])
        return self.state.step([(images, labels)]).losses[0].item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="r50")
    parser.add_argument("--classes", type=int, default=93431)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--also", nargs="*", default=[], metavar="key=value", help="ours in bf16 with this key besides")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain ways out; ratios are to ours in bf16")
    options = parser.parse_args()
    device = choose_device()
    sizes = (options.network, options.classes)
    ways = {
        "plain, fp32": lambda: PlainStep(*sizes, torch.float32, device),
        "plain, bf16": lambda: PlainStep(*sizes, torch.bfloat16, device),
        "arcface_edu, fp32": lambda: OurStep(*sizes, device, "fp16=False"),
        "arcface_edu, bf16": lambda: OurStep(*sizes, device),
        **{f"arcface_edu, bf16, {word}": lambda word=word: OurStep(*sizes, device, word) for word in options.also},
    }
    if options.no_plain:
        ways = {name: make for name, make in ways.items() if "bf16" in name and "plain" not in name}
    ways = {name: make() for name, make in ways.items()}
    references = ["arcface_edu, bf16"] if options.no_plain else ["plain, fp32", "plain, bf16"]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.batch, 3, 112, 112, generator=generator).to(device) * 2 - 1
    labels = torch.randint(options.classes, (options.batch,), generator=generator).to(device)
    seconds = {name: [] for name in ways}
    for number in tqdm(range(options.rounds + 1), unit="round"):
        for name, step in ways.items():
            began = time.perf_counter()
            step(images, labels)
            if number:  # the first fills caches, and makes gradients and momentum
                seconds[name].append(time.perf_counter() - began)

    with FlopCounterMode(display=False) as counter:
        ways[references[0]](images, labels)
    work, peak = counter.get_total_flops(), matrix_rate(device, 2048 if device.type == "cpu" else 8192)
    print(
        f"{options.network}, {options.classes:,} classes, batch {options.batch}, {options.rounds} rounds, {device.type}"
    )
    against = " | ".join(f"against {name}" for name in references)
    print(f"| step | seconds | {against} | of {peak / 1e9:,.0f} GFLOP/s (bf16 product) |")
    print("|---" * (3 + len(references)) + "|")
    for name, times in seconds.items():
        median, ratios = statistics.median(times), [ratio(seconds[other], times) for other in references]
        print(f"| {name} | {median:.3f} | {' | '.join(ratios)} | {work / median / peak:.0%} |")


def ratio(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def matrix_rate(device, size, rounds=5):
    """Operations a second of a large bf16 matrix product, the best of a few: the ceiling of this machine."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        (a @ b).sum().item()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times[1:])


if __name__ == "__main__":
    main()
