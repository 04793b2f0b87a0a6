"""The plan's predictions beside what InsightFace published for arcface_torch; prints the tables of docs/plan.md.

    python benchmarks/plan_against_published.py

What was published held all logits of a rank at once, so the published figures are compared with a plain head put in the
place of ours ("their head"); ours is planned beside it. Nothing is run on a GPU here.
"""

import argparse

from tqdm import tqdm

from arcface_edu.course.published_runs import BY_CLASSES, PUBLISHED, plan_published
from arcface_edu.planning.gpus import GPUS, memory_on, time_on

MIB = 2**20


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    measured, memory_rows, speed_rows = {}, [], []
    for row in tqdm(PUBLISHED):
        key, gpu = row.run, GPUS[row.gpu]
        if key not in measured:
            measured[key] = [plan_published(row, theirs) for theirs in (True, False)]
        what = [f"8 x {row.gpu}", row.way, row.network, f"{row.classes:,}", f"{row.images:,}"]
        # The first table does not say how it was counted; docs/plan.md says why PyTorch's count of tensors is taken.
        tensors = row.source == BY_CLASSES
        held = [(one.peak if tensors else sum(memory_on(one).values())) / MIB for one in measured[key]]
        rates = [row.images / time_on(one, gpu).step for one in measured[key]]
        counted = ["tensors" if tensors else "driver"]
        for published, (theirs, ours), rows, how in (
            (row.speed, rates, speed_rows, []),
            (row.memory, held, memory_rows, counted),
        ):
            if published:
                error = theirs / published - 1
                cells = [f"{published:,.0f}", f"{theirs:,.0f}", f"{error:+.0%}", f"{ours:,.0f}", row.source]
                rows.append((error, what + how + cells))
    for unit, rows in (("counted | MiB of one GPU", memory_rows), ("images/s", speed_rows)):
        print("\n| GPUs | way | network | ids | images a step", end=" ")
        print(f"| {unit}, published | predicted | error | with our head | source |")
        print("|" + "---|" * len(rows[0][1]))
        for _, cells in rows:
            print("|", " | ".join(cells), "|")
        errors = sorted(abs(error) for error, _ in rows)
        middle, largest = errors[len(errors) // 2], errors[-1]
        print(f"\nHalf of the {len(errors)} errors are within {middle:.0%}, the largest is {largest:.0%}.")


if __name__ == "__main__":
    main()
