"""Files that are written whole or not at all, and the check that every embedding has a direction."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import ArrayLike

from arcface_edu.errors import CheckpointError, DataError
from arcface_edu.signals import finish_first

StrPath = str | os.PathLike[str]


@contextmanager
def replace_when_done(path: StrPath) -> Iterator[Path]:
    """Yield a hidden path beside `path`, which takes the name of `path` when the block ends without an error.

    Folders that are missing are made. After an error the hidden file is removed and an older `path` stays. What a
    killed process leaves, the next one overwrites.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")  # the ending stays: writers of images choose the format by it
    try:
        yield beside
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def write_atomically(path: StrPath) -> Iterator[BinaryIO]:
    """Open a file for writing bytes that appears under its name when the block ends without an error, or never.

    Raises:
        DataError: The disk is full or read-only.
    """
    with explain_write_errors(path), replace_when_done(path) as beside, open(beside, "wb") as file:
        yield file


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files, all or none: each takes its name when all are written.

    Raises:
        DataError: The disk is full or read-only.
    """
    with ExitStack() as files:
        for path, content in contents.items():
            files.enter_context(write_atomically(path)).write(content)
        with finish_first():
            files.close()


def write_text_atomically(path: StrPath, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all. Names of files that are no valid text keep their bytes."""
    with write_atomically(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def write_json_atomically(path: StrPath, value: Any, allow_nan: bool = True) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text_atomically(path, json.dumps(value, indent=1, allow_nan=allow_nan))


def save_torch_atomically(state: Any, path: StrPath) -> None:
    """Save `state` by torch.save, whole or not at all, and on the disk itself before the function returns.

    Raises:
        CheckpointError: The file cannot be written.
    """
    try:
        with replace_when_done(path) as beside, open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        raise CheckpointError(
            f"{path} could not be written ({error}); free some space or choose another output=. "
            f"What was saved before stays, and resume=True goes on from there."
        ) from error


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: It is not JSON, not UTF-8, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


@contextmanager
def explain_write_errors(path: StrPath) -> Iterator[None]:
    """Turn an OSError of the block (a full or read-only disk) into a DataError of one sentence about `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}): free some space or choose another place."
        ) from error


def has_direction(norms: ArrayLike) -> np.ndarray:
    """Return for each vector whether its norm is finite and above 0: (N,) or (N, 1) norms -> (N,) bool."""
    norms = np.asarray(norms).reshape(-1)
    return np.isfinite(norms) & (norms > 0)


def check_norms(norms: ArrayLike, name_row: Callable[[int], str]) -> None:
    """Raise DataError for the first vector that cannot be normalised: all zeros, or not finite.

    Args:
        norms: (N,) or (N, 1), the norms of N vectors; a tensor has to be on the CPU.
        name_row: Returns the words for a row in the error, as "the embedding in row 3".
    """
    wrong = np.flatnonzero(~has_direction(norms))
    if len(wrong):
        row = int(wrong[0])
        fault = "has no length (all zeros)" if np.asarray(norms).flat[row] == 0 else "is not finite (NaN or inf)"
        raise DataError(f"{name_row(row)} {fault}: look at that image and the network")
