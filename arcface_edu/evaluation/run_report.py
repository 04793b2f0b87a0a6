"""What a training run shows at its end: its results in a few lines, and figures in its folder."""

from pathlib import Path
from typing import Any

import numpy as np

from arcface_edu.data.images import decode, fit
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.roc import roc
from arcface_edu.evaluation.verification import VerificationResult, hardest_pairs, summary, verify_pairs

HARDEST = 8  # pairs of either kind in the picture


def verification_line(result: VerificationResult) -> dict[str, Any]:
    """Return what metrics.jsonl keeps of a result of `verify_pairs`."""
    return dict(
        num_pairs=result["pairs"],
        accuracy=result["accuracy"],
        accuracy_std=result["accuracy_std"],
        val=result["val"],
        tar_at_far={f"{far:g}": tar for far, tar in result["tar_at_far"].items()},
        threshold=result["threshold"],
    )


def report(
    output: Path,
    lines: list[dict[str, Any]],
    results: dict[str, VerificationResult],
    pair_sets: list[Any],
    seconds: float,
) -> None:
    """Print the results of a finished run, and draw its figures into its folder.

    Args:
        output: The run's folder.
        lines: Of its metrics.jsonl.
        results: Of `verify_pairs` on each pair set, by name.
        pair_sets: With `name`, `images` (2N encoded) and `is_same` (N,).
        seconds: That the run took.
    """
    from arcface_edu.figures.angles import plot_pair_angles, plot_target_angles  # matplotlib, not before it is needed
    from arcface_edu.figures.runs import plot_curves, plot_roc
    from arcface_edu.figures.style import save

    figures = output / "figures"
    figures.mkdir(exist_ok=True)
    training, verified = ([line for line in lines if key in line] for key in ("loss", "pairs"))
    save(plot_curves(training, verified if len(verified) > 1 else ()), figures / "curves.png")
    save(plot_target_angles(start_middle_end(training)), figures / "target_angles.png")
    for pairs in pair_sets:
        result = results[pairs.name]
        pixels = verify_pairs(pixel_embeddings(pairs.images), pairs.is_same)
        print(f"\n{pairs.name}: people the network has never seen\n{summary(result)}")
        print(f"raw pixels       {pixels['accuracy']:8.2%} +- {pixels['accuracy_std']:.2%}   what no learning achieves")
        curves = {}
        for name, outcome in (("the network", result), ("raw pixels", pixels)):
            curves[name] = roc(outcome["cosines"], pairs.is_same)[:2]
        save(plot_roc(curves), figures / f"roc_{pairs.name}.png")
        threshold = result["threshold"]["cosine"]
        save(plot_pair_angles(result["cosines"], pairs.is_same, threshold), figures / f"pair_angles_{pairs.name}.png")
        save(draw_hardest(pairs, result["cosines"]), figures / f"hardest_pairs_{pairs.name}.png")
    if not pair_sets:
        print("nothing to verify on: `python -m arcface_edu.dataset pairs FOLDER OUT.bin` makes pairs of other people.")
    print(f"\n{seconds / 60:.1f} minutes in all, peak memory {peak_memory():.2f} GiB; see {figures}/")


def start_middle_end(training: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return histograms of the target angle over the first, the middle and the last twentieth of a run's lines."""
    counts = np.array([line["target_angle_histogram"] for line in training])  # (lines, bins)
    span, last = max(1, len(counts) // 20), len(counts)
    middle = (last - span) // 2
    parts = {"start": slice(0, span), "middle": slice(middle, middle + span), "end": slice(last - span, last)}
    return {name: counts[part].sum(0) for name, part in parts.items()}


def draw_hardest(pairs: Any, cosines: np.ndarray) -> Any:
    """Return a figure of the pairs that the network is most wrong about."""
    from arcface_edu.figures.faces import plot_pairs

    same, different = hardest_pairs(cosines, pairs.is_same, HARDEST)
    chosen = [*same, *different]
    first, second = ([fit(decode(pairs.images[2 * i + side], pairs.name)) for i in chosen] for side in (0, 1))
    captions = [
        f"{'same person' if pairs.is_same[i] else 'two people'}, {np.degrees(np.arccos(cosines[i])):.0f}°"
        for i in chosen
    ]
    return plot_pairs(first, second, captions, "What the network finds hardest: same person far apart, strangers close")


def peak_memory() -> float:
    """Return the most memory that the process has held, plus that of the largest process it started, in GiB."""
    import resource  # not on Windows

    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(one).ru_maxrss for one in who) / 2**20  # Linux counts in KiB
