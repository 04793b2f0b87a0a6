"""The drawn faces: reproducible, aligned, varied, and written so that the readers find what was drawn."""

import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tqdm import tqdm

from arcface_edu.data import images
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.recordio import RecordReader, unpack_image
from arcface_edu.data.synthetic import dataset
from arcface_edu.data.synthetic.crowds import Mix, choose_people, groups_of
from arcface_edu.data.synthetic.dataset import UNSEEN, draw_faces, draw_person, worker_map
from arcface_edu.data.synthetic.maps import build_maps
from arcface_edu.data.synthetic.parameters import PERSON, PHOTOGRAPH, make_person, make_photographs
from arcface_edu.data.synthetic.pose import TEMPLATE, pose_head
from arcface_edu.data.synthetic.render import render
from arcface_edu.errors import DataError
from arcface_edu.evaluation.group_file import read_groups


def decode(photos):
    """List of JPEG bytes -> uint8 (N, 3, H, W)."""
    return torch.stack([images.decode(photo) for photo in photos])


@pytest.fixture(autouse=True, scope="module")
def alone():
    with dataset.one_thread():
        yield


@pytest.fixture(scope="module")
def crowd():
    """Six people, five photographs each: float (6, 5, 3, 112, 112) in 0..255."""
    return torch.stack([decode(draw_person(3, person, 5)).float() for person in range(6)])


def test_same_arguments_same_bytes():
    first = draw_person(7, 1, 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert draw_person(7, 1, 3) == first
    assert torch.get_num_threads() == 2, "the caller's setting comes back"
    torch.set_num_threads(threads)
    assert draw_person(8, 1, 3) != first
    assert draw_person(7, 2, 3) != first


def test_a_photograph_does_not_depend_on_how_many_are_taken():
    few, many = decode(draw_person(7, 1, 2)).float(), decode(draw_person(7, 1, 4)).float()
    assert (few - many[:2]).abs().mean() < 0.5


def test_jpeg_of_the_crop(crowd):
    assert all(photo[:2] == b"\xff\xd8" for photo in draw_person(0, 0, 2))
    assert crowd.shape == (6, 5, 3, 112, 112)


def test_pictures_are_pictures(crowd):
    mean, deviation = crowd.mean((2, 3, 4)), crowd.std((2, 3, 4))
    assert ((mean > 25) & (mean < 230)).all()
    assert (deviation > 12).all()
    assert (crowd.std(2).mean((2, 3)) > 1).all(), "in colour"


def test_points_lie_on_the_template():
    points = []
    for person in range(16):
        p = make_person(5, person)
        maps = build_maps(p, np.random.default_rng(person))
        points.append(pose_head(maps, make_photographs(p, 5, person, 20)).points)
    points = torch.stack(points)  # (16, 20, 5, 2)
    assert (points.mean((0, 1)) - TEMPLATE).norm(dim=-1).max() < 2
    assert (points - TEMPLATE).norm(dim=-1).mean() < 6
    assert points.mean(1).std(0).mean() > 0.3, "people differ in their points"


def test_features_are_drawn_where_the_points_are():
    """A pupil, looked for as the darkest place around its point, is there."""
    found = []
    for person in (2, 3, 5, 8, 11, 12):
        p = make_person(5, person)
        p.glasses, p.hair_length, p.fringe = 0.0, -0.2, 0.0
        maps, photo = build_maps(p, np.random.default_rng(person)), make_photographs(p, 5, person, 1, difficulty=0)
        picture, points = render(maps, photo)[0].mean(0), pose_head(maps, photo).points[0]
        for x, y in points[:2].round().int().tolist():
            around = picture[y - 5 : y + 6, x - 5 : x + 6]
            row, column = divmod(int(around.argmin()), 11)
            found.append(np.hypot(row - 5, column - 5))
    assert np.median(found) < 3


def test_passport_photographs_of_one_person_are_alike():
    people = torch.stack(
        [decode(draw_person(3, person, 3, difficulty=0)).float()[..., 20:100, 25:87] for person in range(6)]
    )
    people = people.flatten(2)  # (6, 3, pixels)
    distance = torch.cdist(people.flatten(0, 1), people.flatten(0, 1))
    same = torch.eye(6).repeat_interleave(3, 0).repeat_interleave(3, 1).bool()
    apart = ~torch.eye(18).bool()
    nearest = (distance + 1e9 * ~apart).argmin(1)
    assert (nearest // 3 == torch.arange(18) // 3).all(), "the nearest photograph shows the same person"
    assert distance[same & apart].mean() < 0.5 * distance[~same].mean()


def test_difficulty_spreads_the_photographs():
    spread = [decode(draw_person(3, 1, 8, difficulty)).float().std(0).mean() for difficulty in (0, 0.5, 1)]
    assert spread[0] < spread[1] < spread[2]


def middle():
    """A person in the middle of every range, with everything that only some people have."""
    p = {name: (low + high) / 2 for name, (low, high, *_) in PERSON.items()}
    rare = dict.fromkeys(("bald", "fringe", "beard", "goatee", "moustache", "stubble"), 0.0)  # they would hide others
    return p | rare | {"hair_length": 0.1, "age": 45.0, "melanin": 0.2}


def picture(p, **circumstances):
    p = SimpleNamespace(**p)
    photo = make_photographs(p, 1, 1, 1, difficulty=0)
    vars(photo).update(
        {"glasses_on": torch.ones(1), **{name: torch.tensor([value]) for name, value in circumstances.items()}}
    )
    return render(build_maps(p, np.random.default_rng(1)), photo)[0]


@pytest.fixture(scope="module")
def plain():
    return picture(middle())


@pytest.mark.parametrize("name", [name for name in PERSON if name != "glasses"])
def test_every_number_of_a_person_shows(name, plain):
    changed = picture(middle() | {name: PERSON[name][1]})
    assert (changed - plain).abs().amax(0).gt(0.012).sum() >= 4, "at least four pixels change visibly"


@pytest.mark.parametrize("name", PHOTOGRAPH)
def test_every_circumstance_shows(name, plain):
    value = {"occluded": 1.0}.get(name, PHOTOGRAPH[name][0])
    assert (picture(middle(), **{name: value}) - plain).abs().amax(0).gt(0.012).sum() >= 4


def test_people_lie_within_their_ranges():
    for person in range(200):
        for name, value in vars(make_person(0, person)).items():
            low, high, *chance, _ = PERSON[name]
            assert (chance and value == 0) or low - 0.031 <= value <= high + 0.11 * abs(high), name


def test_glasses_come_and_go():
    p = make_person(0, 0)
    p.glasses = 0.6
    worn = make_photographs(p, 0, 0, 60).glasses_on
    assert 0.3 < worn.mean() < 0.9


SET = dict(identities=3, photos=4, seed=2, pairs=20, pair_identities=3)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small set, drawn by this process alone."""
    folder = tmp_path_factory.mktemp("one")
    draw_faces(folder, **SET, workers=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("bars", [True, False])
def test_two_processes_draw_the_same_with_progress_bars_and_without(drawn, tmp_path, monkeypatch, bars):
    if not bars:
        monkeypatch.setattr(dataset, "tqdm", partial(tqdm, disable=True))  # as TQDM_DISABLE=1 would
    draw_faces(tmp_path / "new" / "folder", **SET, workers=2)
    names = sorted(file.name for file in drawn.iterdir())
    assert names == ["drawn.bin", "groups.csv", "property", "train.idx", "train.rec"]
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == names
    for name in names:
        assert (tmp_path / "new" / "folder" / name).read_bytes() == (drawn / name).read_bytes()


def test_a_worker_that_dies_is_an_error_and_no_endless_wait():
    with pytest.raises(DataError, match="a process that draws faces died"), worker_map(2, tasks=2) as draw:
        list(draw(os._exit, [1, 1]))


def test_readers_find_what_was_drawn(drawn):
    reader = RecordReader(drawn / "train.rec")
    found = [unpack_image(reader[key]) for key in range(1, 13)]
    expected = [photo for person in range(3) for photo in draw_person(2, person, 4)]
    assert [bytes(image) for _, image in found] == expected
    assert [int(np.ravel(label)[0]) for label, _ in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert (drawn / "property").read_text().strip() == "3,112,112"


def test_pairs_show_people_that_training_never_sees(drawn):
    images, is_same = read_pairs(drawn / "drawn.bin")
    unseen = {photo: person for person in range(3) for photo in draw_person(2, UNSEEN + person, 4)}
    people = [unseen[bytes(image)] for image in images]
    assert [a == b for a, b in zip(people[::2], people[1::2], strict=True)] == list(is_same)
    assert sum(is_same) == 10
    assert not {photo for person in range(3) for photo in draw_person(2, person, 4)} & set(unseen)


def test_the_groups_are_those_of_the_people_in_the_pairs(drawn):
    images = read_pairs(drawn / "drawn.bin").images
    groups = read_groups(drawn / "groups.csv", len(images))
    unseen = {photo: person for person in range(3) for photo in draw_person(2, UNSEEN + person, 4)}
    people = [unseen[bytes(image)] for image in images]
    assert groups.people.tolist() == people
    assert groups.columns["skin"].tolist() == [groups_of(2, UNSEEN + person)["skin"] for person in people]


@pytest.mark.slow
def test_a_mix_changes_who_is_trained_on_and_halves_the_others(tmp_path):
    draw_faces(tmp_path, **SET | dict(identities=4, pair_identities=4), workers=1, mix=Mix("skin", (0.75, 0.25)))
    crowd = choose_people(2, 0, 4, Mix("skin", (0.75, 0.25)))
    assert sum(groups_of(2, person)["skin"] == "dark" for person in crowd) == 1
    reader = RecordReader(tmp_path / "train.rec")
    assert bytes(unpack_image(reader[1])[1]) == draw_person(2, crowd[0], 4)[0]
    groups = read_groups(tmp_path / "groups.csv", 2 * SET["pairs"])
    skin_of = dict(zip(groups.people, groups.columns["skin"], strict=True))
    assert sorted(skin_of.values()) == ["dark", "dark", "light", "light"]


@pytest.mark.parametrize(
    "wrong", [{"identities": 1}, {"photos": 1}, {"pair_identities": 1}, {"identities": UNSEEN + 1}, {"difficulty": -1}]
)
def test_what_cannot_be_drawn(wrong, tmp_path):
    with pytest.raises(DataError, match=next(iter(wrong))):
        draw_faces(tmp_path / "set", **{"identities": 2, "photos": 9, **wrong})
    assert not (tmp_path / "set").exists()


def test_nothing_is_left_of_an_interrupted_drawing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "write_pairs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_faces(tmp_path, identities=2, photos=4, pairs=20, pair_identities=3, workers=1)
    assert list(tmp_path.iterdir()) == []
