"""What every notebook of the course does first, and how it starts several processes."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from IPython import get_ipython
from IPython.display import Image
from matplotlib.figure import Figure

import arcface_edu
from arcface_edu.errors import TrainingError


def begin() -> None:
    """Set a notebook up: figures inline, one random seed, and the repository's folder as the place of data and runs.

    Where the package is installed without its repository, as on Colab, these lie beside the notebook.
    """
    root = Path(arcface_edu.__file__).parents[1]
    if (root / "notebooks").is_dir():
        os.chdir(root)
    # Processes started from here find the package as this one does.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    get_ipython().run_line_magic("matplotlib", "inline")
    if "google.colab" in sys.modules:
        from google.colab import output  # type: ignore[import-untyped]

        output.enable_custom_widget_manager()
    torch.manual_seed(0)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    print(f"PyTorch {torch.__version__.split('+')[0]} on {device_name(device)}")


def device_name(device: torch.device) -> str:
    """Return the number of CPU threads, or of GPUs and their name."""
    if device.type == "cpu":
        return f"the CPU, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper()
    return f"{torch.accelerator.device_count()} x {name}"


def torchrun(*words: str, processes: int = 2, machines: int = 1) -> str:
    """Run a program in several processes: `torchrun("ddp.py")`, `torchrun("arcface_edu.course.workers", "uneven")`.

    A terminal would do the same. The process of a notebook must never fork itself; torchrun starts new ones, of one
    thread each.

    Args:
        words: A script (.py) or a module of the package, and its arguments.
        processes: Of each torchrun.
        machines: The number of torchruns; they meet at a port, as they would on several machines.

    Returns:
        What rank 0 printed.

    Raises:
        TrainingError: The run failed; with its last words.
    """
    command = [sys.executable, "-m", "torch.distributed.run", *meeting_place(machines), f"--nproc_per_node={processes}"]
    environment = os.environ | dict(OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else the second torchrun may never find the first
    command += list(words) if words[0].endswith(".py") else ["-m", *words]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(machines)
    ]
    said = [agent.communicate() for agent in started]
    for agent, (_, errors) in zip(started, said, strict=True):
        if agent.returncode:
            raise TrainingError(f"torchrun {' '.join(words)} ended with status {agent.returncode}:\n{errors[-8000:]}")
    return "".join(printed for printed, _ in said)


def meeting_place(machines: int) -> list[str]:
    """Return the options by which the torchruns of so many machines find each other; here all run on this one."""
    if machines == 1:
        return ["--standalone"]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]  # free a moment ago
    return [f"--nnodes={machines}", "--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", f"--rdzv_id={port}"]


def workers(task: str, *words: str, processes: int = 2, machines: int = 1) -> dict[str, Any]:
    """Run a task of `arcface_edu.course.workers`, show what it prints, and return its result."""
    printed = torchrun("arcface_edu.course.workers", task, *words, processes=processes, machines=machines)
    *said, result = printed.splitlines()
    print("\n".join(said))
    return json.loads(result)


def as_jpeg(figure: Figure, quality: int = 65) -> Image:
    """Return a figure of photographs as a JPEG, a tenth of the bytes of a PNG, which stores all their grain."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=figure.dpi, pil_kwargs=dict(quality=quality))
    return Image(buffer.getvalue(), format="jpeg")
