"""Training runs as a notebook follows them: long ones in a process of their own, and short ones, healthy and sick."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from IPython.display import Image, clear_output, display
from matplotlib.figure import Figure

from arcface_edu.config import load_config
from arcface_edu.course.widgets import png_of
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.recordio import write_face_records
from arcface_edu.errors import ArcfaceError, TrainingError
from arcface_edu.io import StrPath
from arcface_edu.train import train
from arcface_edu.training.metrics import read_metrics

STOPPED = 128 + signal.SIGTERM  # the exit status of a run that was asked to stop


class Run:
    """`python -m arcface_edu.train CONFIG key=value ...` as a process of its own. An interrupt stops it, too."""

    def __init__(self, config: str, *words: str) -> None:
        self.folder = Path(load_config(config, words).output)
        self.began = time.time()
        # Files, since a pipe would soon be full of progress bars.
        self.files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        command = [sys.executable, "-m", "arcface_edu.train", config, *words]
        self.process = subprocess.Popen(command, stdout=self.files[0], stderr=self.files[1], env=environment())

    def lines(self) -> list[dict[str, Any]]:
        """Return what the run has logged until now: the training lines of its metrics.jsonl."""
        log = self.folder / "metrics.jsonl"
        if not log.exists() or log.stat().st_mtime < self.began:  # of an older run, soon to be moved aside
            return []
        return [line for line in read_metrics(log) if "loss" in line]

    def watch(self, plot: Callable[[list[dict[str, Any]]], Figure], seconds: float = 2.0) -> None:
        """Show plot(lines) anew whenever there are more lines, until the run ends; the last picture stays."""
        shown = 0
        while self.process.poll() is None:
            time.sleep(seconds)
            lines = self.lines()
            if len(lines) > shown:
                clear_output(wait=True)
                display(light(plot(lines)))
                shown = len(lines)

    def stop_after(self, step: int) -> int:
        """Ask the run to stop (SIGTERM) once it has logged that step, and return its exit status."""
        while self.process.poll() is None and not any(line["step"] >= step for line in self.lines()):
            time.sleep(0.02)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def said(self) -> str:
        """Return what the run printed, when it is over.

        Raises:
            TrainingError: The run failed; with its last words.
        """
        status = self.process.wait()
        for file in self.files:
            file.seek(0)
        printed, errors = (file.read() for file in self.files)
        if status not in (0, STOPPED):
            raise TrainingError(f"the run ended with status {status}: {errors[-2000:]}")
        return printed.strip()


def environment() -> dict[str, str]:
    """Return the variables for a run beside a notebook: as many threads as there are idle cores, unless they are set.

    Threads that share a core with another program make each other wait, hundreds of times a step: one thread alone is
    then faster than two (`benchmarks/busy.py`).
    """
    idle = idle_cores()
    if "OMP_NUM_THREADS" in os.environ or idle is None or idle > (os.cpu_count() or 1) - 0.5:
        return dict(os.environ)
    return os.environ | dict(OMP_NUM_THREADS=str(max(1, round(idle))))


def idle_cores(seconds: float = 0.5) -> float | None:
    """Return how many cores nobody uses, measured for that long; None where it is not Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None

    def idle() -> float:  # the fourth and fifth number of the first line, in clock ticks, of all cores together
        return sum(map(int, stat.read_text().split()[4:6])) / os.sysconf("SC_CLK_TCK")

    before, began = idle(), time.perf_counter()
    time.sleep(seconds)
    return (idle() - before) / (time.perf_counter() - began)


def light(figure: Figure) -> Image:
    """Return a figure as an image of 64 colours, which looks the same and has a third of the bytes."""
    picture = PIL.Image.open(io.BytesIO(png_of(figure))).convert("RGB").quantize(64, dither=PIL.Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return Image(buffer.getvalue())


class Course(NamedTuple):
    """How a short run went, step by step."""

    loss: np.ndarray  # (steps,)
    angle: np.ndarray  # (steps,) mean target angle, degrees
    norm: np.ndarray  # (steps,) of the network's gradient, before it is clipped; NaN where it never is
    error: str  # the sentence it ended with, or ""


def short_run(config: str, *words: str) -> Course:
    """Train in this process with nothing shown, and return how the run went."""
    keys, error = load_config(config, ["frequent=1", "num_workers=0", *words]), ""
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1]:
        try:
            train(keys)
        except ArcfaceError as sentence:
            error = str(sentence)
    lines = [line for line in read_metrics(Path(keys.output) / "metrics.jsonl") if "loss" in line]
    loss, angle, norm = (
        np.array([line.get(key, np.nan) for line in lines]) for key in ("loss", "target_angle", "gradient_norm")
    )
    return Course(loss, angle, norm, error)


def take_people(source: StrPath, folder: StrPath, people: int, shuffled: bool = False) -> StrPath:
    """Copy the first people of a RecordIO set into `folder`; `shuffled` deals their photographs out at random."""
    faces = open_faces(source)
    places = [np.flatnonzero(faces.labels == label) for label in range(people)]
    if shuffled:
        cuts = np.cumsum([len(own) for own in places])[:-1]
        places = np.split(np.random.default_rng(0).permutation(np.concatenate(places)), cuts)
    write_face_records(folder, ([faces.encoded(int(place))[0] for place in own] for own in places))
    return folder
