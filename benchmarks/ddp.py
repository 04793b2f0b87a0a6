"""The default run's step by 2 processes of 1 thread, against 1 process of 2 threads: the same 64 images a step.

    python benchmarks/ddp.py [key=value ...]        keys of the config, as ddp_bucket_mb=1

Both ways run the training loop itself, reading, network, head, DDP and optimizer included; only checkpoints are left
out. They take turns, 31 steps each, and the others wait while one works. Besides, the same without what the trainer
asks of Linux (arcface_edu/training/cpu.py). For figures worth noting the machine should do nothing else.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time

import torch
from tqdm import tqdm

from arcface_edu import train
from arcface_edu.config import load_config
from arcface_edu.training import cpu
from arcface_edu.training.launch import join_world
from arcface_edu.training.prepare import drawn_faces

ALL = ["take_own_cores", "schedule_as_batch", "keep_freed_memory"]
IMAGES, STEPS, ROUNDS = 64, 31, 8
# The default run's network, head and batch on fewer drawings of the 500 people: they are read again and again.
WORDS = ["draw_photos=4", "draw_pairs=60", f"num_epoch={ROUNDS + 2}", "frequent=50"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value")
    words = [*WORDS, *parser.parse_args().words]
    no_readers = ["num_workers=0", *words]
    drawn_faces(load_config("drawn_faces", words))  # now, so that nobody has to wait for it later
    os.environ["TQDM_DISABLE"] = "1"  # in the processes to come, where tqdm reads it on import
    compare(
        {
            "1 process x 2 threads": start(1, 2, words),
            "1 x 2, no reader process": start(1, 2, no_readers),
            "1 x 2, freed memory goes back": start(1, 2, words, ["keep_freed_memory"]),
            "2 processes x 1 thread": start(2, 1, no_readers),
            "2 x 1, on any core": start(2, 1, no_readers, ["take_own_cores"]),
            "2 x 1, on any core, not as batch work": start(2, 1, no_readers, ["take_own_cores", "schedule_as_batch"]),
            "2 x 1, all that, freed memory goes back": start(2, 1, no_readers, ALL),
        }
    )


def compare(ways):
    """Let the ways (name -> processes) take turns, and print their speeds, and each one's over the first's."""
    for ranks in ways.values():
        take_a_turn(ranks, first=True)
    seconds = {name: [] for name in ways}
    for number in tqdm(range(ROUNDS + 1), unit="round"):
        for name, ranks in ways.items():
            taken = take_a_turn(ranks)
            if number:  # the first is for warming up
                seconds[name].append(taken)
    for ranks in ways.values():
        for process, _ in ranks:
            process.kill()
    first = next(iter(seconds.values()))
    for name, times in seconds.items():
        rates = [IMAGES * STEPS / taken for taken in times]
        ratios = [one / other for one, other in zip(first, times, strict=True)]
        print(
            f"{name}: {statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f}), "
            f"{statistics.median(ratios):.2f} of the first ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def start(size, threads, words, without=()):
    """Processes that train together, each with the pipe on which it waits for its turn.

    without: names of functions in arcface_edu/training/cpu.py that do nothing.
    """
    spawn, ranks = multiprocessing.get_context("spawn"), []
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for rank in range(size):
        here, there = spawn.Pipe()
        process = spawn.Process(target=be_rank, args=(rank, size, threads, port, words, without, there))
        process.start()
        there.close()
        ranks.append((process, here))
    return ranks


def take_a_turn(ranks, first=False):
    """Let the processes do their steps.  returns: seconds until all were done. The first turn ends before any step."""
    began = time.perf_counter()
    for _, pipe in () if first else ranks:
        pipe.send("go")
    for _, pipe in ranks:
        pipe.recv()  # EOFError if it has died; it has said why
    return time.perf_counter() - began


def be_rank(rank, size, threads, port, words, without, pipe):
    for name in without:
        setattr(cpu, name, lambda *_: None)
    torch.set_num_threads(threads)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))

    def draw_in_turn(parts, world_size, batch_size, step, seed):
        if step % STEPS == 0:
            pipe.send("done")
            pipe.recv()
        return draw(parts, world_size, batch_size, step, seed)

    draw, train.draw_mirrored = train.draw_mirrored, draw_in_turn  # the loop calls it once a step
    train.save_checkpoint = lambda *_: None
    with tempfile.TemporaryDirectory() as output, join_world() as world:
        words = [*words, f"batch_size={IMAGES // size}", f"output={output}"]
        train.train(load_config("drawn_faces", words), world)


if __name__ == "__main__":
    main()
