"""What an ONNX graph of others wants of its input: which inputs it uses, in which range its pixels are, its files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from arcface_edu.errors import CheckpointError

RANGES = {"[-1, 1]": (1.0, 0.0), "[0, 1]": (0.5, 0.5), "[0, 255]": (127.5, 127.5)}  # scale and shift from [-1, 1]
UNCHANGED = ("Identity", "Cast", "Transpose", "Dropout")  # nodes that change no value
SMALL = 64  # numbers at most in a constant that is looked at


def data_files(graph: Any, folder: Path | None, where: object) -> list[Path]:
    """Return the files beside a graph that hold its weights, where they are not in the graph's own file.

    Raises:
        CheckpointError: One is not there, or lies outside of the graph's folder.
    """
    entries = [entry for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"]
    names = list(dict.fromkeys(entry.value for entry in entries))
    for name in names:
        if folder is None or Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{where} keeps weights in {name}, outside of its folder, and is not read.")
        if not (folder / name).is_file():
            raise CheckpointError(f"{where} keeps its weights in {folder / name}, which is not there: copy it too.")
    return [folder / name for name in names if folder]


def used_names(graph: Any) -> set[str]:
    """Return the names of all values that a graph's nodes take, those of graphs within them too."""
    names = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for inner in (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")):
        names |= used_names(inner)
    return names


def range_of(graph: Any, name: str) -> str | None:
    """Return the range of pixels that a graph's first nodes bring to about [-1, 1], or None where they say nothing.

    Args:
        graph: whose first nodes may subtract, add, multiply and divide by constants, or normalise each channel.
        name: of its input.

    Returns:
        A key of RANGES.
    """
    scale, shift = np.ones(1), np.zeros(1)  # of each channel
    steps = 0
    for scale, shift in _first_steps(graph, name):  # noqa: B007  (the last one counts)
        steps += 1
    if not steps or not scale.all():
        return None
    centre, half = float((-shift / scale).mean()), float(abs(1 / scale).mean())
    if max(centre, half) > 20:
        return "[0, 255]"
    return "[0, 1]" if 0.25 < centre < 0.75 and half < 1 else "[-1, 1]"


def _first_steps(graph: Any, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scale and shift of the input after each of the first nodes that compute nothing else."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer if not tensor.external_data}
    tensors |= {
        n.output[0]: a.t for n in graph.node for a in n.attribute if n.op_type == "Constant" and a.name == "value"
    }

    def constant(of_name: str) -> np.ndarray | None:
        tensor = tensors.get(of_name)
        if tensor is None or int(np.prod(tensor.dims)) > SMALL:
            return None
        values = np.asarray(numpy_helper.to_array(tensor), np.float64).reshape(-1)
        return values if len(values) in (1, 3) else None

    scale, shift = np.ones(1), np.zeros(1)
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        users = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(users) != 1:
            return
        node, name = users[0], users[0].output[0]
        if node.op_type in UNCHANGED:
            continue
        values = [constant(of_name) for of_name in node.input]
        if node.op_type in LINEAR and len(values) == 2 and (values[0] is None) != (values[1] is None):
            first, second = values
            other = second if first is None else first
            assert other is not None
            if first is not None and node.op_type == "Div":  # a constant by pixels
                return
            if first is not None and node.op_type == "Sub":
                scale, shift, other = -scale, -shift, -other
            scale, shift = LINEAR[node.op_type](scale, shift, other)
        elif node.op_type == "BatchNormalization":
            known = [value for value in values[1:] if value is not None]
            if len(known) != 4:
                return
            gamma, beta, mean, variance = known
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            factor = gamma / np.sqrt(variance + epsilon)
            scale, shift = scale * factor, (shift - mean) * factor + beta
        else:
            return
        yield scale, shift


Step = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
LINEAR: dict[str, Step] = {
    "Add": lambda scale, shift, value: (scale, shift + value),
    "Sub": lambda scale, shift, value: (scale, shift - value),
    "Mul": lambda scale, shift, value: (scale * value, shift * value),
    "Div": lambda scale, shift, value: (scale / value, shift / value),
}


def range_by_probes(run: Callable[[np.ndarray], np.ndarray]) -> str:
    """Return the range in which a graph tells two pictures apart, where its nodes do not say it.

    A network that is given [-1, 1] and brings pixels to [-1, 1] by itself sees nearly the same grey in every picture:
    its embeddings of two pictures then differ by about a hundredth of what they differ by in pixels.

    Args:
        run: float32 (2, 3, 112, 112) -> (2, D).
    """
    coarse = np.random.default_rng(0).uniform(-1, 1, (2, 3, 7, 7))
    pictures = coarse.repeat(16, 2).repeat(16, 3).astype(np.float32)  # in large squares

    def difference(scale: float, shift: float) -> float:
        one, other = run(pictures * np.float32(scale) + np.float32(shift)).astype(np.float64)
        return float(np.linalg.norm(one - other) / max(np.linalg.norm(one) + np.linalg.norm(other), 1e-30))

    # Of r10, r18, r50, mbf and vit_t the quotient is 1.1 to 2.6 without a normalisation and at most 0.025 with one.
    return "[0, 255]" if difference(*RANGES["[-1, 1]"]) < 0.15 * difference(*RANGES["[0, 255]"]) else "[-1, 1]"
