"""The configs that come with the package, told apart: `train --configs`, and the line that a run begins with."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from easydict import EasyDict

from arcface_edu.config import load_config, shipped_configs
from arcface_edu.config_schema import SCHEMA
from arcface_edu.heads import MARGINS, head_options

HEAD = re.compile(r"(?P<data>\w+), [\w-]+, (?P<gpus>\d+) GPUs?, (?P<year>\d{4}): ")  # of a recipe's docstring
DECISIVE = [
    "num_classes",
    "augment",
    *(key.name for group in ("network", "head", "optimization") for key in SCHEMA[group]),
]
COLUMNS = ("recipe of InsightFace", "data", "network", "GPUs", "images/step", "epochs", "learning rate", "margin",
           "gradient", "year")  # fmt: skip


class Recipe(NamedTuple):
    """A recipe of InsightFace, as its file here states it."""

    name: str
    data: str
    gpus: int  # that the batch is meant for
    year: int  # since when InsightFace states it
    config: EasyDict


def list_recipes() -> Iterator[Recipe]:
    """Yield the recipes in configs/insightface."""
    for name, docstring in _docstrings().items():
        if head := HEAD.match(docstring):
            yield Recipe(name, head["data"], int(head["gpus"]), int(head["year"]), load_config(name))


def configs_table() -> str:
    """Return what `train --configs` prints: each shipped config with its data, network, batch, schedule and year."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for name, data, gpus, year, config in list_recipes():
        total = f"{config.batch_size * config.gradient_acc * gpus:,}"
        schedule = (f"{config.num_epoch}", _rate(config))
        head = (_margin(config), config.margin_gradient)
        rows.append((name, data, config.network, f"{gpus}", total, *schedule, *head, f"{year}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    own = [f"{name:<13}{text.splitlines()[0]}" for name, text in _docstrings().items() if not HEAD.match(text)]
    return "\n".join(
        [
            *own,
            "",
            *("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
            "",
            "ms1mv3_r50 and ms1mv3_r100 are the step-decay recipe (2021). What InsightFace's files of these names say",
            "today is ms1mv3_r50_8gpus and ms1mv3_r100_8gpus here.",
        ]
    )


def recipe_line(config: EasyDict) -> str:
    """Return what a run is, for its first line in the log: the recipe it follows, if any, epochs, rate and loss."""
    known = (recipe for recipe in list_recipes() if all(recipe.config[key] == config[key] for key in DECISIVE))
    recipe = next(known, None)
    name = f"{recipe.name} ({recipe.data}, {recipe.year}): " if recipe else ""
    if config.loss in MARGINS:
        head = f"{_margin(config)} margin, {config.margin_gradient} gradient"
    else:
        options = head_options(config.loss) | config.head_options
        head = " ".join([config.loss, *(f"{name}={value}" for name, value in options.items())])
    augment = "" if config.augment == "mirror" else f", augment={config.augment}"
    return f"recipe: {name}{config.num_epoch} epochs, learning rate {_rate(config)}, {head}{augment}"


def _docstrings() -> dict[str, str]:
    files = shipped_configs().items()
    return {name: ast.get_docstring(ast.parse(path.read_text())) or "" for name, path in files}


def _rate(config: EasyDict) -> str:
    warm_up = f", {config.warmup_epoch:g} of warm-up" if config.warmup_epoch > 0 else ""
    if config.decay_epoch is not None:
        return f"{config.lr:g} per 512 images, steps at {' '.join(map(str, config.decay_epoch))}{warm_up}"
    decay = "linear" if config.poly_power == 1 else f"power {config.poly_power:g}"
    return f"{config.lr:g}, {decay} decay{warm_up}"


def _margin(config: EasyDict) -> str:
    return "({:g}, {:g}, {:g})".format(*config.margin_list) if config.margin_list else config.loss
