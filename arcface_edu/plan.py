"""What a run would need and cost, before it is paid for: no data, no GPU, as a rule less than a minute.

    python -m arcface_edu.plan ms1mv3_r50                           on 8 V100s, as InsightFace measured
    python -m arcface_edu.plan my_config.py --gpus 64 --gpu h100 num_classes=29000000 sample_rate=0.1

One rank of the run is built and stepped on fake tensors, with the very code that trains; its memory, arithmetic and
messages are counted, and the time follows from the GPU's peaks. The page says what is assumed; docs/plan.md holds it
against published runs. A picture goes to runs/plan_<config>.png.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arcface_edu.cli import cli_main, command_parser, parse_args
from arcface_edu.config import load_config
from arcface_edu.errors import ConfigError

if TYPE_CHECKING:
    from arcface_edu.planning.gpus import Gpu
    from arcface_edu.planning.measure import MeasuredStep


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("plan", __doc__)
    parser.add_argument("config", metavar="CONFIG", help="a config's name or path")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys to set")
    parser.add_argument("--gpus", type=int, default=8, help="how many, 8 on a machine (default 8)")
    parser.add_argument("--gpu", default="v100", help="which: v100, a100, h100, ... (default v100)")
    parser.add_argument("--batch", type=int, help="images per GPU, the same as batch_size=")
    parser.add_argument("--output", type=Path, help="the picture (default runs/plan_<config>.png)")
    return parser


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    options = parse_args(build_parser(), argv, intermixed=True)
    if options.gpus < 1:
        raise ConfigError(f"--gpus is {options.gpus}; the least that makes sense is 1.")
    words = options.words + ([f"batch_size={options.batch}"] if options.batch is not None else [])
    config = load_config(options.config, words)
    path = options.output or Path("runs") / f"plan_{Path(options.config).stem}.png"

    from arcface_edu.planning.advice import find_what_fits, partial_fc_pays_from  # slow imports, after the checks
    from arcface_edu.planning.gpus import dtype_on, excess_memory, find_gpu
    from arcface_edu.planning.measure import measure_step
    from arcface_edu.planning.plan_text import advice_lines, plan_text
    from arcface_edu.training.prepare import complete_without_data

    gpu = find_gpu(options.gpu)
    final = complete_without_data(config, options.gpus)
    measured = measure_step(final, options.gpus, dtype_on(final, gpu))
    print(plan_text(final, measured, gpu))
    tries = find_what_fits(final, measured, gpu) if excess_memory(measured, gpu) > 0 else []
    print("\n" + "\n".join(advice_lines(tries, partial_fc_pays_from(final, measured, gpu), final)))
    print(f"picture: {draw(measured, gpu, path)}")


def draw(measured: "MeasuredStep", gpu: "Gpu", path: Path) -> Path:
    """Draw the plan's memory and time into a file, and return its path."""
    from arcface_edu.figures.plan import plot_plan
    from arcface_edu.figures.style import save
    from arcface_edu.planning.gpus import GIB, memory_on, time_on

    times = time_on(measured, gpu)
    milliseconds = {
        "network": times.network,
        "head": times.head,
        "update": times.update,
        "messages: head": times.head_messages,
        "messages: gradients": times.gradient_messages,
    }
    figure = plot_plan(
        {kind: size / GIB for kind, size in memory_on(measured).items()},
        gpu.memory,
        {name: 1e3 * seconds for name, seconds in milliseconds.items() if seconds},
        name=f"one {gpu.name}",
        overlapped=1e3 * times.hidden_messages,
    )
    return save(figure, path)


if __name__ == "__main__":
    main()
