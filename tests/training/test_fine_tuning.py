"""From trained weights with new class centres: what stays, what moves and how far, alone, resumed and on two ranks."""

import os
import signal

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from torch import nn
from trainer_of_tests import use_small_network

from arcface_edu import train as trainer
from arcface_edu.config import load_config
from arcface_edu.errors import CheckpointError, ConfigError
from arcface_edu.models import build_model
from arcface_edu.planning.dry_run import dry_run
from arcface_edu.training.checkpoint import list_checkpoints, load_checkpoint, restore_state
from arcface_edu.training.launch import World
from arcface_edu.training.metrics import read_metrics
from arcface_edu.training.optim import build_optimizer
from arcface_edu.training.prepare import describe_data, fit_to_weights
from arcface_edu.training.schedule import Schedule, set_lr
from arcface_edu.training.state import build_state

CPU = torch.device("cpu")
PEOPLE = 10
SOFTMAX, SAMPLED, ADAMW = "loss=softmax", "sample_rate=0.5", "optimizer=adamw"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of an r10 with 128 dimensions, whose BN statistics are not those of a new one."""
    torch.manual_seed(5)
    model = build_model("r10", 128)
    for _ in range(3):
        model(torch.randn(8, 3, 112, 112))
    path = tmp_path_factory.mktemp("trained") / "w.pt"
    torch.save(model.state_dict(), path)
    return path


def copy_of(state):
    return {name: value.detach().clone() for name, value in state.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def moved(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def step(state, head_only, rate=0.1, micro_batches=1, first=0, images=4):
    """Take a step of images that depend on their number alone."""
    set_lr(state.optimizer, rate)
    state.gradient_acc = micro_batches
    batches = []
    for number in range(first, first + micro_batches):
        generator = torch.Generator().manual_seed(number)
        batches.append((torch.randn(images, 3, 112, 112, generator=generator), torch.arange(images) % PEOPLE))
    assert state.step(batches, head_only=head_only).updated


@pytest.mark.parametrize(
    "words", [(), (SOFTMAX,), (ADAMW,), (SAMPLED,), (SAMPLED, ADAMW), ("network=vit_t_dp005_mask0",)]
)
def test_while_the_head_learns_alone_nothing_of_the_backbone_changes(words):
    """Not a weight, not BN's statistics, to the last bit; and no momentum gathers for later."""
    config = load_config("drawn_faces", ["device=cpu", "weight_decay=0.1", "dropout=0.5", *words])
    state = build_state(config, PEOPLE, CPU, torch.float32)
    backbone, head = copy_of(state.model.state_dict()), copy_of(dict(state.head.named_parameters()))
    for number in range(2):
        step(state, head_only=True, micro_batches=2, first=number)
    assert_equal(backbone, state.model.state_dict())
    assert moved(head, dict(state.head.named_parameters())) == set(head)
    for parameter in state.model.parameters():
        history = state.optimizer.state.get(parameter, {})
        assert not any(value.any() for value in history.values())
    step(state, head_only=False)
    learns = {name for name, parameter in state.model.named_parameters() if parameter.requires_grad}
    assert learns <= moved(backbone, state.model.state_dict())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_of_sgd_moves_the_backbone_by_its_share_of_the_rate(momentum):
    rate, share, decay = 0.1, 0.25, 0.01
    words = ["device=cpu", "max_norm=0", f"weight_decay={decay}", f"backbone_rate={share}", f"momentum={momentum}"]
    state = build_state(load_config("drawn_faces", words), PEOPLE, CPU, torch.float32)
    head = state.head.weight
    named = dict(state.model.named_parameters()) | {"centres": head}
    before, gradients = copy_of(named), {}
    for name, parameter in named.items():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: gradients.update({name: p.grad.clone()}))
    step(state, head_only=False, rate=rate)
    assert len(gradients) == len([p for p in named.values() if p.requires_grad])
    for name, gradient in gradients.items():
        own = rate * (1 if name == "centres" else share)
        spared = named[name].ndim < 2  # BN, PReLU, biases
        expected = before[name] - own * (gradient + (0 if spared else decay) * before[name])
        torch.testing.assert_close(named[name].detach(), expected, rtol=1e-6, atol=1e-7)


def restored(config, state):
    """(model, head, optimizer) of a config, the optimizer with the state dict of another's."""
    model, head = nn.Linear(3, 2), nn.Linear(2, 4)
    optimizer = build_optimizer(config, model, head)
    restore_state(dict(optimizer=optimizer), dict(optimizer=state, rng=torch.get_rng_state()[None]), CPU, "run")
    return model, head, optimizer


def settings(optimizer, key):
    """dict id of a parameter -> what its group has there."""
    return {id(p): group[key] for group in optimizer.param_groups for p in group["params"]}


def test_a_resumed_run_takes_shares_decay_and_momentum_from_its_config_and_not_from_the_checkpoint():
    first, then = (
        load_config("drawn_faces", [f"backbone_rate={share}", f"weight_decay={decay}", f"momentum={momentum}"])
        for share, decay, momentum in ((0.5, 0.1, 0.9), (0.25, 0.2, 0.8))
    )
    model, head, optimizer = restored(then, build_optimizer(first, nn.Linear(3, 2), nn.Linear(2, 4)).state_dict())
    set_lr(optimizer, 8.0)
    named = [model.weight, model.bias, head.weight, head.bias]
    assert [settings(optimizer, "lr")[id(p)] for p in named] == [2.0, 2.0, 8.0, 8.0]
    assert [settings(optimizer, "weight_decay")[id(p)] for p in named] == [0.2, 0.0, 0.2, 0.0]
    assert {settings(optimizer, "momentum")[id(p)] for p in named} == {0.8}


def test_checkpoints_from_before_there_were_shares_still_go_on():
    config = load_config("drawn_faces")
    state = build_optimizer(config, nn.Linear(3, 2), nn.Linear(2, 4)).state_dict()
    for group in state["param_groups"]:
        del group["share"]
    *_, optimizer = restored(config, state)
    set_lr(optimizer, 8.0)
    assert set(settings(optimizer, "lr").values()) == {8.0}
    with pytest.raises(CheckpointError, match=r"holds another optimizer than .* set the config back"):
        restored(load_config("drawn_faces", ["backbone_rate=0.5"]), state)  # it has a group for each share


@pytest.mark.parametrize(("epochs", "steps"), [(0, 0), (0.5, 5), (2, 20), (9, 40)])
def test_epochs_of_the_head_alone_become_steps(epochs, steps):
    words = [f"head_epoch={epochs}", "batch_size=10", "num_epoch=4"]
    assert Schedule.of(load_config(overrides=words), 100).head_steps == steps


def test_what_the_config_leaves_open_the_weights_say(weights, tmp_path):
    config = load_config("fine_tune", [f"init={weights}"])
    config = fit_to_weights(config)
    assert (config.network, config.embedding_size, config.scale) == ("r10", 128, 32.0)
    torch.save(build_model("mbf", 512).state_dict(), tmp_path / "mbf.pt")
    config = load_config("fine_tune", [f"init={tmp_path / 'mbf.pt'}"])
    config = fit_to_weights(config)
    assert (config.network, config.embedding_size, config.scale) == ("mbf", 512, 64.0)
    config = load_config("fine_tune", [f"init={weights}", "scale=20"])
    config = fit_to_weights(config)
    assert config.scale == 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["init=absent.pt"], r"absent\.pt does not exist: name the folder of a run"),
        (["init=WEIGHTS", "network=r18"], r"w\.pt does not fit r18 with 128 dimensions; it fits r10 with 128\."),
        (["init=WEIGHTS", "embedding_size=64"], r"does not fit r10 with 64 dimensions; it fits r10 with 128\."),
        (["init=net.onnx"], r"net\.onnx is an ONNX graph, which can embed but not be trained"),
        (["init=."], r"holds neither model\.pt nor model\.safetensors"),
        (["init=WEIGHTS", "output=FOLDER"], r"w\.pt is in .*, the folder of this very run; choose another output="),
        ([], r"network is not set, .* as init=runs/drawn_faces"),
        (["network=r10"], r"embedding_size is not set"),
        (
            ["network=r10", "embedding_size=128", "head_epoch=2"],
            r"head_epoch=2 would keep a network of random weights",
        ),
    ],
)
def test_unfit_beginnings_are_answered_with_a_sentence(weights, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").touch()
    before = sorted(weights.parent.iterdir())
    filled = [word.replace("WEIGHTS", str(weights)).replace("FOLDER", str(weights.parent)) for word in words]
    for start in (fit_to_weights, trainer.train, dry_run):
        with pytest.raises((CheckpointError, ConfigError), match=sentence):
            start(load_config("fine_tune", ["num_classes=10", "num_image=100", *filled]))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]  # no folder begun, and no run moved aside
    assert sorted(weights.parent.iterdir()) == before


@pytest.mark.parametrize("word", ["backbone_rate=0", "backbone_rate=1.5", "head_epoch=-1", "head_epoch=many", "init=3"])
def test_keys_out_of_range(word):
    with pytest.raises(ConfigError, match=f"the command line sets {word.split('=')[0]} to "):
        load_config("fine_tune", [word])


def test_dry_run_takes_the_network_from_the_weights(weights):
    said = dry_run(load_config("fine_tune", [f"init={weights}", "num_classes=30", "num_image=300", "dry_run_gpus=2"]))
    assert "dry run of r10 as rank 0 of 2" in said
    assert "nothing wrong" in said


def test_ranks_that_start_from_other_weights_differ(weights, tmp_path):
    class Faces:
        labels, num_classes = (), 0

        def __len__(self):
            return 0

    other = tmp_path / "w.pt"
    torch.save(build_model("r10", 128).state_dict(), other)
    mine, theirs, copy = (
        describe_data(load_config("fine_tune", [f"init={path}"]), Faces()) for path in (weights, other, weights)
    )
    assert mine == copy
    assert {key for key in mine if mine[key] != theirs[key]} == {"a hash of init"}


@pytest.fixture
def words(drawn, weights, tmp_path):
    """The words of a small run: 2 epochs of 7 steps, in the first of which the head learns alone."""
    sizes = ["batch_size=16", "num_epoch=2", "head_epoch=1", "lr=0.05", "num_workers=0", "frequent=1"]
    return [f"rec={drawn}", f"init={weights}", f"output={tmp_path / 'run'}", *sizes, "keep_checkpoints=0"]


@pytest.mark.slow
def test_a_run_keeps_the_backbone_for_an_epoch_and_trains_it_then(words, weights, tmp_path, capsys):
    trainer.train(load_config("fine_tune", words))
    first, second = (load_checkpoint(path) for path in list_checkpoints(tmp_path / "run" / "checkpoints"))
    started = torch.load(weights, weights_only=True)
    assert_equal(started, first["model"])
    assert "conv1.weight" in moved(started, second["model"])
    assert "features.running_mean" in moved(started, second["model"])
    said, complaints = capsys.readouterr()
    assert f"training r10 (1.0 M parameters) from {weights} in " in said
    assert "the head alone for the first 7 steps" in said
    # The first loss is that of new centres, whatever the backbone knows.
    assert "careful" not in said + complaints
    expected = float(said.split("first loss about ")[1].split(",")[0])
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[0]["loss"] == pytest.approx(expected, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("more", [["augment=photo"], [ADAMW, "lr=0.001"], [SAMPLED]])
def test_stopped_while_the_head_learns_alone_and_resumed_it_ends_as_if_never_stopped(
    words, weights, tmp_path, monkeypatch, more
):
    trainer.train(load_config("fine_tune", [*words, *more, f"output={tmp_path / 'whole'}"]))
    start = tmp_path / "start.pt"
    start.write_bytes(weights.read_bytes())
    words = [*words, *more, f"init={start}"]
    draw = trainer.draw_mirrored

    def stop_at_3(*args):
        if args[3] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*args)

    monkeypatch.setattr(trainer, "draw_mirrored", stop_at_3)
    with pytest.raises(SystemExit):
        trainer.train(load_config("fine_tune", words))
    monkeypatch.undo()
    (saved,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert load_checkpoint(saved)["step"] in (4, 5)  # of the 7 in which the head learns alone
    torch.save(build_model("r10", 128).state_dict(), start)  # which no longer matters: the checkpoint knows more
    trainer.train(load_config("fine_tune", [*words, "resume=True"]))
    one, other = (torch.load(tmp_path / run / "model.pt", weights_only=True) for run in ("whole", "run"))
    assert_equal(one, other)


def fine_tune_on_these_ranks():
    """dict key=value -> all weights after two steps of the head alone, and after two more of both."""
    use_small_network()
    me = World(dist.get_rank(), dist.get_world_size())
    found = {}
    for word in ("loss=arcface", SOFTMAX, ADAMW):
        config = load_config(
            "drawn_faces", ["device=cpu", "backbone_rate=0.25", "max_norm=0.5", "gradient_acc=2", word]
        )
        state = build_state(config, PEOPLE, CPU, torch.float32, me)
        for number in range(4):
            set_lr(state.optimizer, 0.01)
            generator = torch.Generator().manual_seed(number)
            own, labels = slice(me.rank, None, me.size), torch.arange(12) % PEOPLE
            images = [torch.randn(12, 3, 112, 112, generator=generator) for _ in range(2)]
            state.step([(part[own], labels[own]) for part in images], head_only=number < 2)
            if number in (1, 3):
                head = state.head.state_dict()["weight"]
                whole = head.full_tensor() if hasattr(head, "full_tensor") else head
                weights = copy_of(state.model.state_dict()) | {"centres": whole.detach().clone()}
                found.setdefault(word, []).append(weights)
    return found


@pytest.mark.slow
def test_two_ranks_fine_tune_as_one_does():
    results = run_on_ranks(fine_tune_on_these_ranks, [1, 2])
    (alone,), (first, second) = results[1], results[2]
    for word, (frozen, trained) in alone.items():
        # Where a gradient is next to nothing, AdamW divides it by next to nothing, and an order of adding shows.
        near = dict(rtol=1e-4, atol=1e-4 if word == ADAMW else 1e-6)
        for mine, theirs, one in zip(first[word], second[word], (frozen, trained), strict=True):
            assert_equal(mine, theirs)
            torch.testing.assert_close(mine, one, **near)
        assert torch.equal(frozen["fc.weight"], first[word][0]["fc.weight"])  # kept, on either
        assert moved(frozen, trained) == set(frozen) - {"beside"}  # a buffer
