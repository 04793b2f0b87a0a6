"""The card of a model: what it is for, what it was made of and how well it does, from the files of its run alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from arcface_edu.errors import DataError
from arcface_edu.io import parse_json
from arcface_edu.models.weights import hash_of
from arcface_edu.training.metrics import read_metrics

SHOWN = (  # keys of the config; the others are in config.json
    "loss", "margin_list", "scale", "sample_rate", "optimizer", "lr", "momentum", "weight_decay", "batch_size",
    "gradient_acc", "num_epoch", "warmup_epoch", "decay_epoch", "augment", "init", "fp16", "seed",
)  # fmt: skip


class Result(NamedTuple):
    """One number that was measured."""

    dataset: str
    measure: str
    value: float  # a share of 1
    beside: str  # what belongs to it, as its scatter
    file: str  # of the run, that it stands in


def model_card(
    title: str, model: nn.Module, about: Mapping[str, Any], run: Path | None = None, license_id: str | None = None
) -> str:
    """Return the text of README.md: the hub's front matter and the sections that readers of cards expect.

    Args:
        about: what config.json holds.
        run: folder whose metrics.jsonl and evaluation/results.json say how well it does; None = there is none.
    """
    config, size = about["training_config"], about["embedding_size"]
    results = read_results(run) if run else []
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"""---
{front_matter(title, about, results, license_id)}
---

# {title}

A face embedder: an aligned photograph of a face in, {size} numbers out. The angle between two embeddings says how alike
two faces look to the network. It is `{about["network"]}` with {parameters:,} parameters, written by `arcface_edu`.

## Use

```python
from pathlib import Path
from arcface_edu import embed_images, load_model

model, network = load_model("{title}")  # this folder
embeddings = embed_images(model, [Path("face.jpg").read_bytes()])  # (1, {size}); the mirror's is added
```

| | |
|---|---|
| input | (batch, 3, 112, 112), RGB, (pixel - 127.5) / 127.5; faces aligned by five points, as the field does it |
| output | (batch, {size}), {about["embedding"]} |
| weights | `model.safetensors`, made from a file with the SHA-256 `{about["made_from_sha256"]}` |

## Intended use

Learning and research: comparing photographs of people who have agreed to it. It is not meant for finding out who
somebody is without their knowledge, for watching people, or for decisions that weigh on them.

## Data

{data_section(config)}

## Training

{training_section(config)}

## Results

{results_section(results)}

## Limits

- It knows faces that lie as those it was trained on: aligned, upright, of 112 x 112 pixels. Others are embedded too,
  and badly.
- A threshold belongs to the data it was chosen on: choose yours on pairs like the ones to be decided.
- Whether it errs more often on some groups of people than on others has not been measured for this card.
- An embedding is biometric data of a person where it is of one: the law that protects such data holds for it.

## Licence

{licence_section(license_id)}
"""


def front_matter(title: str, about: Mapping[str, Any], results: Sequence[Result], license_id: str | None) -> str:
    """Return the YAML that the hub reads. JSON is YAML too, and quotes what needs it."""
    config = about["training_config"]
    tags = ["face-recognition", "face-verification", about["network"], *([config["loss"]] if "loss" in config else [])]
    fields = {
        "license": license_id or "unknown",
        "library_name": "arcface_edu",
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
    }
    if config.get("rec"):
        fields["datasets"] = [config["rec"]]
    lines = [f"{key}: {as_yaml(value)}" for key, value in fields.items()]
    if results:
        lines += ["model-index:", f"- name: {as_yaml(title)}", "  results:"]
        lines += [f"  - {as_yaml(entry)}" for entry in for_the_hub(results)]
    return "\n".join(lines)


def as_yaml(value: object) -> str:
    """Return a value as JSON on one line, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def for_the_hub(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return results in the form of the hub's model-index: a dict for each data set."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        kind = result.measure.lower().replace(" ", "_")
        entry = {"type": kind, "name": result.measure, "value": result.value}
        metrics.setdefault(result.dataset, []).append(entry)
    task = {"type": "image-feature-extraction", "name": "face recognition"}
    return [{"task": task, "dataset": {"name": name, "type": name}, "metrics": of} for name, of in metrics.items()]


def read_results(run: Path) -> list[Result]:
    """Return what the files of a run say about its network, the results of `evaluate` first.

    Numbers of another network than model.pt, and those of verifications before the end, are left out.
    """
    found = read_evaluation(run)
    known = {result.dataset for result in found}
    lines = read_metrics(run / "metrics.jsonl")
    last = max((line["step"] for line in lines), default=None)
    for line in lines:
        if "pairs" in line and line["step"] == last and line["pairs"] not in known:
            beside = f"± {100 * line['accuracy_std']:.2f} over ten folds, {line['num_pairs']:,} pairs"
            found.append(Result(line["pairs"], "accuracy", line["accuracy"], beside, "metrics.jsonl"))
            for far, tar in line["tar_at_far"].items():
                found.append(Result(line["pairs"], f"TAR at FAR {far}", tar, "", "metrics.jsonl"))
    return found


def read_evaluation(run: Path) -> list[Result]:
    """Return the results of `python -m arcface_edu.evaluate RUN`, if it judged just this model.pt."""
    path, found = run / "evaluation" / "results.json", list[Result]()
    if not path.is_file():
        return found
    try:
        judged = parse_json(path.read_bytes())
        if judged["SHA-256 of the weights"] != hash_of(run / "model.pt"):
            return found
        for name, numbers in judged["results"].items():
            at_far = {f"TAR at FAR {far}": point["tar"] for far, point in numbers.get("tar_at_far", {}).items()}
            at_far |= {f"DIR at FAR {far}": rate for far, rate in numbers.get("dir_at_far", {}).items()}
            beside = f"{numbers['pairs']:,} pairs" if "pairs" in numbers else f"{numbers['people']:,} people"
            if "accuracy" in numbers:
                over = f"± {100 * numbers['accuracy_std']:.2f} over {numbers['folds']} folds, {beside}"
                found.append(Result(name, "accuracy", numbers["accuracy"], over, path.name))
            if "rank1" in numbers:
                found.append(Result(name, "rank 1", numbers["rank1"], beside, path.name))
            found += [Result(name, measure, value, "", path.name) for measure, value in at_far.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not as `python -m arcface_edu.evaluate` writes it ({type(error).__name__}: {error}): evaluate "
            f"the run again, or remove the file."
        ) from None
    return found


def data_section(config: Mapping[str, Any]) -> str:
    if not config.get("rec"):
        return "What it was trained on is not known: the weights came without the config of their run."
    counts = [f"{config[key]:,} {what}" for key, what in (("num_classes", "people"), ("num_image", "photographs"))
              if config.get(key)]  # fmt: skip
    told = f"Trained on `{cell(config['rec'])}`{': ' if counts else ''}{' in '.join(counts)}."
    if config["rec"].startswith(f"drawn_{config.get('draw_identities')}x"):
        told += "\nThese people do not exist: they were drawn."
        told += "" if config.get("init") else " The network has never seen a real photograph."
    if config.get("init"):
        told += f"\nIt began with the weights of `{cell(config['init'])}`, and has learnt what these had learnt before."
    return told


def training_section(config: Mapping[str, Any]) -> str:
    rows = [(key, json.dumps(config[key])) for key in SHOWN if config.get(key) is not None]
    if not rows:
        return "How it was trained is not known."
    table = "\n".join(f"| `{key}` | {cell(value)} |" for key, value in rows)
    return f"| key | value |\n|---|---|\n{table}\n\nEvery key stands in `config.json`; `batch_size` is per process."


def results_section(results: Sequence[Result]) -> str:
    if not results:
        return (
            "The files of the run hold no result, so none is claimed. `python -m arcface_edu.evaluate` measures some."
        )
    rows = [(r.dataset, r.measure, f"{100 * r.value:.2f} %", r.beside, f"`{r.file}`") for r in results]
    table = "\n".join(f"| {' | '.join(map(cell, row))} |" for row in rows)
    return (
        f"| data | measure | value | | file of the run |\n|---|---|---|---|---|\n{table}\n\n"
        "TAR: the share of same-person pairs that is accepted at a threshold which lets in the share FAR of strangers."
    )


def licence_section(license_id: str | None) -> str:
    if license_id:
        return f"The weights: {license_id}. What the licence of the training data allows may be less."
    return "None has been chosen. Until one is, nobody but the owner may use the weights."


def cell(text: str) -> str:
    """Return a text that stays within its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
