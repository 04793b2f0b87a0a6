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
from pathlib import Path

from arcface_edu.cli import cli_main
from arcface_edu.errors import ConfigError, DataError
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
from arcface_edu.evaluation.sources import embed_people, find_data, find_weights, pair_sets
from arcface_edu.evaluation.table import HEAD, benchmark, markdown
from arcface_edu.evaluation.verification import check_sizes, embed
from arcface_edu.models.weights import hash_of, load_model
from arcface_edu.training.precision import choose_device


@cli_main
def main(arguments=None):
    options = build_parser().parse_args(arguments)
    if (options.gallery is None) != (options.probes is None):
        raise ConfigError("a search takes both --gallery and --probes: name the other folder too.")
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

    for name, images, is_same in pair_sets(options.pairs, data, config):
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
    if not findings:
        where = f"beside the data in {data}" if data else "to be found without the data of a run"
        raise DataError(f"there is nothing to judge by: no .bin files {where}; name some with --pairs, or use --ijb.")

    trained_on = data.name if data else weights.stem
    accuracies = {finding.name: finding.numbers["accuracy"] for finding in findings if finding.kind == "pairs"}
    rows, ours, reasons = benchmark(trained_on, network, accuracies, ijbc)
    print("", markdown(HEAD, rows), *(f"no number for {reason}" for reason in reasons), sep="\n")

    facts = {
        "weights": str(weights),
        "SHA-256 of the weights": hash_of(weights),
        "network": f"{network}, {getattr(model, 'size', sum(p.numel() for p in model.parameters())):,} parameters",
        "preprocessing": "112 x 112 pixels, RGB, (x - 127.5) / 127.5, in float32; embeddings of image and mirror added",
        "date": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    if options.ijb:
        facts["IJB"] = f"aligned by five points; {options.switches}: {explain(options.switches)}"
    folder = options.output or folder
    write_files(folder, findings, facts, [dict(zip(HEAD, row, strict=True)) for row in rows], options.json)
    print(f"\nnumbers in {options.json or folder / 'results.json'}, pictures in {folder}/")
    if options.report:
        title = f"How well {network} {f'trained on {data.name}' if data else f'of {weights.name}'} knows faces"
        write_page(options.report, title, facts, (HEAD, rows, ours, reasons), findings)
        print(f"report in {options.report}")
    return findings


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a = parser.add_argument
    a("subject", type=Path, metavar="RUN|WEIGHTS", help="a run's folder, or a file .pt, .pth, .safetensors, .onnx")
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
