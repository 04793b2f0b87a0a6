"""What a step on fake tensors says, against closed forms, published counts and a step on real tensors."""

import time
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from planning.tiny import BATCH, CLASSES, DIMENSION, tiny
from torch import nn
from torch.nn import functional as F

from arcface_edu.errors import ConfigError
from arcface_edu.heads import HEADS, PartialFC, chunked
from arcface_edu.models import build_model, prelu
from arcface_edu.planning.measure import measure_step
from arcface_edu.planning.trackers import Kind
from arcface_edu.training.prepare import complete_without_data
from arcface_edu.training.state import build_state


@pytest.mark.parametrize("loss", HEADS)
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_every_head_is_measured(loss, rate):
    config = tiny(f"loss={loss}", gpus=2) if loss == "softmax" else tiny(f"loss={loss}", f"sample_rate={rate}", gpus=2)
    found = measure_step(config, 2, torch.float32)
    assert found.memory[Kind.GRADIENTS] >= 4 * trained()


def trained(network="r10"):
    return sum(p.numel() for p in build_model(network, DIMENSION).parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("network", "parameters", "multiply_adds"), [("r50", 43_590_848, 6.309e9), ("r100", 65_156_160, 12.090e9)]
)
def test_published_sizes(network, parameters, multiply_adds):
    found = measure_step(tiny(f"network={network}", "embedding_size=512"), 1, torch.float32)
    assert found.parameters == parameters
    assert found.multiply_adds == pytest.approx(multiply_adds, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_weights_gradients_and_moments_are_those_of_the_closed_form(optimizer, rate):
    found = measure_step(tiny(f"optimizer={optimizer}", f"sample_rate={rate}", gpus=3), 3, torch.float32).memory
    rows = -(-CLASSES // 3)
    everything = 4 * (trained() + rows * DIMENSION)
    assert found[Kind.WEIGHTS] == everything + 4 * DIMENSION  # the last BN's frozen gain
    moments = 2 if optimizer == "adamw" else 1
    assert found[Kind.OPTIMIZER] == pytest.approx(moments * everything, rel=0.02)  # AdamW also counts steps
    assert found[Kind.GRADIENTS] >= 4 * trained()  # DDP's buckets, and at times the centres'
    assert found[Kind.GRADIENTS] <= everything


def test_messages_are_those_of_the_closed_form():
    gpus = 4
    found = measure_step(tiny(gpus=gpus), gpus, torch.float32).messages
    images = gpus * BATCH
    gathered = [one.size for one in found if one.collective == "all-gather"]
    assert gathered == [4 * images * DIMENSION, 8 * images]  # embeddings, labels
    assert [one.size for one in found if one.collective == "reduce-scatter"] == [4 * images * DIMENSION]
    reduced = {phase: [m.size for m in found if m.collective == "all-reduce" and m.phase == phase] for phase in PHASES}
    assert reduced["forward: head"] == [4 * images, 2 * 4 * images]  # greatest logit; sums and true logits
    assert sum(reduced["backward"]) == 4 * trained()
    assert reduced["update"] == []


PHASES = ("forward: network", "forward: head", "backward", "update")


def test_one_process_sends_nothing_and_micro_batches_send_gradients_once():
    assert measure_step(tiny(), 1, torch.float32).messages == []
    found = measure_step(tiny("gradient_acc=2", gpus=2), 2, torch.float32)
    assert (
        sum(m.size for m in found.messages if m.phase == "backward" and m.collective == "all-reduce") == 4 * trained()
    )
    assert found.batch == 2 * BATCH


def test_gradients_on_the_way_may_be_half_as_large():
    found = measure_step(tiny("gradient_compression=bf16", gpus=2), 2, torch.float32).messages
    assert sum(m.size for m in found if m.phase == "backward" and m.collective == "all-reduce") == 2 * trained()


def test_softmax_is_on_every_rank_and_its_gradient_travels():
    found = measure_step(tiny("loss=softmax", gpus=2), 2, torch.float32)
    sent = sum(m.size for m in found.messages if m.phase == "backward" and m.collective == "all-reduce")
    assert sent == 4 * (trained() + CLASSES * (DIMENSION + 1))
    assert found.own_centres == CLASSES


@pytest.mark.parametrize(
    "words",
    [(), ("sample_rate=0.3",), ("gradient_checkpointing=True",), ("loss=subcenter_arcface",), ("loss=curricularface",)],
)
def test_the_peak_is_that_of_a_real_step(words):
    """PyTorch's profiler sees every allocation of a real step; both take the ways of a GPU, and one process."""
    config = tiny("draw_photos=0", "batch_size=32", *words)
    predicted = measure_step(config, 1, torch.float32)
    with (
        mock.patch.object(chunked, "CHUNK_BYTES", {}),
        mock.patch.object(chunked, "KEPT_BYTES", {}),
        mock.patch.object(prelu.PReLU, "forward", lambda layer, x: F.prelu(x, layer.weight)),
    ):
        state = build_state(config, CLASSES, torch.device("cpu"), torch.float32)
        images = torch.randn(32, 3, 112, 112).to(memory_format=torch.channels_last)
        labels = torch.randint(CLASSES, (32,))
        state.step([(images, labels)])
        resting = bytes_of(state, images, labels)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            state.step([(images, labels)])
    held = peak = 0
    for event in sorted(allocations(profile), key=lambda event: event.start_time_ns):
        held += event.extra_fields.alloc_size  # below 0 where memory is given back
        peak = max(peak, held)
    assert predicted.peak == pytest.approx(resting + peak, rel=0.03)


def allocations(profile):
    waiting = list(profile.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            yield event


def bytes_of(state, *batch):
    moments = [v for moments in state.optimizer.state.values() for v in moments.values() if torch.is_tensor(v)]
    tensors = [*state.model.state_dict().values(), state.head.weight, *moments, *batch]
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def test_half_precision_halves_activations_and_checkpointing_keeps_few():
    full = measure_step(tiny(), 1, torch.float32).memory[Kind.ACTIVATIONS]
    half = measure_step(tiny(), 1, torch.bfloat16).memory[Kind.ACTIVATIONS]
    few = measure_step(tiny("gradient_checkpointing=True"), 1, torch.float32).memory[Kind.ACTIVATIONS]
    assert half == pytest.approx(full / 2, rel=0.1)
    assert few < 0.7 * full


def test_the_head_takes_chunks_of_a_gpus_size():
    classes = 3_000_000
    found = measure_step(tiny(f"num_classes={classes}"), 1, torch.float32)
    products = [op for op in found.operations if op.phase == "forward: head" and op.flops]
    chunk = chunked.BYTES_OF_ACCELERATORS // (4 * (DIMENSION + BATCH))
    assert len(products) == -(-classes // chunk) > 1


def test_the_optimizer_walks_over_the_rows_that_were_sampled():
    moved = {}
    for rate in (0.2, 0.4):
        found = measure_step(tiny("num_classes=10000", f"sample_rate={rate}"), 1, torch.float32)
        moved[rate] = sum(op.moved for op in found.operations if op.part == "update")
    more = 0.2 * 10_000 * DIMENSION * 4
    assert 5 * more < moved[0.4] - moved[0.2] < 40 * more  # at least: read three tables, write two


def test_64_gpus_and_29_million_classes():
    config = tiny("network=r50", "embedding_size=512", "num_classes=29000000", "sample_rate=0.1", "num_image=60000000")
    began = time.perf_counter()
    found = measure_step(config, 64, torch.float16)
    print(f"planned in {time.perf_counter() - began:.1f} s")
    assert found.own_centres == 453_125
    assert found.memory[Kind.WEIGHTS] == 4 * (43_590_848 + 453_125 * 512)
    sampled = sum(op.flops for op in found.operations if op.phase == "forward: head")
    assert sampled == 2 * 64 * BATCH * 512 * round(0.1 * 453_125)


def test_nothing_of_the_fake_world_stays_behind():
    before = dist.all_reduce, dist.Reducer, torch.sparse_coo_tensor, PartialFC.sample, prelu.PReLU.forward
    measure_step(tiny(gpus=2), 2, torch.float32)
    assert before == (dist.all_reduce, dist.Reducer, torch.sparse_coo_tensor, PartialFC.sample, prelu.PReLU.forward)
    assert not dist.is_initialized()
    assert type(nn.Linear(2, 2).weight.data) is torch.Tensor


@pytest.mark.parametrize(("key", "other"), [("num_classes", "num_image=100"), ("num_image", "num_classes=100")])
def test_counts_that_only_the_data_knows_are_asked_for(key, other):
    from arcface_edu.config import load_config

    with pytest.raises(ConfigError, match=f"set {key}=..."):
        complete_without_data(load_config("own_data", [other]), 1)
