"""Advice is tried: what is said to fit does when measured, and Partial FC pays where it is said to."""

import pytest
import torch
from planning.tiny import tiny

from arcface_edu.planning.advice import PAYS, RATE, find_what_fits, partial_fc_pays_from, with_keys
from arcface_edu.planning.gpus import GIB, Gpu, excess_memory, memory_on, time_on
from arcface_edu.planning.measure import measure_step

CARD = Gpu("a card", 1.0, half=100, single=10, bandwidth=1000, link=100)


@pytest.mark.slow
def test_what_is_said_to_fit_fits_and_a_little_more_does_not():
    config = tiny("batch_size=256", "fp16=False", gpus=2)
    here = measure_step(config, 2, torch.float32)
    card = CARD._replace(memory=(sum(memory_on(here).values()) - 0.15 * GIB) / GIB)
    assert excess_memory(here, card) == pytest.approx(0.15 * GIB)
    tried = {words: spare for words, spare, _ in find_what_fits(config, here, card)}
    assert {"fp16=True", "gradient_checkpointing=True", "sample_rate=0.1"} <= set(tried)
    assert tried["fp16=True"] == -excess_memory(measure_step(with_keys(config, fp16=True), 2, torch.bfloat16), card)
    batch = next(int(words.partition("=")[2]) for words in tried if words.startswith("batch_size"))
    assert excess_memory(measure_step(with_keys(config, batch_size=batch), 2, torch.float32), card) <= 0
    assert excess_memory(measure_step(with_keys(config, batch_size=batch + 16), 2, torch.float32), card) > 0


@pytest.mark.slow
def test_where_nothing_alone_is_enough_all_are_tried_together():
    config = tiny("batch_size=64", "fp16=False")
    here = measure_step(config, 1, torch.float32)
    words, spare, _ = find_what_fits(config, here, CARD._replace(memory=0.1))[-1]
    assert words == "fp16=True gradient_checkpointing=True sample_rate=0.1"
    assert spare < 0


@pytest.mark.parametrize("rate", [1.0, RATE])
def test_partial_fc_pays_from_the_class_count_that_is_named(rate):
    config = tiny("num_classes=40000", f"sample_rate={rate}", "batch_size=64")
    classes = partial_fc_pays_from(config, measure_step(config, 1, torch.float32), CARD)
    all_of_it, sampled = (
        time_on(measure_step(with_keys(config, num_classes=classes, sample_rate=one), 1, torch.float32), CARD).step
        for one in (1.0, RATE)
    )
    # Not quite in proportion to the classes: the first logits are kept, those beyond are computed twice.
    assert 1 - sampled / all_of_it == pytest.approx(PAYS, abs=0.015)


def test_plain_softmax_cannot_sample():
    config = tiny("loss=softmax")
    assert partial_fc_pays_from(config, measure_step(config, 1, torch.float32), CARD) is None
