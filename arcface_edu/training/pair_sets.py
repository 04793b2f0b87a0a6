"""Verification pairs of a run: those of people held out of a folder, and the check that every image can be read."""

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from easydict import EasyDict
from tqdm import tqdm

from arcface_edu.data.bins import check_sizes, count_pairs, read_pairs
from arcface_edu.data.folder import People, pairs_of_people
from arcface_edu.data.images import decode
from arcface_edu.errors import CorruptRecord, DataError
from arcface_edu.training.collectives import all_gather_object
from arcface_edu.training.launch import SINGLE_PROCESS, World

log = logging.getLogger(__name__)

AUTOMATIC_HOLD_OUT = 10  # from so many people on, some of a folder are kept to verify on
FOLDS = 10  # of the verification protocol
READERS = 4  # threads that decode pairs before the run begins


class PairSet(NamedTuple):
    """Verification pairs; images 2i and 2i + 1 are pair i."""

    name: str
    images: list[bytes]  # 2N encoded images
    is_same: np.ndarray  # (N,) bool

    def part(self, world: World) -> slice:
        """Return which of the images a rank embeds; one that is left without any embeds the first."""
        share = -(-len(self.images) // world.size)
        begin = world.rank * share
        return slice(begin, begin + share) if begin < len(self.images) else slice(1)


def hold_out_some(people: People, root: Path, config: EasyDict) -> tuple[int, PairSet | None]:
    """Return how many people a run holds out by itself, and the pairs of these; (0, None) where there are too few.

    It holds out the least number, from a fifth to a third of all, whose photographs make pairs for ten folds.
    """
    if len(people) >= AUTOMATIC_HOLD_OUT:
        photos = [len(of_person) for of_person in people.values()]
        for hold_out in range(len(people) // 5, len(people) // 3 + 1):
            if count_pairs(photos[-hold_out:], FOLDS):
                with contextlib.suppress(DataError):  # of photographs that cannot be read
                    return hold_out, pair_set_of(people, hold_out, root, config)
    log.info(
        f"nothing is verified, and all {len(people)} people are trained: {root} holds no file of pairs, and a third of "
        f"the people have too few photographs for ten folds, each with a pair of one person and a pair of two."
    )
    return 0, None


def pair_set_of(people: People, hold_out: int, root: Path, config: EasyDict) -> PairSet:
    """Return verification pairs of the last `hold_out` people."""
    last = dict(list(people.items())[-hold_out:])
    return PairSet("held_out", *pairs_of_people(last, root, config.draw_pairs, config.seed))


def read_pair_files(files: list[Path], named: bool) -> list[PairSet]:
    """Return the pairs of .bin files. A file too small for the protocol is left out, unless the config has named it.

    Raises:
        DataError: A file cannot be used.
    """
    pair_sets = []
    for path in files:
        pairs = PairSet(path.stem, *read_pairs(path))
        if len(pairs.is_same) >= FOLDS:
            pair_sets.append(pairs)
            continue
        few_pairs = f"{path} holds {len(pairs.is_same)} pairs, too few for ten folds"
        if named:
            raise DataError(f"{few_pairs}: leave it out of val_targets, or give it more pairs.")
        log.warning(f"{few_pairs}: it is left out.")
    return pair_sets


def check_pair_images(pair_sets: list[PairSet], world: World = SINGLE_PROCESS) -> None:
    """Decode every image of the pairs once before a run begins, each rank those that it embeds; every rank calls it.

    Raises:
        DataError: An image cannot be read or is not square; it would be noticed at the first verification. It is the
            same error on all ranks.
    """
    problem = None
    for pairs in pair_sets:
        part = pairs.part(world)
        number = {image: row for row, image in reversed(list(enumerate(pairs.images))[part])}  # each image once

        def read(image: bytes, name: str = pairs.name, number: dict[bytes, int] = number) -> None:
            decode(image, f"image {number[image]} of the pairs {name}")

        bar = tqdm(total=len(number), desc=f"reading {pairs.name}", unit="img", leave=False, disable=not world.is_main)
        try:
            with ThreadPoolExecutor(READERS) as pool, bar:
                for _ in pool.map(read, number):
                    bar.update()
            if world.is_main:
                check_sizes(pairs.images, pairs.name)
        except CorruptRecord as error:
            problem = problem or f"{error} `python -m arcface_edu.dataset inspect` lists all such images."
        except DataError as error:
            problem = problem or str(error)
    if problem := next(filter(None, all_gather_object(problem)), None):
        raise DataError(problem)
