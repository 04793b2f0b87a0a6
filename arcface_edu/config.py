"""Configs: a Python file with an EasyDict, laid over `configs/base.py`, overridden by `key=value` words.

config = load_config("drawn_faces", ["batch_size=32", "rec=my_photos/"])
"""

import ast
import difflib
import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from easydict import EasyDict

from arcface_edu.errors import ConfigError

SHIPPED = Path(__file__).parent / "configs"

# What a key may hold where its default does not say it: a default of None has no type of its own.
TYPES = {
    "rec": str,
    "num_classes": int,
    "num_image": int,
    "hold_out": int,
    "network": str,
    "embedding_size": int,
    "init": str,
    "scale": float,
    "margin_list": (tuple, list),
    "batch_size": int,
    "lr": float,
    "recipe": (tuple, list),
    "num_epoch": int,
    "warmup_epoch": float,
    "head_epoch": float,
    "decay_epoch": (list, tuple),
    "val_targets": (list, tuple),
    "amp_dtype": str,
    "device": str,
    "output": str,
    "gradient_compression": str,
}
# key -> the values it may take
CHOICES = {
    "loss": ("softmax", "norm_softmax", "sphereface", "cosface", "arcface", "combined1", "combined2"),
    "margin_gradient": ("straight-through", "exact"),
    "optimizer": ("sgd", "adamw"),
    "parallel": ("ddp", "dp"),
    "amp_dtype": (None, "bf16", "fp16"),
    "gradient_compression": (None, "bf16", "fp16"),
}
# key -> the least value that makes sense
AT_LEAST = {
    **dict.fromkeys(("num_classes", "batch_size", "gradient_acc", "num_epoch", "frequent", "embedding_size"), 1),
    **dict.fromkeys(("num_workers", "lr", "momentum", "weight_decay", "max_norm", "poly_power", "max_corrupt"), 0),
    **dict.fromkeys(("timeout_seconds", "ddp_bucket_mb", "dry_run_gpus"), 1),
    **dict.fromkeys(("verbose", "save_every", "keep_checkpoints", "draw_identities", "draw_photos", "hold_out"), 0),
    **dict.fromkeys(("scale", "draw_pairs", "draw_difficulty", "dropout", "interclass_filtering_threshold", "seed"), 0),
    "head_epoch": 0,
}
# key -> how many numbers it holds, in words
NUMBERS = {
    "margin_list": (3, "three numbers (m1, m2, m3), as (1.0, 0.5, 0.0)"),
    "recipe": (2, "two numbers above 0 (lr, images a step), as (0.1, 1024)"),
}
# Keys that configs written for InsightFace may set, and what is done instead. They are left behind, not least because
# one is a password; those that would have switched something on are answered with a sentence.
ELSEWHERE = {
    "dali": "images are read by num_workers processes and decoded by torchvision",
    "dali_aug": "photographs are mirrored at random and not changed otherwise",
    "using_wandb": "the numbers of a run go to metrics.jsonl in its folder",
    **dict.fromkeys(("wandb_key", "wandb_entity", "wandb_project", "wandb_log_all", "wandb_resume"), ""),
    **dict.fromkeys(("suffix_run_name", "save_artifacts"), ""),  # these, too, go with using_wandb
}


def load_config(source="drawn_faces", overrides=()):
    """The whole config of a run, as an EasyDict.

    source: the name of a file in arcface_edu/configs, or a path to a .py file that defines `config`.
    overrides: "key=value" strings; a value is a Python literal, or else taken as a word.
    Raises ConfigError for a missing or broken file, an unknown key (naming the nearest), or a value of the wrong type.
    """
    config = read_config_file(SHIPPED / "base.py")
    layers = [(str(source), read_config_file(find_config(source)))]
    layers.append(("the command line", dict(parse_override(word) for word in overrides)))
    for where, layer in layers:
        if "loss" in layer:
            config.margin_list = None  # a loss named later is meant with its own margins, not with an earlier layer's
        for sentence in done_elsewhere(layer, where):
            if os.environ.get("RANK", "0") == "0":  # of many processes one says it
                print(sentence)
        lr_func = layer.pop("lr_func", None)
        for key, value in layer.items():
            if key not in ELSEWHERE:
                config[key] = checked(key, value, config, where)
        if lr_func is not None:
            config.decay_epoch = decay_epochs(lr_func, config.num_epoch, where)
    if config.output is None:
        config.output = str(Path("runs") / Path(source).stem)
    return config


def find_config(source):
    """The file that a config's name or path means."""
    path = Path(source)
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise ConfigError(f"the config file {path} does not exist; check the path.")
    shipped = sorted(p.stem for p in SHIPPED.glob("*.py") if p.stem not in ("__init__", "base"))
    if path.name not in shipped or len(path.parts) > 1:
        raise ConfigError(
            f'there is no config called "{source}"{nearest(str(source), shipped)}; shipped are {", ".join(shipped)}, '
            f"and a file of your own is named by its path, ending in .py."
        )
    return SHIPPED / f"{path.name}.py"


def read_config_file(path):
    """Run a config file and take its `config`. It is code: only files that the user names are ever run."""
    try:
        found = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise ConfigError(f"the config file {path} does not run: {type(error).__name__}: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"the config file {path} defines no `config`; begin it with `config = EasyDict()`.")
    return EasyDict(found)


def parse_override(word):
    """'lr=0.02' -> ('lr', 0.02); a value that is no Python literal is a string."""
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f'"{word}" is not of the form key=value, as in batch_size=64.')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, {"true": True, "false": False, "none": None}.get(value.lower(), value)


def done_elsewhere(layer, where):
    """A sentence for each key that asks for what only InsightFace does."""
    return [
        f"{where} sets {key}={layer[key]!r}, which does nothing here: {instead}."
        for key, instead in ELSEWHERE.items()
        if instead and layer.get(key)
    ]


def decay_epochs(lr_func, num_epoch, where):
    """The `decay_epoch` that says what older InsightFace configs say by a function of the epoch (0, 1, ...)."""
    factors = [lr_func(epoch) for epoch in range(num_epoch)]
    steps = [epoch for epoch in range(1, num_epoch) if factors[epoch] != factors[epoch - 1]]
    ladder = [0.1 ** sum(step <= epoch for step in steps) for epoch in range(num_epoch)]
    if any(abs(factor - rung) > 1e-6 * rung for factor, rung in zip(factors, ladder, strict=True)):
        raise ConfigError(
            f"{where} sets lr_func to a function that does more than to divide the rate by ten at some epochs; "
            f"write decay_epoch = [10, 16, 22] or the like instead, and warmup_epoch for a slow start."
        )
    return steps


def checked(key, value, config, where):
    """`value` as `key` may hold it, or a ConfigError that names the key, the place and the remedy."""
    if key not in config:
        raise ConfigError(f'{where} sets "{key}", which is no key of a config{nearest(key, config)}.')
    default = config[key]
    kinds = TYPES.get(key, type(default))
    if isinstance(value, int) and not isinstance(value, bool) and kinds is float:
        value = float(value)  # lr=1 means 1.0
    if isinstance(value, Path):
        value = str(value)
    optional = key in TYPES and key != "val_targets"
    fits = isinstance(value, kinds) and not (isinstance(value, bool) and kinds is not bool)
    if not (fits or (value is None and optional)):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise ConfigError(
            f"{where} sets {key} to {value!r}, which should be of type {names}; its default is {default!r}."
        )
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(
            f"{where} sets {key} to {value!r}; it may be {', '.join(map(str, CHOICES[key]))}"
            f"{nearest(str(value), [c for c in CHOICES[key] if c])}."
        )
    if key in AT_LEAST and value is not None and value < AT_LEAST[key]:
        raise ConfigError(f"{where} sets {key} to {value!r}, but the least that makes sense is {AT_LEAST[key]}.")
    if key in ("sample_rate", "backbone_rate") and not 0 < value <= 1:
        raise ConfigError(f"{where} sets {key} to {value!r}; it is a share, above 0 and at most 1.")
    if key in NUMBERS and value is not None:
        count, words = NUMBERS[key]
        numbers = len(value) == count and all(isinstance(number, (int, float)) for number in value)
        if not numbers or (key == "recipe" and min(value) <= 0):
            raise ConfigError(f"{where} sets {key} to {value!r}; it holds {words}.")
    return value


def nearest(word, known):

    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{match[0]}"?)' if match else ""


class FinalConfig(EasyDict):
    """The config of a run that has been prepared: it reads as an EasyDict, and an assignment raises ConfigError.

    `EasyDict(config, lr=0.01)` is a copy that can change.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        dict.__init__(self, values)
        self.__dict__.update(values)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError(
            "the config of a prepared run no longer changes; set its keys before the run is prepared, "
            "or change a copy, as EasyDict(config, lr=0.01)."
        )

    __setattr__ = __setitem__ = __delattr__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return FinalConfig, (dict(self),)  # for copy, deepcopy and pickle, which would assign key by key
