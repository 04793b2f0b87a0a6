"""Errors that a user can mend: one sentence that says what is wrong, where, and what to do."""

import contextlib
from collections.abc import Iterator


class ArcfaceError(ValueError):
    """Base of every error whose message is meant for the user; a command prints it and exits with status 2."""


class ConfigError(ArcfaceError):
    """A key or value of the configuration that cannot be meant."""


class DataError(ArcfaceError):
    """A data set, record, image or pair file that cannot be used."""


class CorruptRecord(DataError):
    """One record or image that cannot be read; a run may skip it, count it and go on."""


class TrainingError(ArcfaceError):
    """A run that has gone wrong and cannot mend itself."""


class CheckpointError(ArcfaceError):
    """A checkpoint that cannot be read, or that belongs to another network."""


class ExportError(ArcfaceError):
    """A network that cannot be written in another form."""


@contextlib.contextmanager
def from_extra(name: str, what: str) -> Iterator[None]:
    """Raise a ConfigError that says how to install the extra, where an import of the block finds no module.

    Args:
        name: Of the extra in pyproject.toml.
        what: Needs it; the subject of the sentence.

    Raises:
        ConfigError: A module that the block imports is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f'{what} takes the package {error.name}: pip install -e ".[{name}]".') from None
