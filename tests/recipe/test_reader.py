from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import RecipeError
from tunesmith.recipe.reader import LIMIT_BYTES, read_file, read_text
from tunesmith.recipe.writer import dump

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED = [
    ("a: 1\na: 2\n", "line 2: 'a' a second time"),
    ("x: {a: 1, a: 2}\n", "'a' a second time"),
    ("a: !!python/object/apply:os.system [ls]\n", "line 1: the tag"),
    ("a: !custom {b: 1}\n", "the tag '!custom'"),
    ("a: !!int 3\n", "the tag"),
    ("a: !!binary aGk=\n", "the tag"),
    ("%YAML 1.1\n---\na: no\n", "YAML 1.1"),
    ("a: 1\n---\nb: 2\n", "line 2: a second document"),
    ("a: {b: 1\n", "expected"),
    ("a: 1\n\tb: 2\n", "line 2"),
    ("a: *nobody\n", "alias *nobody"),
    ("a: &a [*a]\n", "alias *a"),
    ("? [a]\n: 1\n", "a list or map as a key"),
    (BOMB, "more than"),
    ("[" * 40, "deeper"),
    ("a: " + "{b: " * 40, "deeper"),
    ("a: \0", "recipe.yaml"),
    ("a: \x07", "recipe.yaml"),
    ('a: "\\UFFFFFFFF"', "recipe.yaml"),
]


@pytest.mark.parametrize(("text", "found"), REFUSED, ids=[case[1] for case in REFUSED])
def test_refused(text: str, found: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_text(text, "recipe.yaml")
    assert found in caught.value.message
    assert "recipe.yaml" in caught.value.found
    assert "\n" not in caught.value.message


def test_core_schema() -> None:
    text = (
        "a: [1, -2, +3, 0x1F, 0o17, 017, 1_000, 1e3, .5, 5., -.inf, ~, null, True, yes, on, 12:30:45, 0b11, 2001-01-01]"
    )
    found = read_text(text, "x").plain()["a"]
    assert found[:9] == [1, -2, 3, 31, 15, 17, "1_000", 1000.0, 0.5]
    assert found[9:] == [5.0, float("-inf"), None, None, True, "yes", "on", "12:30:45", "0b11", "2001-01-01"]


def test_quotes_tags_and_blocks_are_text() -> None:
    text = "a: '5'\nb: \"true\"\nc: !!str 7\nd: |\n  hi\ne: ! 12\nno: 1\n5: 2\n"
    found = read_text(text, "x").plain()
    assert found == {"a": "5", "b": "true", "c": "7", "d": "hi\n", "e": "12", "no": 1, "5": 2}


def test_anchors_may_be_used_with_measure() -> None:
    assert read_text("a: &x {b: 1}\nc: *x\nd: [*x, *x]", "x").plain()["d"] == [{"b": 1}, {"b": 1}]


def test_an_empty_file_is_an_empty_map() -> None:
    assert read_text("# nothing\n", "x").plain() == {}


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(file).plain() == {"a": 1}
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RecipeError, match="line 2: a byte that is not UTF-8"):
        read_file(file)
    file.write_bytes(b"#" * (LIMIT_BYTES + 1))
    with pytest.raises(RecipeError, match="larger than"):
        read_file(file)
    with pytest.raises(RecipeError, match="No such file"):
        read_file(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match="directory"):
        read_file(tmp_path)


SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
VALUES = st.recursive(
    SCALARS | TEXT, lambda part: st.lists(part, max_size=4) | st.dictionaries(TEXT, part, max_size=4), max_leaves=20
)


@settings(max_examples=300, deadline=None)
@given(document=st.dictionaries(TEXT, VALUES, max_size=5))
def test_written_data_reads_back_the_same(document: dict[str, object]) -> None:
    found = read_text(dump(document), "x").plain()
    assert found == document
    assert repr(found) == repr(document)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RecipeError):
        assert isinstance(read_text(text, "x").plain(), object)


def test_hostile_documents_are_refused_at_once() -> None:
    start = time.process_time()
    for text in (BOMB, "[" * 100_000, "{a: " * 50_000, "- " * 100_000):
        with pytest.raises(RecipeError):
            read_text(text, "x")
    assert time.process_time() - start < 5
