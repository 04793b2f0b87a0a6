"""What people have: ten to thirty folders with one to five photographs each. All of them train, with no key but rec."""

import itertools
import re

import pytest
import torch

from arcface_edu.config import load_config
from arcface_edu.data.bins import count_pairs, write_pairs
from arcface_edu.data.images import encode_jpeg
from arcface_edu.errors import ConfigError, DataError
from arcface_edu.train import main
from arcface_edu.training.prepare import prepare, prepare_data

COUNTS = {
    **{f"{people} people of {photos}": [photos] * people for people in (10, 15, 20, 30) for photos in range(1, 6)},
    "one to five each": [1, 2, 3, 4, 5] * 4,
    "many of the first, one of the rest": [5] * 5 + [1] * 15,
    "one person with one photo": [4] * 11 + [1],
    "the last ones have one photo": [5] * 20 + [1] * 6,
    "two people": [2, 2],
    "nine people": [5] * 9,
}


@pytest.fixture(scope="session")
def photos():
    generator = torch.Generator().manual_seed(0)
    return [encode_jpeg(torch.randint(256, (3, 40, 40), dtype=torch.uint8, generator=generator)) for _ in range(150)]


def fill(folder, photos, counts):
    """A folder of people with so many photographs; no two alike."""
    images = itertools.cycle(photos)
    for person, count in enumerate(counts):
        for number in range(count):
            path = folder / f"p{person}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(next(images))
    return folder


@pytest.mark.parametrize("case", COUNTS)
@pytest.mark.parametrize("world", [1, 2])
def test_they_train_and_what_can_be_verified_is(case, world, photos, tmp_path, caplog):
    counts = COUNTS[case]
    config, faces, pair_sets = prepare_data(load_config("own_data", [f"rec={fill(tmp_path, photos, counts)}"]), world)
    assert config.batch_size >= 2 and config.batch_size * world <= len(faces)
    assert faces.num_classes == len(counts) - config.hold_out
    assert len(faces) == sum(counts[: faces.num_classes])
    enough = [n for n in range(len(counts) // 5, len(counts) // 3 + 1) if n and count_pairs(counts[-n:])]
    if len(counts) < 10 or not enough:
        assert (config.hold_out, pair_sets) == (0, [])
        assert f"nothing is verified, and all {len(counts)} people are trained" in caplog.text
    else:
        assert config.hold_out == enough[0]
        assert [(pairs.name, len(pairs.is_same) >= 20) for pairs in pair_sets] == [("held_out", True)]


def test_photographs_that_cannot_be_read_do_not_count_for_verification(photos, tmp_path, caplog):
    fill(tmp_path, photos, [4] * 12)
    for number in range(3):
        (tmp_path / "p11" / f"{number}.jpg").write_bytes(b"no image")
    config, faces, pair_sets = prepare_data(load_config("own_data", [f"rec={tmp_path}"]))
    assert (config.hold_out, faces.num_classes, len(pair_sets[0].is_same)) == (3, 9, 20)


def test_a_file_of_too_few_pairs_is_left_out_unless_the_config_names_it(photos, tmp_path, caplog):
    fill(tmp_path, photos, [4] * 12)
    write_pairs(tmp_path / "few.bin", photos[:12], [True] * 3 + [False] * 3)
    _, _, pair_sets = prepare_data(load_config("own_data", [f"rec={tmp_path}"]))
    assert [pairs.name for pairs in pair_sets] == ["held_out"]
    assert re.search(r"few\.bin holds 6 pairs, too few for ten folds: it is left out", caplog.text)
    with pytest.raises(DataError, match=r"few\.bin holds 6 pairs, too few for ten folds: leave it out of val_targets"):
        prepare_data(load_config("own_data", [f"rec={tmp_path}", "val_targets=['few']"]))


@pytest.mark.parametrize(
    ("words", "world", "sentence"),
    [
        (["batch_size=64"], 1, "batch_size 64 = 64 images, but there are only 10; set batch_size=2 or less"),
        (["gradient_acc=8"], 1, r"batch_size 2 x gradient_acc 8 = 16 .* only 10; set gradient_acc=5 or less\.$"),
        ([], 8, r"batch_size 2 x 8 processes = 16 images, .* only 10; start 5 processes or fewer\.$"),
        (["gradient_acc=3"], 4, r"; set gradient_acc=1 or less, or start 1 processes or fewer"),
        (["hold_out=9"], 1, "holds one identity beside the 9 held out"),
        (["hold_out=10"], 1, "10 of them cannot be held out"),
        (["hold_out=2"], 1, "hold out more people, or add photos"),
    ],
)
def test_a_sentence_speaks_of_what_was_set(words, world, sentence, photos, tmp_path):
    fill(tmp_path, photos, [1] * 10)
    with pytest.raises((ConfigError, DataError), match=sentence):
        prepare_data(load_config("own_data", [f"rec={tmp_path}", *words]), world)


def test_what_is_fitted_never_exceeds_the_images(photos, tmp_path):
    """Whatever the processes and parts, an error names no batch size, and what passes takes no more than there is."""
    fill(tmp_path, photos, [1, 2, 3, 1, 2, 1, 1, 1, 1, 2])  # 15
    for world, parts in itertools.product(range(1, 10), range(1, 9)):
        words = [f"rec={tmp_path}", f"gradient_acc={parts}"]
        if 2 * world * parts <= 15:
            config = prepare_data(load_config("own_data", words), world).config
            assert 2 * world * parts <= config.batch_size * world * parts <= 15
        else:
            with pytest.raises(ConfigError) as error:
                prepare_data(load_config("own_data", words), world)
            assert "batch_size=" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [[1] * 10, [5] * 10, [1, 2, 3, 4, 5] * 4, [1, 1]], ids=str)
@pytest.mark.parametrize("beginning", ["own_data", "fine_tune"])
def test_the_command_ends_with_a_model(counts, beginning, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [f"rec={fill(tmp_path / 'photos', photos, counts)}", "num_epoch=2", "num_workers=0"]
    if beginning == "fine_tune":
        start, _, _, _ = prepare(load_config("own_data", words))
        torch.save(build(start), tmp_path / "weights.pt")
        words.append("init=weights.pt")
    main(words)
    assert (tmp_path / "runs" / beginning / "model.pt").exists()
    assert ("held_out" in capsys.readouterr().out) == (count_pairs(counts[-(len(counts) // 5) :]) > 0)


def build(config):
    from arcface_edu.models import build_model

    return build_model(config.network, config.embedding_size).state_dict()
