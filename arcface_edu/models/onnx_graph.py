"""An ONNX graph as the embedder. Its input and output are those of the networks here; onnxruntime computes it.

Graphs of others are taken as they are where it is plain what they want: weights in a file beside the graph, inputs that
nothing uses, images as (batch, height, width, channels), pixels of [0, 255] or [0, 1], several outputs of which one is
the embedding, a fixed number of images at a time. What is done for a graph is logged.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arcface_edu.errors import CheckpointError, from_extra
from arcface_edu.models.onnx_input import RANGES, data_files, range_by_probes, range_of, used_names

log = logging.getLogger(__name__)

FACE = (3, 112, 112)
LAST = (112, 112, 3)  # of a graph that has channels last
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
TYPES: dict[str, Any] = FLOATS | {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
TYPES |= {"tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}


class OnnxGraph(nn.Module):
    """(B, 3, 112, 112) float RGB in [-1, 1] -> (B, D) float32, on the CPU, with as many threads as torch has.

    Args:
        source: an .onnx file, or the bytes of one.
        where: names it in errors.

    Attributes:
        metadata: the texts in the file, by their keys.
        size: numbers in its initializers, of all kinds.
        files: the .onnx file and those beside it that hold its weights; [] of bytes.
        wants: the range of its pixels, a key of RANGES.

    Raises:
        CheckpointError: It cannot be read, or its input or output is another.
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, source: Path | str | bytes, where: Path | str | None = None) -> None:
        super().__init__()
        where = where or ("the graph" if isinstance(source, bytes) else source)
        with from_extra("export", str(where)):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        path = None if isinstance(source, bytes) else Path(source)
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            self._open(content, path, where)
        except CheckpointError:
            raise
        except Exception as error:  # each of the two packages has a dozen of its own
            why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise CheckpointError(
                f"{where} cannot be read as an ONNX graph ({why}): fetch it again, or export it anew."
            ) from None
        self.eval()

    def _open(self, content: bytes, path: Path | None, where: Path | str) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; its warnings are about how it optimises
        graph = onnx.load_model_from_string(content).graph
        beside = data_files(graph, path and path.parent, where)
        self.session = onnxruntime.InferenceSession(
            str(path) if beside else content, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
        self.files = [path, *beside] if path else []
        self.size = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        inputs, outputs, used = self.session.get_inputs(), self.session.get_outputs(), used_names(graph)
        image, output, self.channels_last = check_form([one for one in inputs if one.name in used], outputs, where)
        self.unused = {one.name: _zeros(one) for one in inputs if one.name not in used}
        self.name, self.output, self.dtype = image.name, output.name, FLOATS[image.type]
        self.batch = image.shape[0] if isinstance(image.shape[0], int) else None
        self.wants = "[-1, 1]"
        found = range_of(graph, self.name)
        if found is None and not {"mean", "std"} <= self.metadata.keys():  # as our own export says them
            found = range_by_probes(lambda pictures: self(torch.from_numpy(pictures)).numpy())
        self.wants = found or self.wants
        self._say_what_is_done(where, len(outputs))

    def _say_what_is_done(self, where: Path | str, outputs: int) -> None:
        done = []
        if self.wants != "[-1, 1]":
            done.append(f"it normalises pixels by itself, and gets them in {self.wants}")
        if self.channels_last:
            done.append("its channels come last")
        if outputs > 1:
            done.append(f'of its {outputs} outputs "{self.output}" is taken, the one of (batch, dimensions)')
        if self.unused:
            done.append(f"{len(self.unused)} inputs that no node uses get zeros")
        if done:
            log.info(f"{where}: {'; '.join(done)}.")

    def forward(self, faces: Tensor) -> Tensor:
        scale, shift = RANGES[self.wants]
        on_cpu = faces.cpu()
        pixels = (on_cpu.permute(0, 2, 3, 1) if self.channels_last else on_cpu).contiguous().numpy()
        if self.wants != "[-1, 1]":
            pixels = pixels * np.float32(scale) + np.float32(shift)
        batch = self.batch or len(pixels)  # some files are for just one image at a time
        parts = [self._run(pixels[start : start + batch], batch) for start in range(0, len(pixels), batch)]
        return torch.from_numpy(np.concatenate(parts))

    def _run(self, faces: np.ndarray, batch: int) -> np.ndarray:
        filled = np.concatenate([faces, np.zeros((batch - len(faces), *faces.shape[1:]), faces.dtype)])
        feed = self.unused | {self.name: filled.astype(self.dtype)}
        return self.session.run([self.output], feed)[0].astype(np.float32)[: len(faces)]


def check_form(taken: Sequence[Any], given: Sequence[Any], where: Path | str) -> tuple[Any, Any, bool]:
    """Return the input for the faces, the output of the embeddings, and whether the channels of a face come last.

    Args:
        taken, given: onnxruntime's descriptions of the inputs that are used, and of the outputs.

    Raises:
        CheckpointError: It is not plain which they are, or they are of another shape.
    """
    embeddings = [one for one in given if len(one.shape) == 2 and one.shape[1] != 1 and one.type in FLOATS]
    if len(taken) != 1 or (len(given) != 1 and len(embeddings) != 1):
        raise CheckpointError(
            f"{where} has {len(taken)} inputs and {len(given)} outputs, and a face embedder has one of each: is it a "
            f"detector, or a model for another task?"
        )
    (face,), embedding = taken, given[0] if len(given) == 1 else embeddings[0]
    orders = [order for order in (FACE, LAST) if _fits(face.shape, order)]
    if not orders:
        raise CheckpointError(
            f"{where} takes images of {shown(face.shape)}, and faces are aligned here to {shown(['batch', *FACE])}: "
            f"export it for that size."
        )
    if face.type not in FLOATS or len(embedding.shape) != 2:
        raise CheckpointError(
            f"{where} turns {face.type} into {embedding.type} of {shown(embedding.shape)}; wanted is an embedder of "
            f"floats into (batch, dimensions)."
        )
    return face, embedding, orders[0] == LAST


def _fits(shape: Sequence[Any], order: Sequence[int]) -> bool:
    """Return whether (batch, ...) may be of an order, with names for sizes that are left open."""
    return len(shape) == 4 and all(not isinstance(x, int) or x == y for x, y in zip(shape[1:], order, strict=True))


def _zeros(one: Any) -> np.ndarray:
    return np.zeros([size if isinstance(size, int) else 1 for size in one.shape], TYPES.get(one.type, np.float32))


def shown(shape: Sequence[Any]) -> str:
    """Return a shape as text, with ? for an open size."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
