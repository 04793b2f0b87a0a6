"""Which number format a run gets, whatever the machine."""

import pytest
import torch

from arcface_edu.config import load_config
from arcface_edu.errors import ConfigError
from arcface_edu.training.precision import build_scaler, choose_device, choose_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("words", "device", "abilities", "dtype"),
    [
        ([], "cpu", {"avx512_bf16": True}, torch.bfloat16),
        ([], "cpu", {"bf16": True}, torch.bfloat16),  # an ARM core
        ([], "cpu", {"avx512_f": True}, torch.float32),  # would only emulate it
        (["fp16=False"], "cpu", {"avx512_bf16": True}, torch.float32),
        (["amp_dtype=fp16"], "cpu", {}, torch.float16),
        (["amp_dtype=bf16"], "cpu", {}, torch.bfloat16),
        ([], "mps", {}, torch.float16),
    ],
)
def test_choice_of_dtype(monkeypatch, words, device, abilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert choose_dtype(load_config(overrides=words), torch.device(device)) == dtype


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpus_use_bf16_only_where_it_is_no_emulation(monkeypatch, native, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_dtype(load_config(), torch.device("cuda")) == dtype


def test_only_fp16_is_scaled():
    assert build_scaler(CPU, torch.float16).is_enabled()
    assert not build_scaler(CPU, torch.bfloat16).is_enabled()
    assert not build_scaler(CPU, torch.float32).is_enabled()


def test_device_by_name():
    assert choose_device("cpu") == CPU
    for name in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f'device="{name}" cannot be used here'):
            choose_device(name)
