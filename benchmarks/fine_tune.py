"""Fine-tuning: from a network that has seen only drawn faces to 30 other people, against training from scratch.

    python benchmarks/fine_tune.py [key=value ...]   to photographs, the AT&T/ORL set; the keys go to all runs
    python benchmarks/fine_tune.py --choose          more settings, without the people judged above
    python benchmarks/fine_tune.py --faces drawn     to other drawings
    python benchmarks/fine_tune.py --weights W       from other weights; else runs/drawn_faces, trained where it lacks

ORL has 40 people with 10 grey photographs each; the faces are aligned. s1 to s30 train; the judgement is over all
4,950 pairs of s31 to s40, as in benchmarks/orl_faces.py. --choose never sees those ten: it takes s1 to s30 in three
parts, and judges each part by networks trained on the other two. The drawings are as many, of people that the weights
have not seen either.
docs/fine_tuning.md has the tables.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from orl_faces import judge

from arcface_edu.cli import cli_main
from arcface_edu.config import load_config
from arcface_edu.course.orl import aligned_orl_faces
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.folder import list_people
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.runs import load_model
from arcface_edu.train import train

KNOWN, JUDGED, PHOTOS = 30, 10, 10


@cli_main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="compare settings within s1 to s30")
    parser.add_argument("--faces", choices=("orl", "drawn"), default="orl", help="to fine-tune to (default orl)")
    parser.add_argument("--weights", type=Path, default=Path("runs/drawn_faces"), help="to start from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of each way's runs (default 0 1 2)")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys of all runs")
    options = parser.parse_intermixed_args()
    if not options.weights.exists():
        train(load_config("drawn_faces", [f"output={options.weights}"]))
    rows = {}
    with tempfile.TemporaryDirectory() as place:
        for known, judged in splits(Path(place), options):
            compare(known, judged, options, Path(place, "run"), rows)
    print(table(rows))


def splits(place, options):
    """Yield (folder to train on, folder to judge on), made in the folder `place`."""
    if options.faces == "drawn":
        for name, people, seed in (("known", KNOWN, 101), ("judged", JUDGED, 102)):
            draw_faces(place / name, people, PHOTOS, seed=seed, pairs=20, pair_identities=10)
        yield place / "known", place / "judged"
        return
    people = list(list_people(aligned_orl_faces()))
    known, judged = people[:KNOWN], people[KNOWN:]
    parts = [known[begin : begin + JUDGED] for begin in range(0, KNOWN, JUDGED)] if options.choose else [judged]
    for number, part in enumerate(parts):
        yield linked(place / f"known_{number}", [p for p in known if p not in part]), linked(place / f"{number}", part)


def linked(folder, people):
    """Make a folder with those people of ORL alone."""
    folder.mkdir()
    for name in people:
        (folder / name).symlink_to((aligned_orl_faces() / name).resolve())
    return folder


def compare(known, judged, options, output, rows):
    """Add to `rows`, a dict of lists, the judgement of each way to embed faces."""
    faces = open_faces(judged)
    images = torch.stack([faces[number][0] for number in range(len(faces))])
    labels = np.array([faces[number][1] for number in range(len(faces))])

    def add(way, embeddings):
        rows.setdefault(way, []).append(judge(embeddings, labels))
        print(f"{way}: {rows[way][-1][0]:.3f} {rows[way][-1][1]:.3f}", flush=True)

    add("raw pixels", pixel_embeddings(images))
    add("the weights as they are", embed_images(load_model(options.weights)[0], images))
    ways = {"from scratch": ("own_data", [])}
    for epochs in (0, 2):
        for share in (1, 0.3, 0.1) if options.choose else (1, 0.1):
            words = [f"head_epoch={epochs}", f"backbone_rate={share}"]
            ways[f"fine-tuned, {' '.join(words)}"] = "fine_tune", [f"init={options.weights}", *words]
    for way, (config, words) in ways.items():
        for seed in options.seeds:
            more = [f"rec={known}", "hold_out=0", f"output={output}", "num_workers=0", f"seed={seed}"]
            train(load_config(config, [*more, *words, *options.words]))
            add(way, embed_images(load_model(output)[0], images))


def table(rows):
    """Markdown: mean and standard deviation over a way's runs of both judgements."""
    lines = ["\n| way | runs | best balanced accuracy | AUC |", "|---|---|---|---|"]
    for way, results in rows.items():
        spreads = np.std(results, axis=0, ddof=1) if len(results) > 1 else None
        cells = [f"{mean:.3f}" for mean in np.mean(results, axis=0)]
        if spreads is not None:
            cells = [f"{cell} ± {spread:.3f}" for cell, spread in zip(cells, spreads, strict=True)]
        lines.append(f"| {way} | {len(results)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
