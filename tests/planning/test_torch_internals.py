"""What the planner takes from inside PyTorch: whether this release has it, and whether it still does what is meant.

A failure here says which release of PyTorch broke which of them; the tests of the planner itself only say that one did.
"""

import pytest
import torch
import torch.distributed as dist
from planning.tiny import tiny
from torch import nn

from arcface_edu import plan
from arcface_edu.errors import ConfigError
from arcface_edu.heads.sharding import all_gather
from arcface_edu.planning import torch_internals
from arcface_edu.planning.measure import measure_step
from arcface_edu.planning.torch_internals import (
    NEEDED,
    FakeDDP,
    KindTracker,
    Reducer,
    check_torch,
    fake_process_group,
    fake_tensors,
    look_up,
    on_real_tensors,
    torch_patches,
)
from arcface_edu.planning.trackers import KINDS, Kind

VERSION = f"torch {torch.__version__}"


@pytest.fixture
def patched(monkeypatch):
    for owner, name, fake in torch_patches():
        monkeypatch.setattr(owner, name, fake)


@pytest.mark.parametrize("path", NEEDED)
def test_this_release_has(path):
    assert look_up(path) is not None, f"{VERSION} has no {path}: it was {NEEDED[path]}"


@pytest.mark.parametrize("name", ["_maybe_opt_step", "_get_growth_tracker"])
def test_a_release_without_one_ends_in_a_sentence(name, monkeypatch, capsys):
    monkeypatch.delattr(torch.amp.GradScaler, name)
    with pytest.raises(ConfigError, match=f"{VERSION.replace('+', '.')} has no torch.amp.GradScaler.{name}"):
        check_torch()
    with pytest.raises(SystemExit) as left:
        plan.main(["drawn_faces", "--gpus", "1"])
    assert left.value.code == 2
    assert "plan with another torch, up to" in capsys.readouterr().err


def test_fake_weights_have_no_numbers_and_become_channels_last():
    with fake_tensors():
        weight = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last).weight
        assert type(weight.data).__name__ == "FakeTensor", VERSION
        assert weight.is_contiguous(memory_format=torch.channels_last), VERSION
        with pytest.raises(look_up("torch._subclasses.fake_tensor.DataDependentOutputException")):
            weight.sum().item()
        assert on_real_tensors(lambda: torch.ones(2).sum().item())() == 2, VERSION


def test_a_fake_group_answers_at_once(patched):
    with fake_process_group(4):
        assert (dist.get_rank(), dist.get_world_size()) == (0, 4), VERSION
        tensor = torch.ones(3)
        assert dist.all_reduce(tensor) is None
        work = dist.all_reduce(tensor, async_op=True)
        work.wait()
        assert torch.equal(work.get_future().value()[0], tensor), VERSION
        gathered = torch.empty(4, 3)
        all_gather(gathered, tensor)
    assert not dist.is_initialized()


@pytest.mark.filterwarnings("ignore:.*broadcast_buffers:FutureWarning")
def test_ddp_fills_its_buckets_from_the_last_weight_to_the_first(patched):
    sent = []

    def hook(state, bucket):
        sent.append(bucket.buffer().numel())
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])

    model = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(10)))  # 256 kB each
    with fake_process_group(2):
        ddp = FakeDDP(model, bucket_cap_mb=1, broadcast_buffers=False, gradient_as_bucket_view=True)
        assert isinstance(ddp.reducer, Reducer), VERSION
        ddp.register_comm_hook(None, hook)
        for _ in range(2):  # DDP itself would rebuild its buckets after the first step
            ddp(torch.randn(4, 256)).sum().backward()
    assert sent == [4 * 256**2, 4 * 256**2, 2 * 256**2] * 2, VERSION


def test_a_scaler_never_skips_a_step(patched):
    weight = nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    weight.grad[0] = float("inf")  # for which a true step would be skipped
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [float("-inf"), 0], VERSION


def test_memory_is_counted_by_kind_and_its_peak_kept():
    with fake_tensors():
        model, images = nn.Linear(64, 64, bias=False), torch.empty(32, 64)
        tracker = KindTracker(KINDS)
        tracker.track_external(model, images)
        with tracker:
            images @ model.weight.T @ torch.empty(64, 4096)
            grad = torch.empty(64, 64)
            tracker.mark(grad, Kind.GRADIENTS)
    assert tracker.held("current")[Kind.WEIGHTS] == 4 * 64 * 64, VERSION
    assert tracker.held("current")[Kind.BATCH] == 4 * 32 * 64, VERSION
    assert tracker.held("current")[Kind.GRADIENTS] == 4 * 64 * 64, VERSION
    assert sum(tracker.held("peak").values()) >= 4 * (64 * 4096 + 32 * 4096), VERSION


def test_nothing_is_left_patched_when_a_step_fails(monkeypatch):
    before = [getattr(owner, name) for owner, name, _ in torch_patches()]
    monkeypatch.setattr(torch_internals.FakeDDP, "forward", None)
    with pytest.raises(TypeError):
        measure_step(tiny(gpus=2), 2, torch.float32)
    assert before == [getattr(owner, name) for owner, name, _ in torch_patches()]
    assert not dist.is_initialized()
