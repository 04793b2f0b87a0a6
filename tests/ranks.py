"""Run a function in several processes that form a gloo group, and collect what each of them returns."""

import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_on_ranks(work, world_sizes):
    """Call work() on every rank of each world size in turn, in the same processes: to import torch takes seconds.

    work: a function of a module.  returns: {world size: [result of rank 0, ...]}. A rank's exception is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(be_rank, (work, world_sizes, folder), nprocs=max(world_sizes))
        return {
            size: [torch.load(Path(folder, f"{size}_{rank}.pt"), weights_only=False) for rank in range(size)]
            for size in world_sizes
        }


def be_rank(rank, work, world_sizes, folder):
    torch.set_num_threads(1)  # or four processes with a thread per core would get in each other's way
    for size in world_sizes:
        if rank < size:
            meeting = f"file://{folder}/meet_{size}"
            dist.init_process_group("gloo", meeting, rank=rank, world_size=size, timeout=timedelta(seconds=60))
            torch.save(work(), Path(folder, f"{size}_{rank}.pt"))
            dist.barrier()  # a rank that leaves early would cut the others' connections
            dist.destroy_process_group()
