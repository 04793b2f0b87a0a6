"""Configs: layers, types, and a sentence for every slip."""

import copy
import json
import operator
import pickle

import pytest
import setuptools
from easydict import EasyDict

from arcface_edu.config import SHIPPED, FinalConfig, check_value, load_config, read_config_file, shipped_configs
from arcface_edu.config_schema import KEYS, base_source, keys_table
from arcface_edu.errors import ConfigError


def test_layers_lie_over_one_another(tmp_path):
    (tmp_path / "mine.py").write_text("from easydict import EasyDict\nconfig = EasyDict(lr=0.3, batch_size=16)\n")
    config = load_config(
        tmp_path / "mine.py", ["batch_size=32", "fp16=False", "rec=photos/", "margin_list=(1, 0.4, 0)"]
    )
    assert (config.lr, config.batch_size, config.fp16, config.rec) == (0.3, 32, False, "photos/")
    assert config.margin_list == (1, 0.4, 0)
    assert config.network == "r50"  # base.py's
    assert config.output == "runs/mine"


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configs_load(name):
    assert load_config(name).output == f"runs/{name}"


def test_a_wheel_holds_every_shipped_config():
    packages = setuptools.find_packages(where=SHIPPED.parents[1], include=["arcface_edu*"])
    assert {"arcface_edu.configs", "arcface_edu.configs.insightface"} <= set(packages)
    assert {path.parent for path in shipped_configs().values()} == {SHIPPED, SHIPPED / "insightface"}


def test_base_py_is_what_the_schema_says():
    """To write it anew: python -c "import arcface_edu.config_schema as schema; schema.write_base()"."""
    assert (SHIPPED / "base.py").read_text() == base_source()
    assert list(read_config_file(SHIPPED / "base.py").items()) == [(key.name, key.default) for key in KEYS.values()]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_every_default_is_within_its_own_limits_and_explained(key):
    assert check_value(key.name, key.default, "its default") == key.default
    assert key.help or key.rule.choices
    assert key.rule is None or key.rule.sentence[:2] in ("; ", ", ")
    none_is_allowed = isinstance(None, key.type)
    if not none_is_allowed:
        with pytest.raises(ConfigError, match=f"sets {key.name} to None, which should be of type"):
            check_value(key.name, None, "a test")


def test_the_table_of_keys_says_each_with_default_meaning_and_limits():
    said = keys_table()
    assert max(map(len, said.splitlines())) <= 120
    flat = " ".join(said.split())
    for key in KEYS.values():
        assert " ".join(f"{key.name}={key.default} {key.help} [{key.limits}]".split()) in flat
    assert "loss=arcface [softmax | norm_softmax | sphereface | cosface" in flat
    assert "[float, above 0, at most 1]" in flat


def test_a_loss_named_later_brings_its_own_margins():
    assert load_config(overrides=["loss=cosface"]).margin_list is None
    assert load_config(overrides=["loss=cosface", "margin_list=[1, 0, 0.2]"]).margin_list == [1, 0, 0.2]


@pytest.mark.parametrize(
    ("word", "targets"),
    [
        ("lfw", ["lfw"]),
        ("lfw,cfp_fp", ["lfw", "cfp_fp"]),
        ("[lfw, /data/my pairs.bin]", ["lfw", "/data/my pairs.bin"]),
        ("['lfw']", ["lfw"]),
        ("'lfw'", ["lfw"]),
        ("('lfw', 'agedb_30')", ("lfw", "agedb_30")),
        ("[]", []),
    ],
)
def test_pair_files_are_named_as_a_shell_passes_them(word, targets):
    assert load_config(overrides=[f"val_targets={word}"]).val_targets == targets


def test_a_folder_may_have_a_number_for_a_name():
    config = load_config(overrides=["output=42", "rec=2024.10"])
    assert (config.output, config.rec) == ("42", "2024.10")


def test_one_load_leaves_no_trace_in_the_next():
    load_config(overrides=["val_targets=['lfw']", "lr=9"])
    assert load_config().val_targets == []
    assert load_config().lr != 9


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["batchsize=4"],
            r'the command line sets "batchsize", which is no key of a config \(did you mean "batch_size"\?\)',
        ),
        (["batch_size=4.5"], "sets batch_size to 4.5, which should be of type int"),
        (["batch_size=True"], "should be of type int"),
        (["fp16=1"], "should be of type bool"),
        (["network=50"], "should be of type str"),
        (["loss=arcfase"], r'did you mean "arcface"\?'),
        (["lr=-1"], "the least that makes sense is 0"),
        (["sample_rate=1.5"], "it is a share, from 0 to 1"),
        (["backbone_rate=0"], "above 0 and at most 1"),
        (["margin_list=(1, 0.5)"], r"it holds three numbers \(m1, m2, m3\), as \(1\.0, 0\.5, 0\.0\)\.$"),
        (["amp_dtype=fp15"], r"it may be None, bf16, fp16 \(did you mean \"fp16\"\?\)\.$"),
        (["warmup_epoch=None"], "sets warmup_epoch to None, which should be of type float"),
        (["lr='quick'"], r"sets lr to 'quick', which should be of type float; its default is 0\.1\."),
        (["decay_epoch=10"], "should be of type list or tuple"),
        (["pop=3"], r'sets "pop", which is no key of a config'),
        (["batch_size"], "not of the form key=value"),
        (["seed=None"], "should be of type int"),
    ],
)
def test_slips_on_the_command_line(words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(overrides=words)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("config = 3", "defines no `config`"),
        ("import nothing_of_that_name", "does not run: ModuleNotFoundError"),
        ("config = {'lrr': 1}", r'did you mean "lr"\?'),
    ],
)
def test_slips_in_a_file(tmp_path, text, sentence):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_config(tmp_path / "mine.py")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.py does not exist"):
        load_config(tmp_path / "nothing.py")
    with pytest.raises(ConfigError, match=r'no config called "drawn_face" \(did you mean "drawn_faces"\?\)'):
        load_config("drawn_face")


def test_a_final_config_reads_as_before_and_does_not_change(tmp_path):
    config = load_config()
    final = FinalConfig(config)
    assert final == config and dict(final) == dict(config)
    assert (final.lr, final["lr"], final.get("lr")) == (config.lr,) * 3
    assert json.dumps(final) == json.dumps(config)
    for change in (
        lambda: setattr(final, "lr", 1.0),
        lambda: final.__setitem__("lr", 1.0),
        lambda: final.update(lr=1.0),
        lambda: final.pop("lr"),
        lambda: final.__delitem__("lr"),
        lambda: operator.ior(final, dict(lr=1.0)),
    ):
        with pytest.raises(ConfigError, match=r"no longer changes; .* EasyDict\(config, lr=0\.01\)"):
            change()
    assert final == config
    for copied in (copy.copy(final), copy.deepcopy(final), pickle.loads(pickle.dumps(final))):
        assert type(copied) is FinalConfig and copied == config and copied.lr == config.lr
    other = EasyDict(final, lr=0.01)
    assert (other.lr, other.network, final.lr) == (0.01, config.network, config.lr)
