"""What all commands share: the form of their parsers, the log on the terminal, and an error as one sentence.

arcface-edu COMMAND ...                 the same as python -m arcface_edu.COMMAND ...
"""

import argparse
import functools
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from arcface_edu.errors import ArcfaceError
from arcface_edu.signals import Stopped, listen_for_stop

COMMANDS = {
    "train": "train a network with the ArcFace loss",
    "evaluate": "judge a network by the protocols of LFW, IJB and open-set search",
    "angles": "statistics and pictures of the angles between embeddings",
    "plan": "memory, time and messages of a run, before it is paid for",
    "dataset": "draw, pack, inspect, align photographs; make verification pairs",
    "labs": "wrong labels and unequal groups, with a known truth",
    "embed": "a row of numbers for each photograph",
    "export": "write a network as ONNX or as a model folder",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first word names."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="arcface-edu",
        description=f"commands:\n{listed}\n\n`arcface-edu COMMAND --help` explains each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    options = parser.parse_args(argv)
    importlib.import_module(f"arcface_edu.{options.command}").main(options.arguments)


def command_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of one command, with the flags that every command has.

    Args:
        command: The name of its module in the package.
        description: Its help text, printed as it stands; the docstring of its module.
    """
    for stream in (sys.stdout, sys.stderr):  # an encoding may lack the degree sign, or a letter in the name of a file
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog=f"python -m arcface_edu.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print warnings and results only")
    parser.add_argument("-v", "--verbose", action="store_true", help="print more; of several processes, what each says")
    return parser


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which network bare weights belong to."""
    parser.add_argument("--network", help="of bare weights, where their shapes do not tell: r18 r50 r100 ...")
    parser.add_argument("--embedding-size", type=int, metavar="D", help="likewise")


def add_inference_flags(parser: argparse.ArgumentParser, batch_size: int = 128) -> None:
    """Add the flags that say where and with how many images at once a network embeds."""
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, metavar="N", help=f"images at once ({batch_size})"
    )
    parser.add_argument("--device", help="cpu, cuda, mps; the accelerator if there is one")


def parse_args(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, intermixed: bool = False
) -> argparse.Namespace:
    """Parse the words of a command (None = those of the process) and set up its log.

    Args:
        parser: Of the command.
        argv: The words.
        intermixed: Whether flags may stand between the key=value words.
    """
    options = parser.parse_intermixed_args(argv) if intermixed else parser.parse_args(argv)
    set_up_logging(logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO)
    return options


def set_up_logging(level: int = logging.INFO) -> None:
    """Send what the package logs to standard output, with the time, beside any progress bar.

    Of the processes of one run rank 0 alone speaks, unless the level is DEBUG: then each does, with its rank.
    """
    rank, verbose = os.environ.get("RANK"), level <= logging.DEBUG
    handler = TerminalHandler()
    handler.setFormatter(TerminalFormatter(f"rank {rank} " if rank and verbose else ""))
    for name in ("arcface_edu", "__main__"):  # python -m runs a command's module under the second name
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if rank in (None, "0") or verbose else logging.CRITICAL)


class TerminalHandler(logging.Handler):
    """Write each record above the progress bar, if there is one, to what standard output is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class TerminalFormatter(logging.Formatter):
    """`12:34:56 rank 0 message`, with `warning:` before the message where it is one."""

    def __init__(self, rank: str) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.rank = rank

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self.formatTime(record, self.datefmt)} {self.rank}{level}{record.getMessage()}"


def cli_main(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command's `main`: an error meant for the user ends as one sentence and exit status 2.

    Of several processes one prints it: `training.launch` decides which, or else the first of each machine does.
    """

    @functools.wraps(main)
    def command(*args: Any, **kwargs: Any) -> Any:
        with listen_for_stop():
            try:
                return main(*args, **kwargs)
            except ArcfaceError as error:
                complain(error, str(error))
                raise SystemExit(2) from None
            except OSError as error:
                place = f" ({error.filename})" if error.filename else ""
                complain(
                    error,
                    f"the system says: {error.strerror or error}{place}. What was written before is whole; "
                    f"free some space, check the permissions, or choose another place.",
                )
                raise SystemExit(2) from None
            except Stopped as error:
                complain(error, str(error))
                raise SystemExit(error.status) from None

    return command


def complain(error: BaseException, sentence: str) -> None:
    """Print the sentence of an error to standard error, unless another process of the run prints it."""
    if not getattr(error, "said_elsewhere", os.environ.get("LOCAL_RANK", "0") != "0"):
        past_the_bar = "\n" if os.environ.get("RANK", "0") != "0" else ""  # rank 0 may have a progress bar there
        print(f"{past_the_bar}arcface_edu: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
