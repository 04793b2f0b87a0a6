"""Before the loop: the folder of the run, its data, and the keys that the config leaves to data and weights.

Each step takes a config and returns a completed copy. What `prepare` returns no longer changes.
"""

import json
import logging
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from easydict import EasyDict

from arcface_edu.config import FinalConfig
from arcface_edu.data.datasets import SYNTHETIC, FaceDataset, SyntheticFaces, open_faces
from arcface_edu.data.folder import list_people
from arcface_edu.data.recordio import find_records
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.io import write_json_atomically
from arcface_edu.models.weights import hash_of
from arcface_edu.runs import architecture_of, weights_file
from arcface_edu.training.launch import SINGLE_PROCESS, World
from arcface_edu.training.pair_sets import PairSet, hold_out_some, pair_set_of, read_pair_files
from arcface_edu.training.people import (
    FILE,
    RunPeople,
    check_same_people,
    describe_people,
    same_people_in,
    saved_people,
)

log = logging.getLogger(__name__)

RUN_FILES = ("checkpoints", "config.json", "figures", "metrics.jsonl", "model.pt", FILE, "tensorboard")


class Data(NamedTuple):
    """The data of a run, and its config with all that the data says."""

    config: EasyDict
    faces: FaceDataset
    pair_sets: list[PairSet]


class Prepared(NamedTuple):
    """What the loop needs of a run: the complete config, the run's folder, training faces and verification pairs."""

    config: FinalConfig
    output: Path
    faces: FaceDataset
    pair_sets: list[PairSet]


def prepare(config: EasyDict, world: World = SINGLE_PROCESS, resume: bool = False) -> Prepared:
    """Complete a config from weights and data, and open the run's folder. `config` itself stays as it is.

    Args:
        config: as `load_config` returns it.
        world: the processes of the run; rank 0 makes the folder ready.
        resume: True goes on with the run in the folder, as `resume=True` in the config does.

    Raises:
        ConfigError, DataError, CheckpointError: where the config, its data or its weights contradict each other.
    """
    config = fit_to_weights(EasyDict(config, resume=config.resume or resume))
    output = open_output(config, world)
    before = saved_people(output) if config.resume else None
    config, faces, pair_sets = prepare_data(config, world.size, before)
    if before is None and world.is_main:
        write_json_atomically(output / FILE, describe_people(faces))
    return Prepared(FinalConfig(config), output, faces, pair_sets)


def complete_without_data(config: EasyDict, gpus: int) -> FinalConfig:
    """Return the config of a plan or a dry run: complete, with counts from the config where `prepare` reads the data.

    Raises:
        ConfigError: where the config does not say how many people and photographs there are.
    """
    config = fit_to_weights(config)
    counts = dict(
        num_classes=config.num_classes or config.draw_identities or None,
        num_image=config.num_image or config.draw_identities * config.draw_photos or None,
    )
    for key, what in (("num_classes", "people"), ("num_image", "photographs of them")):
        if counts[key] is None:
            raise ConfigError(f"how many {what} there are is not known without the data; set {key}=... for a plan.")
    return FinalConfig(fit_to_data(EasyDict(config, **counts), gpus))


def fit_to_weights(config: EasyDict) -> EasyDict:
    """Return the config with network, embedding size and scale, where it leaves them open: those of its weights.

    Raises:
        ConfigError, CheckpointError: where nothing says them, or where the weights are of another network.
    """
    network, embedding_size, scale = config.network, config.embedding_size, config.scale
    if config.init is None:
        for key in ("network", "embedding_size"):
            if config[key] is None:
                raise ConfigError(
                    f"{key} is not set, nor are weights that would say it; start from some, as init=runs/drawn_faces."
                )
        if config.head_epoch and not config.resume:
            raise ConfigError(
                f"head_epoch={config.head_epoch:g} would keep a network of random weights as it is; say what to start "
                f"from, as init=runs/drawn_faces, or leave head_epoch out."
            )
    else:
        if not config.resume and Path(config.output).resolve() in weights_file(config.init).resolve().parents:
            raise ConfigError(
                f"init={config.init} is in {config.output}, the folder of this very run; "
                f"choose another output=, or set resume=True to go on with that run."
            )
        network, embedding_size = architecture_of(config.init, network, embedding_size)
    if scale is None:  # the variance of a logit of random weights is s^2 / d
        scale = 64 * math.sqrt(embedding_size / 512)
    return EasyDict(config, network=network, embedding_size=embedding_size, scale=scale)


def open_output(config: EasyDict, world: World = SINGLE_PROCESS) -> Path:
    """Return the run's folder, which rank 0 makes ready.

    A new run never overwrites an old one: that moves aside, to earlier-<n>/ in the same folder.
    """
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    if world.is_main and not config.resume and (output / "metrics.jsonl").exists():
        aside = next(p for n in range(1, 10**6) if not (p := output / f"earlier-{n}").exists())
        aside.mkdir()
        for name in RUN_FILES:
            if (output / name).exists():
                (output / name).rename(aside / name)
        log.info(f"the run that was in {output} is now in {aside}; resume=True would have gone on with it.")
    return output


def prepare_data(config: EasyDict, world_size: int = 1, before: RunPeople | None = None) -> Data:
    """Open training faces and verification pairs, and complete the config from them.

    The data says rec, hold_out, num_classes, num_image, batch_size, num_epoch and lr where the config leaves them
    open; counts that the config does state are held against the data.

    Args:
        config: With network, embedding size and scale set.
        world_size: Processes of the run.
        before: The people of the run that goes on; None = it begins.

    Raises:
        DataError, ConfigError: where config and data contradict each other, or the data cannot be used.
        CheckpointError: where the data has other people than the run that goes on.
    """
    if config.rec == SYNTHETIC:
        return synthetic_data(config, world_size)
    root = Path(config.rec or drawn_faces(config))
    pair_sets = read_pair_files(find_pair_files(config, root), named=bool(config.val_targets))
    hold_out, only, held_out = config.hold_out or 0, None, None
    if not find_records(root):
        if before is not None:
            only = same_people_in(root, before, config.hold_out, Path(config.output))
        if before is not None and only is not None:
            hold_out = len(before["held_out"])
        elif config.hold_out is None and not pair_sets:
            hold_out, held_out = hold_out_some(list_people(root), root, config)
    faces = open_faces(root, hold_out=hold_out, only=only)
    if hold_out and held_out is None:
        held_out = pair_set_of(list_people(root, only), hold_out, root, config)
    if before is not None:
        check_same_people(before, faces, Path(config.output))
    counts = dict(num_classes=faces.num_classes, num_image=len(faces))
    for key, found in counts.items():
        if config[key] not in (None, found):
            raise DataError(
                f"the config says {key}={config[key]:,}, but {root} holds {found:,}; "
                f"correct the config, or leave {key} out: it is read from the data."
            )
    config = fit_to_data(EasyDict(config, rec=config.rec or str(root), hold_out=hold_out, **counts), world_size)
    return Data(config, faces, pair_sets + ([held_out] if held_out else []))


def synthetic_data(config: EasyDict, world_size: int) -> Data:
    """Return images that are made up, as many as the config says, to measure speed with; nothing is verified."""
    for key in ("num_classes", "num_image"):
        if config[key] is None:
            raise ConfigError(f'rec="{SYNTHETIC}" makes images up: set {key}=... as well, to say how many.')
    config = fit_to_data(EasyDict(config, hold_out=0), world_size)
    return Data(config, SyntheticFaces(config.num_classes, config.num_image), [])


def drawn_faces(config: EasyDict) -> str:
    """Return the folder of the faces that a config asks to draw. Faces that are not there yet are drawn now."""
    if not config.draw_identities:
        raise ConfigError("rec is not set; set rec=FOLDER to train.rec or to one folder of photographs per person.")
    count = f"{config.draw_identities}x{config.draw_photos}"
    root = (
        Path("data") / f"drawn_{count}_pairs{config.draw_pairs}_seed{config.draw_seed}_hard{config.draw_difficulty:g}"
    )
    if not (root / "property").exists():
        draw_faces(
            root,
            config.draw_identities,
            config.draw_photos,
            seed=config.draw_seed,
            pairs=config.draw_pairs,
            difficulty=config.draw_difficulty,
        )
    return str(root)


def find_pair_files(config: EasyDict, root: Path) -> list[Path]:
    """Return the .bin files to verify on: those that val_targets names, or every one beside the data."""
    root = root.parent if root.is_file() else root  # rec may name the .rec file itself
    if not config.val_targets:
        return sorted(root.glob("*.bin"))
    files = []
    for target in config.val_targets:
        candidates = [root / f"{target}.bin", Path(target)]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            beside = ", ".join(path.stem for path in sorted(root.glob("*.bin"))) or "none"
            raise DataError(
                f'val_targets names "{target}", but there is no {candidates[0]}; beside the data: {beside}.'
            )
        files.append(found)
    return files


def fit_to_data(config: EasyDict, world_size: int) -> EasyDict:
    """Return the config, whose counts are known, with batch size, epochs and learning rate where it leaves them open.

    About 1,500 steps of up to 64 images, as in the default run, but no more than 40 epochs: a small network has learned
    300 photographs by heart after a few hundred steps. The learning rate goes with the batch.

    Raises:
        ConfigError: where there are fewer people than processes, or fewer images than a step takes.
    """
    images, batch_size, num_epoch, lr = config.num_image, config.batch_size, config.num_epoch, config.lr
    if world_size > config.num_classes:
        raise ConfigError(
            f"{world_size} processes are to share the centres of {config.num_classes} people, some would have none; "
            f"start at most {config.num_classes}."
        )
    chosen = batch_size is None
    if chosen:
        fitted = min(64, max(8, 2 ** int(math.log2(images / 8)))) if images >= 16 else 2
        batch_size = max(2, min(fitted // world_size, images // (world_size * config.gradient_acc)))
    batch = batch_size * world_size  # images of all processes in one backward pass
    if batch * config.gradient_acc > images:
        raise ConfigError(too_few_images(config, batch_size, chosen, world_size))
    if num_epoch is None:
        num_epoch = max(1, min(40, round(1500 * batch / images)))
    if lr is None:
        lr = 0.1 * batch * config.gradient_acc / 64
    return EasyDict(config, batch_size=batch_size, num_epoch=num_epoch, lr=lr)


def too_few_images(config: EasyDict, batch_size: int, chosen: bool, world_size: int) -> str:
    """Return the sentence for a step that takes more images than there are; it names what the user has set.

    Args:
        config: With num_image and gradient_acc.
        batch_size: Images of a process in a backward pass.
        chosen: Whether batch_size was fitted to the data.
        world_size: Processes of the run.
    """
    images, parts = config.num_image, config.gradient_acc
    factors = [f"batch_size {batch_size}", *[f"gradient_acc {parts}"] * (parts > 1)]
    factors += [f"{world_size} processes"] * (world_size > 1)
    ways = []
    if not chosen and images >= 2 * parts * world_size:
        ways.append(f"set batch_size={max(2, images // 4 // (parts * world_size))} or less")
    if parts > 1:
        ways.append(f"set gradient_acc={max(1, images // (batch_size * world_size))} or less")
    if world_size > 1:
        ways.append(f"start {max(1, images // (batch_size * parts))} processes or fewer")
    return (
        f"a step takes {' x '.join(factors)} = {batch_size * parts * world_size:,} images, but there are only "
        f"{images:,}; {', or '.join(ways or ['add photographs'])}."
    )


def describe_data(config: EasyDict, faces: FaceDataset) -> dict[str, Any]:
    """Return what must be the same on all ranks: the config, the first labels, the weights to start from."""
    labels = (
        faces.labels[:1000] if faces.labels is not None else [_label_of(faces, i) for i in range(min(1000, len(faces)))]
    )
    own = ("output", "device", "rec", "num_workers", "init")  # paths and machines may differ
    return {key: value for key, value in config.items() if key not in own} | {
        "a hash of the people": zlib.crc32(json.dumps(describe_people(faces)).encode()),
        "a hash of the first labels": zlib.crc32(np.array(labels, dtype=np.int64).tobytes()),
        "a hash of init": config.init and hash_of(weights_file(config.init)),
    }


def _label_of(faces: FaceDataset, index: int) -> int:
    try:
        return faces.encoded(index)[1]
    except DataError:  # the loop will name that record
        return -1
