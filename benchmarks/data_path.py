"""JPEG to batch: uint8 through the workers and arithmetic per batch, against a float image made one by one.

    python benchmarks/data_path.py [FOLDER]        a folder with train.rec; without one, a small set is drawn

Way A goes through the steps of InsightFace's loader: decode to a NumPy array, then ToPILImage, RandomHorizontalFlip,
ToTensor and Normalize, each image by itself, then stack. Way B is arcface_edu's. Both read the same records in the same
order with the same decoder, in one process on one thread; they alternate, and the medians are compared. The clock is
the processor time of the process, so that other programs on the machine weigh little.
"""

import argparse
import random
import statistics
import tempfile
import time

import torch
from torchvision import transforms
from tqdm import tqdm

from arcface_edu.data.datasets import open_faces
from arcface_edu.data.images import decode
from arcface_edu.data.loader import BatchReader, augment, draw_mirrored
from arcface_edu.data.synthetic.dataset import draw_faces

BATCH, BATCHES, ROUNDS = 128, 8, 7


def per_image_float(faces, indices, transform):
    """(B, 3, 112, 112) float in [-1, 1], image by image."""
    images = []
    for index in indices:
        encoded, _, where = faces.encoded(index)
        images.append(transform(decode(encoded, where).permute(1, 2, 0).numpy()))
    return torch.stack(images)


def per_batch_uint8(batches, indices, step):
    """The same by arcface_edu."""
    batch = batches.__getitems__(indices)
    return augment(batch.images, draw_mirrored(1, 1, len(batch.images), step, seed=0)[0, 0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="folder with train.rec")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as drawn:
        if folder is None:
            folder = drawn
            draw_faces(folder, 60, 20, pairs=20, pair_identities=2)
        compare(open_faces(folder))


def compare(faces):
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    batches, seconds = BatchReader(faces), {"A": [], "B": []}
    for step in tqdm(range(ROUNDS), unit="round"):
        indices = [random.Random(step).choices(range(len(faces)), k=BATCH) for _ in range(BATCHES)]
        for way, make in (
            ("A", lambda chosen: per_image_float(faces, chosen, transform)),
            ("B", lambda chosen, step=step: per_batch_uint8(batches, chosen, step)),
        ):
            began = time.process_time()
            for chosen in indices:
                make(chosen)
            seconds[way].append(time.process_time() - began)
    for way, name in (("A", "per image, float"), ("B", "per batch, uint8")):
        rates = [BATCH * BATCHES / s for s in seconds[way]]
        print(
            f"{way} {name}: {statistics.median(rates):7,.0f} images/s per core ({min(rates):,.0f} to {max(rates):,.0f})"
        )
    ratios = [a / b for a, b in zip(seconds["A"], seconds["B"], strict=True)]
    print(f"A / B: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
