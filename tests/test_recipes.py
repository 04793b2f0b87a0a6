"""Which shipped config is which: the table of `train --configs`, and the first line of a run."""

import re

import pytest

from arcface_edu.config import load_config, shipped_configs
from arcface_edu.recipes import configs_table, list_recipes, recipe_line

OWN = {"drawn_faces", "drawn_crowd", "own_data", "fine_tune"}
RECIPES = {recipe.name: recipe for recipe in list_recipes()}
NAMES = {"3millions": "Synthetic", "ms1mv2": "MS1MV2", "ms1mv3": "MS1MV3", "glint360k": "Glint360K"}


def test_every_recipe_says_data_gpus_and_year_at_the_head_of_its_file():
    assert RECIPES.keys() == shipped_configs().keys() - OWN
    for name, recipe in RECIPES.items():
        start = name.split("_")[0]
        assert recipe.data == NAMES.get(start, start.replace("wf", "WebFace").upper().replace("WEBFACE", "WebFace"))
        if found := re.search(r"_(\d+)gpus?(_|$)", name):
            assert recipe.gpus == int(found[1])
        if recipe.config.recipe:
            assert recipe.config.batch_size * recipe.config.gradient_acc * recipe.gpus == recipe.config.recipe[1]
    years = {recipe.year for recipe in RECIPES.values()}
    assert years == {2021, 2022, 2023}
    steps = {"ms1mv3_r50", "ms1mv3_r100", "ms1mv3_r2060"}
    assert {name for name, recipe in RECIPES.items() if recipe.config.decay_epoch} == steps
    assert {name for name, recipe in RECIPES.items() if recipe.year == 2021} == steps


def test_the_table_tells_the_configs_apart():
    table, said = configs_table().rsplit("\n\n", 1)
    assert "ms1mv3_r50 and ms1mv3_r100 are the step-decay recipe (2021)" in said
    lines = {line.split()[0]: " ".join(line.split()) for line in table.splitlines() if line}
    assert lines.keys() >= shipped_configs().keys()
    steps, linear = lines["ms1mv3_r50"], lines["ms1mv3_r50_8gpus"]
    assert steps.startswith("ms1mv3_r50 MS1MV3 r50 8 1,024 25 0.1 per 512 images, steps at 10 16 22 arcface ")
    assert linear.startswith("ms1mv3_r50_8gpus MS1MV3 r50 8 1,024 20 0.1, linear decay arcface ")
    assert (steps[-4:], linear[-4:]) == ("2021", "2022")
    assert "64 24,576 40 0.001, linear decay, 4 of warm-up (1, 0, 0.4)" in lines["wf42m_pfc03_40epoch_64gpu_vit_l"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_of_a_recipe_begins_with_its_name(name):
    assert recipe_line(load_config(name, ["output=elsewhere", "rec=there", "frequent=1"])).startswith(
        f"recipe: {name} ({RECIPES[name].data}, {RECIPES[name].year}): "
    )


def test_a_changed_recipe_and_a_config_of_ones_own_go_by_no_name():
    changed = recipe_line(load_config("ms1mv3_r50", ["num_epoch=30"]))
    assert changed.startswith(
        "recipe: 30 epochs, learning rate 0.1 per 512 images, steps at 10 16 22, arcface margin, "
    )
    assert recipe_line(load_config("drawn_faces", ["loss=softmax", "poly_power=2"])) == (
        "recipe: 7 epochs, learning rate 0.1, power 2 decay, 0.5 of warm-up, softmax"
    )
    for word in ("init=w.pt", "augment=photo"):
        assert recipe_line(load_config("ms1mv3_r50_8gpus", [word])).startswith("recipe: 20 epochs, ")
    assert recipe_line(load_config("drawn_faces", ["augment=photo"])).endswith(", augment=photo")
