"""What a run would need and cost, before it is paid for: no data, no GPU, as a rule less than a minute.

    python -m arcface_edu.plan ms1mv3_r50                           on 8 V100s, as InsightFace measured
    python -m arcface_edu.plan my_config.py --gpus 64 --gpu h100 num_classes=29000000 sample_rate=0.1

One rank of the run is built and stepped on fake tensors, with the very code that trains; its memory, arithmetic and
messages are counted, and the time follows from the GPU's peaks. The page says what is assumed; docs/plan.md holds it
against published runs. A picture goes to runs/plan_<config>.png.
"""

import argparse
from pathlib import Path

from arcface_edu.cli import cli_main
from arcface_edu.config import load_config
from arcface_edu.errors import ConfigError


@cli_main
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="a config's name or path")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys to set")
    parser.add_argument("--gpus", type=int, default=8, help="how many, 8 on a machine (default 8)")
    parser.add_argument("--gpu", default="v100", help="which: v100, a100, h100, ... (default v100)")
    parser.add_argument("--batch", type=int, help="images per GPU, the same as batch_size=")
    parser.add_argument("--output", type=Path, help="the picture (default runs/plan_<config>.png)")
    options = parser.parse_intermixed_args(argv)
    if options.gpus < 1:
        raise ConfigError(f"--gpus is {options.gpus}; the least that makes sense is 1.")
    words = options.words + ([f"batch_size={options.batch}"] if options.batch is not None else [])
    config = load_config(options.config, words)
    path = options.output or Path("runs") / f"plan_{Path(options.config).stem}.png"

    from arcface_edu.figures.style import save  # slow imports, which neither --help nor a misspelt key waits for
    from arcface_edu.planning.gpus import dtype_on, find_gpu, too_much
    from arcface_edu.planning.knobs import partial_fc_pays_from, what_would_fit
    from arcface_edu.planning.measure import complete, measure
    from arcface_edu.planning.page import advice_lines, page, picture

    gpu = find_gpu(options.gpu)
    complete(config, options.gpus)
    measured = measure(config, options.gpus, dtype_on(config, gpu))
    print(page(config, measured, gpu))
    tries = what_would_fit(config, measured, gpu) if too_much(measured, gpu) > 0 else []
    print("\n" + "\n".join(advice_lines(tries, partial_fc_pays_from(config, measured, gpu), config)))
    print(f"picture: {save(picture(measured, gpu), path)}")


if __name__ == "__main__":
    main()
