"""Caption files, and what shuffling and dropping may do to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.captions import read_caption, shuffle_and_drop, split_tags
from tunesmith.errors import DataError
from tunesmith.numeric.rng import ItemRng
from tunesmith.recipe.schema import DataSection

CAPTION = "peter, red hat, tree, blue sky, dog"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\n", "plain"),
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        (b"one\r\ntwo\rthree", "one\ntwo\nthree"),
        (b"esc\x1b[31m red", "esc [31m red"),
        ("größe 猫".encode(), "größe 猫"),
        (b" \n\t ", ""),
    ],
)
def test_read(tmp_path, data, text):
    (tmp_path / "a.txt").write_bytes(data)
    assert read_caption(tmp_path / "a.txt") == text


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("caption".encode("utf-16"), "UTF-16"),
        (b"ab\nc\xff\xfe", "byte 0xff at position 4, line 2"),
        (b"\xef\xbb\xbfab\xe9", "byte 0xe9 at position 5, line 1"),
        (b"a\0b", "NUL"),
        (b"x" * 10_000_001, "MB long"),
    ],
    ids=["utf-16", "latin", "mark and latin", "nul", "huge"],
)
def test_refused(tmp_path, data, what):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match=what) as caught:
        read_caption(tmp_path / "a.txt")
    assert "a.txt" in caught.value.found


def test_missing(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_caption(tmp_path / "a.txt")


def test_split():
    assert split_tags(" a,b b ,, c,") == ["a", "b b", "c"]


def visit(position: int, **knobs) -> str:
    rng = ItemRng(seed=0, position=position)
    return shuffle_and_drop(CAPTION, DataSection(**knobs), uniform=rng.uniform, permutation=rng.permutation)


def test_off_means_untouched():
    odd = "a,b ,  c\nd"
    assert shuffle_and_drop(odd, DataSection(), uniform=lambda _: 0.0, permutation=lambda _, n: range(n)) == odd


@pytest.mark.parametrize("keep", [0, 1, 3, 9])
def test_shuffle_keeps_the_leading_pieces(keep):
    tags = split_tags(CAPTION)
    seen = set()
    for position in range(40):
        got = split_tags(visit(position, shuffle_tags=True, keep_tags=keep))
        assert got[:keep] == tags[:keep]
        assert sorted(got) == sorted(tags)
        seen.add(tuple(got))
    assert len(seen) > 5 if keep < 3 else len(seen) <= 2


def test_tag_dropout_rate_and_keep():
    kept = [split_tags(visit(position, tag_dropout=0.3, keep_tags=1)) for position in range(500)]
    assert all(tags[0] == "peter" for tags in kept)
    mean = sum(len(tags) - 1 for tags in kept) / 500
    assert mean == pytest.approx(4 * 0.7, abs=0.2)  # 2000 draws: standard error 0.04
    assert all(tags == [tag for tag in split_tags(CAPTION) if tag in tags] for tags in kept)  # order stays


def test_caption_dropout_rate():
    dropped = sum(visit(position, caption_dropout=0.25) == "" for position in range(800))
    assert dropped / 800 == pytest.approx(0.25, abs=0.06)


def test_a_visit_is_a_function_of_its_position():
    knobs = {"shuffle_tags": True, "tag_dropout": 0.2, "caption_dropout": 0.1}
    assert [visit(at, **knobs) for at in range(20)] == [visit(at, **knobs) for at in range(20)]


@given(st.text(max_size=40), st.integers(0, 5))
def test_shuffling_invents_nothing(caption, keep):
    section = DataSection(shuffle_tags=True, keep_tags=keep, tag_dropout=0.5)
    rng = ItemRng(seed=1, position=len(caption))
    got = shuffle_and_drop(caption, section, uniform=rng.uniform, permutation=rng.permutation)
    assert set(split_tags(got)) <= set(split_tags(caption))
