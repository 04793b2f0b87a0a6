"""Lab 1, wrong labels: what they do to a recogniser under several heads, and whether angles find them again."""

import argparse
import contextlib
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from arcface_edu.config import load_config
from arcface_edu.data.datasets import FaceDataset, open_faces
from arcface_edu.data.label_noise import KINDS, NoisySet, write_noisy
from arcface_edu.errors import ConfigError
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.suspects import (
    inspect_labels,
    main_sub_center,
    score_alike,
    score_suspects,
    who_is_wrong,
)
from arcface_edu.io import replace_when_done, write_json_atomically, write_text_atomically
from arcface_edu.runs import open_run
from arcface_edu.train import train
from arcface_edu.training.metrics import read_metrics
from arcface_edu.training.prepare import drawn_faces

HEADS = {
    "softmax": ["loss=softmax"],
    "arcface": ["loss=arcface"],
    "subcenter_arcface": ["loss=subcenter_arcface"],
    "partial_fc": ["loss=arcface", "sample_rate=0.3"],
    "filtering": ["loss=arcface", "interclass_filtering_threshold=0.4"],
}
COLUMNS = ("wrong labels", "head", "accuracy, %", "TAR at FAR 1e-2, %", "suspected", "precision", "recall",
           "alike classes", "precision", "recall")  # fmt: skip
PAIRS = 2000


class Case(NamedTuple):
    """One training of the lab."""

    kind: str
    share: float
    head: str
    seed: int

    @property
    def data(self) -> str:
        """The name of its data set."""
        return f"{self.kind}_{self.share:g}_{self.seed}" if self.share else f"clean_{self.seed}"

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.data}_{self.head}"


def list_cases(kinds: Sequence[str], shares: Sequence[float], heads: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """Return the trainings that a choice asks for; without wrong labels all kinds are one.

    Raises:
        ConfigError: A share is not one.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise ConfigError(f"--shares {share:g}: a share of wrong labels is 0 to 1, as 0.2 for 20 %.")
    cases = [Case(k, s, h, n) for n in seeds for s in shares for k in kinds for h in heads if s or k == kinds[0]]
    return list(dict.fromkeys(cases))


def run(options: argparse.Namespace) -> None:
    """Train and judge what the options name; print the table, write it, results.json and the picture."""
    cases = list_cases(options.kinds, options.shares, options.heads, options.seeds)
    words = [f"network={options.network}", f"num_epoch={options.epochs}", *options.set]
    root, faces = open_source(options.faces, options.people, options.photos)
    output = options.output / "_".join([root.name, *words]).replace("=", "-")
    print(f"{len(cases)} trainings with {len(faces):,} images of {faces.num_classes:,} people; the bar tells how long.")
    found: dict[Case, dict[str, Any]] = {}
    for case in tqdm(cases, desc="lab", unit="run"):
        noisy = write_noisy(output / "data" / case.data, faces, case.kind, case.share, case.seed)
        for pairs in sorted(root.glob("*.bin")):
            if not (noisy.folder / pairs.name).exists():
                shutil.copyfile(pairs, noisy.folder / pairs.name)
        found[case] = train_and_judge(output / case.name, noisy, [*HEADS[case.head], *words], case.seed)
    table = as_table(found)
    print(f"\n{table}\n")
    write_text_atomically(output / "table.md", table + "\n")
    write_json_atomically(output / "results.json", [case._asdict() | one for case, one in found.items()])
    picture = draw(output, found)
    print(f"tables, numbers and {picture.name} in {output}/; runs beside them.")


def open_source(named: Path | None, people: int, photos: int) -> tuple[Path, FaceDataset]:
    """Return the folder of the data set that is to get wrong labels, and the data set; drawn where none is named."""
    draw = [f"draw_identities={people}", f"draw_photos={photos}", f"draw_pairs={PAIRS}"]
    root = named or Path(drawn_faces(load_config("drawn_faces", draw)))
    return root if root.is_dir() else root.parent, open_faces(root)


def train_and_judge(run_folder: Path, noisy: NoisySet, words: Sequence[str], seed: int) -> dict[str, Any]:
    """Return what a training with wrong labels brings; one that is finished is read from its folder."""
    lines = train_once(run_folder, [f"rec={noisy.folder}", f"seed={seed}", *words])
    finished, faces = open_run(run_folder), open_faces(noisy.folder)
    labels = np.asarray(faces.labels)
    if not (run_folder / "embeddings.npy").exists():
        images = [faces.encoded(index)[0] for index in range(len(faces))]
        with replace_when_done(run_folder / "embeddings.npy") as beside:
            np.save(beside, embed_images(finished.model, images, flip=False).numpy())
    embeddings = torch.from_numpy(np.load(run_folder / "embeddings.npy"))
    centres = finished.centres
    trusted = main_sub_center(embeddings, labels, centres) if centres is not None and centres.ndim == 3 else None
    seen = inspect_labels(embeddings, labels, trusted)
    wrong = who_is_wrong(noisy.people, labels, seen.suspects)
    with replace_when_done(run_folder / "angles.npz") as beside:
        np.savez(beside, own=seen.own, wrong=wrong)
    pairs = lines[-1] if lines else {}
    return {
        "accuracy": pairs.get("accuracy"),
        "tar": pairs.get("tar_at_far", {}).get("0.01"),
        "suspects": score_suspects(seen.suspects, wrong)._asdict(),
        "alike": score_alike(seen.alike, noisy.people, labels)._asdict(),
    }


def train_once(run_folder: Path, words: Sequence[str]) -> list[dict[str, Any]]:
    """Train the default run with some keys set, unless it is done, and return the verification lines of its log."""
    if not (run_folder / "done").exists():
        run_folder.mkdir(parents=True, exist_ok=True)
        config = load_config("drawn_faces", ["num_workers=0", *words, f"output={run_folder}"])
        with open(run_folder / "log.txt", "w") as log, contextlib.redirect_stdout(log):
            train(config)
        (run_folder / "done").touch()
    return [line for line in read_metrics(run_folder / "metrics.jsonl") if "pairs" in line]


def as_table(found: dict[Case, dict[str, Any]]) -> str:
    """Return the results as a Markdown table, the mean over seeds; of several also the least and the greatest."""
    rows = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for kind, share, head in dict.fromkeys((case.kind, case.share, case.head) for case in found):
        seeds = [one for case, one in found.items() if case[:3] == (kind, share, head)]
        what = f"{kind}, {share:.0%}" if share else "none"
        cells = [cell([one[key] for one in seeds], 100) for key in ("accuracy", "tar")]
        for list_of in ("suspects", "alike"):
            cells.append(cell([one[list_of]["suspected"] for one in seeds], form=".0f"))
            cells += [cell([one[list_of][key] for one in seeds], form=".2f") for key in ("precision", "recall")]
        rows.append(f"| {what} | {head} | {' | '.join(cells)} |")
    return "\n".join(rows)


def cell(values: Sequence[float | None], scale: float = 1, form: str = ".1f") -> str:
    """Return the mean of what is known of several values, with the least and the greatest; a dash for nothing."""
    known = [scale * value for value in values if value is not None and value == value]
    if not known:
        return "–"
    spread = f" ({min(known):{form}} to {max(known):{form}})" if len(known) > 1 else ""
    return f"{statistics.mean(known):{form}}{spread}"


def draw(output: Path, found: dict[Case, dict[str, Any]]) -> Path:
    """Draw the humps of each kind at its largest share under each head, with the first seed."""
    from arcface_edu.figures.style import save
    from arcface_edu.figures.suspects import plot_humps

    angles: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    most, seed = max(case.share for case in found), next(iter(found)).seed
    for case in found:
        if case.share == most and case.seed == seed:
            with np.load(output / case.name / "angles.npz") as saved:
                row = f"{case.kind} {case.share:.0%}" if case.share else "none"
                angles.setdefault(row, {})[case.head] = saved["own"], saved["wrong"]
    ordered = {row: angles[row] for row in sorted(angles, key=lambda row: [*KINDS, "none"].index(row.split()[0]))}
    return save(plot_humps(ordered), output / "humps.png")
