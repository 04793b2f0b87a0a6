"""Lab 2, groups: what changes for whom when a network has seen few people of a kind."""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from arcface_edu.data.bins import count_pairs, read_pairs
from arcface_edu.data.synthetic.crowds import GROUPS, Mix
from arcface_edu.data.synthetic.dataset import draw_faces
from arcface_edu.errors import ConfigError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.group_file import read_groups
from arcface_edu.evaluation.groups import GroupRates, every_pair, group_rates, rates_for_program
from arcface_edu.evaluation.roc import operating_points
from arcface_edu.io import write_json_atomically, write_text_atomically
from arcface_edu.labs.noise import PAIRS, cell, train_once
from arcface_edu.runs import load_model

FAR = 1e-3  # over all pairs of two people, by which the one threshold is set
RESAMPLES = 200


def run(options: argparse.Namespace) -> None:
    """Train on each crowd with each seed; print the table, write it, results.json and a picture of each crowd."""
    from arcface_edu.figures.groups import plot_group_rates
    from arcface_edu.figures.style import save

    for share in options.shares:
        if not 0 <= share <= 1:
            raise ConfigError(f"--shares {share:g}: the share of a group is 0 to 1, as 0.9 for 90 %.")
    words = [f"network={options.network}", f"num_epoch={options.epochs}", *options.set]
    name = f"{options.by}_{options.people}x{options.photos}_{options.unseen}"
    output = options.output / "_".join([name, *words]).replace("=", "-")
    cases = [(share, seed) for seed in options.seeds for share in options.shares]
    print(f"{len(cases)} trainings with {options.people} people; the bar tells how long.")
    found: dict[float, list[GroupRates]] = {}
    for share, seed in tqdm(cases, desc="lab", unit="run"):
        data = options.output / "data" / f"{name}_{share:g}"
        if not (data / "groups.csv").exists():
            mix = Mix(options.by, (share, 1 - share))
            pairs = min(PAIRS, count_pairs([options.photos] * options.unseen))
            draw_faces(data, options.people, options.photos, pairs=pairs, pair_identities=options.unseen, mix=mix)
        run_folder = output / f"{share:g}_{seed}"
        train_once(run_folder, [f"rec={data}", f"seed={seed}", *words])
        rates = judge(run_folder, data, options.by)
        found.setdefault(share, []).append(rates)
        save(plot_group_rates(rates.names, rates.fmr, rates.fnmr, options.by), output / f"rates_{share:g}_{seed}.png")
    table = as_table(options.by, found)
    print(f"\n{table}\n")
    write_text_atomically(output / "table.md", table + "\n")
    write_json_atomically(
        output / "results.json", {f"{share:g}": list(map(numbers, of)) for share, of in found.items()}
    )
    print(f"tables, numbers and pictures in {output}/; runs beside them.")


def judge(run_folder: Path, data: Path, by: str) -> GroupRates:
    """Return the error rates over every pair of photographs of the unseen people of a data set."""
    images = read_pairs(data / "drawn.bin").images
    groups = read_groups(data / "groups.csv", len(images))
    first = list(dict(reversed([(image, row) for row, image in enumerate(images)])).values())  # each photograph once
    embeddings = embed_images(load_model(run_folder)[0], [images[row] for row in first]).numpy()
    assert groups.people is not None  # groups.csv of a drawn set names them
    pairs = every_pair(embeddings, groups.people[first])
    threshold = operating_points(pairs.cosines, pairs.is_same, (FAR,))[FAR]["threshold"]["cosine"]
    names, codes = np.unique(groups.columns[by][first], return_inverse=True)
    of_pairs, people = codes[pairs.rows].ravel(), groups.people[first][pairs.rows].ravel()
    rates = group_rates(pairs.cosines, pairs.is_same, of_pairs, threshold, people, RESAMPLES)
    return rates._replace(names=names.tolist())


def as_table(by: str, found: dict[float, list[GroupRates]]) -> str:
    """Return the rates as a Markdown table, the mean over seeds; of several also the least and the greatest."""
    one, two = GROUPS[by][0]
    head = [f"of the people trained on, {one}", *[f"FMR {who}, %" for who in (one, two, f"{one} with {two}")],
            *[f"FNMR {who}, %" for who in (one, two)], "FMR, worst to best"]  # fmt: skip
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for share, seeds in sorted(found.items()):
        i, j = (seeds[0].names.index(name) for name in (one, two))
        fmr = [cell([s.fmr.rates[at] for s in seeds], 100, ".3f") for at in ((i, i), (j, j), (i, j))]
        fnmr = [cell([s.fnmr.rates[at] for s in seeds], 100) for at in ((i, i), (j, j))]
        ratio = statistics.mean(s.fmr.ratio for s in seeds)
        ends = f" ({seeds[0].fmr.ratio_interval[0]:.1f} to {seeds[0].fmr.ratio_interval[1]:.1f} over people)"
        rows.append(f"| {share:.0%} | {' | '.join([*fmr, *fnmr])} | {ratio:.1f}{ends} |")
    return "\n".join(rows)


def numbers(rates: GroupRates) -> dict[str, Any]:
    """Return rates as JSON takes them."""
    return {"groups": rates.names, "fmr": rates_for_program(rates.fmr), "fnmr": rates_for_program(rates.fnmr)}
