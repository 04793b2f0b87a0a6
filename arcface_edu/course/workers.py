"""What notebook 04 starts with torchrun and does not write in its cells: each task is run by all processes together.

    torchrun --nproc_per_node=2 -m arcface_edu.course.workers buckets      when gradients travel, on a timeline
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers accumulate   messages of a step of several backward passes
    torchrun --nproc_per_node=2 -m arcface_edu.course.workers uneven       a rank that has fewer batches than the others

Rank 0 prints what happened; its last line is the same as JSON, for a notebook to read.
"""

from collections.abc import Sequence

from arcface_edu.cli import cli_main
from arcface_edu.course.faults import uneven
from arcface_edu.course.tasks import run_task
from arcface_edu.course.traffic import accumulate, buckets

TASKS = dict(buckets=buckets, accumulate=accumulate, uneven=uneven)


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    run_task("arcface_edu.course.workers", __doc__, TASKS, argv)


if __name__ == "__main__":
    main()
