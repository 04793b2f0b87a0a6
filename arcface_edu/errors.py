"""Errors that a user can mend: one sentence that says what is wrong, where, and what to do."""

import contextlib
import functools
import os
import sys


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
def from_extra(name, what):
    """Around imports of what only an extra installs; without it, a ConfigError says that `what` takes it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f'{what} takes the package {error.name}: pip install -e ".[{name}]".') from None


def speaks_plainly(main):
    """Decorate a command's `main`: an error meant for the user ends as one sentence and exit status 2.

    Of several processes one prints it: training.distributed decides which, or else the first of each machine does.
    """

    def say(error, sentence):
        if not getattr(error, "said_elsewhere", os.environ.get("LOCAL_RANK", "0") != "0"):
            past_the_bar = "\n" if os.environ.get("RANK", "0") != "0" else ""  # rank 0 may have a progress bar there
            print(f"{past_the_bar}arcface_edu: {sentence}", file=sys.stderr)

    @functools.wraps(main)
    def command(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except ArcfaceError as error:
            say(error, error)
            raise SystemExit(2) from None
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            say(
                error,
                f"the system says: {error.strerror or error}{place}. What was written before is whole; "
                f"free some space, check the permissions, or choose another place.",
            )
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("arcface_edu: interrupted; what was written before is whole.", file=sys.stderr)
            raise SystemExit(130) from None

    return command
