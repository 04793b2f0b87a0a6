"""One step: what a rank notices of an overflow, all act upon; DataParallel says when it cannot be."""

import functools
import sys

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from torch.utils._python_dispatch import TorchDispatchMode

from arcface_edu.config import load_config
from arcface_edu.errors import ConfigError
from arcface_edu.training.collectives import assert_same_on_all_ranks
from arcface_edu.training.launch import World
from arcface_edu.training.metrics import Meter
from arcface_edu.training.parallel import average_bn_statistics
from arcface_edu.training.state import TrainState, build_state

CPU = torch.device("cpu")


def small(*words):
    return load_config("drawn_faces", ["embedding_size=16", "max_norm=0", "device=cpu", *words])


def step_with_overflow_on(rank):
    """Whether the step was taken, and whether weights moved: of an fp16 step in which that rank's shard overflows."""
    me = World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World()
    state = build_state(small("amp_dtype=fp16"), 10, CPU, torch.float16, me)
    state.scaler.scale(torch.zeros(()))  # makes its scale, which at first is so large that anything overflows
    state.scaler.update(16.0)
    before = [p.detach().clone() for p in (*state.model.parameters(), state.head.weight)]
    generator = torch.Generator().manual_seed(me.rank)
    images, labels = torch.randn(4, 3, 112, 112, generator=generator), torch.arange(4)
    state.backward(state.loss(images, labels))
    if me.rank == rank:
        state.head.weight.grad[0, 0] = float("inf")
    (_, taken), scale = state.optimizer_step(), state.scaler.get_scale()
    after = (*state.model.parameters(), state.head.weight)
    return taken, scale, any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def first_overflows():
    return step_with_overflow_on(0)


def last_overflows():
    return step_with_overflow_on(1)


def none_overflows():
    return step_with_overflow_on(None)


@pytest.mark.parametrize("work", [first_overflows, last_overflows])
def test_no_rank_steps_alone_when_another_overflows(work):
    for outcomes in run_on_ranks(work, [2]).values():
        assert [(taken, moved) for taken, _, moved in outcomes] == [(False, False)] * 2
        assert {scale for _, scale, _ in outcomes} == {8.0}


def test_without_overflow_all_step():
    for outcomes in run_on_ranks(none_overflows, [1, 2]).values():
        assert {(taken, scale, moved) for taken, scale, moved in outcomes} == {(True, 16.0, True)}


def micro_batches(count):
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(8, 3, 112, 112, generator=generator), torch.arange(8)
    return list(zip(images.chunk(count), labels.chunk(count), strict=True))


def test_micro_batches_step_as_the_big_batch_does(monkeypatch):
    monkeypatch.setattr(TrainState, "set_train_mode", lambda state, *_: state.model.eval())  # BN sees a part of it each
    weights = []
    for count in (1, 4):
        state = build_state(small("fp16=False", f"gradient_acc={count}", "lr=0.1"), 10, CPU, torch.float32)
        state.step(micro_batches(count))
        weights.append(dict(state.model.named_parameters()) | dict(state.head.named_parameters()))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def facts_of_a_rank():
    """Weights and dropout after the start, BN's mean over ranks, images that a resumed log counts, and who differs."""
    rank = dist.get_rank()
    state = build_state(small(), 10, CPU, torch.float32, World(rank, dist.get_world_size()))
    dropout = torch.rand(1).item()
    state.model.bn1.running_mean.fill_(rank)
    average_bn_statistics(state.model)
    meter = Meter(CPU)
    meter.load_state_dict(dict(sums=torch.ones(4), histogram=torch.zeros(90), images=6))
    with pytest.raises(ConfigError) as differing:
        assert_same_on_all_ranks(dict(network="r10", seed=7 if rank == 1 else 2048))
    weight = state.model.conv1.weight.sum().item()
    return weight, dropout, state.model.bn1.running_mean[0].item(), meter.reduce()[2], str(differing.value)


def test_what_ranks_have_in_common_and_what_not():
    weights, dropout, means, images, differing = zip(*run_on_ranks(facts_of_a_rank, [2])[2], strict=True)
    assert weights[0] == weights[1] and dropout[0] != dropout[1]
    assert means == (0.5, 0.5)
    assert images == (6, 6)
    assert all("rank 1 has seed=7 and rank 0 has 2048" in sentence for sentence in differing)


@pytest.mark.parametrize("words", [(), ("loss=softmax",), ("network=mbf",), ("network=vit_t_dp005_mask0",)])
def test_a_batch_of_which_nothing_or_one_image_could_be_read_does_no_harm(words):
    state = build_state(small(*words), 10, CPU, torch.bfloat16)
    for images in (2, 0, 1):
        result = state.step([(torch.randn(images, 3, 112, 112), torch.arange(images))])
        (loss,) = result.losses
        assert torch.isfinite(loss) and (loss > 0) == (images > 0)
        assert result.updated
    assert all(torch.isfinite(value).all() for value in state.model.state_dict().values())


class NoReading(TorchDispatchMode):
    """Raises where a step asks for a number that the device has yet to compute: there it would wait for it."""

    READS = ("_local_scalar_dense", "nonzero", "_unique2", "equal", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in self.READS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "words", [(), ("loss=softmax",), ("margin_gradient=exact", "max_norm=5"), ("optimizer=adamw",)]
)
def test_a_step_waits_for_nothing_that_the_device_computes(words, monkeypatch):
    monkeypatch.setattr("arcface_edu.heads.margin_softmax.check_labels", lambda *_, **__: None)  # looks on the CPU only
    monkeypatch.setattr("arcface_edu.heads.softmax.check_labels", lambda *_, **__: None)
    state = build_state(small(*words), 10, CPU, torch.bfloat16)
    images, labels = torch.randn(4, 3, 112, 112), torch.arange(4)
    monkeypatch.setattr("arcface_edu.training.state.item_async", lambda _: lambda: True)  # a GPU's, tested on GPUs
    meter = Meter(CPU)
    with NoReading():
        result = state.step([(images, labels)])
        meter.update(result)
        with pytest.raises(AssertionError, match="waits for the device"):
            result.losses[0].item()


def test_the_gradient_norm_is_that_before_clipping():
    state = build_state(small("max_norm=0.01", "amp_dtype=fp16"), 10, CPU, torch.float16)
    state.scaler.scale(torch.zeros(()))
    state.scaler.update(16.0)  # the norm is that of the gradient without this
    state.backward(state.loss(torch.randn(4, 3, 112, 112), torch.arange(4)))
    squares = sum(p.grad.double().square().sum() for p in state.model.parameters() if p.grad is not None)
    grad_norm, updated = state.optimizer_step()
    assert updated
    assert grad_norm.item() == pytest.approx(squares.sqrt().item() / 16, rel=1e-3)
    assert grad_norm > 0.01


def test_data_parallel_says_why_it_stays_out(capsys):
    state = build_state(small("parallel=dp"), 10, CPU, torch.float32)
    assert state.ddp_model is state.model
    assert "parallel=dp copies the network to several GPUs, but the run is on the cpu" in capsys.readouterr().out


@pytest.mark.skipif(
    torch.accelerator.device_count() < 2, reason="DataParallel needs two GPUs, and this machine has fewer"
)
def test_data_parallel_computes_what_one_gpu_does():
    device = torch.accelerator.current_accelerator()
    images, labels = torch.randn(8, 3, 112, 112, device=device), torch.arange(8, device=device)
    losses = {}
    for way in ("ddp", "dp"):
        state = build_state(small(f"parallel={way}", "fp16=False"), 10, device, torch.float32)
        state.model.eval()  # BN of a part of the batch is not that of the whole
        losses[way] = state.loss(images, labels)
        state.backward(losses[way])
        losses[f"gradient {way}"] = state.model.conv1.weight.grad
    torch.testing.assert_close(losses["dp"], losses["ddp"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["gradient dp"], losses["gradient ddp"], rtol=1e-3, atol=1e-5)


def test_compiled_it_takes_the_same_step(monkeypatch):
    """The graph that torch.compile makes of the network, forward and backward, run as it is: that needs no compiler."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setenv("CXX", sys.executable)
    images, labels = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    ends = []
    for word in ("compile=False", "compile=True"):
        state = build_state(small("fp16=False", "lr=0.1", word), 10, CPU, torch.float32)
        state.backward(state.loss(images, labels))
        state.optimizer_step()
        ends.append(state.model.state_dict())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)  # the names, too


@pytest.mark.slow
@pytest.mark.parametrize("network", ["r50", "mbf", "vit_b"])
def test_network_and_head_compile_to_one_graph(network):
    """So nothing in a step's pass makes compiled code return to Python; the loss is that of the step, head included."""
    torch._dynamo.reset()
    config = load_config("ms1mv3_r50", [f"network={network}", "num_classes=1000"])
    state = build_state(config, 1000, CPU, torch.bfloat16)
    state.set_train_mode(2)
    found = torch._dynamo.explain(state.loss)(torch.randn(2, 3, 112, 112), torch.arange(2))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def test_a_smaller_batch_does_not_make_the_compiled_shapes_dynamic(monkeypatch):
    torch._dynamo.reset()
    compiled = []

    def backend(graph, inputs):
        compiled.append([size for tensor in inputs if isinstance(tensor, torch.Tensor) for size in tensor.shape])
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    monkeypatch.setenv("CXX", sys.executable)
    state = build_state(small("compile=True"), 10, CPU, torch.float32)
    for count in (4, 3, 4, 3):
        state.step([(torch.randn(count, 3, 112, 112), torch.arange(count))])
    assert len(compiled) == 2
    assert all(type(size) is int for sizes in compiled for size in sizes)


def test_compiling_without_a_compiler_is_a_sentence(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler, and no-such-compiler is not there"):
        build_state(small("compile=True"), 10, CPU, torch.float32)
