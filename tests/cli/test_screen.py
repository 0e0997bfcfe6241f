"""Numbers and documents as people and scripts read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunesmith.cli.screen import Screen, human_bytes, human_seconds, plain, shown


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 41, "6.0 TiB")]
)
def test_bytes(count: int, words: str) -> None:
    assert human_bytes(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(None, "?"), (5, "0:05"), (75.4, "1:15"), (3661, "1:01:01")])
def test_seconds(seconds: float | None, words: str) -> None:
    assert human_seconds(seconds) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain ü 猫 👩‍🚀\n", "plain ü 猫 👩‍🚀\n"),
        ("\x1b[2J\r\x9b", "\\x1b[2J\\r\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("bad \udcff byte", "bad \\udcff byte"),
    ],
)
def test_control_characters_are_spelt_out(text: str, words: str) -> None:
    assert shown(text) == words


@dataclass(frozen=True)
class Thing:
    path: Path
    values: tuple[float, ...]


def test_plain_is_json() -> None:
    thing = {"thing": Thing(Path("a/b"), (1.0, float("nan"))), 3: frozenset({1})}
    assert json.loads(json.dumps(plain(thing))) == {"thing": {"path": "a/b", "values": [1.0, None]}, "3": [1]}


def test_json_keeps_words_away_from_stdout(capsys) -> None:
    screen = Screen(as_json=True)
    screen.say("for people")
    screen.next_steps("do this")
    screen.document({"a": 1})
    written = capsys.readouterr()
    assert json.loads(written.out) == {"a": 1}
    assert written.err == ""


def test_file_names_with_brackets_are_not_markup(capsys) -> None:
    Screen().say("[red]a[/red].png")
    Screen().table(("file",), [("[bold]b.png",)])
    out = capsys.readouterr().out
    assert "[red]a[/red].png" in out
    assert "[bold]b.png" in out
