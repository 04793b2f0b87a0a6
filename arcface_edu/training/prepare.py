"""Before the loop: the folder of the run, its data, and the keys that the config leaves to the data."""

import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.faces import draw_faces
from arcface_edu.data.folder import FolderFaces, held_out_pairs, list_people
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.models.weights import hash_of, look_into, weights_file
from arcface_edu.training.distributed import ALONE

RUN_FILES = ("checkpoints", "config.json", "figures", "metrics.jsonl", "model.pt", "tensorboard")
AUTOMATIC_HOLD_OUT = 10  # from so many people on, a fifth of a folder is kept to verify on


class PairSet(NamedTuple):
    """Verification pairs; images 2i and 2i + 1 are pair i."""

    name: str
    images: list  # 2N encoded images
    is_same: np.ndarray  # (N,) bool


def fit_to_weights(config):
    """Network, embedding size and scale where the config leaves them open: those of the weights to start from.

    Raises ConfigError or CheckpointError where nothing says them, or where the weights are of another network.
    """
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
        config.network, config.embedding_size = look_into(config.init, config.network, config.embedding_size)
    if config.scale is None:  # the variance of a logit of random weights is s^2 / d
        config.scale = 64 * math.sqrt(config.embedding_size / 512)


def open_output(config, world=ALONE):
    """The run's folder, which rank 0 makes ready.

    A new run never overwrites an old one: that moves aside, to earlier-<n>/ in the same folder.
    """
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    if world.leads and not config.resume and (output / "metrics.jsonl").exists():
        aside = next(p for n in range(1, 10**6) if not (p := output / f"earlier-{n}").exists())
        aside.mkdir()
        for name in RUN_FILES:
            if (output / name).exists():
                (output / name).rename(aside / name)
        print(f"the run that was in {output} is now in {aside}; resume=True would have gone on with it.")
    return output


def prepare_data(config, world_size=1):
    """The training faces and the verification pairs of a config.  returns: data set, list of PairSet.

    Fills in what the config leaves open (rec, num_classes, num_image, batch_size, num_epoch, lr); counts that it does
    state are held against the data. Raises DataError or ConfigError.
    """
    if config.rec is None:
        config.rec = drawn_faces(config)
    root = Path(config.rec)
    pair_files = find_pair_files(config, root)
    if config.hold_out is None:
        config.hold_out = 0
        if not pair_files and not (root / "train.rec").exists():
            people = len(list_people(root))
            config.hold_out = people // 5 if people >= AUTOMATIC_HOLD_OUT else 0
    faces = open_faces(root, hold_out=config.hold_out)
    for key, found in (("num_classes", faces.num_classes), ("num_image", len(faces))):
        if config[key] not in (None, found):
            raise DataError(
                f"the config says {key}={config[key]:,}, but {root} holds {found:,}; "
                f"correct the config, or leave {key} out: it is read from the data."
            )
        config[key] = found
    fit_to_data(config, world_size)
    pair_sets = [PairSet(path.stem, *read_pairs(path)) for path in pair_files]
    if config.hold_out and isinstance(faces, FolderFaces):
        pair_sets.append(PairSet("held_out", *held_out_pairs(root, config.hold_out, config.draw_pairs, config.seed)))
    return faces, pair_sets


def drawn_faces(config):
    """The folder of the faces that a config has drawn; they are drawn now if they are not there yet."""
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


def find_pair_files(config, root):
    """The .bin files to verify on: those that val_targets names, or every one beside the data."""
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


def fit_to_data(config, world_size):
    """Batch, epochs and rate where the config leaves them open.

    About 1,500 steps of up to 64 images, as in the default run, but no more than 40 epochs: of 300 photographs a small
    network knows each by heart after a few hundred steps. The rate goes with the batch.
    """
    images = config.num_image
    if world_size > config.num_classes:
        raise ConfigError(
            f"{world_size} processes are to share the centres of {config.num_classes} people, some would have none; "
            f"start at most {config.num_classes}."
        )
    if config.batch_size is None:
        fitted = min(64, max(8, 2 ** int(math.log2(images / 8)))) if images >= 16 else 2
        config.batch_size = max(2, fitted // world_size)
    batch = config.batch_size * world_size
    if batch * config.gradient_acc > images:
        raise ConfigError(
            f"a step takes batch_size x gradient_acc{' x processes' if world_size > 1 else ''} = "
            f"{batch * config.gradient_acc:,} images, but there are only {images:,}; "
            f"set batch_size={max(2, images // 4 // world_size)} or less{', or start fewer' if world_size > 1 else ''}."
        )
    if config.num_epoch is None:
        config.num_epoch = max(1, min(40, round(1500 * batch / images)))
    if config.lr is None:
        config.lr = 0.1 * batch * config.gradient_acc / 64


def describe_data(config, faces):
    """What all processes of a run must have alike: its config, the labels of its first images, what it starts from."""
    labels = [label_of(faces, place) for place in range(min(1000, len(faces)))]
    own = ("output", "device", "rec", "num_workers", "init")  # paths and machines may differ
    return {key: value for key, value in config.items() if key not in own} | {
        "a hash of the first labels": zlib.crc32(np.array(labels, dtype=np.int64).tobytes()),
        "a hash of init": config.init and hash_of(weights_file(config.init)),
    }


def label_of(faces, place):
    try:
        return faces.encoded(place)[1]
    except DataError:  # the loop will name that record
        return -1
