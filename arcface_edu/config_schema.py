"""Every key of a config: type, default, limits and meaning, in one table.

`configs/base.py` is written from it:   python -c "import arcface_edu.config_schema as schema; schema.write_base()"
"""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args


class Rule(NamedTuple):
    """What a value has to fulfil besides its type."""

    words: str  # for the table of keys
    holds: Callable[[Any], bool]
    sentence: str  # goes on behind "... sets KEY to VALUE"
    choices: tuple[str, ...] = ()


class Key(NamedTuple):
    """One key of a config."""

    name: str
    type: Any  # as isinstance takes it; `| None` where the key may be left open
    default: Any
    rule: Rule | None
    help: str

    @property
    def type_names(self) -> str:
        """The types that a value may have, without None."""
        return " or ".join(kind.__name__ for kind in get_args(self.type) or (self.type,) if kind is not NoneType)

    @property
    def limits(self) -> str:
        """Types and rule in a few words."""
        if self.rule and self.rule.choices:
            return self.rule.words
        words = self.type_names + (" or None" if isinstance(None, self.type) else "")
        return f"{words}, {self.rule.words}" if self.rule else words


def _at_least(least: int) -> Rule:
    return Rule(f"at least {least}", lambda value: value >= least, f", but the least that makes sense is {least}")


def _one_of(*choices: str | None) -> Rule:
    words = [str(choice) for choice in choices]
    listed, known = " | ".join(words), tuple(choice for choice in choices if choice)
    return Rule(listed, lambda value: value in choices, f"; it may be {', '.join(words)}", known)


def _are_numbers(values: Any, count: int) -> bool:
    return len(values) == count and all(isinstance(value, (int, float)) for value in values)


NOT_NEGATIVE, POSITIVE = _at_least(0), _at_least(1)
SHARE_OR_NONE = Rule("0 to 1", lambda value: 0 <= value <= 1, "; it is a share, from 0 to 1")
SHARE = Rule("above 0, at most 1", lambda value: 0 < value <= 1, "; it is a share, above 0 and at most 1")
MARGINS = Rule(
    "3 numbers",
    lambda value: _are_numbers(value, 3),
    "; it holds three numbers (m1, m2, m3), as (1.0, 0.5, 0.0)",
)
RATE_AND_BATCH = Rule(
    "2 numbers above 0",
    lambda value: _are_numbers(value, 2) and min(value) > 0,
    "; it holds two numbers above 0 (lr, images a step), as (0.1, 1024)",
)
LOSSES = _one_of(
    *("softmax", "norm_softmax", "sphereface", "cosface", "arcface", "combined1", "combined2"),
    *("subcenter_arcface", "adaface", "magface", "curricularface", "mv_softmax", "elasticface"),
    *("sphereface_2017", "sphereface_r"),
)

# fmt: off
SCHEMA: dict[str, tuple[Key, ...]] = {
    "data": (
        Key("rec", str | None, None, None,
            'folder of train.rec, or of a folder per person; None = drawn faces; "synthetic" = made-up ones'),
        Key("num_classes", int | None, None, POSITIVE, "identities; None = read from the data; a number is checked"),
        Key("num_image", int | None, None, None, "images; likewise"),
        Key("val_targets", list | tuple, [], None,
            'verification pairs, as lfw,cfp_fp: lfw.bin beside the data, or a file; [] = every .bin there'),
        Key("hold_out", int | None, None, NOT_NEGATIVE,
            "image folders: people kept back to verify on; None = a fifth, where there are no pairs"),
        Key("draw_identities", int, 0, NOT_NEGATIVE, "with rec=None: how many people to draw"),
        Key("draw_photos", int, 0, NOT_NEGATIVE, "how many photographs to draw of each"),
        Key("draw_pairs", int, 3000, NOT_NEGATIVE, "how many pairs of other people to verify on"),
        Key("draw_seed", int, 0, None, "another seed, another population"),
        Key("draw_difficulty", float, 1.0, NOT_NEGATIVE, "0 = passport photographs, 1 = snapshots, 2 = hard"),
        Key("augment", str, "mirror", _one_of("mirror", "photo"),
            "half of the images mirrored | also turned, scaled, shifted, relit, coarser, noisy, half of them grey"),
        Key("max_corrupt", int, 100, NOT_NEGATIVE,
            "broken records that are skipped, counted and named before the run gives up"),
        Key("num_workers", int, 2, NOT_NEGATIVE, "processes that read and decode images"),
        Key("dali", bool, False, None, "accepted from InsightFace configs; decoding here is torchvision's"),
    ),
    "network": (
        Key("network", str | None, "r50", None,
            "r10 r10_quick r18 r34 r50 r100 r200 mbf mbf_large vit_t vit_s vit_b ...; None = that of init"),
        Key("embedding_size", int | None, 512, POSITIVE, "None = that of init"),
        Key("dropout", float, 0.0, NOT_NEGATIVE, "before the last linear layer"),
        Key("gradient_checkpointing", bool, False, None,
            "recompute each block in the backward pass: less memory, a third more time"),
        Key("init", str | None, None, None,
            "weights that the backbone starts from: a file, the folder of a run, or drawn_crowd; the head is new"),
    ),
    "head": (
        Key("loss", str, "arcface", LOSSES, ""),
        Key("head_options", dict, {}, None,
            "what a loss has besides, as {'sub_centers': 3} of subcenter_arcface; see docs/heads.md"),
        Key("margin_list", tuple | list | None, None, MARGINS,
            "(m1, m2, m3) of cos(m1*theta + m2) - m3; overrules loss"),
        Key("scale", float | None, 64.0, NOT_NEGATIVE,
            "s, by which cosines are multiplied; None = 64 at 512 dimensions, s^2 / d kept"),
        Key("margin_gradient", str, "straight-through", _one_of("straight-through", "exact"),
            "arcface_torch since December 2022 | before it"),
        Key("interclass_filtering_threshold", float, 0.0, NOT_NEGATIVE,
            "> 0: cosines of other classes above it count as 0"),
        Key("sample_rate", float, 1.0, SHARE_OR_NONE,
            "share of the class centres in a step (Partial FC); 1 = all, 0 = the batch's people's"),
    ),
    "optimization": (
        Key("optimizer", str, "sgd", _one_of("sgd", "adamw"), ""),
        Key("lr", float | None, 0.1, NOT_NEGATIVE,
            "as is; but with decay_epoch the lr for 512 images a step; None = fitted to the batch"),
        Key("recipe", tuple | list | None, None, RATE_AND_BATCH,
            "(lr, images a step) that go together: a run that strays from them is told the lr that fits"),
        Key("momentum", float, 0.9, NOT_NEGATIVE, "of SGD"),
        Key("weight_decay", float, 5e-4, NOT_NEGATIVE, "of weights and class centres"),
        Key("decay_all", bool, False, None, "True: decay BN, PReLU and biases as well, as InsightFace does"),
        Key("batch_size", int | None, 128, POSITIVE, "per process and per backward pass; None = fitted to the data"),
        Key("gradient_acc", int, 1, POSITIVE, "backward passes per step; their gradient is that of the one big batch"),
        Key("max_norm", float, 5.0, NOT_NEGATIVE,
            "the backbone's gradient is clipped to it (metrics.jsonl has the norm before); 0 = never"),
        Key("num_epoch", int | None, 20, POSITIVE, "None = fitted to the data"),
        Key("warmup_epoch", float, 0, None, "epochs (also fractions) in which lr climbs from near zero; -1 = none"),
        Key("decay_epoch", list | tuple | None, None, None, "[10, 16, 22]: lr x 0.1 at each; None = polynomial to 0"),
        Key("poly_power", float, 1.0, NOT_NEGATIVE, "1 = a straight line"),
        Key("head_epoch", float, 0, NOT_NEGATIVE,
            "with init: so many epochs (also fractions) at the start only the head learns"),
        Key("backbone_rate", float, 1.0, SHARE, "share of lr that the backbone gets"),
    ),
    "precision and speed": (
        Key("fp16", bool, True, None,
            "mixed precision: bf16 where the device has it, else fp16 with a scaler; False = fp32"),
        Key("amp_dtype", str | None, None, _one_of(None, "bf16", "fp16"), "to insist on one of them"),
        Key("device", str | None, None, None, '"cpu", "cuda", "mps"; None = the accelerator if there is one'),
        Key("compile", bool, False, None,
            "True: torch.compile the network's training step; slow to begin, see docs/performance.md"),
        Key("seed", int, 2048, NOT_NEGATIVE, "of weights, order, augmentation and sampled centres"),
    ),
    "many processes (torchrun --nproc_per_node=N -m arcface_edu.train ...)": (
        Key("parallel", str, "ddp", _one_of("ddp", "dp"),
            "dp = DataParallel, one process with several GPUs, for comparison"),
        Key("ddp_bucket_mb", int, 25, POSITIVE,
            "DDP all-reduces gradients in buckets of so many MB during the backward pass"),
        Key("gradient_compression", str | None, None, _one_of(None, "bf16", "fp16"),
            "half the traffic, gradients rounded on the way"),
        Key("sync_bn", bool, False, None, "True: BN normalises over the images of all processes (GPUs only)"),
        Key("timeout_seconds", int, 600, POSITIVE, "so long one process waits for the others before it gives up"),
    ),
    "the run": (
        Key("output", str | None, None, None, "folder of the run; None = runs/<config>"),
        Key("dry_run", bool, False, None,
            "True: no training; build, step and save it on fake tensors, as one of dry_run_gpus processes"),
        Key("dry_run_gpus", int, 8, POSITIVE, "processes of a dry run"),
        Key("resume", bool, False, None, "True: go on from the last checkpoint in output"),
        Key("frequent", int, 10, POSITIVE, "steps between two lines of the log"),
        Key("verbose", int, 2000, NOT_NEGATIVE, "steps between two verifications; 0 = only at the end"),
        Key("save_every", int, 2000, NOT_NEGATIVE,
            "steps between two checkpoints; 0 = only at the end of each epoch"),
        Key("async_save", bool, False, None,
            "True: a checkpoint is written while training goes on; its copy takes memory meanwhile"),
        Key("keep_checkpoints", int, 2, NOT_NEGATIVE, "older ones are removed; 0 = keep all"),
        Key("profile", bool, False, None,
            "True: record a few steps: a chrome trace of each process, and a picture of who waits for whom"),
        Key("save_all_states", bool, True, None,
            "accepted from InsightFace configs; a checkpoint always holds everything here"),
    ),
}
# fmt: on
KEYS: dict[str, Key] = {key.name: key for keys in SCHEMA.values() for key in keys}

BASE_HEADER = '''\
"""Every key of a run, its default and what it means. A run's own file, or the command line, names only what differs.

The key names are those of InsightFace's `arcface_torch`, so a config block written for it runs as it is. This file is
written from arcface_edu/config_schema.py, which also holds types and limits: `python -m arcface_edu.train --keys`.
"""

from easydict import EasyDict as edict

config = edict()
'''


def base_source() -> str:
    """Return the source of configs/base.py."""
    lines = [BASE_HEADER.rstrip()]
    for group, keys in SCHEMA.items():
        lines += ["", f"# {group}"]
        for key in keys:
            default = json.dumps(key.default) if isinstance(key.default, str) else repr(key.default)
            choices = " | ".join(key.rule.choices) if key.rule else ""
            line, comment = f"config.{key.name} = {default}", ": ".join(filter(None, (choices, key.help)))
            if len(f"{line}  # {comment}") > 120:
                lines += textwrap.wrap(comment, 120, initial_indent="# ", subsequent_indent="# ")
                comment = ""
            lines.append(f"{line}  # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def write_base() -> None:
    """Write configs/base.py anew, after a change of the table."""
    (Path(__file__).parent / "configs" / "base.py").write_text(base_source())


def keys_table(width: int = 120) -> str:
    """Return all keys as `train --keys` prints them: by group, as one types them, with meaning and limits.

    Args:
        width: of a line, in characters.
    """
    lines = []
    indent = 2 + max(len(f"{key.name}={key.default}") for key in KEYS.values()) + 2
    for group, keys in SCHEMA.items():
        lines += ["", group]
        for key in keys:
            limits = f"[{key.limits}]".replace(" ", "\0")  # never broken over two lines
            meaning = f"{key.help} {limits}".strip()
            text = f"  {f'{key.name}={key.default}':<{indent - 2}}{meaning}"
            wrapped = textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)
            lines.append(wrapped.replace("\0", " "))
    return "\n".join(lines[1:])
