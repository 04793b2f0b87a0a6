"""The shipped recipes, against what was published; and the config block of 2021, meaning what it meant then."""

import re
from pathlib import Path

import pytest
import torch

from arcface_edu.cli import set_up_logging
from arcface_edu.config import load_config, shipped_configs
from arcface_edu.data.datasets import SYNTHETIC
from arcface_edu.errors import ConfigError
from arcface_edu.heads import build_head
from arcface_edu.models import build_model
from arcface_edu.planning.dry_run import dry_run
from arcface_edu.recipes import list_recipes
from arcface_edu.training.optim import build_optimizer
from arcface_edu.training.precision import choose_dtype
from arcface_edu.training.prepare import complete_without_data, find_pair_files
from arcface_edu.training.schedule import Schedule, check_linear_rule

BLOCK_OF_2021 = Path(__file__).parent / "fixtures" / "config_of_the_seed.py"
NETWORKS = ("mbf", "r18", "r50", "r100", "r200", "r2060")
SETS = {  # people, images
    "ms1mv2": (85_742, 5_822_653),
    "ms1mv3": (93_431, 5_179_510),
    "glint360k": (360_232, 17_091_657),
    "wf4m": (205_990, 4_235_242),
    "wf12m": (617_970, 12_720_066),
    "wf12m_conflict": (1_017_970, 12_720_066),
    "wf42m": (2_059_906, 42_474_557),
    "3millions": (300_000, 100_000),
}
ARC, COS = (1.0, 0.5, 0.0), (1.0, 0.0, 0.4)
# name -> GPUs, images a step, rate in force, epochs, epochs of warm-up, weight decay, share of the centres, margins
SGD = {
    "ms1mv2_mbf": (8, 1024, 0.1, 40, 0, 1e-4, 1.0, ARC),
    "ms1mv2_r50": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, ARC),
    "ms1mv2_r100": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, ARC),
    "ms1mv3_mbf": (8, 1024, 0.1, 40, 0, 1e-4, 1.0, ARC),
    "ms1mv3_r50_onegpu": (1, 128, 0.02, 20, 0, 5e-4, 1.0, ARC),
    "ms1mv3_r50_8gpus": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, ARC),
    "ms1mv3_r100_8gpus": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, ARC),
    "glint360k_mbf": (8, 1024, 0.1, 20, 0, 1e-4, 1.0, COS),
    "glint360k_r50": (8, 1024, 0.1, 20, 0, 1e-4, 1.0, COS),
    "glint360k_r100": (8, 1024, 0.1, 20, 0, 1e-4, 1.0, COS),
    "wf4m_mbf": (8, 1024, 0.1, 20, 0, 1e-4, 1.0, COS),
    "wf4m_r50": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, COS),
    "wf4m_r100": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, COS),
    "wf12m_mbf": (8, 1024, 0.1, 20, 0, 1e-4, 1.0, COS),
    "wf12m_r50": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, COS),
    "wf12m_r100": (8, 1024, 0.1, 20, 0, 5e-4, 1.0, COS),
    "wf12m_pfc02_r100": (8, 1024, 0.1, 20, 0, 5e-4, 0.2, COS),
    "wf12m_flip_r50": (8, 1024, 0.1, 20, 2, 5e-4, 1.0, COS),
    "wf12m_flip_pfc01_filter04_r50": (8, 1024, 0.1, 20, 2, 5e-4, 0.1, COS),
    "wf12m_flip_pfc02_filter04_r50": (8, 1024, 0.1, 20, 2, 5e-4, 0.2, COS),
    "wf12m_conflict_r50": (8, 1024, 0.1, 20, 2, 5e-4, 1.0, COS),
    "wf12m_conflict_r50_pfc03_filter04": (8, 1024, 0.1, 20, 2, 5e-4, 0.3, COS),
    "wf42m_pfc0008_32gpu_r100": (32, 16_384, 0.4, 20, 2, 5e-4, 0.0, COS),
    "wf42m_pfc02_8gpus_r50_bs4k": (8, 4096, 0.4, 20, 2, 5e-4, 0.2, COS),
    "wf42m_pfc02_16gpus_r50_bs8k": (16, 8192, 0.6, 20, 4, 5e-4, 0.2, COS),
    "wf42m_pfc02_32gpus_r50_bs4k": (32, 4096, 0.4, 20, 2, 5e-4, 0.2, COS),
    "wf42m_pfc02_16gpus_mbf_bs8k": (16, 8192, 0.4, 20, 2, 1e-4, 0.2, COS),
    "wf42m_pfc02_r100": (8, 1024, 0.1, 20, 0, 5e-4, 0.2, COS),
    "wf42m_pfc02_r100_16gpus": (16, 2048, 0.2, 20, 2, 5e-4, 0.2, COS),
    "wf42m_pfc02_16gpus_r100": (16, 4096, 0.3, 20, 1, 5e-4, 0.2, COS),
    "wf42m_pfc02_r100_32gpus": (32, 4096, 0.4, 20, 2, 5e-4, 0.2, COS),
    "wf42m_pfc03_32gpu_r18": (32, 4096, 0.4, 20, 2, 5e-4, 0.3, COS),
    "wf42m_pfc03_32gpu_r50": (32, 4096, 0.4, 20, 2, 5e-4, 0.3, COS),
    "wf42m_pfc03_32gpu_r100": (32, 4096, 0.4, 20, 2, 5e-4, 0.3, COS),
    "wf42m_pfc03_32gpu_r200": (32, 4096, 0.4, 20, 2, 5e-4, 0.3, COS),
}
ADAMW = {
    "wf42m_pfc02_vit_h": (40, 30_720, 0.001, 16, 2, 0.1, 0.5, COS),
    "wf42m_pfc03_40epoch_8gpu_vit_t": (8, 4096, 0.001, 40, 4, 0.1, 0.3, COS),
    "wf42m_pfc03_40epoch_8gpu_vit_b": (8, 24_576, 0.001, 40, 4, 0.1, 0.3, COS),
    **{
        f"wf42m_pfc03_40epoch_64gpu_vit_{size}": (64, 24_576, 0.001, 40, 4, 0.1, 0.3, COS)
        for size in ("t", "s", "b", "l")
    },
}
STRAIGHT = SGD | ADAMW  # the rate falls in a straight line
STEPS = ("ms1mv3_r50", "ms1mv3_r100")  # the step-decay recipe (2021)
OTHERS = ("ms1mv3_r2060", "3millions")  # the same with other numbers, and a speed test
ALL = (*STRAIGHT, *STEPS, *OTHERS)


def test_every_shipped_recipe_is_held_against_its_publication():
    own = {"drawn_faces", "drawn_crowd", "own_data", "fine_tune"}
    assert shipped_configs().keys() - own == {*ALL}


def set_of(name):
    return SETS[max((of for of in SETS if name.startswith(of)), key=len)]


@pytest.mark.parametrize("name", ALL)
def test_data_and_network_are_those_of_the_name(name):
    config = load_config(name)
    assert (config.num_classes, config.num_image) == set_of(name)
    assert config.rec.startswith("data/") or (config.rec == SYNTHETIC and name == "3millions")
    assert config.interclass_filtering_threshold == (0.4 if "filter04" in name else 0)
    words = name.split("_")
    network = (
        "_".join(words[words.index("vit") :]) if "vit" in words else next((w for w in words if w in NETWORKS), "mbf")
    )
    assert config.network.startswith(network)
    with torch.device("meta"):
        model = build_model(config.network, config.embedding_size)
    last = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)][-1]
    assert last.num_features == config.embedding_size == 512


def gpus_of(name):
    return STRAIGHT[name][0] if name in STRAIGHT else 8


def distinct_builds():
    """A recipe for each combination of what is built and stepped. Recipes of one combination differ in numbers only."""
    keys = ("network", "optimizer", "sample_rate", "gradient_acc", "gradient_checkpointing", "embedding_size", "fp16")
    builds = {}
    for name in ALL:
        config = load_config(name)
        builds.setdefault(tuple(config[key] for key in keys), name)
    slow = pytest.mark.full  # 2,060 layers take most of a minute
    return [pytest.param(name, marks=slow if name == "ms1mv3_r2060" else ()) for name in sorted(builds.values())]


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct_builds())
def test_every_kind_of_recipe_can_be_built_stepped_and_saved(name):
    gpus = gpus_of(name)
    micro_batches = min(2, load_config(name).gradient_acc)  # the third to the twelfth are as the second
    said = dry_run(load_config(name, [f"dry_run_gpus={gpus}", f"gradient_acc={micro_batches}"]))
    assert f"as rank 0 of {gpus}, " in said
    assert f", of {set_of(name)[0]:,} on all {gpus}" in said
    assert "two steps and a checkpoint, nothing wrong" in said


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_is_complete_on_the_gpus_it_is_meant_for(name):
    config = load_config(name)
    assert complete_without_data(config, gpus_of(name)) == config


@pytest.mark.parametrize("name", STRAIGHT)
def test_recipe_is_the_published_one(name):
    gpus, batch, rate, epochs, warmup, weight_decay, share, margins = STRAIGHT[name]
    config = load_config(name)
    assert (config.batch_size * config.gradient_acc * gpus, config.lr, config.num_epoch) == (batch, rate, epochs)
    assert (config.weight_decay, config.sample_rate) == (weight_decay, share)
    assert (config.optimizer, config.momentum) == ("adamw" if name in ADAMW else "sgd", 0.9)
    assert tuple(build_head(config, num_classes=1000).margin) == margins
    assert config.fp16

    schedule = Schedule.of(config, config.num_image, gpus)
    per_epoch = config.num_image // batch
    assert (schedule.total_batch, schedule.steps_per_epoch) == (batch, per_epoch)
    assert schedule.total_steps == epochs * per_epoch
    first, top, last = (schedule.lr(step) for step in (0, warmup * per_epoch, schedule.total_steps - 1))
    assert first == pytest.approx(rate / (warmup * per_epoch + 1))
    assert top == pytest.approx(rate)
    assert last == pytest.approx(rate / ((epochs - warmup) * per_epoch))
    half_way = schedule.lr((warmup * per_epoch + schedule.total_steps) // 2)
    assert half_way == pytest.approx(rate / 2, rel=1e-4)

    assert check_linear_rule(config, gpus) is None
    assert f"is not the recipe, which is {rate:g} with {batch:,}" in check_linear_rule(config, 3 * gpus)


def test_the_deepest_network_takes_the_steps_of_its_file():
    """ms1mv3_r2060 of July 2021: 8 x 64 images, lr 0.1 for 512, [m - 1 for m in (11, 17, 22)]"""
    config = load_config("ms1mv3_r2060")
    schedule = Schedule.of(config, config.num_image, 8)
    assert (schedule.total_batch, schedule.peak_lr, config.num_epoch, config.weight_decay) == (512, 0.1, 25, 5e-4)
    assert schedule.decay_steps == tuple(epoch * schedule.steps_per_epoch for epoch in (10, 16, 21))
    with torch.device("meta"):
        model = build_model("r2060")
    assert [len(layer) for layer in (model.layer1, model.layer2, model.layer3, model.layer4)] == [3, 128, 896, 3]


def test_the_speed_test_is_that_of_its_file():
    config = load_config("3millions")
    assert (config.batch_size, config.lr, config.num_epoch, config.sample_rate) == (512, 0.1, 30, 0.1)
    assert tuple(config.margin_list) == COS


def test_the_block_of_2021_means_what_it_meant(tmp_path, monkeypatch):
    """The block as it was written, on 8 processes: what InsightFace's trainer of that time did with each key."""
    config = load_config(BLOCK_OF_2021)

    # loss, embedding_size, sample_rate: ArcFace with m = 0.5 and s = 64, over all centres
    head = build_head(config, num_classes=100)
    assert (tuple(head.margin), head.scale, head.weight.shape) == ((1.0, 0.5, 0.0), 64.0, (100, 512))
    # network
    with torch.device("meta"):
        model = build_model(config.network, config.embedding_size)
    assert sum(p.numel() for p in model.parameters()) == 43_590_848
    # fp16: mixed precision, here on a GPU without bf16, as they were then
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert choose_dtype(config, torch.device("cuda")) == torch.float16
    # momentum, weight_decay
    optimizer = build_optimizer(config, torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.param_groups[0]["weight_decay"]) == (0.9, 5e-4)
    # output = None: a folder by the config's name; resume = False
    assert (config.output, config.resume) == ("runs/config_of_the_seed", False)
    # rec, val_targets: named .bin files beside the data
    for name in ("lfw", "cfp_fp", "agedb_30", "not_asked_for"):
        (tmp_path / f"{name}.bin").touch()
    assert config.rec == "/train_tmp/ms1m-retinaface-t1"
    assert [path.name for path in find_pair_files(config, tmp_path)] == ["lfw.bin", "cfp_fp.bin", "agedb_30.bin"]


@pytest.mark.parametrize(("gpus", "rate"), [(1, 0.025), (4, 0.1), (8, 0.2)])
def test_its_rate_is_for_512_images_and_falls_by_ten_at_its_epochs(gpus, rate):
    config = load_config(BLOCK_OF_2021)
    schedule = Schedule.of(config, config.num_image, gpus)
    epoch = 5_179_510 // (128 * gpus)
    assert (schedule.steps_per_epoch, schedule.total_steps, schedule.warmup_steps) == (epoch, 25 * epoch, 0)
    edges = {0: 1, 10 * epoch - 1: 1, 10 * epoch: 0.1, 16 * epoch - 1: 0.1, 16 * epoch: 0.01, 22 * epoch: 0.001}
    edges |= {22 * epoch - 1: 0.01, 25 * epoch - 1: 0.001}
    assert {step: schedule.lr(step) for step in edges} == pytest.approx({s: rate * f for s, f in edges.items()})
    assert check_linear_rule(config, gpus) is None


def test_the_shipped_step_decay_recipes_differ_from_the_block_in_name_place_and_the_gradient_of_its_time():
    block, *shipped = (load_config(source) for source in (BLOCK_OF_2021, *STEPS))
    for config, network in zip(shipped, ("r50", "r100"), strict=True):
        place = dict(network=network, rec="data/ms1m-retinaface-t1", output=config.output)
        assert config == block | place | dict(margin_gradient="exact")


def test_a_recipe_takes_the_gradient_of_its_time():
    """arcface_torch computes the margin outside autograd since December 2022; the recipes are stated as of today."""
    exact = {recipe.name for recipe in list_recipes() if recipe.config.margin_gradient == "exact"}
    assert exact == {recipe.name for recipe in list_recipes() if recipe.year < 2022} == {*STEPS, "ms1mv3_r2060"}
    assert load_config().margin_gradient == "straight-through"


@pytest.mark.parametrize(
    ("words", "gpus", "said"),
    [
        ([], 8, None),
        ([], 1, "by the linear rule set lr=0.0125, or gradient_acc=8 to take as many images"),
        ([], 7, "set lr=0.0875. "),
        (["lr=0.0125"], 1, None),
        (["gradient_acc=8"], 1, None),
        (["batch_size=120"], 8, None),
        (["batch_size=64"], 8, r"lr=0.1 with 512 images a step .* set lr=0.05, or gradient_acc=2"),
        (["lr=0.4"], 8, "is not the recipe, which is 0.1 with 1,024"),
        (["lr=0.4"], 32, None),
        (["recipe=None"], 1, None),
        (["lr=None"], 1, None),
        (["decay_epoch=[10]"], 1, None),
    ],
)
def test_a_rate_that_does_not_go_with_the_batch_is_told_the_linear_rule(words, gpus, said):
    sentence = check_linear_rule(load_config("ms1mv3_r50_8gpus", words), gpus)
    assert sentence is None if said is None else re.search(said, sentence)


def test_adamw_goes_by_the_square_root():
    config = load_config("wf42m_pfc03_40epoch_64gpu_vit_l")
    assert "by the square-root rule set lr=0.0005, or gradient_acc=4" in check_linear_rule(config, 16)


OF_2023 = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "vit_t"
config.sample_rate = 1
config.interclass_filtering_threshold = 0
config.batch_size = 768
config.optimizer = "adamw"
config.lr = 0.001
config.num_epoch = 16
config.warmup_epoch = config.num_epoch // 8
config.val_targets = []
config.dali = True
config.dali_aug = True
config.save_all_states = False
config.using_wandb = True
config.wandb_key = "a password"
config.wandb_log_all = True
config.suffix_run_name = None
"""


def test_keys_of_insightface_that_do_nothing_here_are_named_and_left_behind(tmp_path, caplog):
    (tmp_path / "of_2023.py").write_text(OF_2023)
    config = load_config(tmp_path / "of_2023.py")
    said = caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    for key, instead in (("dali", "torchvision"), ("dali_aug", "mirrored"), ("using_wandb", "metrics.jsonl")):
        assert f"sets {key}=True, which does nothing here" in said
        assert instead in said
    assert (config.network, config.batch_size, config.warmup_epoch, config.sample_rate) == ("vit_t", 768, 2.0, 1.0)
    assert "password" not in str(config) + said


@pytest.mark.parametrize(("rank", "lines"), [("0", 3), ("3", 0)])
def test_of_many_processes_rank_0_alone_names_such_keys(tmp_path, capsys, monkeypatch, rank, lines):
    (tmp_path / "of_2023.py").write_text(OF_2023)
    monkeypatch.setenv("RANK", rank)
    set_up_logging()
    load_config(tmp_path / "of_2023.py")
    assert len(capsys.readouterr().out.splitlines()) == lines


OF_2021 = """
from easydict import EasyDict as edict
config = edict()
config.lr = 0.1  # batch size is 512
config.batch_size = 128
config.num_epoch = 20
config.warmup_epoch = -1

def lr_step_func(epoch):
    return ((epoch + 1) / (4 + 1)) ** 2 if epoch < config.warmup_epoch else 0.1 ** len(
        [m for m in [8, 12, 15, 18] if m - 1 <= epoch])
config.lr_func = lr_step_func
"""


def test_a_rate_by_a_function_of_the_epoch_becomes_the_same_steps(tmp_path):
    (tmp_path / "of_2021.py").write_text(OF_2021)
    config = load_config(tmp_path / "of_2021.py")
    assert config.decay_epoch == [7, 11, 14, 17]
    schedule = Schedule.of(config, num_images=10_240, world_size=8)
    expected = [0.2 * 0.1 ** sum(m - 1 <= epoch for m in (8, 12, 15, 18)) for epoch in range(20)]
    assert [schedule.lr(10 * epoch) for epoch in range(20)] == pytest.approx(expected)


def test_a_function_that_is_no_ladder_is_refused(tmp_path):
    (tmp_path / "halves.py").write_text("config = dict(num_epoch=4, lr_func=lambda epoch: 0.5**epoch)")
    with pytest.raises(ConfigError, match=r"halves\.py sets lr_func .* write decay_epoch = \[10, 16, 22\]"):
        load_config(tmp_path / "halves.py")


@pytest.mark.parametrize("recipe", ["(0.1,)", "(0.1, 'all')", "(0, 1024)", "(0.1, -1)"])
def test_a_recipe_is_two_numbers(recipe):
    with pytest.raises(ConfigError, match="recipe"):
        load_config(overrides=[f"recipe={recipe}"])
