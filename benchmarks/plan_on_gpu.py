"""The plan's predictions beside the GPU of this machine: memory and images/s of real steps, for docs/plan.md.

    python benchmarks/plan_on_gpu.py [--gpu h100] [--rounds 20]

Each row is planned on fake tensors and then taken on the GPU, in a fresh process, on random images: the step is the
same code. "Tensors" is what PyTorch counts at the peak, "driver" what nvidia-smi would show of the process.
"""

import argparse
import multiprocessing
import statistics
import time

import torch
from step import matrix_rate
from tqdm import tqdm

from arcface_edu.config import load_config
from arcface_edu.planning.gpus import GPUS, dtype_on, memory_on, time_on
from arcface_edu.planning.measure import fake_batch, measure_step
from arcface_edu.training.precision import choose_device, choose_dtype
from arcface_edu.training.prepare import complete_without_data
from arcface_edu.training.state import build_state

MIB = 2**20
ROWS = [
    "network=r50",
    "network=r50 batch_size=512",
    "network=r50 amp_dtype=fp16",
    "network=r50 fp16=False",
    "network=r50 num_classes=1000000",
    "network=r50 num_classes=1000000 sample_rate=0.1",
    "network=r100",
    "network=r100 batch_size=512",
    "network=r100 batch_size=512 gradient_checkpointing=True",
    "network=r200",
    "network=mbf batch_size=512",
    "network=vit_b batch_size=256 optimizer=adamw",
]


def build_config(row):
    return complete_without_data(load_config("ms1mv3_r50_onegpu", row.split()), 1)


def take_steps(row, rounds):
    """(name of the GPU, seconds of a step, bytes of tensors at the peak, bytes that the driver has given)."""
    config, device = build_config(row), choose_device("cuda")
    state = build_state(config, config.num_classes, device, choose_dtype(config, device))
    images, labels = fake_batch(config)
    images, labels = images.uniform_(-1, 1).to(device), labels.random_(config.num_classes).to(device)
    seconds = []
    for number in range(rounds + 3):
        if number == 3:  # by then momentum and workspaces are made
            torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        began = time.perf_counter()
        state.step([(images, labels)] * config.gradient_acc)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    free, total = torch.cuda.mem_get_info()
    return torch.cuda.get_device_name(), statistics.median(seconds[3:]), torch.cuda.max_memory_allocated(), total - free


def rate_of_products():
    return matrix_rate(torch.device("cuda"), size=8192)


def in_fresh_process(function, *arguments):  # not head.py's: imported, it takes the GPU, and would be counted as well
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=GPUS, default="h100", help="by its name in planning/gpus.py")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    gpu, lines, names = GPUS[options.gpu], [], set()
    for row in tqdm(ROWS, unit="row"):
        name, seconds, tensors, driver = in_fresh_process(take_steps, row, options.rounds)
        config = build_config(row)
        planned = measure_step(config, 1, dtype_on(config, gpu))
        names.add(name)
        cells = [row.replace("network=", ""), str(config.batch_size)]
        for found, predicted in (
            (tensors / MIB, planned.peak / MIB),
            (driver / MIB, sum(memory_on(planned).values()) / MIB),
            (config.batch_size / seconds, config.batch_size / time_on(planned, gpu).step),
        ):
            cells += [f"{found:,.0f}", f"{predicted:,.0f}", f"{predicted / found - 1:+.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    print(f"{', '.join(names)}: a bf16 product of 8,192 x 8,192 matrices reaches", end=" ")
    print(f"{in_fresh_process(rate_of_products) / 1e12:,.0f} TFLOP/s")
    print("| what | batch | tensors, MiB | planned | off | driver, MiB | planned | off | images/s | planned | off |")
    print("|" + "---|" * 11)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
