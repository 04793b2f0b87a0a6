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

    So a resumed run needs no more than the number of its next batch. Each epoch is a new permutation.
    """

    def __init__(self, num_images, batch_size, batches_per_epoch, num_batches, seed, start=0):
        self.num_images, self.batch_size, self.batches_per_epoch = num_images, batch_size, batches_per_epoch
        self.num_batches, self.seed, self.start = num_batches, seed, start

    def __len__(self):
        return self.num_batches - self.start

    def __iter__(self):
        order, order_of = None, None
        for number in range(self.start, self.num_batches):
            epoch, place = divmod(number, self.batches_per_epoch)
            if order_of != epoch:
                order, order_of = torch.randperm(self.num_images, generator=seeded(self.seed, epoch)), epoch
            yield order[place * self.batch_size : (place + 1) * self.batch_size].tolist()


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
        stacked = torch.stack(images) if images else torch.empty(0, 3, 112, 112, dtype=torch.uint8)
        return Batch(stacked, torch.tensor(labels, dtype=torch.int64), broken, fatal)


def build_loader(faces, batches, num_workers, device):
    """An iterator over `batches` (a ShuffledBatches) of `faces`, as `Batch`es on the CPU."""
    return DataLoader(
        Batches(faces),
        batch_sampler=batches,
        collate_fn=as_is,
        num_workers=num_workers,
        pin_memory=device.type != "cpu",
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=ignore_interrupt,
    )


def as_is(batch):
    """`Batches` has stacked it already. (A named function, since some platforms send it to the workers by pickle.)"""
    return batch


def ignore_interrupt(_worker):
    """Ctrl-C reaches every process of a terminal; the trainer alone decides how to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def augment(images, number, seed):
    """Mirror half of a batch at random, and normalise it.

    images: (B, 3, H, W) uint8 on any device; number: the batch's, so that each epoch draws anew and a resumed run draws
    the same.  returns: (B, 3, H, W) float in [-1, 1].
    """
    mirrored = torch.rand(len(images), generator=seeded(seed, number, 1)) < 0.5
    mirrored = mirrored.to(images.device, non_blocking=True)[:, None, None, None]
    return to_input(torch.where(mirrored, images.flip(3), images))


def seeded(*numbers):
    """A random generator for that combination of numbers."""
    return torch.Generator().manual_seed(hash(numbers) & (2**63 - 1))  # hashes of ints are the same in every process
