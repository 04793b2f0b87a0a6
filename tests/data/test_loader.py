"""Batches: which images, in which order, mirrored how; and what happens to records that cannot be read."""

import pytest
import torch

from arcface_edu.data.loader import BatchReader, ShuffledBatches, augment, draw_mirrored, load
from arcface_edu.errors import CorruptRecord, DataError

CPU = torch.device("cpu")


class Faces:
    """Twenty grey squares; number 13 is broken, number 17 has a wrong label."""

    def __init__(self, broken=(), wrong=()):
        self.broken, self.wrong = broken, wrong

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index in self.broken:
            raise CorruptRecord(f"record {index} is broken")
        if index in self.wrong:
            raise DataError(f"record {index} has a wrong label")
        return torch.full((3, 112, 112), index, dtype=torch.uint8), index


def test_an_epoch_shows_every_image_once_and_each_epoch_in_another_order():
    epochs = torch.tensor(list(ShuffledBatches(20, 5, 4, 12, seed=0))).view(3, 20)
    assert all(sorted(epoch.tolist()) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3


def test_a_resumed_run_gets_the_batches_that_were_left():
    whole = list(ShuffledBatches(20, 3, 6, 18, seed=4))
    for start in (0, 5, 6, 17, 18):
        assert list(ShuffledBatches(20, 3, 6, 18, seed=4, start=start)) == whole[start:]


def test_ranks_share_out_the_batches_of_one_process():
    whole = list(ShuffledBatches(20, 6, 3, 6, seed=4))
    by_rank = [list(ShuffledBatches(20, 2, 3, 6, seed=4, rank=rank, world_size=3)) for rank in range(3)]
    assert [[*one, *two, *three] for one, two, three in zip(*by_rank, strict=True)] == whole


def test_another_seed_is_another_order():
    assert list(ShuffledBatches(20, 5, 4, 4, seed=0)) != list(ShuffledBatches(20, 5, 4, 4, seed=1))


def test_the_slices_of_the_ranks_are_the_batches_of_one_process():
    whole = list(ShuffledBatches(24, 12, 2, 6, seed=4, start=1))
    ranks = [list(ShuffledBatches(24, 4, 2, 6, seed=4, start=1, rank=rank, world_size=3)) for rank in range(3)]
    assert [[*a, *b, *c] for a, b, c in zip(*ranks, strict=True)] == whole


def test_broken_records_are_left_out_and_named():
    batch = BatchReader(Faces(broken=[13])).__getitems__([12, 13, 14])
    assert batch.labels.tolist() == [12, 14]
    assert batch.images[:, 0, 0, 0].tolist() == [12, 14]
    assert batch.broken == ["record 13 is broken"]


def test_a_batch_of_nothing_but_broken_records_is_empty():
    batch = BatchReader(Faces(broken=[3, 4])).__getitems__([3, 4])
    assert batch.images.shape == (0, 3, 112, 112)
    assert len(batch.broken) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_in_a_worker_arrives_as_a_sentence(workers):
    batches = list(load(Faces(wrong=[17]), [[16, 17, 18], [1, 2]], workers, CPU))
    assert [batch.fatal for batch in batches] == ["record 17 has a wrong label", ""]
    assert batches[1].labels.tolist() == [1, 2]


def test_a_resumed_run_draws_the_dropout_that_was_left():
    """To open the data draws nothing of the generator that dropout uses: a resumed run opens it once more."""
    before = torch.get_rng_state()
    list(load(Faces(), [[1, 2]], 0, CPU))
    assert torch.equal(torch.get_rng_state(), before)


class Deadly(Faces):
    def __getitem__(self, index):
        import os

        os._exit(9)


def test_a_reader_that_dies_is_noticed():
    with pytest.raises(DataError, match=r"a process that reads images died .*num_workers=0"):
        list(load(Deadly(), [[1, 2]], 1, CPU))


def test_mirrors_are_drawn_per_step_and_about_half():
    first = draw_mirrored(2, 5, 100, 3, seed=5)
    assert torch.equal(first, draw_mirrored(2, 5, 100, 3, seed=5))
    assert not torch.equal(first, draw_mirrored(2, 5, 100, 4, seed=5))
    assert not torch.equal(first, draw_mirrored(2, 5, 100, 3, seed=6))
    assert 0.4 < first.float().mean() < 0.6


def test_augment_mirrors_the_chosen_and_normalises_all():
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    shown = augment(images, torch.tensor([True, False, True]))
    for row, mirrored in enumerate((True, False, True)):
        expected = (images[row].double() / 255 - 0.5) / 0.5
        expected = expected.flip(2) if mirrored else expected
        torch.testing.assert_close(shown[row].double(), expected, rtol=0, atol=1e-6)
    assert shown.is_contiguous(memory_format=torch.channels_last)
