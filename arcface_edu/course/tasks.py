"""How a module of worker functions runs one of them: the task from the command line, by all processes together."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from arcface_edu.errors import ConfigError
from arcface_edu.training.launch import join_world


def run_task(
    module: str,
    doc: str | None,
    tasks: Mapping[str, Callable[..., dict[str, Any]]],
    argv: Sequence[str] | None = None,
    **arguments: dict[str, dict[str, Any]],
) -> None:
    """Run the task that argv names, in this process of several, and print its result as JSON: the last line.

    Args:
        module: The name of the module, for --help.
        doc: The docstring of the module, for --help.
        tasks: dict name -> function of (world, options), whose docstring says in its first line what it shows; it
            returns a dict.
        arguments: For a task that takes options, dict flag -> keywords of argparse's add_argument.

    Raises:
        ConfigError: In one process alone.
    """
    parser = argparse.ArgumentParser(
        prog=f"torchrun --nproc_per_node=2 -m {module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, task in tasks.items():
        command = commands.add_parser(name, help=(task.__doc__ or "").splitlines()[0])
        for flag, words in arguments.get(name, {}).items():
            command.add_argument(flag, **words)
    options = vars(parser.parse_args(argv))
    name = options.pop("task")
    with join_world(timeout_seconds=60) as world:
        if world.size == 1:
            raise ConfigError(f"one process has nobody to talk to; start with `{parser.prog} {name}`.")
        result = tasks[name](world, **options)
        print(json.dumps(dict(task=name, processes=world.size, **result)))


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors, as a share of the largest number expected."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
