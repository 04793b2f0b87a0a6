"""What only a GPU can show; on a machine without one these are left out."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from arcface_edu import train
from arcface_edu.config import load_config
from arcface_edu.data.loader import Batch, augment, load
from arcface_edu.evaluate import main as evaluate
from arcface_edu.heads import MarginSoftmax, PartialFC
from arcface_edu.models import build_model
from arcface_edu.training.collectives import StepSync
from arcface_edu.training.launch import World
from arcface_edu.training.metrics import Meter, read_metrics
from arcface_edu.training.prepare import prepare_data
from arcface_edu.training.state import build_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and this machine has none")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def true_fp32(monkeypatch):
    """Convolutions in fp32, not TF32 as PyTorch lets GPUs do them: what a CPU computes is to be met."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def nccl():
    """A process group of this process alone, as torchrun makes them: nccl for the GPU, gloo for the CPU."""
    dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    yield World(0, 1, 0)
    dist.destroy_process_group()


def small(*words):
    return load_config("drawn_faces", ["embedding_size=16", "device=cuda", *words])


def batch(device=GPU, images=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 3, 112, 112, generator=generator).to(device), torch.arange(images).to(device)


def take_step(state, images, labels):
    """A step in which the ranks know each other's batch sizes, as in a run."""
    sync = StepSync(False, [Batch(images, labels, [], "")])
    return state.step([(images, labels)], sync)


def loss_and_gradients(head, embeddings, labels):
    loss = head(embeddings, labels)
    return loss, *torch.autograd.grad(loss, (embeddings, head.weight))


def share(found, expected):
    """How far off, as a share of the length."""
    return ((found.double().cpu() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("chunk_size", [777, None])
@pytest.mark.parametrize("head_of", [MarginSoftmax, PartialFC])
def test_the_head_in_chunks_is_within_1e_5_of_float64(head_of, chunk_size):
    torch.manual_seed(0)
    head = head_of(512, 20_000, chunk_size=chunk_size).to(GPU)
    embeddings, labels = torch.randn(64, 512, device=GPU, requires_grad=True), torch.randint(20_000, (64,), device=GPU)
    with torch.no_grad():  # some images near their centres, as after training
        embeddings[:20] += 3000 * head.weight[labels[:20]]
    exact = copy.deepcopy(head).cpu().double(), embeddings.detach().cpu().double().requires_grad_(), labels.cpu()
    with torch.autocast("cuda", torch.bfloat16):
        found = loss_and_gradients(head, embeddings, labels)
    off = [share(mine, other) for mine, other in zip(found, loss_and_gradients(*exact), strict=True)]
    assert max(off) < 1e-5


def test_sampled_centres_are_the_same_on_every_device():
    steps = []
    for device in (CPU, GPU):
        head = PartialFC(16, 1000, sample_rate=0.1, seed=3).to(device)
        loss = head(torch.ones(4, 16, device=device), torch.tensor([5, 990, 5, 17], device=device))
        loss.backward()
        steps.append(head.weight.grad.coalesce().cpu())
    assert torch.equal(*(gradient.indices() for gradient in steps))
    assert share(steps[1].values(), steps[0].values().double()) < 1e-4


@pytest.mark.parametrize("network", ["r10", "mbf", "vit_t_dp005_mask0"])
def test_a_step_is_that_of_a_cpu(network):
    losses, norms = zip(*(loss_and_norm(network, device) for device in (CPU, GPU)), strict=True)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


def loss_and_norm(network, device):
    state = build_state(small(f"network={network}", "fp16=False"), 10, device, torch.float32)
    state.model.eval()  # without dropout, which draws otherwise on each device
    state.backward(state.loss(*batch(device)))
    grad_norm, _ = state.optimizer_step()
    return state.loss(*batch(device)).item(), grad_norm.item()


@pytest.mark.parametrize(
    "words", [(), ("loss=softmax",), ("margin_gradient=exact",), ("optimizer=adamw",), ("gradient_checkpointing=True",)]
)
def test_a_step_waits_for_nothing_that_the_gpu_computes(words):
    """PyTorch raises where the processor would wait, also in copies that only look as if they did not."""
    state, meter = build_state(small(*words), 10, GPU, torch.bfloat16), Meter(GPU)
    pixels = torch.randint(256, (8, 3, 112, 112), dtype=torch.uint8).pin_memory()
    labels, flips = torch.arange(8).pin_memory(), torch.rand(8).pin_memory() < 0.5
    take_step(state, *batch())  # libraries are loaded, momentum is made
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = [tensor.to(GPU, non_blocking=True) for tensor in (pixels, flips.pin_memory())]
        result = take_step(state, augment(*there), labels.to(GPU, non_blocking=True))
        meter.update(result)
        with pytest.raises(RuntimeError, match="synchronizing"):
            result.losses[0].item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_batches_are_pinned_for_the_copy(drawn):
    faces = prepare_data(load_config("own_data", [f"rec={drawn}"])).faces
    (first,) = load(faces, train.ShuffledBatches(len(faces), 4, 1, 1, 0), 1, GPU)
    assert first.images.is_pinned() and first.labels.is_pinned()


@pytest.mark.parametrize("word", ["amp_dtype=bf16", "amp_dtype=fp16", "fp16=False", "compile=True", "sample_rate=0.5"])
def test_a_run_learns_resumes_and_its_network_works_on_a_cpu(drawn, tmp_path, capsys, word):
    run = tmp_path / "run"
    words = ["own_data", f"rec={drawn}", f"output={run}", "batch_size=16", "num_epoch=8", "lr=0.05", "num_workers=1"]
    words += ["save_every=20", "frequent=4", "keep_checkpoints=0", "device=cuda", word]
    train.main(words)
    losses = [line["loss"] for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 3
    for late in sorted((run / "checkpoints").iterdir())[2:]:
        shutil.rmtree(late)
    train.main([*words, "resume=True"])
    again = [line["loss"] for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    assert len(again) == len(losses) and again[-1] == pytest.approx(losses[-1], abs=0.5)
    assert "from step" in capsys.readouterr().out
    accuracy = read_metrics(run / "metrics.jsonl")[-1]["accuracy"]
    (finding,) = evaluate([str(run), "--pairs", str(drawn / "drawn.bin"), "--device", "cpu"])
    assert finding.numbers["accuracy"] == pytest.approx(accuracy, abs=0.05)


def test_embeddings_are_those_of_a_cpu():
    torch.manual_seed(0)
    model, (images, _) = build_model("r18").eval(), batch(CPU)
    with torch.inference_mode():
        expected = model(images).double()
        assert share(model.to(GPU)(images.to(GPU)), expected) < 1e-4
        with torch.autocast("cuda", torch.bfloat16):
            assert share(model(images.to(GPU)), expected) < 0.05


@pytest.mark.parametrize(
    "words",
    [
        ("fp16=False",),
        ("fp16=False", "sync_bn=True"),
        ("gradient_compression=bf16",),
        ("amp_dtype=fp16",),
        ("fp16=False", "sample_rate=0.5"),
        ("fp16=False", "loss=softmax"),
        ("fp16=False", "compile=True"),
    ],
)
def test_over_nccl_a_rank_steps_as_a_process_alone_does(words, request):
    dtype = torch.float32 if "fp16=False" in words else torch.float16 if "amp_dtype=fp16" in words else torch.bfloat16
    config = small(*words)
    alone = build_state(config, 10, GPU, dtype)
    expected = [take_step(alone, *batch()).item() for _ in range(3)]
    together = build_state(config, 10, GPU, dtype, request.getfixturevalue("nccl"))
    found = [take_step(together, *batch()).item() for _ in range(3)]
    assert found == pytest.approx(expected, rel=1e-3 if dtype == torch.float32 else 5e-2)


def test_a_whole_run_over_nccl(drawn, tmp_path, nccl):
    words = [f"rec={drawn}", f"output={tmp_path / 'run'}", "batch_size=16", "num_epoch=4", "num_workers=1"]
    config = load_config("own_data", [*words, "device=cuda", "async_save=True", "save_every=10", "verbose=10"])
    train.train(config, nccl)
    train.train(load_config("own_data", [*words, "device=cuda", "resume=True", "num_epoch=5"]), nccl)
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_more_ranks_than_gpus_are_told_so_in_one_sentence(drawn, tmp_path):
    count = torch.cuda.device_count() + 1
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", "-m"]
    done = subprocess.run(
        [*launch, "arcface_edu.train", "own_data", f"rec={drawn}", f"output={tmp_path / 'run'}", "timeout_seconds=60"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    sentences = [line for line in done.stderr.splitlines() if line.startswith("arcface_edu:")]
    assert len(sentences) == 1 and 'device="cuda" cannot be used here' in sentences[0], done.stderr


def test_out_of_memory_is_told_in_a_sentence(drawn, tmp_path, monkeypatch, capsys):
    def too_much(*_):
        torch.empty(1 << 50, dtype=torch.uint8, device=GPU)

    monkeypatch.setattr(train, "augment", too_much)
    with pytest.raises(SystemExit, match="2"):
        train.main(["own_data", f"rec={drawn}", f"output={tmp_path / 'run'}", "device=cuda"])
    assert "the GPU's memory is full at batch_size=8. Try half of it with gradient_acc=2" in capsys.readouterr().err
