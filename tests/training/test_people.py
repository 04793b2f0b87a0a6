"""A run goes on with the people that it began with, each under the same label, and with the same people held out."""

import json
import shutil

import pytest
import torch

from arcface_edu.config import load_config
from arcface_edu.data.bins import write_pairs
from arcface_edu.data.images import encode_jpeg
from arcface_edu.data.recordio import write_face_records
from arcface_edu.errors import CheckpointError, DataError
from arcface_edu.training.launch import World
from arcface_edu.training.pair_sets import PairSet, check_pair_images
from arcface_edu.training.prepare import prepare


def photo(number):
    return encode_jpeg(torch.full((3, 112, 112), 7 * number % 256, dtype=torch.uint8))


@pytest.fixture
def folder(tmp_path):
    """Twelve people of five photographs: the last two are held out."""
    for person in range(12):
        for number in range(5):
            path = tmp_path / "photos" / f"p{person}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(5 * person + number))
    return tmp_path / "photos"


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "packed").mkdir()
    write_face_records(
        tmp_path / "packed", [[photo(3 * person + number) for number in range(3)] for person in range(5)]
    )
    return tmp_path / "packed"


def begin(rec, *words):
    """Prepare a run, and leave what a checkpoint's name is."""
    prepared = prepare(load_config("own_data", [f"rec={rec}", f"output={rec.parent / 'run'}", *words]))
    (prepared.output / "checkpoints" / "step_00000007").mkdir(parents=True, exist_ok=True)
    return prepared


def go_on(rec, *words):
    return begin(rec, "resume=True", *words)


def held_out_of(prepared):
    return [(pairs.name, pairs.images) for pairs in prepared.pair_sets]


def test_a_run_keeps_the_names_of_its_people(folder):
    output = begin(folder).output
    people = json.loads((output / "people.json").read_text())
    assert people["people"] == [f"p{person}" for person in range(10)]
    assert (people["held_out"], people["num_image"]) == (["p10", "p11"], 50)


def test_whoever_has_come_is_left_out_and_named(folder, caplog):
    before = begin(folder)
    shutil.copytree(folder / "p3", folder / "p3b")
    shutil.copytree(folder / "p4", folder / "zoe")
    after = go_on(folder)
    assert after.faces.people == before.faces.people
    assert held_out_of(after) == held_out_of(before)
    assert "p3b, zoe came to" in caplog.text
    assert begin(folder).faces.num_classes == 12  # a new run takes them


def test_whoever_has_gone_is_named(folder):
    begin(folder)
    (folder / "p3").rename(folder / "p30")
    with pytest.raises(CheckpointError, match=r"began with p3 in .* no longer there: put the folder back"):
        go_on(folder)
    shutil.rmtree(folder / "p11")  # held out
    with pytest.raises(CheckpointError, match="began with p3, p11 in"):
        go_on(folder)


def test_others_are_not_held_out(folder):
    before = begin(folder)
    with pytest.raises(CheckpointError, match="holds out p10, p11, which hold_out=3 would change; set hold_out=2"):
        go_on(folder, "hold_out=3")
    write_pairs(folder / "some.bin", [photo(i) for i in range(40)], [True, False] * 10)
    assert held_out_of(go_on(folder))[1:] == held_out_of(before)  # beside the file that has come
    assert held_out_of(go_on(folder, "hold_out=2"))[1:] == held_out_of(before)


def test_more_photographs_of_the_same_people_are_welcome(folder, caplog):
    begin(folder)
    (folder / "p3" / "more.jpg").write_bytes(photo(99))
    assert len(go_on(folder).faces) == 51
    assert "began with 50 images; now there are 51" in caplog.text


def test_a_packed_set_is_known_by_its_records(packed, tmp_path):
    begin(packed)
    copy = tmp_path / "elsewhere"
    shutil.copytree(packed, copy)
    go_on(copy)
    write_face_records(copy, [[photo(3 * person + number + 1) for number in range(3)] for person in range(5)])
    with pytest.raises(CheckpointError, match=r"began with other images .* remove .*people\.json if they do"):
        go_on(copy)
    (tmp_path / "run" / "people.json").unlink()
    go_on(copy)


def test_a_packed_set_with_names_is_known_by_these(packed):
    (packed / "identities.txt").write_text("a\nb\nc\nd\ne\n")
    begin(packed)
    write_face_records(packed, [[photo(person)] for person in range(5)])  # other photographs of the same people
    go_on(packed)
    (packed / "identities.txt").write_text("a\nc\nb\nd\ne\n")
    with pytest.raises(CheckpointError, match=r"other people: label 1 was b and is c, label 2 was c and is b; set rec"):
        go_on(packed)


def test_a_damaged_list_is_named(packed):
    output = begin(packed).output
    sound = (output / "people.json").read_text()
    for damaged in ("{", "[]", "[" * 100_000, sound.replace("null", '"a"'), sound.replace("[]", "3")):
        assert damaged != sound
        (output / "people.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"people\.json is damaged"):
            go_on(packed)


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(folder):
    output = begin(folder).output
    shutil.rmtree(output / "checkpoints")
    shutil.rmtree(folder / "p3")
    assert go_on(folder).faces.num_classes == 9


def test_pairs_that_cannot_be_read_are_found_before_the_first_step():
    images = [photo(number) for number in range(40)]
    check_pair_images([PairSet("sound", images, None)])
    for broken in (b"", images[7][:200], b"\0" * 500):
        damaged = [*images[:33], broken, *images[34:]]
        with pytest.raises(DataError, match=r"image 33 of the pairs lfw: not an image .* inspect` lists all"):
            check_pair_images([PairSet("sound", images, None), PairSet("lfw", damaged, None)])


def test_pairs_of_another_size_are_said(caplog):
    square, other = (encode_jpeg(torch.zeros(3, height, 160, dtype=torch.uint8)) for height in (160, 112))
    check_pair_images([PairSet("odd", [photo(0), square] * 10, None), PairSet("even", [photo(0)] * 4, None)])
    assert "odd: 10 of 20 images have another size than 112x112" in caplog.text
    assert "even" not in caplog.text
    with pytest.raises(DataError, match="flat, image 1 has 160x112 pixels"):
        check_pair_images([PairSet("flat", [photo(0), other], None)])


@pytest.mark.parametrize(("images", "size"), [(40, 3), (40, 16), (4, 7), (2, 1)])
def test_the_ranks_share_the_images_of_the_pairs(images, size):
    pairs = PairSet("x", list(range(images)), None)
    parts = [pairs.images[pairs.part(World(rank, size, rank))] for rank in range(size)]
    assert [image for part in parts for image in part][:images] == pairs.images
    assert all(parts)
