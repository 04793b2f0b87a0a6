"""An ONNX graph as the embedder. Its input and output are those of the networks here; onnxruntime computes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arcface_edu.errors import CheckpointError, from_extra

FACE = (3, 112, 112)


class OnnxGraph(nn.Module):
    """(B, 3, 112, 112) float RGB in [-1, 1] -> (B, D) float32, on the CPU, with as many threads as torch has.

    Args:
        source: an .onnx file, or the bytes of one.
        where: names it in errors.

    Attributes:
        metadata: the texts in the file, by their keys.
        size: numbers in its initializers, of all kinds.

    Raises:
        CheckpointError: It cannot be read, or its input or output is another.
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, source: Path | str | bytes, where: Path | str | None = None) -> None:
        super().__init__()
        where = where or ("the graph" if isinstance(source, bytes) else source)
        with from_extra("export", str(where)):
            import onnx
            import onnxruntime
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; its warnings are about how it optimises
        try:
            graph = onnx.load_model_from_string(content).graph
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each of the two packages has a dozen of its own
            why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise CheckpointError(
                f"{where} cannot be read as an ONNX graph ({why}): fetch it again, or export it anew."
            ) from None
        check_form(self.session, where)
        taken = self.session.get_inputs()[0]
        self.name, self.batch = taken.name, taken.shape[0] if isinstance(taken.shape[0], int) else None
        self.dtype = np.float16 if "float16" in taken.type else np.float32
        self.takes_pixels = scales_itself(graph)
        self.size = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.eval()

    def forward(self, faces: Tensor) -> Tensor:
        pixels = faces.cpu().contiguous().numpy()
        if self.takes_pixels:
            pixels = pixels * 127.5 + 127.5
        batch = self.batch or len(pixels)  # some files are for just one image at a time
        parts = [self._run(pixels[start : start + batch], batch) for start in range(0, len(pixels), batch)]
        return torch.from_numpy(np.concatenate(parts))

    def _run(self, faces: np.ndarray, batch: int) -> np.ndarray:
        filled = np.concatenate([faces, np.zeros((batch - len(faces), *FACE), faces.dtype)])
        return self.session.run(None, {self.name: filled.astype(self.dtype)})[0].astype(np.float32)[: len(faces)]


def check_form(session: Any, where: Path | str) -> None:
    """Raise CheckpointError unless the graph takes one batch of faces and gives one of embeddings."""
    taken, given = session.get_inputs(), session.get_outputs()
    if len(taken) != 1 or len(given) != 1:
        raise CheckpointError(
            f"{where} has {len(taken)} inputs and {len(given)} outputs, and a face embedder has one of each: is it a "
            f"detector, or a model for another task?"
        )
    (face,), (embedding,) = taken, given
    sides = face.shape[1:]
    if len(face.shape) != 4 or any(isinstance(x, int) and x != y for x, y in zip(sides, FACE, strict=True)):
        raise CheckpointError(
            f"{where} takes images of {shown(face.shape)}, and faces are aligned here to {shown(['batch', *FACE])}: "
            f"export it for that size and order."
        )
    if face.type not in ("tensor(float)", "tensor(float16)") or len(embedding.shape) != 2:
        raise CheckpointError(
            f"{where} turns {face.type} into {embedding.type} of {shown(embedding.shape)}; wanted is an embedder of "
            f"floats into (batch, dimensions)."
        )


def scales_itself(graph: Any) -> bool:
    """Return whether a graph scales pixels by itself: old ones, made with mxnet, begin with (x - 127.5) / 128.

    The rule is that of InsightFace's client: by the names of the first nodes.
    """
    names = [node.name for node in graph.node[:8]]
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul")) for name in names
    )


def shown(shape: Sequence[Any]) -> str:
    """Return a shape as text, with ? for an open size."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
