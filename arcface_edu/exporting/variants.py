"""Smaller forms of an ONNX graph, and what each form costs and loses, measured."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from arcface_edu.errors import from_extra
from arcface_edu.evaluation.verification import embed, verify_pairs
from arcface_edu.models.onnx_graph import OnnxGraph

HEAD = ("form", "MB", "ms, 1 image", "ms an image, 32 at once", "degrees off", "at most", "accuracy")


def to_fp16(content):
    """Weights and arithmetic in fp16; input and output stay float32.  bytes of an ONNX file -> the same."""
    with from_extra("export", "fp16"):
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel
    model = OnnxModel(convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True))
    model.topological_sort()  # the cast of the input stands at the end, where the standard does not allow it
    return model.model.SerializeToString()


def to_int8(content):
    """Weights in 8 bits, and activations too, on a scale found anew for each image batch (dynamic quantisation)."""
    with from_extra("export", "int8"):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process
    with tempfile.TemporaryDirectory() as folder:
        ready, file = Path(folder) / "ready.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(onnx.load_model_from_string(content), ready)  # folds BN into convolutions, among others
        quantize_dynamic(ready, file, weight_type=QuantType.QUInt8)
        return file.read_bytes()


FORMS = {"fp16": to_fp16, "int8": to_int8}


def measure(model, contents, images, is_same, flip):
    """Rows of texts under HEAD: the network in torch, then each graph.

    contents: dict form -> bytes of an ONNX file.   images, is_same: a pair set.   flip: embed the mirrors too.
    """
    rows, ours = [], None
    for form, content in (("torch", None), *contents.items()):
        one = OnnxGraph(content) if content else model
        size = len(content) if content else 4 * sum(p.numel() for p in model.parameters())
        embeddings = embed(one, images, flip=flip, progress=f"embedding, {form}")
        ours = embeddings if ours is None else ours
        off = F.cosine_similarity(ours.double(), embeddings.double()).clamp(-1, 1).arccos().rad2deg()  # (2N,)
        accuracy = verify_pairs(embeddings, is_same)["accuracy"]
        times = [f"{milliseconds(one, batch) / batch:.2f}" for batch in (1, 32)]
        rows.append((form, f"{size / 1e6:.1f}", *times, f"{off.mean():.2f}", f"{off.max():.2f}", f"{accuracy:.2%}"))
    return rows


def milliseconds(model, batch, seconds=1.0):
    """Median time of a forward pass over so many images; about so long is spent on finding it."""
    faces = torch.rand(batch, 3, 112, 112) * 2 - 1
    times, until = [], time.perf_counter() + seconds
    with torch.inference_mode():
        model(faces)  # the first is slower
        while len(times) < 3 or time.perf_counter() < until:
            began = time.perf_counter()
            model(faces)
            times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))
