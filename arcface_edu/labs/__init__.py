"""Experiments that only drawn people make possible, because the truth about them is known.

    python -m arcface_edu.labs noise                                     wrong labels under five heads
    python -m arcface_edu.labs noise --kinds flip --shares 0 0.1 0.2 0.4 --heads arcface subcenter_arcface
    python -m arcface_edu.labs noise --faces data/mine                   the same with a data set of your own
    python -m arcface_edu.labs groups --by skin                          balanced and unequal crowds

A run that is finished is not repeated, so a lab may be stopped and started again. Tables are printed; they, the
pictures and every run are in the output folder.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from arcface_edu.cli import cli_main, command_parser, parse_args
from arcface_edu.data.label_noise import KINDS
from arcface_edu.data.synthetic.crowds import GROUPS
from arcface_edu.labs import groups, noise


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    """Run a lab."""
    options = parse_args(build_parser(), argv)
    options.run(options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("labs", __doc__)
    commands = parser.add_subparsers(required=True, metavar="noise|groups")

    def add(name: str, lab: object, text: str) -> argparse.ArgumentParser:
        form = argparse.ArgumentDefaultsHelpFormatter
        sub = commands.add_parser(name, help=text, description=text, formatter_class=form)
        sub.set_defaults(run=lab)
        sub.add_argument("--seeds", type=int, nargs="+", default=[2048], metavar="N", help="of training and noise")
        sub.add_argument("--people", type=int, default=100, help="drawn people to train on")
        sub.add_argument("--photos", type=int, default=20, help="photographs of each")
        sub.add_argument("--epochs", type=int, default=12, help="of each training")
        sub.add_argument("--network", default="r10_quick", help="what is trained")
        sub.add_argument("--output", type=Path, default=Path("runs/labs") / name, metavar="DIR", help="folder")
        sub.add_argument(
            "--set", nargs="+", default=[], metavar="key=value", help="keys of every run, as batch_size=32"
        )
        return sub

    sub = add("noise", noise.run, "train with wrong labels, and find them by their angles")
    sub.add_argument("--faces", type=Path, metavar="DIR", help="data set to put wrong labels into; None: drawn people")
    sub.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of wrong labels")
    sub.add_argument("--shares", type=float, nargs="+", default=[0, 0.2], metavar="X", help="of wrong labels, 0 to 1")
    heads = list(noise.HEADS)
    sub.add_argument("--heads", nargs="+", choices=heads, default=heads, metavar="HEAD", help=f"of {' '.join(heads)}")
    sub = add("groups", groups.run, "train on balanced and unequal crowds, and compare the error rates of the groups")
    sub.add_argument("--unseen", type=int, default=100, metavar="N", help="other people, on whom errors are counted")
    sub.add_argument("--by", choices=list(GROUPS), default="skin", help="the groups")
    sub.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.5, 0.9], metavar="X", help="of the first group")
    return parser
