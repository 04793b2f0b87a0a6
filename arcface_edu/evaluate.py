"""Judge a network by the field's own protocols, with a report that others can trust.

    python -m arcface_edu.evaluate runs/drawn_faces                       a run: on the pairs beside its data
    python -m arcface_edu.evaluate backbone.pth --pairs lfw.bin cfp_fp.bin agedb_30.bin      published weights
    python -m arcface_edu.evaluate backbone.pth --pairs data/ms1mv3       every .bin file in a folder
    python -m arcface_edu.evaluate backbone.pth --ijb IJBC                IJB-C: a folder with meta/ and loose_crop/
    python -m arcface_edu.evaluate runs/drawn_faces --gallery staff/ --probes visitors/      who is this?
    python -m arcface_edu.evaluate runs/drawn_faces --report out.html     all of it as one page, to send by mail

It prints every number with its scatter, and the row of the benchmark table between the published ones. Numbers for
programs (results.json) and pictures go to RUN/evaluation/, or for a file of weights to evaluation/NAME/.
"""

import argparse
import datetime
import json
from pathlib import Path

import numpy as np

from arcface_edu.data.bins import read_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.folder import held_out_pairs
from arcface_edu.errors import DataError, speaks_plainly
from arcface_edu.evaluation.ijb import embed_crops, read_protocol
from arcface_edu.evaluation.report import (
    explain,
    judge_ijb,
    judge_pairs,
    judge_search,
    text_of,
    write_files,
    write_page,
)
from arcface_edu.evaluation.table import HEAD, benchmark, markdown
from arcface_edu.evaluation.verification import check_sizes, embed
from arcface_edu.models.weights import hash_of, load_model
from arcface_edu.training.precision import choose_device


@speaks_plainly
def main(arguments=None):
    options = build_parser().parse_args(arguments)
    weights, config, folder = find_weights(options.subject)
    model, network = load_model(
        weights, options.network or config.get("network"), options.embedding_size or config.get("embedding_size")
    )
    model = model.to(choose_device(options.device))
    data = find_data(options.subject, config)
    findings = []

    def found(finding):
        print(text_of(finding))
        findings.append(finding)

    for name, images, is_same in pair_sets(options, config, data):
        check_sizes(images, name)
        embeddings = embed(model, images, batch_size=options.batch_size, progress=f"embedding {name}")
        found(judge_pairs(name, embeddings, images, is_same))
    ijbc = {}
    for place in options.ijb:
        protocol = read_protocol(place)
        features = embed_crops(model, protocol, "F1" in options.switches, options.batch_size, options.workers)
        found(judge_ijb(protocol, features, options.switches))
        if protocol.name == "IJBC":
            ijbc = {float(far): point["tar"] for far, point in findings[-1].numbers["tar_at_far"].items()}
    if options.gallery:
        found(judge_search(*embed_people(model, options.gallery, options.probes, options.batch_size)))

    trained_on = data.name if data else weights.stem
    accuracies = {finding.name: finding.numbers["accuracy"] for finding in findings if finding.kind == "pairs"}
    rows, ours, reasons = benchmark(trained_on, network, accuracies, ijbc)
    print("", markdown(HEAD, rows), *(f"- in {reason}" for reason in reasons), sep="\n")

    facts = {
        "weights": str(weights),
        "SHA-256 of the weights": hash_of(weights),
        "network": f"{network}, {sum(p.numel() for p in model.parameters()):,} parameters",
        "preprocessing": "112 x 112 pixels, RGB, (x - 127.5) / 127.5, in float32; embeddings of image and mirror added",
        "date": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    if options.ijb:
        facts["IJB"] = (
            f"aligned by five points to the 112 x 112 template; {options.switches}: {explain(options.switches)}"
        )
    folder = options.output or folder
    write_files(folder, findings, facts, [dict(zip(HEAD, row, strict=True)) for row in rows], options.json)
    print(f"\nnumbers in {options.json or folder / 'results.json'}, pictures in {folder}/")
    if options.report:
        lead = f"{network}, weights {weights}, measured on {', '.join(f.name for f in findings)}"
        write_page(options.report, f"How well {trained_on} / {network} knows faces", lead, facts, (HEAD, rows, ours, reasons), findings)  # fmt: skip
        print(f"report in {options.report}")
    return findings


def find_weights(subject):
    """(file of weights, config of the run or {}, folder for results) of a run's folder or a file."""
    if subject.is_file():
        return subject, {}, Path("evaluation") / subject.stem
    weights, config = subject / "model.pt", subject / "config.json"
    if not weights.is_file():
        what = "holds no model.pt: let the run finish" if subject.is_dir() else "does not exist"
        raise DataError(f"{subject} {what}; name a run's folder, or a file of weights (.pt, .pth).")
    try:
        return weights, json.loads(config.read_text()) if config.is_file() else {}, subject / "evaluation"
    except ValueError as error:
        raise DataError(f"{config} is not JSON ({error}): restore it, or name {weights} itself.") from None


def find_data(subject, config):
    """The folder of a run's training data, as its config names it from where the run was started; None if it is gone."""
    places = [base / config["rec"] for base in (Path(), *subject.resolve().parents)] if config.get("rec") else []
    return next((place for place in places if place.is_dir()), None)


def pair_sets(options, config, data):
    """Yield (name, 2N encoded images, is_same (N,)) of what --pairs names, else of what lies beside a run's data."""
    named = options.pairs or ([data] if data and not options.ijb and not options.gallery else [])
    files = [file for place in named for file in (sorted(place.glob("*.bin")) if place.is_dir() else [place])]
    names = [file.stem for file in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two files of pairs are called {min(twice)}: rename one, their results would be mixed up.")
    yield from ((file.stem, *read_pairs(file)) for file in files)
    if files or options.ijb or options.gallery:
        return
    if not options.pairs and data and config.get("hold_out"):
        yield "held_out", *held_out_pairs(data, config["hold_out"], config.get("draw_pairs"), config.get("seed", 0))
        return
    where = ", ".join(map(str, named)) or config.get("rec") or "the data of these weights, which no config names"
    raise DataError(f"there are no .bin files of pairs in {where}: name some with --pairs, or a folder with --ijb.")


def embed_people(model, gallery, probes, batch_size):
    """Embeddings and labels of two data sets, (G, D), (G,), (P, D), (P,); people are the same when named alike."""
    arrays, number = [], {}
    for place in (gallery, probes):
        faces = open_faces(place)
        labels = [faces.encoded(i)[:2] for i in range(len(faces))]
        names = faces.names or [str(label) for label in range(faces.num_classes)]
        arrays.append(
            embed(model, [image for image, _ in labels], batch_size=batch_size, progress=f"embedding {place}")
        )
        arrays.append(np.array([number.setdefault(names[label], len(number)) for _, label in labels]))
    return arrays


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a = parser.add_argument
    a("subject", type=Path, metavar="RUN|WEIGHTS", help="a run's folder (config.json, model.pt), or a file .pt, .pth")
    a("--pairs", type=Path, nargs="+", default=[], metavar="FILE", help=".bin files of pairs, or folders of such")
    a("--ijb", type=Path, nargs="+", default=[], metavar="DIR", help="IJB-B or IJB-C folders")
    a("--switches", default="N1D1F1", choices=[f"N{n}D{d}F{f}" for n in "01" for d in "01" for f in "01"],
      metavar="N1D1F1", help="for IJB: N1 embeddings keep their length, D1 the detector's score counts, F1 mirror "
      "added; 0 switches off")  # fmt: skip
    a("--gallery", type=Path, metavar="DIR", help="known people, a folder of photos each: probes are searched here")
    a("--probes", type=Path, metavar="DIR", help="photos to search; people not in the gallery are strangers")
    a("--output", type=Path, metavar="DIR", help="for pictures and results.json")
    a("--json", type=Path, metavar="FILE", help="results.json elsewhere")
    a("--report", type=Path, metavar="HTML", help="write one self-contained page")
    a("--network", help="of bare weights, where their shapes do not tell: r18 r50 r100 ...")
    a("--embedding-size", type=int, metavar="D", help="likewise")
    a("--batch-size", type=int, default=128, metavar="N", help="images at once (128)")
    a("--workers", type=int, default=2, metavar="N", help="processes that read and align IJB images (2)")
    a("--device", help="cpu, cuda, mps; the accelerator if there is one")
    return parser


if __name__ == "__main__":
    main()
