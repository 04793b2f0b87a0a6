"""Fine-tuning on real faces: from a network that has seen only drawings, against training from scratch.

    python benchmarks/fine_tune.py                 the table of docs/fine_tuning.md
    python benchmarks/fine_tune.py --choose        the tables that its settings were chosen by
    python benchmarks/fine_tune.py --weights W     from other weights; else runs/drawn_faces, trained if it is not there

The faces are the AT&T/ORL set, 40 people with 10 grey photographs each. s1 to s30 train; judged is over all 4,950 pairs
of s31 to s40, as benchmarks/orl_faces.py does it. --choose never sees those ten: it takes s1 to s30 in three parts, and
judges each part by a network trained on the other two.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from orl_faces import judge

from arcface_edu.config import load_config
from arcface_edu.course.orl import orl_faces
from arcface_edu.data.folder import list_people, read_photo
from arcface_edu.data.images import decode, fit
from arcface_edu.errors import speaks_plainly
from arcface_edu.evaluation.baseline import pixel_embeddings
from arcface_edu.evaluation.verification import embed
from arcface_edu.models.weights import load_model
from arcface_edu.train import train

ALL_AT_ONCE = ["head_epoch=0", "backbone_rate=1"]
WAYS = {
    "from scratch": ("own_data", []),
    "fine-tuned, all at the full rate from the start": ("fine_tune", ALL_AT_ONCE),
    "fine-tuned, head alone first, then all at the full rate": ("fine_tune", ["backbone_rate=1"]),
    "fine-tuned, backbone at its share of the rate from the start": ("fine_tune", ["head_epoch=0"]),
    "fine-tuned, head alone first, then backbone at its share (`fine_tune`)": ("fine_tune", []),
}
CHOICES = {
    f"head_epoch={epochs} backbone_rate={share}": ("fine_tune", [f"head_epoch={epochs}", f"backbone_rate={share}"])
    for epochs in (0, 2, 5)
    for share in (1, 0.3, 0.1, 0.03)
}
PART = 10  # people


@speaks_plainly
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="compare settings within s1 to s30")
    parser.add_argument("--weights", type=Path, default=Path("runs/drawn_faces"), help="to start from")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way (default 3)")
    options = parser.parse_args()
    if not options.weights.exists():
        train(load_config("drawn_faces", [f"output={options.weights}"]))
    people = list_people(orl_faces())
    names = list(people)
    parts = [names[begin : begin + PART] for begin in range(0, len(names), PART)]
    if options.choose:
        splits, ways = [(part, names[:30]) for part in parts[:3]], {"from scratch": WAYS["from scratch"], **CHOICES}
    else:
        splits, ways = [(parts[3], names[:30])], WAYS

    rows = {}
    for judged, known in splits:
        images, labels = photographs({name: people[name] for name in judged})
        drawn, _ = load_model(options.weights)
        rows.setdefault("raw pixels", []).append(judge(pixel_embeddings(images), labels))
        rows.setdefault("drawn faces only", []).append(judge(embed(drawn, images), labels))
        to_learn = {name: people[name] for name in known if name not in judged}
        for way, (source, words) in ways.items():
            for seed in range(1 if options.choose else options.seeds):
                init = [f"init={options.weights}"] if source == "fine_tune" else []
                network = trained_on(to_learn, source, [*init, *words, f"seed={seed}"])
                rows.setdefault(way, []).append(judge(embed(network, images), labels))
                print(f"{way}: {rows[way]}", flush=True)
    print(table(rows, f"{', '.join(f'{judged[0]} to {judged[-1]}' for judged, _ in splits)}"))


def photographs(people):
    """(uint8 (N, 3, 112, 112), int (N,) who is on each) of a dict name -> paths."""
    paths = [path for paths in people.values() for path in paths]
    images = torch.stack([fit(decode(read_photo(path), path)) for path in paths])
    return images, np.repeat(np.arange(len(people)), [len(paths) for paths in people.values()])


def trained_on(people, source, words):
    """The network that a run with that config makes of those people (a dict name -> paths)."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "people")
        folder.mkdir()
        for name, paths in people.items():
            (folder / name).symlink_to(Path(paths[0]).parent.resolve())
        output = Path(place, "run")
        more = ["hold_out=0", f"rec={folder}", f"output={output}", "num_workers=0", "save_every=0"]
        train(load_config(source, [*more, *words]))
        return load_model(output)[0]


def table(rows, judged):
    """Markdown: mean and standard deviation over a way's runs of accuracy and area, lists of which are `rows`."""
    lines = [f"\n| judged on {judged} | runs | best balanced accuracy | AUC |", "|---|---|---|---|"]
    for way, results in rows.items():
        means, spreads = np.mean(results, axis=0), np.std(results, axis=0, ddof=1) if len(results) > 1 else None
        cells = [f"{mean:.3f}" for mean in means]
        if spreads is not None:
            cells = [f"{cell} ± {spread:.3f}" for cell, spread in zip(cells, spreads, strict=True)]
        lines.append(f"| {way} | {len(results)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
