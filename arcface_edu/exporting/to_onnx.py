"""A network as an ONNX graph, proven to compute the same."""

import torch
from torch import nn
from torch.nn import functional as F

from arcface_edu.errors import ExportError, from_extra
from arcface_edu.evaluation.verification import embed
from arcface_edu.models.onnx_graph import OnnxGraph

OPSET = 20  # PyTorch's own choice
INPUT, OUTPUT = "input.1", "embedding"  # the first is what InsightFace's recognition models call it
COSINE = 0.99999  # below, two computations are not of one network


class WholeEmbedding(nn.Module):
    """A network and what follows it: image and mirror added, on the unit sphere.  (B, 3, 112, 112) -> (B, D)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, faces):
        both = self.network(torch.cat([faces, faces.flip(3)]))  # (2B, D)
        return F.normalize(both.unflatten(0, (2, -1)).sum(0))


def to_onnx(model, metadata):
    """The bytes of an ONNX file of `model`, for a batch of any size.

    model: (B, 3, 112, 112) -> (B, D), in eval mode.   metadata: dict of texts.   raises: ConfigError, ExportError.
    """
    with from_extra("export", "an ONNX export"):
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it, and fails with less clear words)
    faces = torch.zeros(2, 3, 112, 112)
    names = dict(input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: torch.export.Dim("batch")},))
    try:
        program = torch.onnx.export(model, (faces,), dynamo=True, opset_version=OPSET, verbose=False, **names)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch.onnx cannot export this network: {str(error).strip().splitlines()[0]}") from error
    proto = program.model_proto
    forget_origin(proto.graph)
    onnx.helper.set_model_props(proto, {key: str(value) for key, value in metadata.items()})
    return proto.SerializeToString()


def forget_origin(graph):
    """Take out the stack traces that the exporter leaves at each node: paths of this machine, and half the size."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def check_parity(model, content, photographs):
    """Raise ExportError unless graph and network give the same embeddings, for batches of one, three and all.

    content: bytes of an ONNX file.   photographs: encoded faces, to which as many pictures of noise are added.
    """
    graph = OnnxGraph(content, "the exported graph")
    noise = torch.randint(0, 256, (len(photographs), 3, 112, 112), dtype=torch.uint8, generator=torch.Generator())
    for name, images in (("faces", photographs), ("noise", noise)):
        for size in (1, 3, len(images)):
            ours, theirs = (embed(one, images[:size], flip=False).double() for one in (model, graph))
            worst = F.cosine_similarity(ours, theirs).min().item()
            if not worst > COSINE:
                raise ExportError(
                    f"the exported graph gives other embeddings than the network: on {name}, {size} at a time, their "
                    f"cosine is {worst:.6f} instead of more than {COSINE}. Nothing was written."
                )
