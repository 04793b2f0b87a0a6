"""From a data set to batches on the device: images stay uint8 until they are there.

Worker processes read and decode; flipping and normalising is done for a whole batch at once on the device. A float
image is four times the bytes, through every queue and copy on the way.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from arcface_edu.data.datasets import FaceDataset
from arcface_edu.data.images import to_input
from arcface_edu.data.readers import Pulse, be_reader, iterate
from arcface_edu.errors import CorruptRecord, DataError

T = TypeVar("T")


class Batch(NamedTuple):
    """The images of one batch that could be read, and what was wrong with the others."""

    images: Tensor  # (B, 3, 112, 112) uint8 RGB
    labels: Tensor  # (B,) int64
    broken: list[str]  # a sentence for each record that could not be read; it is missing above
    fatal: str  # a sentence when the data set itself is wrong, else ""


class ShuffledBatches(Sampler[list[int]]):
    """The image indices of every batch of a run, in order; a batch's content follows from its number alone.

    So a resumed run needs no more than the number of its next batch. Each epoch is a new permutation. A batch is shared
    between all ranks, and each takes its slice: N ranks see the images that one with an N times larger batch sees.

    Args:
        num_images: Size of the data set.
        batch_size: Images per rank and batch.
        batches_per_epoch: The images that are left over after so many batches are not shown in that epoch.
        num_batches: Batches of the whole run.
        seed: Of the permutations, together with the epoch's number.
        start: Number of the first batch to yield.
        rank: Of this process.
        world_size: Number of ranks.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        batches_per_epoch: int,
        num_batches: int,
        seed: int,
        start: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_images, self.batch_size, self.batches_per_epoch = num_images, batch_size, batches_per_epoch
        self.num_batches, self.seed, self.start = num_batches, seed, start
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.num_batches - self.start

    def __iter__(self) -> Iterator[list[int]]:
        shuffled_epoch = None
        for number in range(self.start, self.num_batches):
            epoch, batch_in_epoch = divmod(number, self.batches_per_epoch)
            if epoch != shuffled_epoch:
                order, shuffled_epoch = torch.randperm(self.num_images, generator=seeded(self.seed, epoch)), epoch
            begin = (batch_in_epoch * self.world_size + self.rank) * self.batch_size
            yield order[begin : begin + self.batch_size].tolist()


class BatchReader(Dataset[Batch]):
    """A data set of faces, read a batch at a time.

    Args:
        faces: The data set.
        pulse: Is set to the time at each image.
    """

    def __init__(self, faces: FaceDataset, pulse: Pulse | None = None) -> None:
        self.faces, self.pulse = faces, pulse or Pulse()

    def __len__(self) -> int:
        return len(self.faces)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        images, labels, broken, fatal = [], [], [], ""
        try:
            for index in indices:
                self.pulse.beat()
                try:
                    image, label = self.faces[index]
                except CorruptRecord as error:
                    broken.append(str(error))
                except DataError as error:  # from here it would reach the user as a traceback of the worker
                    fatal = str(error)
                else:
                    images.append(image)
                    labels.append(label)
            return stack_batch(images, labels, broken, fatal)
        except (OSError, MemoryError) as error:  # likewise
            reason = str(error) or "too little memory"
            return stack_batch([], [], broken, f"a batch could not be read ({reason}): try fewer num_workers.")


def stack_batch(images: list[Tensor], labels: list[int], broken: list[str], fatal: str) -> Batch:
    """Return images uint8 (3, 112, 112) and labels as a batch; in a reader process, in shared memory.

    Raises:
        OSError: There is no room in the shared memory.
    """
    # Decoders give pixel after pixel, and convolutions like it so: stacking as (3, H, W) would sort it all twice.
    pixels = [image.permute(1, 2, 0) for image in images]
    stacked = torch.stack(pixels) if images else torch.empty(0, 112, 112, 3, dtype=torch.uint8)
    if images and get_worker_info():
        try:
            stacked.share_memory_()  # later, in the thread that sends it, a failure would be lost
        except RuntimeError as error:
            raise OSError(f"shared memory, /dev/shm: {error}") from error
    return Batch(stacked.permute(0, 3, 1, 2), torch.tensor(labels, dtype=torch.int64), broken, fatal)


def load(
    faces: FaceDataset, batches: Iterable[list[int]], num_workers: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Yield the batches of `faces` on the CPU.

    Args:
        faces: The data set.
        batches: Image indices of each batch, such as a ShuffledBatches.
        num_workers: Processes that read; 0 reads in this one.
        device: The batches will be moved there: pinned memory unless it is the CPU.

    Raises:
        DataError: A process that reads died, or none of them has read an image for a while.
    """
    pulse = Pulse()
    loader: DataLoader[Batch] = DataLoader(
        BatchReader(faces, pulse),
        batch_sampler=batches,
        collate_fn=identity_collate,
        num_workers=num_workers,
        pin_memory=device.type != "cpu",
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=be_reader,
        generator=seeded(0),  # a draw from the global generator would be repeated when the run resumes
    )
    return iterate(loader, pulse)


def identity_collate(batch: T) -> T:
    """Return a batch as `BatchReader` stacked it. (A named function: some platforms pickle it for the workers.)"""
    return batch


def draw_mirrored(micro_batches: int, world_size: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Return which images of a step are shown mirrored, about half: bool (micro_batches, world_size, batch_size).

    The whole step is drawn at once, on every rank alike, and from the step's number alone: every epoch draws anew, and
    a resumed run draws the same.
    """
    return torch.rand(micro_batches, world_size, batch_size, generator=seeded(seed, step, 1)) < 0.5


def augment(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the chosen images of a batch and normalise all.

    Args:
        images: (B, 3, H, W) uint8.
        mirrored: (B,) bool, on the same device.

    Returns:
        (B, 3, H, W) float32 in [-1, 1], channels last in memory.
    """
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3), as they lie in memory: whole images are copied in one go
    both = torch.cat([pixels, pixels.flip(2)])
    chosen = both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * mirrored)
    return to_input(chosen.permute(0, 3, 1, 2))


def seeded(*numbers: int) -> torch.Generator:
    """Return a random generator of its own for that combination of numbers."""
    return torch.Generator().manual_seed(hash(numbers) & (2**63 - 1))  # hashes of ints are the same in every process
