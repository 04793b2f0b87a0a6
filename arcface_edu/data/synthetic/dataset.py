"""A data set of drawn faces: photographs of people who do not exist, and verification pairs of others.

A person is some ninety numbers, fixed for life (PERSON); a photograph some thirty that change from one picture to the
next (PHOTOGRAPH): pose, mood, light, camera. Recognition means to see the first through the second. `maps.py` makes
maps of a person, of height and colour, once; `render.py` turns, lights and photographs them.
"""

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from arcface_edu.data.bins import choose_pairs, write_pairs
from arcface_edu.data.images import encode_jpeg
from arcface_edu.data.recordio import write_face_records
from arcface_edu.data.synthetic.maps import carve
from arcface_edu.data.synthetic.parameters import make_person, make_photographs
from arcface_edu.data.synthetic.render import take
from arcface_edu.errors import DataError

UNSEEN = 1_000_000  # people from this number on are for verification only


def draw_person(seed, person, photos, difficulty=1.0):
    """JPEG photographs, 112 x 112 RGB, of identity number `person` of the population `seed`: a list of bytes."""
    with one_thread():
        p = make_person(seed, person)
        photo = make_photographs(p, seed, person, photos, difficulty)
        pictures = take(carve(p, np.random.default_rng([seed, person, 0, 1])), photo)
        quality = [int(rng.uniform(95 - 45 * min(difficulty, 1.5), 96)) for rng in photo.rngs]
        return [encode_jpeg(x, q) for x, q in zip((pictures * 255).round().byte(), quality, strict=True)]


@contextmanager
def one_thread():
    """Torch on one thread: drawing is many small steps, each core draws people of its own, and sums keep order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # the far tails of all those Gaussians: as zeros they are fast
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def draw_faces(out, identities, photos, seed=0, pairs=3000, pair_identities=100, difficulty=1.0, workers=None):
    """Draw a data set into folder `out`: train.rec, train.idx, property, and drawn.bin with so many verification pairs.

    identities x photos are for training. The pairs, half of them of one person, show `pair_identities` other people,
    the same ones however large the training set is. workers: processes, None is one per core; no byte depends on them.
    """
    for name, value in (("identities", identities), ("photos", photos), ("pair_identities", pair_identities)):
        if not 2 <= value <= UNSEEN:
            raise DataError(f"drawn faces: {name}={value} is too few or too many; give 2 to {UNSEEN:,}.")
    if not 0 <= difficulty <= 3:
        raise DataError(f"drawn faces: difficulty={difficulty}; give 0 (passport photographs) to 3, 1 is the default.")
    chosen, is_same = choose_pairs([photos] * pair_identities, pairs, seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    people = [*range(identities), *range(UNSEEN, UNSEEN + pair_identities)]
    tasks = [(seed, person, photos, difficulty) for person in people]
    with tempfile.TemporaryDirectory(prefix=".drawing-", dir=out) as folder, crew(workers, len(tasks)) as draw:
        drawn = iter(tqdm(draw(_draw_task, tasks), total=len(tasks), desc="drawing faces", unit="person"))
        write_face_records(folder, islice(drawn, identities))
        unseen = list(drawn)
        shown = [unseen[person][photo] for pair in chosen for person, photo in pair]
        write_pairs(Path(folder) / "drawn.bin", shown, is_same)
        for file in Path(folder).iterdir():
            file.replace(out / file.name)


@contextmanager
def crew(workers, tasks):
    """A `map` that keeps the order, over so many processes (None: one per core); the plain one where one is enough."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers or cores, tasks)
    if workers == 1:
        yield map
    else:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        try:
            yield pool.map
        except BrokenProcessPool:
            raise DataError(
                "a process that draws faces died, or could not start; too little memory is the usual cause: try "
                "workers=1. A script that Python reads from standard input cannot start others: save it as a file."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_task(task):
    return draw_person(*task)
