"""A network as an ONNX graph, proven to compute the same."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_edu.errors import ExportError, from_extra
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.models.onnx_graph import OnnxGraph

OPSET, IR = 18, 8  # the oldest that torch.onnx writes, and the IR of its time: onnxruntime reads them from 1.14 on
INPUT, OUTPUT = "input.1", "embedding"  # the first is what InsightFace's recognition models call it
COSINE = 0.99999  # below, two computations are not of one network


class WholeEmbedding(nn.Module):
    """A network and what the protocols do after it: mirror added, length 1.  (B, 3, 112, 112) -> (B, D)"""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, faces: Tensor) -> Tensor:
        both = self.network(torch.cat([faces, faces.flip(3)]))  # (2B, D)
        return F.normalize(both.unflatten(0, (2, -1)).sum(0))


def to_onnx(model: nn.Module, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file of `model`, for a batch of any size.

    Args:
        model: (B, 3, 112, 112) -> (B, D), in eval mode.
        metadata: texts that the file keeps.

    Raises:
        ConfigError: onnx or onnxscript is not installed.
        ExportError: torch.onnx cannot export the network.
    """
    with from_extra("export", "an ONNX export"):
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it, and fails with less clear words)
    faces = torch.zeros(2, 3, 112, 112)
    names: dict[str, Any] = dict(input_names=[INPUT], output_names=[OUTPUT])
    names["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    try:
        program = torch.onnx.export(model, (faces,), dynamo=True, opset_version=OPSET, verbose=False, **names)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch.onnx cannot export this network: {str(error).strip().splitlines()[0]}") from error
    assert program is not None  # dynamo=True returns one
    proto = program.model_proto
    strip_stack_traces(proto.graph)
    proto.ir_version = IR
    facts = {**metadata, "opset": OPSET, "ir_version": IR}
    onnx.helper.set_model_props(proto, {key: str(value) for key, value in facts.items()})
    return proto.SerializeToString()


def strip_stack_traces(graph: Any) -> None:
    """Remove the stack traces that the exporter leaves at each node: paths of this machine, and half the size."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def check_parity(model: nn.Module, content: bytes, photographs: Sequence[bytes]) -> None:
    """Raise ExportError unless graph and network compute the same embeddings, for batches of one, three and all.

    Args:
        content: an ONNX file.
        photographs: encoded faces; as many pictures of noise are compared too.
    """
    graph = OnnxGraph(content, "the exported graph")
    noise = torch.randint(0, 256, (len(photographs), 3, 112, 112), dtype=torch.uint8, generator=torch.Generator())
    for name, images in (("faces", photographs), ("noise", noise)):
        for size in (1, 3, len(images)):
            ours, theirs = (embed_images(one, images[:size], flip=False).double() for one in (model, graph))
            worst = F.cosine_similarity(ours, theirs).min().item()
            if not worst > COSINE:
                raise ExportError(
                    f"the exported graph gives other embeddings than the network: on {name}, {size} at a time, their "
                    f"cosine is {worst:.6f} instead of more than {COSINE}. Nothing was written."
                )
