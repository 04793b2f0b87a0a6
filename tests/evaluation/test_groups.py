"""Error rates by group: against a naive loop, with intervals, and what cannot be judged."""

import numpy as np
import pytest

from arcface_edu.data.synthetic.crowds import GROUPS, Mix, choose_people, groups_of, groups_table
from arcface_edu.errors import DataError
from arcface_edu.evaluation.group_file import Groups, read_groups
from arcface_edu.evaluation.groups import group_rates, judge_groups
from arcface_edu.evaluation.report import text_of


def made_up(pairs=4000, people=40, shift=0.15, seed=0):
    """Pairs of people of three groups; in group c strangers look more alike."""
    rng = np.random.default_rng(seed)
    of_person = np.array(["a", "b", "c"])[np.arange(people) % 3]
    who = rng.integers(people, size=(pairs, 2))
    who[::2, 1] = who[::2, 0]
    is_same = who[:, 0] == who[:, 1]
    cosines = rng.normal(np.where(is_same, 0.6, 0.1), 0.15)
    cosines += shift * (~is_same & (of_person[who] == "c").all(1))
    return cosines, is_same, of_person[who].ravel(), who.ravel()


def naive(cosines, is_same, groups, threshold, one, other, same):
    wrong = pairs = 0
    for i, cosine in enumerate(cosines):
        if is_same[i] == same and sorted(groups[2 * i : 2 * i + 2]) == sorted((one, other)):
            pairs += 1
            wrong += (cosine <= threshold) if same else (cosine > threshold)
    return wrong / pairs if pairs else None, pairs


@pytest.mark.parametrize("by_people", [False, True])
def test_rates_are_those_of_a_naive_loop(by_people):
    cosines, is_same, groups, people = made_up()
    found = group_rates(cosines, is_same, groups, 0.35, people if by_people else None, resamples=200)
    assert found.names == ["a", "b", "c"]
    for rates, same in ((found.fmr, False), (found.fnmr, True)):
        for i, one in enumerate(found.names):
            for j, other in enumerate(found.names):
                rate, pairs = naive(cosines, is_same, groups, 0.35, one, other, same)
                assert rates.pairs[i, j] == pairs
                if rate is None:
                    assert same and one != other and np.isnan(rates.rates[i, j])
                else:
                    assert rates.rates[i, j] == pytest.approx(rate)
                    assert rates.low[i, j] <= rate <= rates.high[i, j]
    assert found.names[found.fmr.worst] == "c"
    assert found.fmr.ratio == pytest.approx(found.fmr.rates[2, 2] / np.diag(found.fmr.rates).min())
    assert found.fmr.ratio_interval[0] > 1


def test_an_interval_over_pairs_is_the_binomials():
    cosines, is_same, groups, _ = made_up(20000)
    fmr = group_rates(cosines, is_same, groups, 0.35).fmr
    rate, pairs = fmr.rates[0, 0], fmr.pairs[0, 0]
    spread = 1.96 * np.sqrt(rate * (1 - rate) / pairs)
    assert (fmr.low[0, 0], fmr.high[0, 0]) == pytest.approx((rate - spread, rate + spread), rel=0.06)


def test_an_interval_over_people_is_wider_where_few_people_make_the_errors():
    cosines, is_same, groups, people = made_up(20000, people=12)
    cosines[~is_same] = np.where((people.reshape(-1, 2)[~is_same] == 0).any(1), 0.9, 0.0)  # one person meets all
    over_pairs, over_people = (group_rates(cosines, is_same, groups, 0.35, who).fmr for who in (None, people))
    assert over_people.high[0, 0] - over_people.low[0, 0] > 3 * (over_pairs.high[0, 0] - over_pairs.low[0, 0])


def test_no_error_ends_at_three_in_n():
    is_same = np.tile([True, False], 40)
    found = group_rates(np.where(is_same, 0.9, 0.0), is_same, np.repeat(["a", "b"], 80), 0.5)
    assert found.fmr.rates[0, 0] == found.fmr.low[0, 0] == 0
    assert found.fmr.high[0, 0] == pytest.approx(3 / 20)
    assert found.fmr.ratio == 1.0


def test_a_group_may_be_of_photographs_not_of_people():
    """With glasses and without: a person's pair may be of one each."""
    is_same = np.tile([True, False], 60)
    groups = np.where(np.arange(240) % 3 == 0, "with", "without")
    groups[: 4 * 12], groups[4 * 12 : 4 * 24] = "with", "without"
    found = group_rates(np.where(is_same, 0.2, 0.0), is_same, groups, 0.5)
    assert found.fnmr.pairs[0, 1] == found.fnmr.pairs[1, 0] > 0
    assert found.fnmr.rates[0, 1] == 1.0


def test_what_cannot_be_compared():
    cosines, is_same, groups, _ = made_up()
    with pytest.raises(DataError, match="one group, a"):
        group_rates(cosines, is_same, np.full(len(groups), "a"), 0.3)
    groups[: 4 * 3] = "d"
    with pytest.raises(DataError, match=r"group d has 3 pairs of two people, and 10 are the least: add pairs"):
        group_rates(cosines[:40], is_same[:40], np.where(np.arange(80) < 12, "d", "e"), 0.3)


def test_the_finding_warns_of_small_groups_and_says_the_ratio():
    cosines, is_same, groups, people = made_up(8000, shift=0.03)
    (finding,) = judge_groups("lfw", cosines, is_same, Groups({"kind": groups}, people))
    said = text_of(finding)
    assert finding.name == "lfw by kind" and finding.kind == "groups"
    assert "FMR c" in said and "FNMR a" in said and "worst to best" in said
    assert "Too few pairs for the FMR of a" in said
    assert finding.numbers["fnmr"]["worst_to_best"] > 1
    assert "groups" in finding.figures


def test_a_way_to_group_without_pairs_enough_is_named_and_left_out(caplog):
    cosines, is_same, groups, people = made_up()
    small = np.where(np.arange(len(groups)) < 6, "few", "many")
    (finding,) = judge_groups("lfw", cosines, is_same, Groups({"hat": small, "kind": groups}, people))
    assert finding.name == "lfw by kind"
    assert "left out: lfw by hat: group few has" in caplog.text
    with pytest.raises(DataError, match="lfw by hat: group few has"):
        judge_groups("lfw", cosines, is_same, Groups({"hat": small}, people))


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_groups_by_image(tmp_path):
    path = write(
        tmp_path / "g.csv", "image,person,skin,age", "1,9,dark,old", "0,7,light,old", "2,7,light,x", "3,7,light,x"
    )
    groups = read_groups(path, 4)
    assert {name: column.tolist() for name, column in groups.columns.items()} == {
        "skin": ["light", "dark", "light", "light"],
        "age": ["old", "old", "x", "x"],
    }
    assert groups.people.tolist() == [0, 1, 0, 0]
    assert read_groups(write(path, "image,skin", "0,a", "1,b"), 2).people is None


def test_groups_by_person_need_the_list_of_the_pairs(tmp_path):
    path = write(tmp_path / "g.csv", "person,age", "anna,old", "ben,young")
    pairs = write(tmp_path / "pairs.txt", "anna 1 4", "anna 2 ben 1")
    groups = read_groups(path, 4, pairs)
    assert groups.columns["age"].tolist() == ["old", "old", "old", "young"]
    assert groups.people.tolist() == [0, 0, 0, 1]
    with pytest.raises(DataError, match=r"names people, and a \.bin knows only numbers of images"):
        read_groups(path, 4)
    with pytest.raises(DataError, match=r"pairs\.txt has 2 pairs and the \.bin 3"):
        read_groups(path, 6, pairs)
    with pytest.raises(DataError, match=r"person carl is in no pair: correct the CSV"):
        read_groups(write(path, "person,age", "anna,o", "ben,y", "carl,y"), 4, pairs)
    with pytest.raises(DataError, match="person ben has no group"):
        read_groups(write(path, "person,age", "anna,o"), 4, pairs)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["image,skin"], "holds no line below a header"),
        (["image,person", "0,1"], "has the columns image, person: wanted"),
        (["skin", "a"], "has the columns skin: wanted"),
        (["image,skin", "0,a", "0,b", "1,a"], "1 lines too many: each image stands in it once"),
        (["image,skin", "0,a", "1,a", "2,b", "7,b"], r"image 2 is in no pair \(nor 1 more\)"),
        (["image,skin", "0,a"], "image 1 has no group"),
        (["image,skin", "0,a", "1,"], "line 3 has not one value for each"),
        (["image,skin", "0,a", "1,b,c"], "line 3 has not one value for each"),
    ],
)
def test_a_file_of_groups_that_cannot_be_meant(lines, says, tmp_path):
    with pytest.raises(DataError, match=says):
        read_groups(write(tmp_path / "g.csv", *lines), 2)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a CSV"):
        read_groups(tmp_path / "none.csv", 2)


def test_a_crowd_has_the_shares_that_were_asked_for_and_shares_people():
    few, half = (choose_people(3, 0, 40, Mix("skin", (share, 1 - share))) for share in (0.9, 0.5))
    dark = [sum(groups_of(3, person)["skin"] == "dark" for person in crowd) for crowd in (few, half)]
    assert dark == [4, 20]
    assert len(set(few)) == len(few) == 40 and few == sorted(few)
    dark_of_few = {person for person in few if groups_of(3, person)["skin"] == "dark"}
    assert dark_of_few < set(half)
    assert choose_people(3, 5, 4, None) == [5, 6, 7, 8]


def test_every_attribute_has_people_of_both_groups():
    crowd = [groups_of(0, person) for person in range(60)]
    for attribute, (names, _) in GROUPS.items():
        assert {person[attribute] for person in crowd} == set(names)


def test_the_table_of_groups_is_what_evaluate_reads(tmp_path):
    (tmp_path / "g.csv").write_text(groups_table(0, [5, 6, 5, 5]))
    groups = read_groups(tmp_path / "g.csv", 4)
    assert groups.people.tolist() == [0, 1, 0, 0]
    assert groups.columns["skin"].tolist() == [groups_of(0, person)["skin"] for person in (5, 6, 5, 5)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shoes=0.5,0.5", "shoes is no attribute of drawn people; take skin, age"),
        ("skin=0.9", "give the shares of light and dark"),
        ("skin=0.9,0.2", "with the sum 1"),
        ("skin=1.5,-0.5", "from 0 to 1"),
        ("skin=much,little", "as skin=0.9,0.1"),
        ("skin", "give the shares"),
    ],
)
def test_a_mix_that_cannot_be_meant(text, says):
    with pytest.raises(DataError, match=says):
        Mix.parse(text)
