"""Configs: a Python file with an EasyDict, laid over the defaults, overridden by `key=value` words.

config = load_config("drawn_faces", ["batch_size=32", "rec=my_photos/"])
"""

import ast
import difflib
import logging
import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from easydict import EasyDict

from arcface_edu.config_schema import KEYS
from arcface_edu.errors import ConfigError

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "configs"

# Keys that configs written for InsightFace may set, and what is done instead. They are left behind, not least because
# one is a password; those that would have switched something on are answered with a sentence.
ELSEWHERE = {
    "dali": "images are read by num_workers processes and decoded by torchvision",
    "dali_aug": "photographs are mirrored at random and not changed otherwise",
    "using_wandb": "the numbers of a run go to metrics.jsonl in its folder",
    **dict.fromkeys(("wandb_key", "wandb_entity", "wandb_project", "wandb_log_all", "wandb_resume"), ""),
    **dict.fromkeys(("suffix_run_name", "save_artifacts"), ""),  # these, too, go with using_wandb
}


def load_config(source: str | Path = "drawn_faces", overrides: Sequence[str] = ()) -> EasyDict:
    """Return the whole config of a run.

    Args:
        source: the name of a file in arcface_edu/configs, or a path to a .py file that defines `config`.
        overrides: "key=value" strings; a value is a Python literal, or else taken as a word.

    Raises:
        ConfigError: for a missing or broken file, an unknown key (naming the nearest), or a value of the wrong type.
    """
    config = EasyDict({name: key.default for name, key in KEYS.items()})
    for where, layer in (
        (str(source), dict(read_config_file(find_config(source)))),
        ("the command line", dict(parse_override(word) for word in overrides)),
    ):
        if "loss" in layer:
            config.margin_list = None  # a loss named later is meant with its own margins, not with an earlier layer's
        for key, instead in ELSEWHERE.items():
            if instead and layer.get(key):
                log.warning(f"{where} sets {key}={layer[key]!r}, which does nothing here: {instead}.")
        lr_func = layer.pop("lr_func", None)
        for key, value in layer.items():
            if key not in ELSEWHERE:
                config[key] = check_value(key, value, where)
        if lr_func is not None:
            config.decay_epoch = decay_epochs(lr_func, config.num_epoch, where)
    if config.output is None:
        config.output = str(Path("runs") / Path(source).stem)
    return config


def shipped_configs() -> dict[str, Path]:
    """Return the file of each config that comes with the package, by its name: our own, then InsightFace's recipes."""
    files = [*sorted(SHIPPED.glob("*.py")), *sorted((SHIPPED / "insightface").glob("*.py"))]
    return {path.stem: path for path in files if path.stem not in ("__init__", "base")}


def find_config(source: str | Path) -> Path:
    """Return the file that a config's name or path means."""
    path = Path(source)
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise ConfigError(f"the config file {path} does not exist; check the path.")
    shipped = shipped_configs()
    if str(source) not in shipped:
        raise ConfigError(
            f'there is no config called "{source}"{nearest(str(source), shipped)}; shipped are '
            f"{', '.join(sorted(shipped))}, and a file of your own is named by its path, ending in .py."
        )
    return shipped[str(source)]


def read_config_file(path: Path) -> EasyDict:
    """Run a config file and return its `config`. It is code: only files that the user names are ever run."""
    try:
        found = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise ConfigError(f"the config file {path} does not run: {type(error).__name__}: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"the config file {path} defines no `config`; begin it with `config = EasyDict()`.")
    return EasyDict(found)


def parse_override(word: str) -> tuple[str, Any]:
    """Return key and value of a word: 'lr=0.02' -> ('lr', 0.02); a value that is no Python literal is a string."""
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f'"{word}" is not of the form key=value, as in batch_size=64.')
    try:
        literal = ast.literal_eval(value)
        is_path = key in ("rec", "output") and type(literal) in (int, float)
        return key, value if is_path else literal  # output=2024.10 is a folder
    except (ValueError, SyntaxError):
        return key, {"true": True, "false": False, "none": None}.get(value.lower(), value)


def decay_epochs(lr_func: Callable[[int], float], num_epoch: int, where: str) -> list[int]:
    """Return the `decay_epoch` that says what older InsightFace configs say by a function of the epoch (0, 1, ...)."""
    factors = [lr_func(epoch) for epoch in range(num_epoch)]
    steps = [epoch for epoch in range(1, num_epoch) if factors[epoch] != factors[epoch - 1]]
    ladder = [0.1 ** sum(step <= epoch for step in steps) for epoch in range(num_epoch)]
    if any(abs(factor - rung) > 1e-6 * rung for factor, rung in zip(factors, ladder, strict=True)):
        raise ConfigError(
            f"{where} sets lr_func to a function that does more than to divide the rate by ten at some epochs; "
            f"write decay_epoch = [10, 16, 22] or the like instead, and warmup_epoch for a slow start."
        )
    return steps


def check_value(name: str, value: Any, where: str) -> Any:
    """Return `value` as the key may hold it.

    Args:
        where: the file or "the command line" that sets it, for the sentence.

    Raises:
        ConfigError: names the key, the place and the remedy.
    """
    if name not in KEYS:
        raise ConfigError(f'{where} sets "{name}", which is no key of a config{nearest(name, KEYS)}.')
    key = KEYS[name]
    if isinstance(value, Path):
        value = str(value)
    is_bool = isinstance(value, bool)
    if name == "val_targets" and isinstance(value, str):  # val_targets=lfw,cfp_fp as a shell passes it
        value = [target for word in value.strip("[]()").split(",") if (target := word.strip(" '\""))]
    if isinstance(value, int) and not is_bool and key.type_names == "float":
        value = float(value)  # lr=1 means 1.0
    if not isinstance(value, key.type) or (is_bool and key.type is not bool):
        raise ConfigError(
            f"{where} sets {name} to {value!r}, which should be of type {key.type_names}; "
            f"its default is {key.default!r}."
        )
    if key.rule and value is not None and not key.rule.holds(value):
        hint = nearest(value, key.rule.choices) if key.rule.choices else ""
        raise ConfigError(f"{where} sets {name} to {value!r}{key.rule.sentence}{hint}.")
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question that names the word most like `word`, for the end of an error; "" where none is like it."""
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
