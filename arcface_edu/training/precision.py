"""Which device a run uses, and in which number format its network computes there."""

from typing import Any

import torch
import torch.distributed as dist

from arcface_edu.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | None = None, local_rank: int = 0) -> torch.device:
    """Return the device called `name`; without a name the machine's accelerator, or else the CPU.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps" ...
        local_rank: Of this process on its machine; each takes the accelerator of its own number.

    Raises:
        ConfigError: The device cannot be used here.
    """
    if name is None and not torch.accelerator.is_available():
        return torch.device("cpu")
    if name is None:
        accelerator = torch.accelerator.current_accelerator()
        name = accelerator.type if accelerator else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.empty(0, device=device)
        if device.type == "cuda":
            torch.accelerator.set_device_index(device.index)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f'device="{name}" cannot be used here: {str(error).splitlines()[0]}') from error
    return device


def choose_dtype(config: Any, device: torch.device) -> torch.dtype:
    """Return the format of the network's matrix work: fp32, or for mixed precision what the device does well.

    bf16 has fp32's range and needs no scaler; fp16 on GPUs without bf16. A CPU without bf16 instructions would only
    emulate either, slower than fp32, and stays with that.
    """
    if not config.fp16:
        return torch.float32
    if config.amp_dtype:
        return DTYPES[config.amp_dtype]
    if device.type == "cpu":
        known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
        has_bf16 = any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return torch.bfloat16 if has_bf16 else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context in which a network computes in that format."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def build_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Build the loss scaler, without which small gradients would vanish in fp16; for other formats it does nothing.

    When one rank's shard of the head overflows, all ranks have to skip the step: PyTorch's scaler for sharded weights
    asks all of them.
    """
    enabled = dtype == torch.float16
    if enabled and dist.is_initialized():
        from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler  # a slow import

        return ShardedGradScaler(device.type, process_group=dist.group.WORLD)
    return torch.amp.GradScaler(device.type, enabled=enabled)
