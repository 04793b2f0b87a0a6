"""Damage inputs at random and hand them to every reader: each is read, or answered with a sentence of the package.

    python benchmarks/mutated_inputs.py [--inputs 20000] [--seed 0] [--readers pairs onnx] [--workers 2]

Sound inputs are written first, of every kind that the package reads. Then files of them are damaged: bits, bytes and
lengths changed, parts cut out, moved, doubled or taken from elsewhere, numbers pushed to their limits, harmful pickles
put in. What a reader does with it counts as wrong if it raises any error but the package's own, runs what the input
says (a program, a connection, a file written), takes more than five seconds of processor time, or dies or hangs.
Input number N of a reader is the same for the same seed: `--readers pairs --only N` repeats it with its traceback.
Exit status 1 if anything was wrong. (Configs are code by design: of them the errors count, and not what they run.)
"""

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from arcface_edu.config import load_config
from arcface_edu.data import labels
from arcface_edu.data.alignment.landmarks import align_photographs, read_landmarks, write_landmarks
from arcface_edu.data.bins import read_pairs, write_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.images import encode_jpeg
from arcface_edu.data.inspection import inspect_pairs
from arcface_edu.data.loader import BatchReader
from arcface_edu.data.recordio import RecordWriter, pack_image, write_face_records
from arcface_edu.errors import ArcfaceError
from arcface_edu.models import build_model
from arcface_edu.runs import load_model, open_run
from arcface_edu.training.checkpoint import load_latest, save_checkpoint
from arcface_edu.training.people import saved_people
from arcface_edu.training.prepare import complete_without_data

SECONDS = 5.0  # of processor time, for one input
PATIENCE = 120  # seconds in which a busy machine finishes one input; after that the process hangs
MEMORY = 4 << 30  # bytes that a reader may ask for beside what it has
NETWORK, SIZE = "r10_quick", 8
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pty.spawn")
HARM = (b"cposix\nsystem\n(S'touch harm'\ntR.", b'cbuiltins\nexec\n(S\'open("harm", "w")\'\ntR.', b"cos\nsystem\n.")
WORDS = ("nan", "inf", "-inf", "-1", "0", "1e309", "99999999999999999999", "0x10", "\u00b2", "\0", "None", "True", "é",
         "[" * 2000, '"', "\t", "\n", ",,", "=", "../../x", "1" * 5000)  # fmt: skip
LIMITS = [
    *(struct.pack("<I", n & 0xFFFFFFFF) for n in (0, 1, -1, 2**31 - 1, 2**31, 2**29, 0xCED7230A, 65535)),
    *(struct.pack("<q", n) for n in (-1, 2**63 - 1, 2**40, 2**32)),
    *(struct.pack("<f", x) for x in (float("nan"), float("inf"), -1.0, 1e30, 0.5)),
    *(struct.pack(">I", n) for n in (2**31 - 1, 2**32 - 1, 65535)),
]


class Reader(NamedTuple):
    """One kind of input."""

    share: int  # of the inputs, in relation to the other readers
    write: Callable[[Path], None]  # sound files, into a folder
    read: Callable[[Path], object]  # all of them, as a command does
    damaged: str = "*"  # which of them are damaged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", type=int, metavar="N", help="one input of each reader, here, with its traceback")
    options = parser.parse_args()
    if options.only is not None:
        for name in options.readers:
            with tempfile.TemporaryDirectory() as place:
                print(name, *try_inputs(name, options.seed, [options.only], Path(place), print))
        return
    raise SystemExit(bool(campaign(options.readers, options.inputs, options.seed, options.workers)))


def campaign(names: list[str], inputs: int, seed: int, workers: int) -> list[str]:
    """Try so many inputs; print what was found and return a sentence for each that was wrong."""
    shares = {name: READERS[name].share for name in names}
    counts = {name: -(-inputs * share // sum(shares.values())) for name, share in shares.items()}
    began = time.perf_counter()
    with tqdm(total=sum(counts.values()), unit="input", smoothing=0.02) as bar, ThreadPoolExecutor(workers) as pool:
        found = dict(zip(names, pool.map(lambda name: watch(name, seed, counts[name], bar), names), strict=True))
    wrong = [sentence for _, _, sentences in found.values() for sentence in sentences]
    print(f"{'reader':<12}{'inputs':>8}{'read':>8}{'refused':>9}{'wrong':>7}{'slowest':>10}")
    for name, (verdicts, slowest, sentences) in found.items():
        read, refused = verdicts["read"], verdicts["refused"]
        print(f"{name:<12}{counts[name]:8,}{read:8,}{refused:9,}{len(sentences):7,}{slowest:8.2f} s")
    print(f"{sum(counts.values()):,} inputs, {len(wrong):,} wrong, {time.perf_counter() - began:.0f} s, seed {seed}")
    print(*wrong, sep="\n")
    return wrong


def watch(name: str, seed: int, count: int, bar: tqdm) -> tuple[Counter[str], float, list[str]]:
    """Try a reader's inputs in a process of its own; one that dies or hangs is found here, and the next goes on."""
    verdicts: Counter[str] = Counter()
    slowest, wrong, number = 0.0, [], 0
    context = multiprocessing.get_context("spawn")
    while number < count:
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(name, seed, range(number, count), theirs), daemon=True)
        process.start()
        theirs.close()
        patience = 5 * PATIENCE  # at first: the process starts, and writes the sound input
        try:
            while number < count:
                if not ours.poll(patience):
                    raise EOFError
                verdict, seconds, what = ours.recv()
                patience = PATIENCE
                verdicts[verdict] += 1
                slowest = max(slowest, seconds)
                if what:
                    wrong.append(f"{name} {number}: {what}")
                    bar.write(wrong[-1])
                number += 1
                bar.update()
        except EOFError:
            hangs = process.is_alive()
            process.kill()
            process.join()
            wrong.append(f"{name} {number}: {'hangs' if hangs else f'died with exit status {process.exitcode}'}")
            number += 1
            bar.update()
    return verdicts, slowest, wrong


def work(name: str, seed: int, numbers: range, results: Connection) -> None:
    """Be the process that reads: limited in memory, without a word."""
    with open(os.devnull, "w") as nowhere, tempfile.TemporaryDirectory() as place:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        limit_memory()
        for result in try_inputs(name, seed, numbers, Path(place)):
            results.send(result)


def limit_memory() -> None:
    """Let this process ask for no more than MEMORY beside what it has, where the system can say so."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, resource.RLIM_INFINITY))


def try_inputs(
    name: str, seed: int, numbers: range | list[int], place: Path, report: Callable[[str], object] | None = None
) -> Iterator[tuple[str, float, str]]:
    """Damage and read one input after the other.

    Args:
        name: Of the reader.
        seed: Of the damage, with the reader and the number.
        numbers: Of the inputs.
        place: An empty folder.
        report: Is told the damage and the traceback of each error.

    Yields:
        "read", "refused" or "wrong", the seconds of processor time, and a sentence where it was wrong.
    """
    reader = READERS[name]
    sound, folder = place / "sound", place / "input"
    sound.mkdir()
    reader.write(sound)
    shutil.copytree(sound, folder)
    reader.read(folder)  # the sound input has to be read, or the damaged ones prove nothing
    files = sorted(path for path in sound.rglob(reader.damaged) if path.is_file())
    parts = [path.read_bytes() for path in files]
    started = AUDIT.start()
    for number in numbers:
        rng = random.Random(f"{seed} {name} {number}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        chosen = rng.randrange(len(files))
        target = folder / files[chosen].relative_to(sound)
        target.write_bytes(damage(parts[chosen], rng, parts))
        started.clear()
        verdict, what, began = "read", "", time.process_time()
        try:
            with contextlib.chdir(place) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
                reader.read(folder)
        except ArcfaceError as error:
            verdict = "refused"
            if not str(error).strip():
                what = "an error without a word"
        except BaseException as error:
            what = f"{target.relative_to(folder)}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            where = traceback.extract_tb(error.__traceback__)[-1]
            what += f" ({Path(where.filename).name}:{where.lineno})"
            if report:
                report("".join(traceback.format_exception(error)))
        seconds = time.process_time() - began
        if started and name != "configs":
            what = f"{target.relative_to(folder)}: ran {started[0]}"
        if seconds > SECONDS:
            what = what or f"{target.relative_to(folder)}: took {seconds:.1f} s"
        yield ("wrong" if what else verdict), seconds, what


class Audit:
    """Notes what Python is about to run."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.installed = False

    def start(self) -> list[str]:
        """Return the list to which each event goes from now on."""
        if not self.installed:
            sys.addaudithook(self.note)
            self.installed = True
        return self.events

    def note(self, event: str, args: tuple[object, ...]) -> None:
        """Note an event that runs, connects, or writes a file that is not in the temporary folder."""
        if event in EVENTS or (event == "open" and writes_elsewhere(*args)):
            self.events.append(f"{event} {str(args)[:80]}")


def writes_elsewhere(path: object, mode: object, flags: object) -> bool:
    """Return whether a file is opened for writing that is not in the temporary folder, nor a device or bytecode."""
    if not isinstance(path, (str, bytes)) or not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
        return False
    name = os.path.abspath(os.fsdecode(path))
    return not name.startswith((os.path.abspath(tempfile.gettempdir()), "/dev/")) and "__pycache__" not in name


AUDIT = Audit()


def damage(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return the content of a file after one to three random changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(CHANGES)(content, rng, others)
    return content


def flip_bits(content: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if content else 0):
        changed[place_in(content, rng) - 1] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_off(content: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    return content[: rng.choice((0, 1, 8, 24, place_in(content, rng), len(content) - rng.randrange(1, 9)))]


def cut_out(content: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    begin = place_in(content, rng)
    return content[:begin] + content[begin + rng.choice((1, 2, 4, 100, len(content) // 4)) :]


def put_in(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Put something in, or in the place of what is there: noise, zeros, a part of this file or another, a pickle."""
    source = rng.choice([content, *others])
    begin = place_in(source, rng)
    length = rng.choice((1, 4, 16, 300))
    piece = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length, source[begin : begin + length], *HARM))
    begin = rng.choice((0, place_in(content, rng), len(content)))
    return content[:begin] + piece + content[begin + rng.choice((0, len(piece))) :]


def push_number(content: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """Write an extreme number over the bytes somewhere, mostly at a multiple of 4."""
    begin = place_in(content, rng) // 4 * 4 + rng.choice((0, 0, 0, 1, 2))
    limit = rng.choice(LIMITS)
    return content[:begin] + limit + content[begin + len(limit) :]


def push_word(content: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """Write a word that no number or name is in the place of one, between two separators."""
    begin = place_in(content, rng)
    ends = [at for at in (content.find(mark, begin) for mark in (b"\t", b"\n", b",", b" ", b'"')) if at >= 0]
    end = min(ends, default=len(content))
    return content[:begin] + rng.choice(WORDS).encode() + content[end:]


def double_or_swap(content: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    first, second = sorted((place_in(content, rng), place_in(content, rng)))
    middle = content[first:second]
    return rng.choice((content[:first] + middle + middle + content[second:], content[second:] + content[:second]))


CHANGES = (flip_bits, cut_off, cut_out, put_in, push_number, push_word, double_or_swap)


def place_in(content: bytes, rng: random.Random) -> int:
    """Return a place in a file: anywhere, or near its head, where most of its structure is."""
    return rng.randrange(1 + rng.choice((len(content), min(len(content), 256), min(len(content), 40))))


def photo(number: int, size: int = 112) -> bytes:
    generator = torch.Generator().manual_seed(number)
    return encode_jpeg(torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator), 30)


def write_records(folder: Path) -> None:
    write_face_records(folder, [[photo(3 * person + number, 40) for number in range(3)] for person in range(4)])
    (folder / "identities.txt").write_text("Anna\nben\nc\nd\n")


def write_im2rec(folder: Path) -> None:
    labels.WORTH_KEEPING = 1
    os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    with RecordWriter(folder / "train.rec") as writer:
        for key in range(9):
            writer.write(key, pack_image([key % 4, 1.0] if key % 2 else key % 4, photo(key, 40), key))
    open_faces(folder)  # leaves labels.npy


def read_set(folder: Path) -> None:
    faces = open_faces(folder)
    batch = BatchReader(faces).__getitems__(range(len(faces)))  # as the trainer's reader processes do
    if batch.fatal:
        raise ArcfaceError(batch.fatal)


def write_photographs(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    picture, grey = Image.fromarray(pixels), Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    for number, ending in enumerate((".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".ppm", ".avif")):
        person = folder / f"person {number % 3}"
        person.mkdir(exist_ok=True)
        with contextlib.suppress(KeyError, ValueError, OSError):  # this Pillow does not write that format
            picture.save(person / f"{number}{ending}")
    grey.save(folder / "person 0" / "deep.png")
    grey.save(folder / "person 1" / "deep.tif")


def write_pair_file(folder: Path) -> None:
    write_pairs(folder / "some.bin", [photo(number % 12, 40) for number in range(40)], [True, False] * 10)


def read_pair_file(folder: Path) -> None:
    read_pairs(folder / "some.bin")
    inspect_pairs(folder / "some.bin")


def small_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_model(NETWORK, SIZE).state_dict()


def write_weights(folder: Path) -> None:
    state = {"state_dict": {f"module.{name}": value for name, value in small_state().items()}}
    torch.save(state, folder / "weights.pt")
    torch.save(small_state(), folder / "old.pth", _use_new_zipfile_serialization=False)
    with contextlib.suppress(ImportError):
        from safetensors.torch import save_file

        save_file(small_state(), folder / "weights.safetensors")


def read_weights(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        load_model(path, NETWORK, SIZE)


def write_checkpoint(folder: Path) -> None:
    tensors = dict(weight=torch.arange(30.0).reshape(10, 3), rng=torch.zeros(2, 5, dtype=torch.uint8))
    state = dict(step=7, head=tensors, run=dict(network="r10"), tables=["run.head.weight"])
    save_checkpoint(folder, 7, state)


def write_run(folder: Path) -> None:
    (folder / "config.json").write_text('{"network": "r10_quick", "embedding_size": 8, "scale": 8.0, "rec": "x"}')
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "lr": 0.1}\n{"step": 2, "loss": NaN}\n' * 5)
    people = '{"people": ["a", "b"], "held_out": [], "num_classes": 2, "num_image": 4, "content": null}'
    (folder / "people.json").write_text(people)
    torch.save(small_state(), folder / "model.pt")
    (folder / "checkpoints" / "step_00000007").mkdir(parents=True)


def read_run(folder: Path) -> None:
    (folder / "checkpoints" / "step_00000007").mkdir(parents=True, exist_ok=True)
    saved_people(folder)
    shutil.rmtree(folder / "checkpoints")
    open_run(folder)


def write_table(folder: Path) -> None:
    (folder / "photos").mkdir()
    points = np.array([[38.0, 52.0], [74, 52], [56, 72], [42, 92], [71, 92]])
    for number in range(3):
        (folder / "photos" / f"{number}.jpg").write_bytes(photo(number))
    write_landmarks(folder / "points.csv", {f"{number}.jpg": points + number for number in range(3)})


def read_table(folder: Path) -> None:
    broken: list[str] = []
    align_photographs(folder / "photos", read_landmarks(folder / "points.csv", broken), folder / "out", broken)


def write_config(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from easydict import EasyDict as edict\n\nconfig = edict()\nconfig.margin_list = (1.0, 0.5, 0.0)\n"
        'config.network = "r50"\nconfig.lr = 0.1\nconfig.batch_size = 128\nconfig.num_epoch = 20\nconfig.dali = False\n'
        "config.decay_epoch = [10, 16]\nconfig.num_classes = 100\nconfig.num_image = 2000\nconfig.sample_rate = 0.5\n"
        'config.val_targets = ["lfw", "cfp_fp"]\nconfig.optimizer = "sgd"\nconfig.init = None\nconfig.fp16 = True\n'
    )


def read_config(folder: Path) -> None:
    words = [f"output={folder / 'run'}", "init=None"]
    complete_without_data(load_config(folder / "mine.py", words), gpus=2)


def write_graph(folder: Path) -> None:
    from arcface_edu.exporting.to_onnx import to_onnx

    (folder / "net.onnx").write_bytes(to_onnx(build_model(NETWORK, SIZE).eval(), {"network": NETWORK}))


def read_graph(folder: Path) -> None:
    from arcface_edu.models.onnx_graph import OnnxGraph

    OnnxGraph(folder / "net.onnx")(torch.zeros(2, 3, 112, 112))


READERS = {
    "records": Reader(4, write_records, read_set, "train.rec"),
    "index": Reader(3, write_records, read_set, "train.idx"),
    "property": Reader(2, write_records, read_set, "[pi]*t*"),
    "im2rec": Reader(3, write_im2rec, read_set),
    "pairs": Reader(4, write_pair_file, read_pair_file),
    "images": Reader(4, write_photographs, read_set),
    "weights": Reader(2, write_weights, read_weights),
    "checkpoints": Reader(2, write_checkpoint, load_latest),
    "run": Reader(2, write_run, read_run, "*.json*"),
    "landmarks": Reader(3, write_table, read_table, "points.csv"),
    "configs": Reader(2, write_config, read_config),
    "onnx": Reader(2, write_graph, read_graph),
}

warnings.simplefilter("ignore")
logging.getLogger("arcface_edu").addHandler(logging.NullHandler())


if __name__ == "__main__":
    main()
