"""What a run says about itself: averages over an interval of steps, and metrics.jsonl, which keeps them."""

import json
import time
from pathlib import Path

import torch
import torch.distributed as dist

from arcface_edu.training.distributed import alone, sum_over_ranks

BINS = 90  # of 2 degrees each, over 0 ... 180


class Meter:
    """Averages of the steps since the last line of the log. Its sums stay on the device: adding makes nothing wait."""

    def __init__(self, device):
        # Of loss * images, of target angles in degrees; of gradient norms, and how many they were.
        self.sums = torch.zeros(4, device=device)
        self.histogram = torch.zeros(BINS, device=device)  # of target angles
        self.reset()

    def reset(self):
        self.sums.zero_()
        self.histogram.zero_()
        self.images = 0
        self.began = time.perf_counter()
        self.waited = 0.0  # seconds in which the next batch was not there yet

    @torch.no_grad()
    def add(self, loss, target_cosine):
        """One backward pass: its mean loss (scalar), and the cosines (B,) of the true classes without margin."""
        angles = target_cosine.clamp(-1, 1).acos().rad2deg()
        self.sums[:2] += torch.stack([loss * len(angles), angles.sum()])
        self.histogram += torch.histc(angles, BINS, 0, 180)
        self.images += len(angles)

    def add_norm(self, norm):
        """One update: the norm of the network's gradient, the same on all ranks; None where nothing is clipped."""
        if norm is not None:
            self.sums[2] += norm
            self.sums[3] += 1

    def everyones(self):
        """Sums, histogram and number of images of all ranks together; every rank has to call it."""
        *sums, images = sum_over_ranks(torch.cat([self.sums, self.sums.new_tensor([self.images])]))
        return torch.stack(sums), sum_over_ranks(self.histogram), int(images)

    def line(self):
        """The averages over all ranks, as numbers; every rank has to call it."""
        sums, histogram, images = self.everyones()
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

    def state_dict(self):
        return dict(zip(("sums", "histogram", "images"), self.everyones(), strict=True))

    def load_state_dict(self, state):
        """What all ranks had counted becomes rank 0's, so that it is counted once."""
        if alone() or dist.get_rank() == 0:
            self.sums.copy_(state["sums"])
            self.histogram.copy_(state["histogram"])
            self.images = state["images"]


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and TensorBoard beside it where that is installed."""

    def __init__(self, path, up_to_step=0):
        """Go on with the file's lines up to that step; later ones belong to steps that will be done again."""
        self.path = Path(path)
        kept = [line for line in read_metrics(self.path) if line["step"] <= up_to_step]
        beside = Path(f"{path}.tmp")
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept))
        beside.replace(self.path)
        self.verified = {(line["step"], line["pairs"]) for line in kept if "pairs" in line}
        self.file = self.path.open("a", buffering=1)  # a line is on its way to the disk as soon as it is whole
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(self.path.parent / "tensorboard", purge_step=up_to_step + 1)

    def write(self, **line):
        if (line["step"], line.get("pairs")) in self.verified:
            return  # stopped during its report, a run verifies once more
        self.verified.clear()  # it has gone on
        self.file.write(json.dumps(line) + "\n")
        if self.board:
            for key, value in line.items():
                if isinstance(value, (int, float)) and key != "step":
                    name = f"{line['pairs']}/{key}" if "pairs" in line else f"train/{key}"
                    self.board.add_scalar(name, value, line["step"])

    def close(self):
        self.file.close()
        if self.board:
            self.board.close()


class NoLog:
    """What ranks other than the first have in its place."""

    def write(self, **line):
        pass

    def close(self):
        pass


def read_metrics(path):
    """The lines of a metrics.jsonl as dicts; none if there is no file. A last line cut short by a crash is left out."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines
