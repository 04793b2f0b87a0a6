"""A data set of drawn faces: photographs of people who do not exist, and verification pairs of others.

A person is some ninety numbers, fixed for life (PERSON); a photograph some thirty that change from one picture to the
next (PHOTOGRAPH): pose, mood, light, camera. Recognition means to see the first through the second. `maps.py` makes
maps of a person, of height and colour, once; `render.py` turns, lights and photographs them.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from arcface_edu.data.bins import choose_pairs, write_pairs
from arcface_edu.data.images import encode_jpeg
from arcface_edu.data.recordio import write_face_records
from arcface_edu.data.synthetic.crowds import Mix, choose_people, groups_table
from arcface_edu.data.synthetic.maps import build_maps
from arcface_edu.data.synthetic.parameters import make_person, make_photographs
from arcface_edu.data.synthetic.render import render
from arcface_edu.errors import DataError
from arcface_edu.io import StrPath, write_text_atomically
from arcface_edu.signals import end_with_parent, finish_first, held_from_children

UNSEEN = 1_000_000  # people from this number on are for verification only


def draw_person(seed: int, person: int, photos: int, difficulty: float = 1.0) -> list[bytes]:
    """Draw photographs of identity number `person` of the population `seed`: JPEGs, 112 x 112 RGB."""
    with one_thread():
        p = make_person(seed, person)
        photo = make_photographs(p, seed, person, photos, difficulty)
        pictures = render(build_maps(p, np.random.default_rng([seed, person, 0, 1])), photo)
        quality = [int(rng.uniform(95 - 45 * min(difficulty, 1.5), 96)) for rng in photo.rngs]
        return [encode_jpeg(x, q) for x, q in zip((pictures * 255).round().byte(), quality, strict=True)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: drawing is many small steps, each core draws other people, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # the far tails of all those Gaussians: as zeros they are fast
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def draw_faces(
    out: StrPath,
    identities: int,
    photos: int,
    seed: int = 0,
    pairs: int = 3000,
    pair_identities: int = 100,
    difficulty: float = 1.0,
    workers: int | None = None,
    mix: Mix | None = None,
) -> None:
    """Draw a data set: train.rec, train.idx, property, drawn.bin with pairs, and groups.csv with whom they show.

    Args:
        out: Folder to write.
        identities: People to train on.
        photos: Photographs of each.
        seed: The same seed draws the same bytes.
        pairs: Number of pairs, half of them of one person.
        pair_identities: People in the pairs: others, and the same ones however large the training set is.
        difficulty: Spread of pose, light, blur and occlusion, 0 to 3.
        workers: Processes, None is one per core; no byte depends on them.
        mix: Sizes of two groups of people to train on; of the people in the pairs, half are then of either. None = as
            they come.

    Raises:
        DataError: A number is out of its bounds, or a worker died.
    """
    for name, value in (("identities", identities), ("photos", photos), ("pair_identities", pair_identities)):
        if not 2 <= value <= UNSEEN:
            raise DataError(f"drawn faces: {name}={value} is too few or too many; give 2 to {UNSEEN:,}.")
    if not 0 <= difficulty <= 3:
        raise DataError(f"drawn faces: difficulty={difficulty}; give 0 (passport photographs) to 3, 1 is the default.")
    chosen, is_same = choose_pairs([photos] * pair_identities, pairs, seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    others = choose_people(seed, UNSEEN, pair_identities, mix and Mix(mix.attribute, (0.5, 0.5)))
    people = [*choose_people(seed, 0, identities, mix), *others]
    tasks = [(seed, person, photos, difficulty) for person in people]
    with tempfile.TemporaryDirectory(prefix=".drawing-", dir=out) as folder, worker_map(workers, len(tasks)) as draw:
        drawn = iter(tqdm(draw(_draw_task, tasks), total=len(tasks), desc="drawing faces", unit="person"))
        write_face_records(folder, islice(drawn, identities))
        unseen = list(drawn)
        shown = [unseen[person][photo] for pair in chosen for person, photo in pair]
        write_pairs(Path(folder) / "drawn.bin", shown, is_same)
        who = [others[person] for pair in chosen for person, _ in pair]
        write_text_atomically(Path(folder) / "groups.csv", groups_table(seed, who))
        with finish_first():
            for file in Path(folder).iterdir():
                file.replace(out / file.name)


@contextmanager
def worker_map(workers: int | None, tasks: int) -> Iterator[Callable[..., Any]]:
    """Yield a `map` over so many processes (None: one per core) that keeps the order; the built-in one for one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers or cores or 1, tasks)
    if workers == 1:
        yield map
    else:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)

        def start(*work: Any) -> Iterator[Any]:
            with held_from_children():
                return pool.map(*work)

        try:
            yield start
        except BrokenProcessPool:
            raise DataError(
                "a process that draws faces died, or could not start; too little memory is the usual cause: try "
                "workers=1. A script that Python reads from standard input cannot start others: save it as a file."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_task(task: tuple[int, int, int, float]) -> list[bytes]:
    return draw_person(*task)
