"""What it costs to log every step's target angles: the default run's step with and without `Meter.add`.

    python benchmarks/angle_logging.py [--steps 60]

Way A takes the step of the default run (r10, 500 people, batch 64, bf16 where the processor has it) without the log,
way B with it: angle, mean and histogram of 64 target cosines. They alternate step by step in one process on one thread.
So small a difference drowns in the noise of a step; so `Meter.add` is also timed where it stands in B's step, its data
as cold as they are there, and held against A's median. The clock is the processor time of the process, so that other
programs on the machine weigh little.
"""

import argparse
import statistics
import time

import torch
from tqdm import tqdm

from arcface_edu.config import load_config
from arcface_edu.data.images import to_input
from arcface_edu.heads import build_head
from arcface_edu.models import build_model
from arcface_edu.training.metrics import Meter
from arcface_edu.training.optim import build_optimizer
from arcface_edu.training.precision import autocast, choose_device, choose_dtype
from arcface_edu.training.state import StepResult


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="of each way")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, device = load_config("drawn_faces"), choose_device("cpu")
    dtype = choose_dtype(config, device)
    model = build_model(config.network, config.embedding_size).to(memory_format=torch.channels_last)
    head = build_head(config, config.draw_identities)
    optimizer, meter = build_optimizer(config, model, head), Meter(device)
    images = torch.randint(0, 256, (config.batch_size, 3, 112, 112), dtype=torch.uint8)
    labels = torch.randint(0, config.draw_identities, (config.batch_size,))

    of_the_log = []  # seconds

    def step(logged):
        with autocast(device, dtype):
            embeddings = model(to_input(images))
        loss = head(embeddings, labels)
        loss.backward()
        if logged:
            began = time.process_time()
            meter.update(StepResult([loss.detach()], [head.target_cosine], None, True))
            of_the_log.append(time.process_time() - began)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = {False: [], True: []}
    for number in tqdm(range(-6, 2 * steps), unit="step"):
        began = time.process_time()
        step(logged=number % 2 == 1)
        if number >= 0:
            seconds[number % 2 == 1].append(time.process_time() - began)
    without, with_log = (statistics.median(seconds[way]) for way in (False, True))
    for name, way in (("A without", False), ("B with", True)):
        low, middle, high = (1e3 * of(seconds[way]) for of in (min, statistics.median, max))
        print(f"{name:9} the log: {middle:8.2f} ms a step ({low:.2f} to {high:.2f})")
    print(f"B / A: {with_log / without:.4f}")
    low, middle, high = (of(of_the_log) for of in (min, statistics.median, max))
    print(f"Meter.add within the step: {1e6 * middle:.0f} microseconds ({1e6 * low:.0f} to {1e6 * high:.0f}), "
          f"{middle / without:.3%} of A")  # fmt: skip


if __name__ == "__main__":
    main()
