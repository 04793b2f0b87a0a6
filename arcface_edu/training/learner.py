"""What learns: network, head and optimizer, and the one step that all three take. Trainer and planner run the same."""

import os
import shutil
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import record_function

from arcface_edu.errors import ConfigError, TrainingError
from arcface_edu.heads import Softmax, build_head
from arcface_edu.models import build_model
from arcface_edu.training.distributed import ALONE, averaging, batch_norms, distribute
from arcface_edu.training.optim import build_optimizer
from arcface_edu.training.precision import autocast, build_scaler


@dataclass
class Learner:
    """The parts of a run that hold weights or their history; `..._together`: as all processes train them."""

    model: nn.Module
    head: nn.Module
    model_together: nn.Module
    head_together: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    dtype: torch.dtype
    max_norm: float
    gradient_norm: torch.Tensor | None = None  # (), of the network's last gradient before it was clipped
    head_only: bool = False  # the backbone stays as it is

    def ready_for(self, images, head_only=False):
        """Training mode for so many images. BN cannot normalise one alone: it takes its running statistics then.

        head_only: the backbone embeds as it would for verification, and nothing in it changes, BN's statistics neither.
        """
        self.head_only = head_only
        self.model.train(not head_only)
        if images < 2:
            for norm in batch_norms(self.model):
                norm.eval()

    def loss(self, images, labels, sizes=None):
        """Mean loss over the images of all ranks.  images: (B, 3, 112, 112) float in [-1, 1]; labels: (B,).

        sizes: a function that gives the B of every rank, asked after the network's pass; None = the head finds out.
        """
        with (
            record_function("forward: network"),
            autocast(self.device, self.dtype),
            torch.set_grad_enabled(not self.head_only),  # a weight without gradient is left alone by every optimizer
        ):
            embeddings = self.model_together(images)  # (B, D) float32
        with record_function("forward: head"):
            return self.head_together(embeddings, labels, sizes and sizes())  # ()

    def backward(self, loss):
        with record_function("backward"):
            self.scaler.scale(loss).backward()

    def averaging(self, now):
        """Within it, gradients are averaged over ranks `now`, or else only added to this rank's own."""
        return averaging((self.model_together, self.head_together), now)

    def update(self):
        """Step the weights by the gradients gathered.  returns: False if fp16 overflowed and the step was left out."""
        with record_function("update"):
            self.scaler.unscale_(self.optimizer)
            if self.max_norm:
                trained = [p for p in self.model.parameters() if p.requires_grad]
                self.gradient_norm = torch.nn.utils.clip_grad_norm_(trained, self.max_norm)
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1e-3:
            raise TrainingError("fp16 overflows at every loss scale; try amp_dtype=bf16, fp16=False, or a smaller lr.")
        return self.scaler.get_scale() >= scale

    def parts(self):
        """What a checkpoint keeps."""
        return dict(model=self.model, head=self.head, optimizer=self.optimizer, scaler=self.scaler)


def build_learner(config, num_classes, device, dtype, world=ALONE):
    """Network, head and optimizer of a config, the same first weights on every rank."""
    torch.manual_seed(config.seed)
    model = build_model(config.network, config.embedding_size, config.dropout, config.gradient_checkpointing)
    model = model.to(device, memory_format=torch.channels_last)  # what convolutions want on CPUs and tensor cores alike
    head = build_head(config, num_classes).to(device)
    # PartialFC shares out its centres by itself; every other weight is on all ranks, and its gradient is averaged.
    model_together = distribute(compiled(model, device) if config.compile else model, config, device)
    head_together = distribute(head, config, device) if isinstance(head, Softmax) else head
    torch.manual_seed(config.seed + world.rank)  # from here on, dropout draws apart
    optimizer, scaler = build_optimizer(config, model, head), build_scaler(device, dtype)
    return Learner(model, head, model_together, head_together, optimizer, scaler, device, dtype, config.max_norm)


def compiled(model, device):
    """The network by torch.compile, on the same weights; it compiles in its first step. Evaluation uses it as it is."""
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise ConfigError(
            f"compile=True needs a C++ compiler, and {compiler} is not there: install it, or leave compile out."
        )
    return torch.compile(model)
