"""The margin study: the default network under every head, with the same data, order of images, steps and seeds.

    python benchmarks/margins.py [--epochs 3] [--seeds 2048 2049 2050] [--heads NAME ...] [--rates 0.05 0.1 0.2]

Trains every head with every seed, and judges it by 6,000 pairs of 100 drawn people on whom nothing was ever tuned, and
by the angles of ArcFace's Table 3. Prints the tables of docs/margins.md. With several --rates, each head first tries
them all, in runs of --rate_epochs with a seed of their own, and keeps the learning rate that recognises most of the
default run's pairs at FAR 1e-2. A run that is finished is not repeated, so the study may be stopped and started again.
Epochs 7 is the default run; fewer end with the same schedule, only shorter.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from arcface_edu.config import load_config
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces, sample_faces
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.evaluation.angle_stats import angle_statistics
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.roc import tar_at_far
from arcface_edu.evaluation.verification import verify_pairs
from arcface_edu.runs import open_run
from arcface_edu.train import train

HEADS = {
    "softmax": ["loss=softmax"],
    "norm-softmax": ["loss=norm_softmax"],
    "SphereFace, m1 = 1.35": ["loss=sphereface"],
    "CosFace, m3 = 0.35": ["loss=cosface"],
    "ArcFace, m2 = 0.5": ["loss=arcface"],
    "combined, (1, 0.3, 0.2)": ["loss=combined1"],
    "combined, (0.9, 0.4, 0.15)": ["loss=combined2"],
    "ArcFace, exact gradient": ["loss=arcface", "margin_gradient=exact"],
    "sub-center ArcFace, K = 3": ["loss=subcenter_arcface"],
    "AdaFace": ["loss=adaface"],
    "MagFace": ["loss=magface"],
    "CurricularFace": ["loss=curricularface"],
    "MV-Softmax": ["loss=mv_softmax"],
    "ElasticFace": ["loss=elasticface"],
    "SphereFace of 2017, m = 4": ["loss=sphereface_2017"],
    "SphereFace-R": ["loss=sphereface_r"],
}
JUDGEMENTS = {"accuracy": "accuracy, %", "tar_2": "TAR at FAR 1e-2, %", "tar_3": "TAR at FAR 1e-3, %"}
ANGLES = {"w_ec": "W-EC", "w_inter": "W-Inter", "intra": "Intra", "inter": "Inter"}
OTHERS = Path("data/drawn_100x20_pairs6000_seed9_hard1")  # people of another population than the default run's
SEED_OF_RATES = 1  # of the runs that choose a learning rate; none that is judged later


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2048, 2049, 2050])
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS), metavar="NAME", help="; ".join(HEADS))
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1], help="learning rates to choose from")
    parser.add_argument("--rate_epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/margins"))
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys of every run")
    options = parser.parse_args()
    if not OTHERS.exists():
        draw_faces(OTHERS, identities=100, photos=20, seed=9, pairs=6000, pair_identities=100)

    def judged(name: str, rate: float, epochs: int, seed: int) -> dict[str, dict[str, float]]:
        words = [*HEADS[name], f"lr={rate:g}", f"num_epoch={epochs}", f"seed={seed}"]
        run = options.output / "_".join(words).replace("=", "-")
        if not (run / "judged.json").exists():
            train(load_config("drawn_faces", [*words, f"output={run}", *options.words]))
            (run / "judged.json").write_text(json.dumps(judge(run)))
        return json.loads((run / "judged.json").read_text())

    best = dict.fromkeys(options.heads, options.rates[0])
    if len(options.rates) > 1:
        print("TAR at FAR 1e-2 on the default run's pairs, %, by learning rate:", flush=True)
        for name in tqdm(options.heads, unit="head"):
            tried = {rate: judged(name, rate, options.rate_epochs, SEED_OF_RATES) for rate in options.rates}
            tar = {rate: found["default_pairs"]["tar_2"] for rate, found in tried.items()}
            best[name] = max(tar, key=tar.__getitem__)
            print(f"{name}: {', '.join(f'{r:g} {t:.1f}' for r, t in tar.items())}; best {best[name]:g}", flush=True)
    found: dict[str, list[Any]] = {name: [] for name in options.heads}
    for seed, name in tqdm([(seed, name) for seed in options.seeds for name in options.heads], unit="run"):
        found[name].append(judged(name, best[name], options.epochs, seed))
    seeds = f"{options.epochs} epochs; mean of {len(options.seeds)} seeds, least and greatest in brackets"
    print(f"\nPeople never seen, {seeds}:\n\n{table(found, 'unseen', JUDGEMENTS)}")
    print(f"\nThe default run's own pairs:\n\n{table(found, 'default_pairs', JUDGEMENTS)}")
    print(f"\nAngles of 500 people of the training data, degrees:\n\n{table(found, 'trained', ANGLES)}")
    unseen = {key: ANGLES[key] for key in ("intra", "inter")}
    print(f"\nAngles of 100 unseen people, degrees:\n\n{table(found, 'unseen', unseen)}")


def judge(run: Path) -> dict[str, dict[str, float]]:
    """Return what the network of a run is worth: `unseen`, `default_pairs` and `trained`, in percent or degrees."""
    trained = open_run(run)
    images, labels = sample_faces(open_faces(trained.config.rec), people=500, photos=10)
    others, their_labels = sample_faces(open_faces(OTHERS), people=100, photos=10)
    unseen = angle_statistics(embed_images(trained.model, others, flip=False), their_labels)
    centres = torch.as_tensor(trained.centres)
    return dict(
        unseen=unseen | verified(trained.model, OTHERS),
        default_pairs=verified(trained.model, Path(trained.config.rec)),
        trained=angle_statistics(embed_images(trained.model, images, flip=False), labels, centres),
    )


def verified(model: nn.Module, folder: Path) -> dict[str, float]:
    """Return accuracy and TAR, in percent, on the pairs beside a data set."""
    pairs, is_same = read_pairs(folder / "drawn.bin")
    result = verify_pairs(embed_images(model, pairs), is_same)
    tar = tar_at_far(result["cosines"], is_same, (1e-2, 1e-3))
    return dict(accuracy=100 * result["accuracy"], tar_2=100 * tar[1e-2], tar_3=100 * tar[1e-3])


def table(found: dict[str, list[Any]], whose: str, columns: dict[str, str]) -> str:
    rows = [f"| head | {' | '.join(columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for name, seeds in found.items():
        values = [[seed[whose][key] for seed in seeds] for key in columns]
        cells = [f"{statistics.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in values]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
