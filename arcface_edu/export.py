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
from pathlib import Path

import torch

from arcface_edu.cli import cli_main
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.recordio import written_beside
from arcface_edu.errors import ConfigError
from arcface_edu.evaluation.sources import find_weights
from arcface_edu.evaluation.table import markdown
from arcface_edu.evaluation.verification import check_sizes
from arcface_edu.exporting.facts import describe, drawn_pairs
from arcface_edu.exporting.hub import check_license, write_model_folder
from arcface_edu.exporting.to_onnx import INPUT, OPSET, OUTPUT, WholeEmbedding, check_parity, to_onnx
from arcface_edu.exporting.variants import FORMS, HEAD, measure
from arcface_edu.models.weights import hash_of, load_model


@cli_main
def main(arguments=None):
    options = build_parser().parse_args(arguments)
    if not options.onnx and not options.hub:
        raise ConfigError("nothing to write was named: add --onnx FILE or --hub DIR.")
    check_license(options.license)
    weights, config, _ = find_weights(options.subject)
    if weights.suffix == ".onnx":
        raise ConfigError(f"{weights} is an ONNX graph already: name the weights or the run that it is of.")
    model, network = load_model(
        weights, options.network or config.get("network"), options.embedding_size or config.get("embedding_size")
    )
    if options.hub:
        write_hub(options, model, network, weights, config)
    if options.onnx:
        write_onnx(options, model, describe(model, network, hash_of(weights), config))


def write_hub(options, model, network, weights, config):
    """The model folder, and what its owner may still want to say."""
    run = options.subject if weights.name == "model.pt" and options.subject.is_dir() else None
    write_model_folder(options.hub, model, network, weights, config, run, options.license, options.overwrite)
    print(f"{options.hub}: model.safetensors, config.json and README.md, the model card; nothing was uploaded")
    if not options.license:
        print("no licence was named, and the card says so: choose one with --license, as --license mit")


def write_onnx(options, model, facts):
    """The graph and its other forms, and the table of what each costs and loses."""
    images, is_same = read_pairs(options.pairs) if options.pairs else drawn_pairs()
    check_sizes(images, options.pairs)
    if options.whole:
        model = WholeEmbedding(model).eval()
        facts |= dict(embedding="image and mirror added, length 1")
    contents = {"onnx": to_onnx(model, facts)}
    check_parity(model, contents["onnx"], images[:8])
    contents |= {form: to_form(contents["onnx"]) for form, to_form in FORMS.items() if getattr(options, form)}
    rows = measure(model, contents, images, is_same, flip=not options.whole)
    for form, content in contents.items():
        path = options.onnx if form == "onnx" else options.onnx.with_stem(f"{options.onnx.stem}_{form}")
        with written_beside(path) as file:
            file.write(content)
        print(f"{path}: opset {OPSET}, input {INPUT} (batch, 3, 112, 112), output {OUTPUT} (batch, dimensions)")
    judged_on = f"{len(is_same):,} pairs of {options.pairs.name if options.pairs else 'drawn faces'}"
    print(f"\n{markdown(HEAD, rows)}")
    print(f"\ndegrees: between the embeddings of a form and torch's; these and the accuracy on {judged_on};")
    print(f"times on this machine's CPU with {torch.get_num_threads()} of its cores, median over about a second")


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m arcface_edu.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a = parser.add_argument
    a(
        "subject",
        type=Path,
        metavar="RUN|WEIGHTS",
        help="a run's or a model's folder, or a file of weights (.pt, .pth, .safetensors)",
    )
    a("--onnx", type=Path, metavar="FILE", help="write an ONNX graph there")
    a("--hub", type=Path, metavar="DIR", help="write a model folder there")
    a("--license", metavar="ID", help="of the weights, in the hub's words: mit, apache-2.0, cc-by-nc-4.0, other ...")
    a("--overwrite", action="store_true", help="replace the model that is in DIR")
    a("--whole", action="store_true", help="in the graph: add the mirror's embedding, and normalise to length 1")
    a("--fp16", action="store_true", help="also FILE_fp16.onnx, half the size")
    a("--int8", action="store_true", help="also FILE_int8.onnx, a quarter of the size (dynamic quantisation)")
    a("--pairs", type=Path, metavar="BIN", help="pairs to judge the forms on; drawn faces if none")
    a("--network", help="of bare weights, where their shapes do not tell: r18 r50 r100 ...")
    a("--embedding-size", type=int, metavar="D", help="likewise")
    return parser


if __name__ == "__main__":
    main()
