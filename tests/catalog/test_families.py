from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.catalog.families import Families, Family, find_project, read_families, with_trigger
from tunesmith.catalog.family_files import LARGEST_BYTES, lora_file
from tunesmith.errors import CatalogError

GHOUL = {
    "lora_path": "lora/ghoul.safetensors",
    "trigger": "ghoul",
    "scale": 0.8,
    "negative_prompt": "music, singing, speech, vocals",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Families]:
    """`write(configs=..., library=..., versions=..., local_versions=...)` -> what is read; text goes as it is."""
    names = {
        "configs": "configs/creature_families.json",
        "library": "library/creature_families.json",
        "versions": "configs/model_versions.json",
        "local_versions": "library/model_versions.json",
    }

    def make(**files: Any) -> Families:
        for key, content in files.items():
            file = tmp_path / names[key]
            file.parent.mkdir(exist_ok=True)
            data = content if isinstance(content, str | bytes) else json.dumps(content)
            file.write_bytes(data.encode() if isinstance(data, str) else data)
        return read_families(tmp_path)

    return make


def test_the_documented_file_is_read(write, tmp_path: Path) -> None:
    found = write(configs={"ghoul": GHOUL})
    assert found.problems == found.notes == ()
    assert found.list() == (
        Family(
            name="ghoul",
            lora_path=tmp_path / "lora" / "ghoul.safetensors",
            trigger="ghoul",
            scale=0.8,
            negative_prompt="music, singing, speech, vocals",
            source="configs/creature_families.json",
            stated=frozenset(GHOUL),
        ),
    )
    assert found.get("ghoul").engine == "stable_audio"


def test_a_model_version_has_more_fields_and_needs_no_lora(write) -> None:
    found = write(
        versions={
            "v1": {**GHOUL, "engine": "Stable_Audio_Open", "base_model": "stabilityai/open", "notes": "growls"},
            "bare": {"engine": "other"},
        }
    )
    assert found.problems == ()
    first, bare = found.get("v1"), found.get("bare")
    assert (first.engine, first.base_model, first.notes) == ("stable_audio", "stabilityai/open", "growls")
    assert (bare.lora_path, bare.scale, bare.engine) == (None, 1.0, "other")


def test_the_local_file_wins_entry_by_entry_and_whole(write) -> None:
    found = write(
        configs={"ghoul": GHOUL, "wisp": {"lora_path": "wisp.safetensors", "trigger": "wisp"}},
        library={"ghoul": {"lora_path": "mine.safetensors"}, "imp": {"lora_path": "imp.safetensors"}},
    )
    assert [family.name for family in found.list()] == ["ghoul", "imp", "wisp"]
    ghoul = found.get("ghoul")
    assert (ghoul.lora_path.name, ghoul.trigger, ghoul.scale) == ("mine.safetensors", "", 1.0)
    assert found.get("wisp").source == "configs/creature_families.json"
    assert found.sources_of("GHOUL") == ("library/creature_families.json", "configs/creature_families.json")


def test_a_model_version_lies_over_the_family_of_its_name_field_by_field(write) -> None:
    found = write(
        configs={"ghoul": {**GHOUL, "notes": "old"}},
        local_versions={"ghoul": {"lora_path": "v2.safetensors", "trigger": "", "scale": 0, "base_model": "b"}},
    ).get("ghoul")
    assert (found.lora_path.name, found.scale, found.base_model) == ("v2.safetensors", 0.0, "b")  # stated, 0 too
    assert (found.trigger, found.negative_prompt) == ("ghoul", GHOUL["negative_prompt"])  # "" says nothing
    assert found.source == "library/model_versions.json over configs/creature_families.json"


def test_names_are_found_exactly_then_whatever_their_case(write) -> None:
    found = write(configs={"Ghoul": GHOUL, " STRASSE ": GHOUL, "imp": GHOUL, "Imp": {**GHOUL, "scale": 2}})
    assert found.get("ghoul").name == "Ghoul"
    assert found.get(" straße ").name == "STRASSE"
    assert (found.get("imp").scale, found.get("Imp").scale) == (0.8, 2.0)
    with pytest.raises(CatalogError, match=r"'Imp' and 'imp'.*differ only by case.*exact name"):
        found.get("IMP")


def test_a_miss_names_the_nearest_and_where_was_looked(write, tmp_path: Path) -> None:
    found = write(configs={"Ghoul": GHOUL}, library="{")
    with pytest.raises(CatalogError) as caught:
        found.get("goul")
    message = caught.value.message
    assert "library/creature_families.json or configs/creature_families.json" in message
    assert "'Ghoul'" in message
    assert "Mend library/creature_families.json" in message
    assert str(tmp_path) in message
    assert found.find("zzz") is None


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"trigger": "x"}, "lora_path is missing"),
        ({"lora_path": None}, "lora_path is missing"),
        ({"lora_path": "  "}, "lora_path is missing"),
        ({"lora_pth": "x.safetensors"}, "'lora_pth' meant as lora_path"),
        ({"lora_path": 3}, "lora_path is the number 3"),
        ({"lora_path": ["x"]}, r"lora_path is \['x'\]|lora_path is a list"),
        ({**GHOUL, "trigger": False}, "trigger is false"),
        ({**GHOUL, "trigger": "a\u001bb"}, "no control characters"),
        ({**GHOUL, "notes": "\ud800"}, "no control characters"),
        ({**GHOUL, "scale": "0.8"}, "scale is the text '0.8'.*without quotes"),
        ({**GHOUL, "scale": True}, "scale is true"),
        ({**GHOUL, "scale": 10.01}, "from -10 to 10"),
        ({**GHOUL, "scale": -11}, "from -10 to 10"),
        ({**GHOUL, "scale": float("nan")}, "from -10 to 10"),
        ({**GHOUL, "scale": 10**400}, "from -10 to 10"),
        ("lora/ghoul.safetensors", "is the text 'lora/ghoul.safetensors'.*object"),
        (None, "is null"),
        ([], "is a list"),
    ],
)
def test_a_bad_entry_is_named_and_hides_no_other(write, tmp_path: Path, entry: Any, found: str) -> None:
    read = write(configs={"bad": entry, "ghoul": GHOUL}, library={"imp": GHOUL})
    assert [family.name for family in read.list()] == ["ghoul", "imp"]
    assert [(problem.name, problem.source) for problem in read.problems] == [("bad", "configs/creature_families.json")]
    with pytest.raises(CatalogError, match=found) as caught:
        read.get("BAD")
    assert caught.value.found.startswith(f"{tmp_path / 'configs' / 'creature_families.json'}: bad")


def test_a_bad_local_entry_does_not_give_way_to_the_shared_one(write) -> None:
    read = write(configs={"ghoul": GHOUL}, library={"ghoul": {}})
    assert read.list() == ()
    with pytest.raises(CatalogError, match="library"):
        read.get("ghoul")
    read = write(configs={"ghoul": {}}, library={"ghoul": GHOUL})
    assert read.get("ghoul").scale == 0.8
    assert len(read.problems) == 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "is no JSON: line 1"),
        ('{\n"a": {},\n}', "line 3"),
        ("[]", "holds a list"),
        ("null", "holds null"),
        ("7", "holds the number 7"),
        (b'{"a": "\xff"}', "is no text"),
        ("[" * 100_000, "is no JSON"),
        (b" " * (LARGEST_BYTES + 1), "too large.*1 MiB"),
    ],
)
def test_a_bad_file_is_named_and_hides_no_other(write, content: Any, found: str) -> None:
    read = write(library=content, configs={"ghoul": GHOUL})
    assert read.get("ghoul").trigger == "ghoul"
    (problem,) = read.problems
    assert (problem.name, problem.source) == ("", "library/creature_families.json")
    assert re.search(found, problem.error().message)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "configs" / "model_versions.json").mkdir(parents=True)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "model_versions.json").symlink_to(tmp_path / "gone")
    assert ["is no file" in problem.found for problem in read_families(tmp_path).problems] == [True, True]


def test_unknown_fields_and_repeated_names_are_noted(write) -> None:
    read = write(
        configs='{"$schema": "x", "_about": "ours", "ghoul": {"lora_path": "a", "scael": 1, "colour": 2, "_why": 3},'
        ' "imp": {"lora_path": "a"}, "imp": {"lora_path": "b"}}'
    )
    assert read.problems == ()
    assert read.get("imp").lora_path.name == "b"
    assert {note.name for note in read.notes} == {"", "ghoul"}
    texts = " ".join(note.text for note in read.notes)
    assert "'imp' is written twice" in texts
    assert "'scael'; did you mean 'scale'?" in texts
    assert "'colour'; it is ignored" in texts
    assert "_why" not in texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_windows_editors_is_read(write, encoding: str) -> None:
    text = json.dumps({"Gänse": {**GHOUL, "trigger": "schnatter ß"}}, ensure_ascii=False)
    assert write(library=text.encode(encoding)).get("gänse").trigger == "schnatter ß"


def test_windows_paths_are_understood_however_they_were_typed(write, tmp_path: Path) -> None:
    escaped = write(configs={"a": {"lora_path": "lora\\new\\bat.safetensors"}})
    assert escaped.notes == ()
    assert escaped.get("a").lora_path == tmp_path / "lora" / "new" / "bat.safetensors"
    single = write(configs=r'{"a": {"lora_path": "lora\new\ghoul\bat.safetensors", "notes": "say \"hi\" \u00e4"}}')
    assert single.get("a").lora_path == tmp_path / "lora" / "new" / "ghoul" / "bat.safetensors"
    assert single.get("a").notes == 'say "hi" ä'
    assert ["single backslashes" in note.text for note in single.notes] == [True]
    valid = write(configs=r'{"a": {"lora_path": "lora\new\bat\rat\flea\tick.safetensors"}}')  # JSON, but not as meant
    assert valid.get("a").lora_path == tmp_path.joinpath("lora", "new", "bat", "rat", "flea", "tick.safetensors")


def test_where_a_path_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir("/")
    project = tmp_path / "project"
    cases = {
        "lora/x.safetensors": project / "lora" / "x.safetensors",
        "../x": project / ".." / "x",
        "/abs/x": Path("/abs/x"),
        "~/x": tmp_path / "me" / "x",
        "~nobody-here/x": project / "~nobody-here" / "x",
        "C:/loras/x": Path("/mnt/c/loras/x"),
        "c:x": project / "c:x",
    }
    assert {text: lora_file(text, project) for text in cases} == cases


def test_a_project_is_found_from_below(tmp_path: Path, write) -> None:
    write(local_versions={})
    below = tmp_path / "outputs" / "today"
    below.mkdir(parents=True)
    assert find_project(below) == find_project(tmp_path) == tmp_path
    (below.parent / "configs").mkdir()
    (below.parent / "configs" / "creature_families.json").write_text("{}")
    assert find_project(below) == below.parent


def test_no_project_is_no_error(tmp_path: Path) -> None:
    assert find_project(tmp_path / "nowhere") is None
    assert read_families(tmp_path / "nowhere") == Families(tmp_path / "nowhere")


def test_many_entries_take_no_time_to_list(write) -> None:
    read = write(configs=json.dumps({f"c{count}": {"lora_path": "x"} for count in range(5_000)}))
    assert len(read.list()) == 5_000
    assert read.sources_of("C4999") == ("configs/creature_families.json",)


@pytest.mark.parametrize(
    ("prompt", "trigger", "expected"),
    [
        ("creature screech", "ghoul", "creature screech, ghoul"),
        ("creature screech ", " ghoul ", "creature screech, ghoul"),
        ("creature screech,", "ghoul", "creature screech, ghoul"),
        ("a ghoulish screech", "ghoul", "a ghoulish screech, ghoul"),
        ("ghoul_v2 screech", "ghoul", "ghoul_v2 screech, ghoul"),
        ("unghoul, ghoul2", "ghoul", "unghoul, ghoul2, ghoul"),
        ("A GHOUL screeches", "ghoul", "A GHOUL screeches"),
        ("ghoul-like (ghoul's)", "ghoul", "ghoul-like (ghoul's)"),
        ("ghoulish, then a ghoul", "ghoul", "ghoulish, then a ghoul"),
        ("  keep my spaces ", "", "  keep my spaces "),
        ("  keep my spaces ", "  ", "  keep my spaces "),
        ("", "ghoul", "ghoul"),
        (" , ", " ghoul", "ghoul"),
        ("", "", ""),
        ("the red\n ghoul howls", "Red Ghoul", "the red\n ghoul howls"),
        ("red and ghoul", "red ghoul", "red and ghoul, red ghoul"),
        ("uses c++ here", "C++", "uses c++ here"),
        ("uses c++11", "c++", "uses c++11, c++"),
        ("say <ghoul>!", "<ghoul>", "say <ghoul>!"),
        ("say ghoul", "<ghoul>", "say ghoul, <ghoul>"),
        ("a.c", "a.c", "a.c"),
        ("abc", "a.c", "abc, a.c"),
        ("ein GROẞER Drache", "großer", "ein GROẞER Drache"),
        ("die STRASSE", "Straße", "die STRASSE"),
        ("cafe\u0301 noise", "café", "cafe\u0301 noise"),
        ("cafe\u0301 noise", "cafe", "cafe\u0301 noise, cafe"),
        ("किला", "क", "किला, क"),  # a vowel sign goes on with the word, though no letter
        ("Ужас!", "ужас", "Ужас!"),
    ],
)
def test_the_trigger_rule(prompt: str, trigger: str, expected: str) -> None:
    assert with_trigger(prompt, trigger) == expected


@given(st.text("abAB _-.,\n"), st.text("abAB_", min_size=1))
def test_the_trigger_rule_against_regular_expressions(prompt: str, trigger: str) -> None:
    present = re.search(rf"\b{re.escape(trigger)}\b", prompt, re.IGNORECASE | re.ASCII)
    assert (with_trigger(prompt, trigger) == prompt) is bool(present)


@given(st.text(max_size=30), st.text(min_size=1, max_size=8))
def test_the_trigger_comes_once(prompt: str, trigger: str) -> None:
    once = with_trigger(prompt, trigger)
    assert with_trigger(once, trigger) == once
    assert unicodedata.normalize("NFD", trigger.strip()) in unicodedata.normalize("NFD", once) or once == prompt
