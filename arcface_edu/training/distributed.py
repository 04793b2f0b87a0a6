"""Processes: who this one is, and the few things that all of them must agree on.

    torchrun --nproc_per_node=2 -m arcface_edu.train        two processes on this machine
    python -m arcface_edu.train                             one, which needs no process group at all

Every function here also works alone, where it does next to nothing.
"""

import contextlib
import datetime
import os
import queue
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.errors import ArcfaceError, ConfigError, TrainingError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
TOO_LONG = ("timed out", "timeout")  # gloo's words for a message that did not come, and for the others behind it
GRACE = 3  # seconds; ranks that wait for the same message give up at almost the same moment
COMPRESSION = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}


class World(NamedTuple):
    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine

    @property
    def leads(self):
        """The one process that prints and writes what all share."""
        return self.rank == 0


ALONE = World()


def read_world():
    """Who this process is, from the variables that torchrun sets."""
    present = [name for name in VARIABLES if name in os.environ]
    if not {"RANK", "WORLD_SIZE"} & set(present):
        return ALONE
    if missing := [name for name in VARIABLES if name not in present]:
        raise ConfigError(
            f"the environment has {', '.join(present)} but not {', '.join(missing)}; start several processes with "
            f"`torchrun --nproc_per_node=N -m arcface_edu.train ...`, which sets them all."
        )
    return World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextlib.contextmanager
def join_world(timeout_seconds=600):
    """Join the processes that torchrun started.  yields: World.

    PyTorch takes nccl for tensors on CUDA and gloo for those on the CPU. Processes other than the first print nothing;
    if one fails, all end with its error, which is printed once.
    """
    world = read_world()
    if world.size == 1:
        yield world
        return
    timeout = datetime.timedelta(seconds=timeout_seconds)
    try:
        store = meet(timeout)
        store = dist.PrefixStore(agree_on_attempt(store, world, timeout), store)
        dist.init_process_group(store=store, timeout=timeout, rank=world.rank, world_size=world.size)
    except (RuntimeError, ValueError, TimeoutError) as error:  # also dist.DistError
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        advice = (
            "is that port taken, or the machine out of reach? torchrun's --master_port and --rdzv_endpoint choose "
            "another."
        )
        if "gloo" in str(error).lower():  # they have met, but the addresses that they tell each other lead nowhere
            advice = "GLOO_SOCKET_IFNAME=eth0, or such, names the network card that leads to them."
        raise ConfigError(
            f"rank {world.rank} cannot meet the other processes at {where} ({first_line(error)}); {advice}"
        ) from error
    with open(os.devnull, "w") as nowhere:
        try:
            with contextlib.nullcontext() if world.leads else contextlib.redirect_stdout(nowhere):
                yield world
        except Exception as error:
            raise tell_once(error, world, store) from error
    dist.destroy_process_group()


def meet(timeout):
    """The store in which the processes find each other. Raises TimeoutError.

    Where another program listens at that port and says nothing, PyTorch waits for ever: so it waits in a thread.
    """
    answer = queue.SimpleQueue()

    def knock():
        try:
            answer.put(next(dist.rendezvous("env://", timeout=timeout))[0])
        except Exception as error:
            answer.put(error)

    threading.Thread(target=knock, daemon=True).start()
    try:
        store = answer.get(timeout=timeout.total_seconds() + GRACE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout.total_seconds():.0f} seconds") from None
    if isinstance(store, Exception):
        raise store
    return store


def agree_on_attempt(store, world, timeout):
    """A name for this attempt that all processes of it have, and none of an earlier one.

    torchrun keeps one store over its restarts: what processes that are dead now left there must not be read. Its
    TORCHELASTIC_RESTART_COUNT differs between machines, each of which counts its own faults, and does not change when a
    machine joins. So rank 0 names the attempt, and says who has heard of it: a name from before lists others.
    """
    me = uuid.uuid4().hex
    if world.leads:
        store.set("attempt", me)
        store.set(f"{me}/heard", ",".join(store.get(f"{me}/{rank}").decode() for rank in range(1, world.size)))
        return me
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        attempt = store.get("attempt").decode()
        store.set(f"{attempt}/{world.rank}", me)
        with contextlib.suppress(dist.DistStoreError):
            store.wait([f"{attempt}/heard"], datetime.timedelta(seconds=1))
            if me in store.get(f"{attempt}/heard").decode():
                return attempt
            time.sleep(0.1)
    raise dist.DistStoreError(f"no answer in {timeout.total_seconds():g} s")


def tell_once(error, world, store):
    """Of the errors that processes end with, the first is the cause, and it alone is printed; a note in the store says
    whose that is. The others have only lost the connection to a process that is gone."""
    if is_lost_process(error):
        error = TrainingError(
            f"{who_is_silent(str(error), world, store)}; it hangs, died or was cut off. "
            f"resume=True goes on from the last checkpoint."
        )
    with contextlib.suppress(RuntimeError):  # the store may be gone as well
        mine = f"rank {world.rank}"
        first = store.compare_set("failed", "", mine).decode()
        error.said_elsewhere = first != mine
        if error.said_elsewhere and not isinstance(error, (ArcfaceError, OSError)):
            error = TrainingError(f"{first} failed.")
            error.said_elsewhere = True
    return error


def is_lost_process(error):
    """Whether this is how PyTorch says that a message found no other process; gloo has no error class of its own."""
    words = ("gloo", "nccl", "connection", *TOO_LONG)
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def who_is_silent(reason, world, store):
    """Of a collective that came to no end: the ranks that do not even say so within a few seconds of this one."""
    with contextlib.suppress(RuntimeError):  # the store may be gone as well
        store.set(f"answers_{world.rank}", "")
        if any(word in reason.lower() for word in TOO_LONG):
            time.sleep(GRACE)
            silent = [rank for rank in range(world.size) if not store.check([f"answers_{rank}"])]
            if silent:
                return f"rank {' and rank '.join(map(str, silent))} did not answer in time"
    return f"rank {world.rank} has lost another process"


def first_line(error):
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def alone():
    return not dist.is_initialized()


def everyones(thing):
    """A plain value of every rank, as a list by rank."""
    if alone():
        return [thing]
    things = [None] * dist.get_world_size()
    dist.all_gather_object(things, thing)
    return things


def sum_over_ranks(tensor):
    """The sum of every rank's tensor, on every rank."""
    if not alone():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def everyones_later(numbers):
    """Begin to collect a list of whole numbers from every rank.  returns: a function that gives the k-th, by rank."""
    if alone():
        return lambda k: [numbers[k]]
    table = torch.zeros(dist.get_world_size(), len(numbers), dtype=torch.long)
    table[dist.get_rank()] = torch.tensor(numbers)
    work = dist.all_reduce(table, async_op=True)

    def arrived(k):
        work.wait()
        return table[:, k].tolist()

    return arrived


@contextlib.contextmanager
def one_by_one(world):
    """Within it, one process of each machine goes first, and the others follow; its error is theirs as well."""
    if world.local_rank > 0:
        if problem := next(filter(None, everyones(None)), None):
            raise ConfigError(problem)
        yield
        return
    try:
        yield
    except Exception as error:
        everyones(str(error))
        raise
    everyones(None)


def begun_before():
    """Whether this is no new run: torchrun has started processes again, on this machine or another, after a fault or
    because a machine came or went."""
    note = note_of_beginning()
    return any(everyones(bool(note and note.exists())))


def remember_beginning():
    """Tell processes that torchrun may start in place of this one that the run has begun."""
    if note := note_of_beginning():
        note.touch()


def note_of_beginning():
    """The path of that note, in the temporary folder that one start of torchrun has; None without torchrun."""
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder>/attempt_<n>/<local rank>/error.json
    return Path(errors).parents[2] / f"begun_{os.environ['LOCAL_RANK']}" if errors else None


def same_everywhere(things):
    """Raise ConfigError, on every rank, if a dict of plain values is not the same on all: names rank and key."""
    everyone = everyones(things)
    for rank, theirs in enumerate(everyone):
        for key, value in everyone[0].items():
            if theirs.get(key) != value:
                raise ConfigError(
                    f"rank {rank} has {key}={theirs.get(key)!r} and rank 0 has {value!r}; "
                    f"all processes of a run need the same config and the same data."
                )


def distribute(module, config, device):
    """The module as all processes train it together: after a backward pass each has the mean of all gradients."""
    if config.parallel == "dp":
        return replicate(module, device)
    if alone():
        return module
    if config.sync_bn:
        if device.type == "cpu":
            raise ConfigError("sync_bn=True needs GPUs: PyTorch has no SyncBatchNorm for the CPU; leave it out here.")
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    # Each rank's BN keeps statistics of its own images; `average_bn_statistics` brings them together when they count.
    with warnings.catch_warnings():  # from torch 2.15 on, broadcast_buffers is being renamed; 2.9 knows this name alone
        warnings.simplefilter("ignore", FutureWarning)
        together = DistributedDataParallel(
            module, bucket_cap_mb=config.ddp_bucket_mb, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    if config.gradient_compression:
        together.register_comm_hook(None, COMPRESSION[config.gradient_compression])
    return together


def replicate(module, device):
    """The module in nn.DataParallel: one process that copies it to all its GPUs at every step, and scatters the batch.

    Where that cannot be, it says why, and the module stays as it is.
    """
    if not alone():
        raise ConfigError(
            "parallel=dp is one process with many GPUs, but torchrun has started several processes; start it with "
            "`python -m arcface_edu.train`, or leave parallel=dp out."
        )
    count = torch.accelerator.device_count() if device.type == "cuda" else 0
    if count > 1:
        return nn.DataParallel(module)
    reason = "there is one" if count else f"the run is on the {device.type}"
    print(f"parallel=dp copies the network to several GPUs, but {reason}: this run goes on without it.")
    return module


@contextlib.contextmanager
def averaging(modules, now):
    """Forward and backward within it average gradients over ranks `now`, or else only add to this rank's own."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            if isinstance(module, DistributedDataParallel) and not now:
                stack.enter_context(module.no_sync())
        yield


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def average_bn_statistics(model):
    """Each rank's BN has seen its own images only; the mean over ranks goes into evaluation and checkpoints."""
    statistics = [statistic for norm in batch_norms(model) for statistic in (norm.running_mean, norm.running_var)]
    if alone() or not statistics:
        return
    means = sum_over_ranks(torch.cat(statistics)) / dist.get_world_size()  # all in one message
    for statistic, mean in zip(statistics, means.split([len(s) for s in statistics]), strict=True):
        statistic.copy_(mean)
