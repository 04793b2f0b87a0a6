"""Real faces, as photographed and aligned: raw pixels, a network of drawings, SFace, and one trained on 30 people.

    python benchmarks/orl_faces.py [key=value ...]
    python benchmarks/orl_faces.py --networks drawn_crowd runs/drawn_faces     train nothing: judge these, aligned

The photographs are by AT&T Laboratories Cambridge: 40 people, 10 grey pictures of 92 x 112 each; course/orl.py brings
and aligns them. s1 to s30 train. The judgement is over all 4,950 pairs of s31 to s40, and of whatever was not trained
on these people over the 79,800 pairs of all 40: best balanced accuracy (one threshold, chosen with hindsight, the same
favour to every way) and area under the ROC.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from arcface_edu.cli import cli_main
from arcface_edu.config import load_config
from arcface_edu.course.orl import PHOTOS, aligned_orl_faces, orl_faces
from arcface_edu.course.sface import sface
from arcface_edu.data.folder import list_people, read_photo
from arcface_edu.data.images import decode, fit
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.roc import roc
from arcface_edu.runs import load_model
from arcface_edu.train import train

HELD_OUT = 10


@cli_main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("runs/drawn_faces"), help="a network that saw drawings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings (default 0 1 2)")
    parser.add_argument("--networks", nargs="+", metavar="RUN|WEIGHTS", help="judge these alone, on s1-s20 and s21-s40")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys of the trainings")
    options = parser.parse_intermixed_args()
    if options.networks:
        return judge_halves(options.networks)
    rows = {}
    for framing, photos in (("as they are", orl_faces()), ("aligned", aligned_orl_faces())):
        rows |= {f"{way} | {framing}": judged for way, judged in compare(photos, options).items()}
    print("\n| | faces | s31 to s40: best balanced accuracy | AUC | all 40: best balanced accuracy | AUC |")
    print("|---|---|---|---|---|---|")
    for name, judged in sorted(rows.items()):
        print(f"| {name} | {' | '.join(judged)} |")


def judge_halves(networks):
    """Print how well networks do on the aligned faces of s1 to s20, for choices, and of s21 to s40, for the result."""
    images, people = read_faces(aligned_orl_faces())
    first = torch.from_numpy(people < (people.max() + 1) // 2)
    print("| network | AUC, s1 to s20 | AUC, s21 to s40 |\n|---|---|---|")
    for name in networks:
        embeddings = embed_images(load_model(name)[0], images)
        areas = [judge(embeddings[half], people[half.numpy()])[1] for half in (first, ~first)]
        print(f"| {name} | {' | '.join(f'{area:.3f}' for area in areas)} |")


def read_faces(photos):
    """Faces of a folder, and whose each is.  returns: (N, 3, 112, 112) uint8, (N,) numbers from 0 on."""
    paths = [path for paths in list_people(photos).values() for path in paths]
    images = torch.stack([fit(decode(read_photo(path), path)) for path in paths])
    return images, np.repeat(np.arange(len(paths) // PHOTOS), PHOTOS)


def compare(photos, options):
    """Judge each way to embed the faces of a folder.  returns: dict way -> the cells of its row."""
    images, people = read_faces(photos)
    unseen = people >= people.max() + 1 - HELD_OUT
    ways = {"raw pixels, 28 x 28": [pixel_embeddings(images)]}
    if options.weights.exists():
        ways["r10, drawn faces only"] = [embed_images(load_model(options.weights)[0], images)]
    ways["SFace, a published network"] = [embed_images(load_model(sface())[0], images)]
    found = {name: [*cells(runs, people, unseen), *cells(runs, people, people >= 0)] for name, runs in ways.items()}
    trained = []
    for seed in options.seeds:
        words = [f"rec={photos}", f"hold_out={HELD_OUT}", "output=runs/orl", f"seed={seed}", *options.words]
        train(load_config("own_data", words))
        trained.append(embed_images(load_model("runs/orl")[0], images))
    return found | {"r10, trained on s1 to s30": [*cells(trained, people, unseen), "-", "-"]}


def cells(runs, people, of_whom):
    """Mean and spread over runs of both judgements.  runs: list of (N, D); people: (N,); of_whom: (N,) bools."""
    results = np.array([judge(embeddings[torch.from_numpy(of_whom)], people[of_whom]) for embeddings in runs])
    spread = results.std(0, ddof=1) if len(runs) > 1 else [0, 0]
    both = zip(results.mean(0), spread, strict=True)
    return [f"{mean:.3f} ± {std:.3f}" if len(runs) > 1 else f"{mean:.3f}" for mean, std in both]


def judge(embeddings, people):
    """(best balanced accuracy, area under the ROC) over all pairs.  embeddings: (N, D); people: (N,)."""
    first, second = np.array(list(combinations(range(len(people)), 2))).T
    unit = F.normalize(embeddings).numpy()
    fpr, tpr, _ = roc((unit[first] * unit[second]).sum(1), people[first] == people[second])
    area = (np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()
    return ((tpr + 1 - fpr) / 2).max(), area


if __name__ == "__main__":
    main()
