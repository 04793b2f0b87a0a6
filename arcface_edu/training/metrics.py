"""What a run logs: averages over an interval of steps, and metrics.jsonl, which keeps them."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from arcface_edu.io import parse_json, write_text_atomically
from arcface_edu.training.collectives import all_reduce_sum, is_distributed

if TYPE_CHECKING:
    from arcface_edu.training.state import StepResult

BINS = 90  # of 2 degrees each, over 0 ... 180


class Meter:
    """Averages over the steps since the last line of the log.

    The sums stay on the device: to add a step, nothing has to wait for it.
    """

    def __init__(self, device: torch.device) -> None:
        # Of loss * images, of target angles in degrees; of gradient norms, and how many they were.
        self.sums = torch.zeros(4, device=device)
        self.histogram = torch.zeros(BINS, device=device)  # of target angles
        self.reset()

    def reset(self) -> None:
        self.sums.zero_()
        self.histogram.zero_()
        self.images = 0
        self.began = time.perf_counter()
        self.waited = 0.0  # seconds in which the next batch was not there yet

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time within it as time without a batch."""
        began = time.perf_counter()
        with record_function("waiting for data"):
            yield
        self.waited += time.perf_counter() - began

    @torch.no_grad()
    def update(self, result: "StepResult") -> None:
        """Add what one step left: losses, angles to the class centres without margin, the norm of the gradient."""
        for loss, target_cosine in zip(result.losses, result.target_cosines, strict=True):
            angles = target_cosine.clamp(-1, 1).acos().rad2deg()
            self.sums[:2] += torch.stack([loss * len(angles), angles.sum()])
            self.histogram += torch.histc(angles, BINS, 0, 180)
            self.images += len(angles)
        if result.grad_norm is not None:
            self.sums[2] += result.grad_norm
            self.sums[3] += 1

    def reduce(self) -> tuple[Tensor, Tensor, int]:
        """Return sums (4,), histogram (BINS,) and number of images of all ranks together; every rank calls it."""
        *sums, images = all_reduce_sum(torch.cat([self.sums, self.sums.new_tensor([self.images])]))
        return torch.stack(sums), all_reduce_sum(self.histogram), int(images)

    def compute(self) -> dict[str, Any]:
        """Return the averages over all ranks, as plain numbers; every rank calls it."""
        sums, histogram, images = self.reduce()
        loss, angle, norm, updates = sums.tolist()
        seconds = time.perf_counter() - self.began
        return dict(
            loss=loss / max(1, images),
            images_per_second=round(images / seconds, 1),
            target_angle=angle / max(1, images),
            **(dict(gradient_norm=norm / updates) if updates else {}),
            waiting=round(self.waited / seconds, 4),
            target_angle_histogram=[int(count) for count in histogram.tolist()],
        )

    def state_dict(self) -> dict[str, Any]:
        return dict(zip(("sums", "histogram", "images"), self.reduce(), strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give rank 0 what all ranks had counted, so that it is counted once."""
        if not is_distributed() or dist.get_rank() == 0:
            self.sums.copy_(state["sums"])
            self.histogram.copy_(state["histogram"])
            self.images = state["images"]


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and TensorBoard beside it where that is installed."""

    def __init__(self, path: Path | str, up_to_step: int = 0) -> None:
        """Go on with the file's lines up to that global step; later ones belong to steps that will be done again."""
        self.path = Path(path)
        kept = [line for line in read_metrics(self.path) if line["step"] <= up_to_step]
        write_text_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.verified: set[tuple[int, str | None]] = {(line["step"], line["pairs"]) for line in kept if "pairs" in line}
        self.file = self.path.open("a", buffering=1)  # a line is on its way to the disk as soon as it is whole
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(self.path.parent / "tensorboard", purge_step=up_to_step + 1)

    def write(self, **line: Any) -> None:
        """Append a line; it has a `step`, and a line of a verification also `pairs`."""
        if (line["step"], line.get("pairs")) in self.verified:
            return  # stopped during its report, a run verifies once more
        self.verified.clear()  # it has gone on
        self.file.write(json.dumps(line) + "\n")
        if self.board:
            for key, value in line.items():
                if isinstance(value, (int, float)) and key != "step":
                    name = f"{line['pairs']}/{key}" if "pairs" in line else f"train/{key}"
                    self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()


class NoLog:
    """What ranks other than 0 have in its place."""

    def write(self, **line: Any) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl as dicts, none if there is no file.

    A last line that a crash has cut short is left out, and so is all from the first damaged line on.
    """
    lines: list[dict[str, Any]] = []
    if Path(path).exists():
        for text in Path(path).read_bytes().splitlines():
            try:
                line = parse_json(text)
            except ValueError:
                break
            if not isinstance(line, dict):
                break
            lines.append(line)
    return lines
