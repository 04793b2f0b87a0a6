"""A module on several processes or GPUs: DistributedDataParallel, DataParallel, and BN's statistics between ranks."""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from arcface_edu.errors import ConfigError
from arcface_edu.training.collectives import all_reduce_sum, is_distributed

log = logging.getLogger(__name__)
COMPRESSION = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}


def wrap_parallel(module: nn.Module, config: Any, device: torch.device) -> nn.Module:
    """Wrap a module in DDP, or where the config asks for it in DataParallel; in a single process return it as it is.

    Raises:
        ConfigError: `parallel` or `sync_bn` cannot be had here.
    """
    if config.parallel == "dp":
        return wrap_dp(module, device)
    if not is_distributed():
        return module
    if config.sync_bn:
        if device.type == "cpu":
            raise ConfigError("sync_bn=True needs GPUs: PyTorch has no SyncBatchNorm for the CPU; leave it out here.")
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    # Each rank's BN keeps statistics of its own images; `average_bn_statistics` brings them together when they count.
    with warnings.catch_warnings():  # from torch 2.15 on, broadcast_buffers is being renamed; 2.9 knows this name alone
        warnings.simplefilter("ignore", FutureWarning)
        ddp = DistributedDataParallel(
            module, bucket_cap_mb=config.ddp_bucket_mb, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    if config.gradient_compression:
        ddp.register_comm_hook(None, COMPRESSION[config.gradient_compression])
    return ddp


def wrap_dp(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a module in nn.DataParallel: one process copies it to all its GPUs at every step and scatters the batch.

    With fewer than two GPUs it logs why, and returns the module as it is.
    """
    if is_distributed():
        raise ConfigError(
            "parallel=dp is one process with many GPUs, but torchrun has started several processes; start it with "
            "`python -m arcface_edu.train`, or leave parallel=dp out."
        )
    count = torch.accelerator.device_count() if device.type == "cuda" else 0
    if count > 1:
        return nn.DataParallel(module)
    reason = "there is one" if count else f"the run is on the {device.type}"
    log.info("parallel=dp copies the network to several GPUs, but %s: this run goes on without it.", reason)
    return module


@contextlib.contextmanager
def sync_gradients(modules: Iterable[nn.Module], enabled: bool) -> Iterator[None]:
    """Average the gradients of forward and backward within it over ranks, or only add them to this rank's own."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            if isinstance(module, DistributedDataParallel) and not enabled:
                stack.enter_context(module.no_sync())
        yield


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def average_bn_statistics(model: nn.Module) -> None:
    """Give every rank the mean over ranks of BN's running statistics: what is evaluated and saved.

    Each rank's BN has seen its own images only.
    """
    both = [statistic for norm in batch_norms(model) for statistic in (norm.running_mean, norm.running_var)]
    statistics = [statistic for statistic in both if statistic is not None]
    if not is_distributed() or not statistics:
        return
    means = all_reduce_sum(torch.cat(statistics)) / dist.get_world_size()  # all in one message
    for statistic, mean in zip(statistics, means.split([len(s) for s in statistics]), strict=True):
        statistic.copy_(mean)
