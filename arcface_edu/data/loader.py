"""From a data set to batches on the device: images stay uint8 until they are there.

Worker processes read and decode; flipping and normalising is done for a whole batch at once on the device. A float
image is four times the bytes, through every queue and copy on the way.
"""

import signal
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from arcface_edu.data.images import to_input
from arcface_edu.errors import CorruptRecord, DataError


class Batch(NamedTuple):
    images: torch.Tensor  # (B, 3, 112, 112) uint8 RGB
    labels: torch.Tensor  # (B,) int64
    broken: list  # a sentence for each record that could not be read; it is missing above
    fatal: str  # a sentence when the data set itself is wrong, else ""


class ShuffledBatches(Sampler):
    """The image numbers of every batch of a run, in order; a batch's content follows from its number alone.

    So a resumed run needs no more than the number of its next batch. Each epoch is a new permutation. A batch is shared
    between all ranks, and each takes its slice: N ranks see the images that one with an N times larger batch sees.
    """

    def __init__(self, num_images, batch_size, batches_per_epoch, num_batches, seed, start=0, *, rank=0, world_size=1):
        self.num_images, self.batch_size, self.batches_per_epoch = num_images, batch_size, batches_per_epoch
        self.num_batches, self.seed, self.start = num_batches, seed, start
        self.rank, self.world_size = rank, world_size

    def __len__(self):
        return self.num_batches - self.start

    def __iter__(self):
        order, order_of = None, None
        for number in range(self.start, self.num_batches):
            epoch, place = divmod(number, self.batches_per_epoch)
            if order_of != epoch:
                order, order_of = torch.randperm(self.num_images, generator=seeded(self.seed, epoch)), epoch
            begin = (place * self.world_size + self.rank) * self.batch_size
            yield order[begin : begin + self.batch_size].tolist()


class Batches(Dataset):
    """A data set of faces, read a batch at a time."""

    def __init__(self, faces):
        self.faces = faces

    def __len__(self):
        return len(self.faces)

    def __getitems__(self, indices):
        images, labels, broken, fatal = [], [], [], ""
        for index in indices:
            try:
                image, label = self.faces[index]
            except CorruptRecord as error:
                broken.append(str(error))
            except DataError as error:  # from here it would reach the user as a traceback of the worker
                fatal = str(error)
            else:
                images.append(image)
                labels.append(label)
        # Decoders give pixel after pixel, and convolutions like it so: stacking as (3, H, W) would sort it all twice.
        pixels = [image.permute(1, 2, 0) for image in images]
        stacked = torch.stack(pixels) if images else torch.empty(0, 112, 112, 3, dtype=torch.uint8)
        return Batch(stacked.permute(0, 3, 1, 2), torch.tensor(labels, dtype=torch.int64), broken, fatal)


def load(faces, batches, num_workers, device):
    """Yield `batches` (a ShuffledBatches) of `faces` as `Batch`es on the CPU. A reader that dies raises DataError."""
    loader = DataLoader(
        Batches(faces),
        batch_sampler=batches,
        collate_fn=as_is,
        num_workers=num_workers,
        pin_memory=device.type != "cpu",
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=leave_signals_to_the_trainer,
        generator=seeded(0),  # its own: a number drawn from everyone's here would be drawn once more at a resume
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that reads images died ({str(error).splitlines()[0]}); too little memory or shared memory "
            f"(/dev/shm) is the usual cause. Try fewer num_workers, or num_workers=0."
        ) from error


def as_is(batch):
    """`Batches` has stacked it already. (A named function, since some platforms send it to the workers by pickle.)"""
    return batch


def leave_signals_to_the_trainer(_worker):
    """Ctrl-C reaches every process of a terminal, but the trainer alone decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has inherited the trainer's handler


def draw_mirrored(parts, world_size, batch_size, step, seed):
    """Which of a step's images are shown mirrored: (parts, ranks, B) bool, about half.

    Drawn for the whole step at once, whatever the number of pieces it is computed in, and from the step's number alone:
    every epoch draws anew, and a resumed run draws the same.
    """
    return torch.rand(parts, world_size, batch_size, generator=seeded(seed, step, 1)) < 0.5


def augment(images, mirrored):
    """Mirror the chosen images of a batch and normalise all.

    images: (B, 3, H, W) uint8; mirrored: (B,) bool; both on one device.   returns: (B, 3, H, W) float in [-1, 1].
    """
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3), as they lie in memory: whole images are copied in one go
    both = torch.cat([pixels, pixels.flip(2)])
    chosen = both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * mirrored)
    return to_input(chosen.permute(0, 3, 1, 2))


def seeded(*numbers):
    """A random generator for that combination of numbers."""
    return torch.Generator().manual_seed(hash(numbers) & (2**63 - 1))  # hashes of ints are the same in every process
