"""Which key makes a run fit, found by trying it on fake tensors; and from how many classes on Partial FC pays."""

from typing import Any, NamedTuple

from tqdm import tqdm

from arcface_edu.config import FinalConfig
from arcface_edu.planning.gpus import Gpu, dtype_on, excess_memory, time_on
from arcface_edu.planning.measure import MeasuredStep, measure_step

PAYS = 0.05  # Partial FC pays where it takes so much off a step
RATE = 0.1  # the sample_rate it is judged by
SMALL = 20_000  # classes a GPU, with which the head alone is measured: its time goes in proportion to them


class Attempt(NamedTuple):
    """What a run would be with other keys."""

    keys: str  # as they are written on the command line
    spare: float  # bytes of the GPU's memory that stay free; below 0: that are missing
    images_per_second: float  # of all GPUs


def with_keys(config: Any, **keys: Any) -> FinalConfig:
    """Return a copy of a config with other keys."""
    return FinalConfig({**config, **keys})


def find_what_fits(config: Any, measured: MeasuredStep, gpu: Gpu) -> list[Attempt]:
    """Try keys that save memory one by one, and if none of them is enough, all together.

    The batch that fits is proposed from the memory of two batches and then tried like the others.
    """

    def attempt(**keys: Any) -> Attempt:
        other = with_keys(config, **keys)
        step = measure_step(other, measured.gpus, dtype_on(other, gpu))
        words = " ".join(f"{key}={value}" for key, value in keys.items())
        return Attempt(words, -excess_memory(step, gpu), step.gpus * step.batch / time_on(step, gpu).step)

    half = config.batch_size // 2
    tries: list[dict[str, Any]] = []
    if not config.fp16:
        tries.append(dict(fp16=True))
    if not config.gradient_checkpointing:
        tries.append(dict(gradient_checkpointing=True))
    if config.sample_rate > RATE and config.loss != "softmax":
        tries.append(dict(sample_rate=RATE))
    found = [attempt(**keys) for keys in tqdm(tries, "trying what would fit", leave=False)]
    if half >= 2:
        smaller = attempt(batch_size=half)
        each = (smaller.spare + excess_memory(measured, gpu)) / (config.batch_size - half)  # bytes an image
        batch = int(half + smaller.spare / each) if each > 0 else 0
        batch = batch // 8 * 8 if batch >= 8 else batch
        found.append(attempt(batch_size=batch) if batch >= 2 else smaller)
    if not any(one.spare >= 0 for one in found) and len(tries) > 1:
        found.append(attempt(**{key: value for keys in tries for key, value in keys.items()}))
    return found


def partial_fc_pays_from(config: Any, measured: MeasuredStep, gpu: Gpu) -> int | None:
    """Return the class count from which sample_rate 0.1 takes 5 % off the step; None for a head that cannot sample.

    The time of head and optimizer goes in proportion to the classes; it is measured at both rates, on fake tensors,
    with the smallest network and few classes.
    """
    if config.loss == "softmax":
        return None
    classes = min(config.num_classes, SMALL * measured.gpus)
    small = dict(network="r10", gradient_acc=1, gradient_checkpointing=False)
    seconds: dict[float, dict[int, float]] = {1.0: {}, RATE: {}}  # by rate and class count
    for rate, share in ((1.0, 1), (1.0, 2), (RATE, 1)):
        some = max(measured.gpus, classes // share)
        one = with_keys(config, **small, num_classes=some, sample_rate=rate)
        seconds[rate][some] = time_on(measure_step(one, measured.gpus, measured.dtype), gpu).step
    (most, all_of_it), (fewer, half_of_it) = sorted(seconds[1.0].items(), reverse=True)
    each = (all_of_it - half_of_it) / (most - fewer)  # seconds a class costs
    saved = (all_of_it - seconds[RATE][most]) / most  # of which sampling saves
    if saved <= PAYS * each:
        return None
    here = config.num_classes * (each - saved * (1 - config.sample_rate) / (1 - RATE))
    rest = time_on(measured, gpu).step / config.gradient_acc - here  # of a micro-batch without its head
    return round(PAYS * max(0.0, rest) / (saved - PAYS * each))
