"""A network as a folder in the form of a model hub: weights, config, card. Nothing is sent anywhere."""

import json
from pathlib import Path

from torch import nn

from arcface_edu.errors import ConfigError, DataError, from_extra
from arcface_edu.exporting.card import cell, model_card
from arcface_edu.exporting.facts import PREPROCESSING, public
from arcface_edu.io import parse_json, write_together
from arcface_edu.models.weights import embedding_size_of, hash_of
from arcface_edu.runs import CONFIG, MODEL_WEIGHTS, Source

CARD = "README.md"


def write_model_folder(
    folder: Path,
    model: nn.Module,
    network: str,
    source: Source,
    license_id: str | None = None,
    overwrite: bool = False,
    fp16: bool = False,
) -> None:
    """Write model.safetensors, config.json and README.md, all three or none.

    Args:
        model, network: as `load_model` returns them.
        source: what they were loaded from; the files of a run say how well it does.
        license_id: the hub's word for the licence of the weights, as "mit"; None = the card says that none is chosen.
        overwrite: replace the three files of a model folder.
        fp16: write matrices and filters in half precision, and vectors, as those of BN, in float32.

    Raises:
        DataError: The folder holds something else, or a model that may not be replaced, or cannot be written.
        ConfigError: safetensors is not installed.
    """
    check_place(folder, overwrite)
    with from_extra("export", "a model folder"):
        from safetensors.torch import save
    state = {
        name: (value.half() if fp16 and value.ndim > 1 else value).contiguous()
        for name, value in model.state_dict().items()
    }
    about = {
        "network": network,
        "embedding_size": embedding_size_of(state),
        "embedding": "of the image alone, not normalised",
        "preprocessing": PREPROCESSING,
        "made_from_sha256": hash_of(source.weights),
        "training_config": public(source.config),
    }
    run = source.path if source.is_run else None
    card = model_card(cell(folder.resolve().name), model, about, run, license_id)
    contents = {
        MODEL_WEIGHTS: save(state, metadata={"format": "pt"}),
        CARD: card.encode(errors="replace"),  # names of files may hold what is no text
        CONFIG: json.dumps(about, indent=1).encode(),
    }
    write_together({folder / name: content for name, content in contents.items()})


def check_place(folder: Path, overwrite: bool) -> None:
    """Raise DataError where the files of a model would fall among others, or replace some unasked."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: name a folder for the model.")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    there = {name for name in there if not name.startswith(".")}  # an empty repository is empty
    if there and not is_model_folder(folder):
        raise DataError(f"{folder} holds something else ({min(there)}): name a new or an empty folder for the model.")
    if there and not overwrite:
        raise DataError(f"{folder} holds a model already: name another folder, or replace it with --overwrite.")


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds a model as it is written here."""
    try:
        about = parse_json((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and "made_from_sha256" in about and (folder / MODEL_WEIGHTS).is_file()


def check_license(license_id: str | None) -> None:
    """Raise ConfigError for what cannot be one of the hub's words for a licence."""
    if license_id is not None and not license_id.replace("-", "").replace(".", "").isalnum():
        raise ConfigError(f"--license {license_id!r} is no word for a licence: wanted is one as mit, cc-by-nc-4.0.")
