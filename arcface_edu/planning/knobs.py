"""Which key makes a run fit, found by trying it on fake tensors; and from how many classes on Partial FC pays."""

import copy

from tqdm import tqdm

from arcface_edu.planning.gpus import dtype_on, time_on, too_much
from arcface_edu.planning.measure import measure

PAYS = 0.05  # Partial FC pays where it takes so much off a step
RATE = 0.1  # the sample_rate it is judged by
SMALL = 20_000  # classes a GPU, with which the head alone is measured: its time goes in proportion to them


def changed(config, **keys):
    other = copy.deepcopy(config)
    other.update(keys)
    return other


def what_would_fit(config, measured, gpu):
    """A list of (words, bytes to spare or, below 0, lacking, images/s), of keys tried one by one, then all together.

    The batch that fits is proposed from the memory of two batches and then tried like the others.
    """
    half = config.batch_size // 2
    tries = []
    if not config.fp16:
        tries.append(dict(fp16=True))
    if not config.gradient_checkpointing:
        tries.append(dict(gradient_checkpointing=True))
    if config.sample_rate > RATE and config.loss != "softmax":
        tries.append(dict(sample_rate=RATE))
    trying = tqdm(tries, "trying what would fit", leave=False)
    found = [(keys, attempt(changed(config, **keys), measured, gpu)) for keys in trying]
    if half >= 2:
        smaller = attempt(changed(config, batch_size=half), measured, gpu)
        each = (smaller[0] + too_much(measured, gpu)) / (config.batch_size - half)  # bytes an image
        batch = int(half + smaller[0] / each) if each > 0 else 0
        batch = batch // 8 * 8 if batch >= 8 else batch
        if batch >= 2:
            found.append((dict(batch_size=batch), attempt(changed(config, batch_size=batch), measured, gpu)))
        else:
            found.append((dict(batch_size=half), smaller))
    if not any(spare >= 0 for _, (spare, _) in found) and len(tries) > 1:
        together = {key: value for keys in tries for key, value in keys.items()}
        found.append((together, attempt(changed(config, **together), measured, gpu)))
    return [(" ".join(f"{key}={value}" for key, value in keys.items()), *outcome) for keys, outcome in found]


def attempt(config, measured, gpu):
    """(bytes to spare, images/s) of a config with other keys."""
    other = measure(config, measured.gpus, dtype_on(config, gpu))
    return -too_much(other, gpu), other.gpus * other.batch / time_on(other, gpu).step


def partial_fc_pays_from(config, measured, gpu):
    """The class count from which sample_rate 0.1 takes 5 % off the step; None for a head that cannot sample.

    The time of head and optimizer goes in proportion to the classes; it is measured at both rates, on fake tensors,
    with the smallest network and few classes.
    """
    if config.loss == "softmax":
        return None
    classes = min(config.num_classes, SMALL * measured.gpus)
    small = dict(network="r10", gradient_acc=1, gradient_checkpointing=False)
    count = {rate: {} for rate in (1.0, RATE)}
    for rate, share in ((1.0, 1), (1.0, 2), (RATE, 1)):
        some = max(measured.gpus, classes // share)
        one = changed(config, **small, num_classes=some, sample_rate=rate)
        count[rate][some] = time_on(measure(one, measured.gpus, measured.dtype), gpu).step
    (most, all_of_it), (fewer, half_of_it) = sorted(count[1.0].items(), reverse=True)
    each = (all_of_it - half_of_it) / (most - fewer)  # seconds a class costs
    saved = (all_of_it - count[RATE][most]) / most  # of which sampling saves
    if saved <= PAYS * each:
        return None
    here = config.num_classes * (each - saved * (1 - config.sample_rate) / (1 - RATE))
    rest = time_on(measured, gpu).step / config.gradient_acc - here  # of a micro-batch without its head
    return round(PAYS * max(0.0, rest) / (saved - PAYS * each))
