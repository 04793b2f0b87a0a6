"""Verification during a run, and what a run shows at its end: figures and a few lines."""

import numpy as np
import torch

from arcface_edu.data.images import decode, fit
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.roc import roc
from arcface_edu.evaluation.verification import embed, hardest_pairs, summary, verify_pairs
from arcface_edu.figures.angles import plot_pair_angles, plot_target_angles
from arcface_edu.figures.faces import plot_pairs
from arcface_edu.figures.runs import plot_curves, plot_roc
from arcface_edu.figures.style import save
from arcface_edu.training.distributed import ALONE, average_bn_statistics, everyones
from arcface_edu.training.metrics import read_metrics

HARDEST = 8  # pairs of either kind in the picture


def evaluate_all(model, pair_sets, log, step, world=ALONE):
    """Verify on every pair set, and write a line each to the log.  returns: dict name -> result of `verify_pairs`.

    Every rank has to call it: each embeds its part of the images, and all get the same results.
    """
    average_bn_statistics(model)
    results = {}
    for pairs in pair_sets:
        result = verify_pairs(embed_together(model, pairs, world), pairs.is_same)
        results[pairs.name] = result
        log.write(
            step=step,
            pairs=pairs.name,
            num_pairs=result["pairs"],
            accuracy=result["accuracy"],
            accuracy_std=result["accuracy_std"],
            val=result["val"],
            tar_at_far={f"{far:g}": tar for far, tar in result["tar_at_far"].items()},
            threshold=result["threshold"],
        )
    return results


def embed_together(model, pairs, world):
    """Embeddings (2N, D) of a pair set's images, of which each rank computes a run."""
    share = -(-len(pairs.images) // world.size)
    own = pairs.images[world.rank * share : (world.rank + 1) * share] or pairs.images[:1]  # none is left: any will do
    progress = f"verifying on {pairs.name}" if world.leads else None
    embeddings = embed(model, own, progress=progress)
    return torch.cat(everyones(embeddings))[: len(pairs.images)]


def report(output, results, pair_sets, seconds):
    """Print the results and draw the figures of a finished run into its folder."""
    figures = output / "figures"
    figures.mkdir(exist_ok=True)
    lines = read_metrics(output / "metrics.jsonl")
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


def start_middle_end(training):
    """Histograms of the target angle over the first, the middle and the last twentieth of a run's lines."""
    counts = np.array([line["target_angle_histogram"] for line in training])  # (lines, bins)
    span, last = max(1, len(counts) // 20), len(counts)
    middle = (last - span) // 2
    parts = {"start": slice(0, span), "middle": slice(middle, middle + span), "end": slice(last - span, last)}
    return {name: counts[part].sum(0) for name, part in parts.items()}


def draw_hardest(pairs, cosines):
    """The pairs that the network is most wrong about, as pictures."""
    same, different = hardest_pairs(cosines, pairs.is_same, HARDEST)
    chosen = [*same, *different]
    first, second = ([fit(decode(pairs.images[2 * i + side], pairs.name)) for i in chosen] for side in (0, 1))
    captions = [
        f"{'same person' if pairs.is_same[i] else 'two people'}, {np.degrees(np.arccos(cosines[i])):.0f}°"
        for i in chosen
    ]
    return plot_pairs(first, second, captions, "What the network finds hardest: same person far apart, strangers close")


def peak_memory():
    """The most memory that the process has held, and the largest of those it started, added up in GiB."""
    import resource  # not on Windows

    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(one).ru_maxrss for one in who) / 2**20  # Linux counts in KiB
