"""Write a trained network for others: as an ONNX graph, or as a model folder.

    python -m arcface_edu.export runs/drawn_faces --onnx face.onnx                 a run's network, for any batch size
    python -m arcface_edu.export backbone.pth --onnx face.onnx --whole             mirror and normalisation inside
    python -m arcface_edu.export runs/drawn_faces --onnx face.onnx --fp16 --int8   also face_fp16.onnx, face_int8.onnx
    python -m arcface_edu.export backbone.pth --onnx face.onnx --pairs lfw.bin     judge what each form loses on these
    python -m arcface_edu.export runs/drawn_faces --hub face-r10 --license mit     a folder as a model hub takes it

A graph is written only if onnxruntime computes with it what torch does. Input "input.1": (batch, 3, 112, 112) float32,
RGB, (x - 127.5) / 127.5; that, the hash of the weights and the config of the run stand in its metadata.
The folder holds model.safetensors, config.json and a model card, README.md, with what the run's own files say of data,
training and results. Every command here takes it as it takes a run. Nothing is uploaded.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from arcface_edu.cli import add_model_flags, cli_main, command_parser, parse_args
from arcface_edu.data.bins import check_sizes, read_pairs
from arcface_edu.errors import ConfigError
from arcface_edu.evaluation.leaderboard import markdown
from arcface_edu.exporting.facts import drawn_pairs, onnx_metadata
from arcface_edu.exporting.hub import check_license, write_model_folder
from arcface_edu.exporting.to_onnx import INPUT, IR, OPSET, OUTPUT, WholeEmbedding
from arcface_edu.exporting.variants import FORMS, HEAD, write_forms
from arcface_edu.models.weights import hash_of
from arcface_edu.runs import load_model, resolve


@cli_main
def main(argv: Sequence[str] | None = None) -> None:
    """Write what was asked for, and print what each form costs and loses."""
    options = parse_args(build_parser(), argv)
    if not options.onnx and not options.hub:
        raise ConfigError("nothing to write was named: add --onnx FILE or --hub DIR.")
    check_license(options.license)
    source = resolve(options.subject)
    if source.weights.suffix == ".onnx":
        raise ConfigError(f"{source.weights} is an ONNX graph already: name the weights or the run that it is of.")
    model, network = load_model(source, options.network, options.embedding_size)
    if options.hub:
        how = options.license, options.overwrite, options.fp16
        write_model_folder(options.hub, model, network, source, *how)
        print(f"{options.hub}: model.safetensors, config.json and README.md, the model card; nothing was uploaded")
        if not options.license:
            print("no licence was named, and the card says so: choose one with --license, as --license mit")
    if options.onnx:
        write_onnx(options, model, onnx_metadata(model, network, hash_of(source.weights), source.config))


def write_onnx(options: argparse.Namespace, model: nn.Module, metadata: dict[str, str]) -> None:
    """Write the graph and its other forms, and print the table."""
    images, is_same = read_pairs(options.pairs) if options.pairs else drawn_pairs()
    check_sizes(images, str(options.pairs))
    if options.whole:
        model = WholeEmbedding(model).eval()
        metadata |= dict(embedding="image and mirror added, length 1")
    forms = [form for form in FORMS if getattr(options, form)]
    paths, rows = write_forms(options.onnx, model, metadata, forms, images, is_same, flip=not options.whole)
    for path in paths:
        print(
            f"{path}: opset {OPSET}, IR {IR}, input {INPUT} (batch, 3, 112, 112), output {OUTPUT} (batch, dimensions)"
        )
    judged_on = f"{len(is_same):,} pairs of {options.pairs.name if options.pairs else 'drawn faces'}"
    print(f"\n{markdown(HEAD, rows)}")
    print(f"\ndegrees: between the embeddings of a form and torch's; these and the accuracy on {judged_on};")
    print(f"times on this machine's CPU with {torch.get_num_threads()} of its cores, median over about a second")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("export", __doc__)
    a = parser.add_argument
    formats = ".pt, .pth, .safetensors"
    a(
        "subject",
        type=Path,
        metavar="RUN|WEIGHTS",
        help=f"a run's or a model's folder, or a file of weights ({formats})",
    )
    a("--onnx", type=Path, metavar="FILE", help="write an ONNX graph there")
    a("--hub", type=Path, metavar="DIR", help="write a model folder there")
    a("--license", metavar="ID", help="of the weights, in the hub's words: mit, apache-2.0, cc-by-nc-4.0, other ...")
    a("--overwrite", action="store_true", help="replace the model that is in DIR")
    a("--whole", action="store_true", help="in the graph: add the mirror's embedding, and normalise to length 1")
    a("--fp16", action="store_true", help="also FILE_fp16.onnx, half the size; the weights in DIR likewise")
    a("--int8", action="store_true", help="also FILE_int8.onnx, a quarter of the size (dynamic quantisation)")
    a("--pairs", type=Path, metavar="BIN", help="pairs to judge the forms on; drawn faces if none")
    add_model_flags(parser)
    return parser


if __name__ == "__main__":
    main()
