"""What a checkpoint brings back: without any part of it, a run would go on as another run."""

import pytest
import torch

from arcface_edu.config import load_config
from arcface_edu.training.checkpoint import load_latest, save_checkpoint
from arcface_edu.training.checkpoint_state import gather_state, restore_state
from arcface_edu.training.state import Progress, build_state

CPU = torch.device("cpu")


def build(*words, dtype=torch.float32):
    return build_state(load_config("drawn_faces", ["embedding_size=16", "device=cpu", *words]), 20, CPU, dtype)


def restored(state, folder, *words):
    """Another state of the same config, which has taken up a checkpoint of `state`."""
    save_checkpoint(folder, 1, gather_state(state.parts(), CPU))
    other = build(*words, dtype=state.dtype)
    restore_state(other.parts(), load_latest(folder, other.head), CPU, folder)
    return other


def step(state, number):
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(4, 3, 112, 112, generator=generator)
    for group in state.optimizer.param_groups:
        group["lr"] = 0.01
    return state.step([(images, torch.arange(4) + number)]).losses[0]


@pytest.mark.parametrize(
    "words", [(), ("sample_rate=0.5",), ("sample_rate=0.5", "optimizer=adamw"), ("optimizer=adamw",), ("loss=softmax",)]
)
def test_the_steps_after_a_resume_are_those_of_a_run_that_goes_on(tmp_path, words):
    state = build(*words)
    step(state, 0)
    other = restored(state, tmp_path, *words)
    for number in (1, 2):
        assert step(state, number) == step(other, number)
    for part in ("model", "head"):
        torch.testing.assert_close(getattr(state, part).state_dict(), getattr(other, part).state_dict(), rtol=0, atol=0)


def test_the_loss_scale_that_a_run_has_found_is_kept(tmp_path):
    state = build("amp_dtype=fp16", dtype=torch.float16)
    state.scaler.scale(torch.zeros(()))
    state.scaler.update(16.0)
    assert restored(state, tmp_path, "amp_dtype=fp16").scaler.get_scale() == 16


def test_the_random_numbers_that_were_left_are_drawn(tmp_path):
    state = build()
    torch.rand(7)
    save_checkpoint(tmp_path, 1, gather_state(state.parts(), CPU))
    left = torch.rand(3)
    restore_state(build().parts(), load_latest(tmp_path), CPU, tmp_path)
    assert torch.equal(torch.rand(3), left)


def test_a_step_that_the_scaler_leaves_out_counts_but_does_not_move_the_learning_rate_on():
    progress = Progress()
    for updated in (True, False, True):
        progress.advance(updated)
    assert (progress.step, progress.updates, progress.global_step) == (3, 2, 3)


def test_with_other_steps_an_epoch_the_place_in_the_epochs_stays():
    progress = Progress()
    progress.load_state_dict(Progress(step=30, updates=20, global_step=30).state_dict(steps_per_epoch=10), 5)
    assert (progress.step, progress.updates, progress.global_step) == (15, 10, 30)
