"""What every notebook of the course does first, and how it starts several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from IPython import get_ipython

import arcface_edu
from arcface_edu.errors import TrainingError


def begin():
    """Set a notebook up: figures inline, one seed, and the repository's folder as the place of `data/` and `runs/`.

    Where the package is installed without its repository, as on Colab, these lie beside the notebook.
    """
    root = Path(arcface_edu.__file__).parents[1]
    if (root / "notebooks").is_dir():
        os.chdir(root)
    # Processes started from here find the package as this one does.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    get_ipython().run_line_magic("matplotlib", "inline")
    if "google.colab" in sys.modules:
        from google.colab import output

        output.enable_custom_widget_manager()
    torch.manual_seed(0)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    print(f"PyTorch {torch.__version__.split('+')[0]} on {describe(device)}")


def describe(device):
    """A device in words: the number of CPU threads, or of GPUs and their name."""
    if device.type == "cpu":
        return f"the CPU, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper()
    return f"{torch.accelerator.device_count()} x {name}"


def torchrun(*words, processes=2, machines=1):
    """Run a module of the package in several processes: `torchrun("arcface_edu.course.workers", "rpc")`.

    It is what a terminal would do. A notebook's own process must never fork itself; torchrun starts new ones, of one
    thread each.   machines: so many torchruns, each with its own `processes`; they meet at a port, as they would do
    from afar.   returns: what rank 0 printed.   raises: TrainingError with what it said instead.
    """
    command = [sys.executable, "-m", "torch.distributed.run", *meeting_place(machines), f"--nproc_per_node={processes}"]
    environment = os.environ | dict(OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else the second torchrun may never find the first
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = [subprocess.Popen([*command, "-m", *words], env=environment, **pipes) for _ in range(machines)]
    said = [agent.communicate() for agent in started]
    for agent, (_, errors) in zip(started, said, strict=True):
        if agent.returncode:
            raise TrainingError(
                f"torchrun -m {' '.join(words)} ended with status {agent.returncode}:\n{errors[-2000:]}"
            )
    return "".join(printed for printed, _ in said)


def meeting_place(machines):
    """The options by which the torchruns of so many machines find each other: here, all on this one."""
    if machines == 1:
        return ["--standalone"]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]  # free a moment ago
    return [f"--nnodes={machines}", "--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", f"--rdzv_id={port}"]


def workers(task, *words, processes=2, machines=1):
    """Run a task of `arcface_edu.course.workers` and show what it says.  returns: its result, a dict."""
    printed = torchrun("arcface_edu.course.workers", task, *words, processes=processes, machines=machines)
    *said, result = printed.splitlines()
    print("\n".join(said))
    return json.loads(result)
