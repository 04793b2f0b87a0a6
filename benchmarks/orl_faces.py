"""Real faces: train on 30 people of the AT&T/ORL set, verify on the other 10, and compare with raw pixels.

    python benchmarks/orl_faces.py [key=value ...]

The photographs are by AT&T Laboratories Cambridge: 40 people, 10 grey pictures of 92 x 112 each; course/orl.py brings
them. s1 to s30 train, s31 to s40 verify. The judgement is over all 4,950 pairs of the latter: best balanced accuracy
(one threshold, chosen with hindsight, the same favour to every way) and area under the ROC. Where
runs/drawn_faces/model.pt exists, a network that has seen nothing but drawings is judged too.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from arcface_edu.cli import cli_main
from arcface_edu.config import load_config
from arcface_edu.course.orl import orl_faces
from arcface_edu.data.folder import read_photo, split_people
from arcface_edu.data.images import decode, fit
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.roc import roc
from arcface_edu.models import build_model
from arcface_edu.train import train

HELD_OUT = 10


@cli_main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys of the run")
    options = parser.parse_args()
    photos = orl_faces()
    config = load_config("own_data", [f"rec={photos}", f"hold_out={HELD_OUT}", "output=runs/orl", *options.words])
    train(config)
    _, unseen = split_people(photos, HELD_OUT)
    paths = [path for paths in unseen.values() for path in paths]
    images = torch.stack([fit(decode(read_photo(path), path)) for path in paths])
    people = np.repeat(np.arange(HELD_OUT), [len(paths) for paths in unseen.values()])

    ways = {"raw pixels": pixel_embeddings(images)}
    network = load(config.network, config.embedding_size, Path(config.output) / "model.pt")
    ways["trained on s1 to s30"] = embed_images(network, images)
    drawn = load_config("drawn_faces")
    if Path("runs/drawn_faces/model.pt").exists():
        network = load(drawn.network, drawn.embedding_size, "runs/drawn_faces/model.pt")
        ways["trained on drawn faces"] = embed_images(network, images)
    print("\n| s31 to s40, 4,950 pairs | best balanced accuracy | AUC |\n|---|---|---|")
    for name, embeddings in ways.items():
        accuracy, area = judge(embeddings, people)
        print(f"| {name} | {accuracy:.3f} | {area:.3f} |")


def load(network, size, path):
    model = build_model(network, size)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def judge(embeddings, people):
    """(best balanced accuracy, area under the ROC) over all pairs.  embeddings: (N, D); people: (N,)."""
    first, second = np.array(list(combinations(range(len(people)), 2))).T
    unit = F.normalize(embeddings).numpy()
    fpr, tpr, _ = roc((unit[first] * unit[second]).sum(1), people[first] == people[second])
    area = (np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()
    return ((tpr + 1 - fpr) / 2).max(), area


if __name__ == "__main__":
    main()
