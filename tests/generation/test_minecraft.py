"""Resource packs: what the game reads, and that what others wrote stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tunesmith.errors import DataError, RecipeError
from tunesmith.generation.minecraft import FINISH, PackSound, check_pack, export_sounds, pack_sound
from tunesmith.generation.sounds import Sound


def sounds(count: int = 1) -> list[Sound]:
    times = np.arange(4410) / 44_100
    return [
        Sound(0.3 * np.sin(2 * np.pi * 300 * (at + 1) * times)[None].astype(np.float32), 44_100) for at in range(count)
    ]


def target(pack: Path, **changes: Any) -> PackSound:
    return pack_sound(pack, **{"namespace": "ghouls", "event": "entity.ghoul.scream", **changes})


def export(where: PackSound, count: int = 1) -> tuple[Path, ...]:
    return export_sounds(where, sounds(count), [{"seed": at, "prompt": "scream"} for at in range(count)])


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_pack(tmp_path: Path) -> None:
    files = export(target(tmp_path / "pack", subtitle="Ghoul screams", settings={"volume": 0.5}))
    pack = tmp_path / "pack"
    ogg = pack / "assets" / "ghouls" / "sounds" / "entity" / "ghoul" / "scream.ogg"
    assert files == (ogg,)
    with soundfile.SoundFile(ogg) as file:
        assert (file.format, file.subtype, file.samplerate, file.channels) == ("OGG", "VORBIS", 44_100, 1)
    entry = {"name": "ghouls:entity/ghoul/scream", "weight": 1, "volume": 0.5, "pitch": 1.0}
    assert read(pack / "assets" / "ghouls" / "sounds.json") == {
        "entity.ghoul.scream": {"subtitle": "subtitles.ghouls.entity.ghoul.scream", "sounds": [entry]}
    }
    assert read(pack / "assets" / "ghouls" / "lang" / "en_us.json") == {
        "subtitles.ghouls.entity.ghoul.scream": "Ghoul screams"
    }
    assert read(pack / "pack.mcmeta")["pack"]["pack_format"] == 15
    told = read(pack / "tunesmith_credits.json")["sounds"]["assets/ghouls/sounds/entity/ghoul/scream.ogg"]
    assert (told["seed"], told["event"], told["file"]["size_bytes"]) == (
        0,
        "ghouls:entity.ghoul.scream",
        ogg.stat().st_size,
    )
    assert (FINISH.rate, FINISH.mono, FINISH.quality) == (44_100, True, 5.0)


def test_variants_are_numbered_and_all_chosen_from(tmp_path: Path) -> None:
    files = export(target(tmp_path, path="ghoul/scream", settings={"weight": 3}), count=3)
    assert [file.name for file in files] == ["scream_1.ogg", "scream_2.ogg", "scream_3.ogg"]
    assert len({file.read_bytes() for file in files}) == 3
    event = read(tmp_path / "assets" / "ghouls" / "sounds.json")["entity.ghoul.scream"]
    assert [entry["name"] for entry in event["sounds"]] == [f"ghouls:ghoul/scream_{at}" for at in (1, 2, 3)]
    assert [entry["weight"] for entry in event["sounds"]] == [3, 3, 3]
    assert "subtitle" not in event
    assert not (tmp_path / "assets" / "ghouls" / "lang").exists()


def test_what_others_wrote_stays_and_an_entry_is_updated_in_its_place(tmp_path: Path) -> None:
    assets = tmp_path / "assets" / "ghouls"
    (assets / "lang").mkdir(parents=True)
    mine = {
        "ambient.cave": {"replace": True, "sounds": ["minecraft:ambient/cave1"], "comment": "mine"},
        "entity.ghoul.scream": {
            "category": "hostile",
            "sounds": [
                "ghouls:other",
                {"name": "ghouls:entity/ghoul/scream", "stream": True, "volume": 0.2, "weight": 9},
                {"name": "ghouls:entity/ghoul/scream", "type": "event"},
                "ghouls:other",
            ],
        },
    }
    (assets / "sounds.json").write_text(json.dumps(mine))
    (assets / "lang" / "en_us.json").write_text(json.dumps({"item.ghouls.tooth": "Tooth"}))
    (tmp_path / "pack.mcmeta").write_text('{"pack": {"pack_format": 34, "description": "mine"}}')
    before = (tmp_path / "pack.mcmeta").read_bytes()
    export(target(tmp_path, subtitle="Scream", settings={"volume": 0.7}))
    found = read(assets / "sounds.json")
    assert list(found) == ["ambient.cave", "entity.ghoul.scream"]
    assert found["ambient.cave"] == mine["ambient.cave"]
    assert found["entity.ghoul.scream"] == {
        "category": "hostile",
        "subtitle": "subtitles.ghouls.entity.ghoul.scream",
        "sounds": [
            "ghouls:other",
            {"name": "ghouls:entity/ghoul/scream", "stream": True, "volume": 0.7, "weight": 9},
            {"name": "ghouls:entity/ghoul/scream", "type": "event"},
            "ghouls:other",
        ],
    }
    assert read(assets / "lang" / "en_us.json")["item.ghouls.tooth"] == "Tooth"
    assert (tmp_path / "pack.mcmeta").read_bytes() == before


def test_exporting_twice_changes_nothing_but_what_was_asked(tmp_path: Path) -> None:
    export(target(tmp_path), count=2)
    first = snapshot(tmp_path)
    export(target(tmp_path), count=2)
    assert snapshot(tmp_path) == first
    export(target(tmp_path, settings={"pitch": 0.5}), count=2)
    entries = read(tmp_path / "assets" / "ghouls" / "sounds.json")["entity.ghoul.scream"]["sounds"]
    assert [entry["pitch"] for entry in entries] == [0.5, 0.5]


def test_two_events_share_a_pack(tmp_path: Path) -> None:
    export(target(tmp_path))
    export(target(tmp_path, event="entity.ghoul.step"))
    assert set(read(tmp_path / "assets" / "ghouls" / "sounds.json")) == {"entity.ghoul.scream", "entity.ghoul.step"}
    assert len(read(tmp_path / "tunesmith_credits.json")["sounds"]) == 2


def test_a_name_that_lost_its_namespace_gets_it(tmp_path: Path) -> None:
    """A bare name means minecraft's own sounds; where our file of that name lies there, ours was meant."""
    export(target(tmp_path))
    file = tmp_path / "assets" / "ghouls" / "sounds.json"
    file.write_text(json.dumps({"entity.ghoul.scream": {"sounds": ["entity/ghoul/scream"]}}))
    export(target(tmp_path))
    assert read(file)["entity.ghoul.scream"]["sounds"] == [{"name": "ghouls:entity/ghoul/scream"}]


def test_a_bare_name_of_the_game_itself_stays(tmp_path: Path) -> None:
    file = tmp_path / "assets" / "ghouls" / "sounds.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"entity.ghoul.scream": {"sounds": ["mob/ghast/scream"]}}))
    export(target(tmp_path, path="mob/ghast/scream"))
    names = [
        entry if isinstance(entry, str) else entry["name"] for entry in read(file)["entity.ghoul.scream"]["sounds"]
    ]
    assert names == ["mob/ghast/scream", "ghouls:mob/ghast/scream"]


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ({"event": "Entity.Ghoul Scream!"}, ("ghouls", "entity.ghoul_scream_", "entity/ghoul_scream_")),
        ({"namespace": "GHOULS"}, ("ghouls", "entity.ghoul.scream", "entity/ghoul/scream")),
        ({"event": "ghouls:scream"}, ("ghouls", "scream", "scream")),
        ({"path": "Mob\\Ghoul\\Scream.OGG"}, ("ghouls", "entity.ghoul.scream", "mob/ghoul/scream")),
        ({"path": "ghouls:mob/scream"}, ("ghouls", "entity.ghoul.scream", "mob/scream")),
    ],
)
def test_ids_are_settled(tmp_path: Path, given: dict[str, str], settled: tuple[str, str, str]) -> None:
    found = target(tmp_path, **given)
    assert (found.namespace, found.event, found.path) == settled


@pytest.mark.parametrize(
    "given",
    [
        {"namespace": ".."},
        {"namespace": "../other"},
        {"namespace": "a/b"},
        {"namespace": ""},
        {"event": ""},
        {"event": "../../x"},
        {"event": "other:scream"},
        {"path": "../../../etc/x"},
        {"path": "a/../../x"},
        {"path": "a/./x"},
        {"path": "/etc/x"},
        {"path": "..\\..\\x"},
        {"path": "C:\\x"},
        {"path": "a//x"},
        {"path": "a/"},
        {"settings": {"weight": 0}},
        {"settings": {"weight": 1.5}},
        {"settings": {"volume": -1}},
        {"settings": {"pitch": float("nan")}},
    ],
)
def test_ids_that_point_outside_and_numbers_out_of_range_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        target(tmp_path, **given)


BROKEN = ["{", "[]", '{"entity.ghoul.scream": []}', '{"entity.ghoul.scream": {"sounds": {}}}',
          '{"entity.ghoul.scream": {"sounds": [3]}}', '{"a": {}, "a": {}}', "\xff\xfe", "{} // mine"]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_sounds_json_is_named_and_nothing_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "assets" / "ghouls" / "sounds.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("latin-1"))
    before = snapshot(tmp_path)
    for action in (check_pack, export):
        with pytest.raises(DataError, match=r"sounds\.json"):
            action(target(tmp_path, subtitle="x"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["pack.mcmeta", "tunesmith_credits.json", "assets/ghouls/lang/en_us.json"])
def test_other_broken_files_of_the_pack_are_named_too(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{")
    for action in (check_pack, export):
        with pytest.raises(DataError, match=file.name.replace(".", r"\.")):
            action(target(tmp_path))
    assert list(snapshot(tmp_path)) == [name]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "assets" / "ghouls" / "sounds.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xef\xbb\xbf" + b'{"ambient.cave": {"sounds": []}}')
    export(target(tmp_path))
    assert set(read(file)) == {"ambient.cave", "entity.ghoul.scream"}
