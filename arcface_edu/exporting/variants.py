"""Smaller forms of an ONNX graph, and what each form costs and loses, measured."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_edu.errors import from_extra
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.verification import verify_pairs
from arcface_edu.exporting.to_onnx import check_parity, to_onnx
from arcface_edu.io import write_together
from arcface_edu.models.onnx_graph import OnnxGraph

HEAD = ("form", "MB", "ms, 1 image", "ms an image, 32 at once", "degrees off", "at most", "accuracy")


def to_fp16(content: bytes) -> bytes:
    """Return an ONNX file with weights and arithmetic in fp16; input and output stay float32."""
    with from_extra("export", "fp16"):
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel
    model = OnnxModel(convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True))
    model.topological_sort()  # the cast of the input stands at the end, where the standard does not allow it
    return model.model.SerializeToString()


def to_int8(content: bytes) -> bytes:
    """Return an ONNX file of 8-bit weights and activations, these scaled anew for each batch (dynamic quantisation)."""
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


def write_forms(
    path: Path,
    model: nn.Module,
    metadata: Mapping[str, str],
    forms: Sequence[str],
    images: Sequence[bytes],
    is_same: np.ndarray,
    flip: bool,
) -> tuple[list[Path], list[tuple[str, ...]]]:
    """Write a network as an ONNX graph that is proven to compute the same, and its smaller forms beside it.

    Args:
        path: of the graph; a form's name is added to it, as face_fp16.onnx.
        forms: names in FORMS.
        images, is_same: a pair set to judge the forms on, 2N encoded faces and (N,).
        flip: embed the mirrors too.

    Returns:
        The files, and the rows of a table under HEAD.

    Raises:
        ConfigError, ExportError: as `to_onnx` and `check_parity`; then nothing is written.
    """
    contents = {"onnx": to_onnx(model, metadata)}
    check_parity(model, contents["onnx"], images[:8])
    contents |= {form: FORMS[form](contents["onnx"]) for form in forms}
    rows = compare_forms(model, contents, images, is_same, flip)
    paths = [path, *(path.with_stem(f"{path.stem}_{form}") for form in forms)]
    write_together(dict(zip(paths, contents.values(), strict=True)))
    return paths, rows


def compare_forms(
    model: nn.Module, contents: Mapping[str, bytes], images: Sequence[bytes], is_same: np.ndarray, flip: bool
) -> list[tuple[str, ...]]:
    """Return rows of texts under HEAD: the network in torch, then each form of its ONNX file."""
    rows = []
    ours: Tensor | None = None
    for form, content in (("torch", None), *contents.items()):
        one = OnnxGraph(content) if content else model
        size = len(content) if content else 4 * sum(parameter.numel() for parameter in model.parameters())
        embeddings = embed_images(one, images, flip=flip, progress=f"embedding, {form}")
        ours = embeddings if ours is None else ours
        off = F.cosine_similarity(ours.double(), embeddings.double()).clamp(-1, 1).arccos().rad2deg()  # (2N,)
        accuracy = verify_pairs(embeddings, is_same)["accuracy"]
        times = [f"{milliseconds(one, batch) / batch:.2f}" for batch in (1, 32)]
        rows.append((form, f"{size / 1e6:.1f}", *times, f"{off.mean():.2f}", f"{off.max():.2f}", f"{accuracy:.2%}"))
    return rows


def milliseconds(model: nn.Module, batch: int, seconds: float = 1.0) -> float:
    """Return the median time of a forward pass over so many images, measured for about `seconds`."""
    faces = torch.rand(batch, 3, 112, 112) * 2 - 1
    times: list[float] = []
    until = time.perf_counter() + seconds
    with torch.inference_mode():
        model(faces)  # the first is slower
        while len(times) < 3 or time.perf_counter() < until:
            began = time.perf_counter()
            model(faces)
            times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))
