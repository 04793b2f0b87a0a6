"""What preparation fills in, that the caller's config stays as it is, and that the result no longer changes."""

import json

import pytest

from arcface_edu.config import FinalConfig, load_config
from arcface_edu.errors import ConfigError
from arcface_edu.training.prepare import complete_without_data, prepare, prepare_data


def test_preparation_completes_a_copy(drawn, tmp_path):
    config = load_config("own_data", [f"rec={drawn}", f"output={tmp_path / 'run'}", "scale=None"])
    before = dict(config)
    final, output, faces, pair_sets = prepare(config, resume=True)
    assert dict(config) == before
    assert output == tmp_path / "run" and output.is_dir()
    filled = {key for key in final if final[key] != before[key]}
    assert filled == {"batch_size", "hold_out", "lr", "num_classes", "num_epoch", "num_image", "resume", "scale"}
    assert (final.num_classes, final.num_image, final.scale) == (faces.num_classes, len(faces), 32.0)
    assert final.resume is True and None not in [final[key] for key in filled]
    assert [pairs.name for pairs in pair_sets] == [path.stem for path in sorted(drawn.glob("*.bin"))]
    json.dumps(final)
    with pytest.raises(ConfigError, match="no longer changes"):
        final.lr = 1.0


def test_a_prepared_config_prepared_again_is_the_same(drawn, tmp_path):
    config = load_config("own_data", [f"rec={drawn}", f"output={tmp_path / 'run'}"])
    final = prepare(config).config
    assert prepare(final).config == final
    assert prepare_data(final).config == final


def test_without_data_the_config_says_the_counts():
    final = complete_without_data(load_config("drawn_faces"), gpus=2)
    assert (final.num_classes, final.num_image, type(final)) == (500, 10_000, FinalConfig)
    with pytest.raises(ConfigError, match=r"how many people .* set num_classes="):
        complete_without_data(load_config("own_data"), gpus=1)


def test_a_set_named_by_its_file_is_the_set_of_its_folder(drawn, tmp_path):
    words = [f"rec={drawn / 'train.rec'}", f"output={tmp_path / 'run'}"]
    final, _, faces, pair_sets = prepare(load_config("own_data", words))
    assert (final.hold_out, len(faces)) == (0, 120)
    assert [pairs.name for pairs in pair_sets] == ["drawn"]
