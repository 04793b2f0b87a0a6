"""What every network promises, whatever its family: shapes, precision, memory format, dropout, recomputation."""

import pytest
import torch
from torch import nn

from arcface_edu.errors import ConfigError
from arcface_edu.models import build_model

ONE_OF_EACH = ["r10", "mbf", "vit_t"]


def faces(count):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("network", [*ONE_OF_EACH, "r18", "mbf_large"])
def test_embedding_is_float32_also_under_autocast(network):
    torch.manual_seed(0)
    model = build_model(network, embedding_size=64)
    seen = []
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].dtype))
    assert model(faces(2)).shape == (2, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(faces(2)).dtype == torch.float32
    assert seen == [torch.float32] * 2


@pytest.mark.parametrize("network", ONE_OF_EACH)
def test_channels_last_changes_nothing(network):
    torch.manual_seed(0)
    model = build_model(network, 64).eval()
    expected = model(faces(2))
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        model(faces(2).contiguous(memory_format=torch.channels_last)), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("network", ONE_OF_EACH)
def test_gradient_checkpointing_changes_nothing_but_memory(network):
    """Neither gradients nor BN's statistics nor what is dropped and hidden at random."""
    outcomes = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_model(network, 32, gradient_checkpointing=checkpointing)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept = []

        def keep(t, kept=kept, weights=weights):
            kept.append(0 if t.untyped_storage().data_ptr() in weights else t.numel())
            return t

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            embeddings = model(faces(4))
        embeddings.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        outcomes.append((embeddings.detach(), gradients, dict(model.named_buffers()), sum(kept)))
    plain, recomputed = outcomes
    torch.testing.assert_close(plain[:3], recomputed[:3], rtol=1e-4, atol=1e-5)
    assert recomputed[3] < 0.6 * plain[3]


@pytest.mark.parametrize("network", ONE_OF_EACH)
def test_dropout_stands_before_the_last_linear_layer(network):
    torch.manual_seed(0)
    model = build_model(network, dropout=0.5)
    seen = []
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model(faces(4))
    assert 0.4 < (seen[0] == 0).float().mean() < 0.6
    model.eval()(faces(4))
    assert (seen[1] == 0).float().mean() < 0.1


def test_unknown_network_is_named():
    with pytest.raises(ConfigError, match='no network called "r51"; known are r10, r10_quick, r18'):
        build_model("r51")
