"""Judge a network by the field's own protocols, with a report that others can trust.

    python -m arcface_edu.evaluate runs/drawn_faces                       a run: on the pairs beside its data
    python -m arcface_edu.evaluate backbone.pth --pairs lfw.bin cfp_fp.bin agedb_30.bin      published weights
    python -m arcface_edu.evaluate backbone.pth --pairs data/ms1mv3       every .bin file in a folder
    python -m arcface_edu.evaluate backbone.pth --ijb IJBC                IJB-C: a folder with meta/ and loose_crop/
    python -m arcface_edu.evaluate runs/drawn_faces --gallery staff/ --probes visitors/      who is this?
    python -m arcface_edu.evaluate runs/drawn_faces --groups groups.csv   error rates by group, at one threshold
    python -m arcface_edu.evaluate runs/drawn_faces --report out.html     all of it as one page, to send by mail

It prints every number with its scatter, and the row of the benchmark table between the published ones. Numbers for
programs (results.json) and pictures go to RUN/evaluation/, or for a file of weights to evaluation/NAME/.
"""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path

from arcface_edu.cli import add_inference_flags, add_model_flags, cli_main, command_parser, parse_args
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.evaluation.finding import Finding
from arcface_edu.evaluation.judge import explain, judge_all, pair_sets
from arcface_edu.evaluation.report import compare, text_of, write_files, write_page
from arcface_edu.models.weights import hash_of
from arcface_edu.runs import load_model, resolve
from arcface_edu.training.people import people_to_judge
from arcface_edu.training.precision import choose_device


@cli_main
def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Judge a network, print and write what was found, and return it."""
    options = parse_args(build_parser(), argv)
    if (options.gallery is None) != (options.probes is None):
        raise ConfigError("a search takes both --gallery and --probes: name the other folder too.")
    if options.list and not options.groups:
        raise ConfigError("--list says who is in the pairs of --groups: name that CSV as well.")
    source = resolve(options.subject)
    model, network = load_model(source, options.network, options.embedding_size)
    data, findings = source.data, []
    data = data.parent if data and data.is_file() else data  # rec names the .rec file in it
    people = None
    if data and not options.pairs and source.config.get("hold_out"):
        people = people_to_judge(source.path, data)
    sets = list(pair_sets(options.pairs, data, source.config, people))
    if options.groups and len(sets) != 1:
        raise ConfigError(f"--groups is about one set of pairs, and there are {len(sets)}: name one with --pairs.")
    for finding in judge_all(
        model.to(choose_device(options.device)),
        sets,
        options.ijb,
        (options.gallery, options.probes) if options.gallery else None,
        options.switches,
        options.batch_size,
        options.workers,
        options.reject,
        (options.groups, options.list) if options.groups else None,
    ):
        print(text_of(finding))
        findings.append(finding)
    if not findings:
        where = f"beside the data in {data}" if data else "to be found without the data of a run"
        raise DataError(f"there is nothing to judge by: no .bin files {where}; name some with --pairs, or use --ijb.")
    leaderboard = compare(findings, data.name if data else source.name, network)
    print(f"\n{leaderboard.as_text()}")

    parameters = getattr(model, "size", None) or sum(parameter.numel() for parameter in model.parameters())
    wants = getattr(model, "wants", "[-1, 1]")
    wanted = "(x - 127.5) / 127.5" if wants == "[-1, 1]" else f"in {wants}, normalised in the graph"
    facts = {
        "weights": str(source.weights),
        "SHA-256 of the weights": hash_of(*getattr(model, "files", (source.weights,))),
        "network": f"{network}, {parameters:,} parameters",
        "preprocessing": f"112 x 112 pixels, RGB, in float32, {wanted}; embeddings of image and mirror added",
        "date": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    if options.ijb:
        facts["IJB"] = f"aligned by five points; {options.switches}: {explain(options.switches)}"
    folder = options.output or source.results_folder
    numbers = write_files(folder, findings, facts, leaderboard, options.json)
    print(f"\nnumbers in {numbers}, pictures in {folder}/")
    if options.report:
        title = f"How well {network} {f'trained on {data.name}' if data else f'of {source.weights.name}'} knows faces"
        write_page(options.report, title, facts, leaderboard, findings)
        print(f"report in {options.report}")
    return findings


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("evaluate", __doc__)
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
    a("--reject", action="store_true", help="of pairs: what turning away the worst images would bring")
    a("--groups", type=Path, metavar="CSV", help="error rates by group: columns image (number in the .bin, from 0) and "
      "one or more groups, perhaps person; or person and groups, with --list")  # fmt: skip
    a("--list", type=Path, metavar="TXT", help="for --groups: the list in LFW's form that the pairs were made of")
    a("--report", type=Path, metavar="HTML", help="write one self-contained page")
    add_model_flags(parser)
    add_inference_flags(parser)
    a("--workers", type=int, default=2, metavar="N", help="processes that read and align IJB images (2)")
    return parser


if __name__ == "__main__":
    main()
