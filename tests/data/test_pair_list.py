"""Lists of pairs in the form of LFW's pairs.txt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcface_edu.data.pair_list import is_pair_list, read_pair_list
from arcface_edu.errors import DataError

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)
PHOTOS = st.tuples(NAMES, st.integers(0, 10**6))


@given(
    st.lists(st.tuples(PHOTOS, st.one_of(st.integers(0, 10**6), PHOTOS)), min_size=2, max_size=20),
    st.sampled_from(["\t", " ", "  "]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_lists_come_back(tmp_path_factory, pairs, blank, header, end):
    path = tmp_path_factory.mktemp("list") / "pairs.txt"
    lines = [f"{len(pairs) / 2:g}"] if header and len(pairs) % 2 == 0 else []
    for (name, number), other in pairs:
        words = [name, number, other] if isinstance(other, int) else [name, number, *other]
        lines.append(blank.join(map(str, words)))
    path.write_bytes(end.join([*lines, ""]).encode())
    found = read_pair_list(path)
    assert found.pairs == [(one, (one[0], other) if isinstance(other, int) else other) for one, other in pairs]
    assert found.is_same == [isinstance(other, int) for _, other in pairs]
    assert is_pair_list(path)


def test_names_with_blanks_between_tabs(tmp_path):
    (tmp_path / "pairs.txt").write_text("1\t1\nAnna Maria\t1\t2\nAnna Maria\t1\tBen\t2\n")
    assert read_pair_list(tmp_path / "pairs.txt").pairs[1] == (("Anna Maria", 1), ("Ben", 2))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10\t300\nanna 1 2\n", r"says 6,000 pairs in its first line and has 1: copy it again"),
        ("anna 1 2\nanna 1\n", r'line 2 reads "anna 1": wanted are lines as `anna 1 4`'),
        ("anna 1 2\nanna one two\n", r"line 2 reads"),
        ("anna 1 2\nanna/1.jpg ben/2.jpg 0\n", r"line 2 reads"),
        ("anna 1 2\nanna ² 2\n", r"line 2 reads"),
        (None, r"cannot be read as a list of pairs \(No such file"),
    ],
)
def test_another_form_is_named(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=rf"pairs\.txt,? {sentence}"):
        read_pair_list(tmp_path / "pairs.txt")


@given(st.binary(max_size=300))
def test_other_bytes_are_no_list_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("list") / "pairs.txt"
    path.write_bytes(content)
    is_pair_list(path)
    try:
        read_pair_list(path)
    except DataError as error:
        assert str(path) in str(error)
