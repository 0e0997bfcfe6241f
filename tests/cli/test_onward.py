"""What a training ends with are commands, and they work: for pictures, and for families of sounds."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tiny_audio import write_folder
from tunesmith.catalog.card import Card
from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.catalog.shelf import Shelf
from tunesmith.cli.onward import onward

RATE = 8_000


def next_commands(out: str) -> list[list[str]]:
    """The commands under `Next:`, as words without `tunesmith`."""
    _, _, rest = out.rpartition("Next:\n")
    return [shlex.split(line)[1:] for line in rest.splitlines() if line.strip().startswith("tunesmith ")]


def test_pictures_are_called_by_their_concept(tunesmith, workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop.folder)
    ran = tunesmith("train", workshop.recipe, "--on", "inline")
    assert ran.code == 0, ran.err
    job, add, generate, export = next_commands(ran.out)
    assert job[:2] == ["jobs", "show"]
    assert add[:4] == ["concepts", "add", "peter", "--from-checkpoint"]
    assert generate == ["generate", "--concept", "peter", "--prompt", "…"]
    assert add[4].startswith("peter-3-")
    for words in (job, add, [*generate, "--steps", "2", "--out", "peter.png"], export):
        assert tunesmith(*words).code == 0, words
    assert Path("peter.png").is_file()
    (again,) = (words for words in next_commands(tunesmith("checkpoints", "show", "peter").out) if "generate" in words)
    assert again == generate  # and it is not added twice
    activated = tunesmith("checkpoints", "activate", "peter")
    assert next_commands(activated.out) == [["generate", "--engine", "test_pictures", "--prompt", "…"]]


@pytest.fixture
def families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sounds of two creatures with their credits, and a tiny base at 8 kHz, in the current folder."""
    monkeypatch.chdir(tmp_path)
    base = write_folder(tmp_path / "tiny")
    for part, changes in (("vae", {"sampling_rate": RATE}), ("transformer", {"sample_size": 2 * RATE // 8})):
        file = base / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    for number, family in enumerate(("ghoul", "wisp")):
        (tmp_path / "raw" / family).mkdir(parents=True)
        for index in range(3):
            draw = np.random.default_rng(10 * number + index)
            sound = 0.1 * draw.standard_normal(RATE // 2) * np.hanning(RATE // 2)
            path = tmp_path / "raw" / family / f"{index}.wav"
            soundfile.write(path, sound, RATE)
            credits_of = {"prompt": f"{family} screech {index}", "licence": "CC0-1.0"}
            path.with_name(f"{path.name}.credits.json").write_text(json.dumps(credits_of))
    return tmp_path


def test_families_of_sounds_from_their_folders_to_their_calls(tunesmith, families: Path) -> None:
    for family in ("ghoul", "wisp"):
        words = ("--in", f"raw/{family}", "--out", f"data/{family}", "--family", family)
        assert tunesmith("dataset", "prepare", *words).code == 0
    ran = tunesmith(
        "train", "--data", "data", "--base", "tiny", "--name", "creatures", "--creature-family", "ghoul",
        "--creature-family", "wisp=will_o", "--steps", 2, "--rank", 2, "--threads", 1, "--on", "inline",
        "--resources-disk-reserve-bytes", 0, "engine.name=stable_audio", "engine.window_seconds=0.5",
    )  # fmt: skip
    assert ran.code == 0, ran.err + ran.out
    _, ghoul, wisp, generate, export = next_commands(ran.out)
    assert [words[:3] for words in (ghoul, wisp)] == [["concepts", "add", "ghoul"], ["concepts", "add", "wisp"]]
    assert generate == ["generate", "--creature-family", "ghoul", "--prompt", "…"]
    card = tunesmith("checkpoints", "show", "creatures", "--json").document
    assert card["trained_at"] == {"window_seconds": 0.5}
    assert card["concepts"] == {"ghoul": "ghoul", "wisp": "will_o"}
    for words in (ghoul, wisp):
        added = tunesmith(*words)
        assert added.code == 0, added.err
        assert next_commands(added.out) == [["generate", "--creature-family", words[2], "--prompt", "…"]]
    out = ("--steps", 2, "--precision", "fp32", "--seed", 1)
    assert tunesmith(*generate, *out, "--out", "ghoul.wav").code == 0
    called = tunesmith("generate", "--creature-family", "WISP", "--prompt", "roar", *out, "--out", "wisp.wav")
    assert called.code == 0, called.err
    assert "window 0.5 s, which the checkpoint was trained at" in called.out
    told = json.loads(Path("wisp.wav.credits.json").read_text())
    assert (told["family"], told["expanded_prompt"]) == ("wisp", "will_o roar")
    assert told["checkpoints"][0]["name"] == card["id"]
    assert told["licence"]["items"] == ["CC0-1.0"]
    assert tunesmith(*export).code == 0


def shelved(home: Path, **fields: Any) -> Card:
    made = home / "made"
    made.mkdir(parents=True)
    (made / "adapter_model.safetensors").write_bytes(b"x")
    return Shelf(home).put(Card(**{"name": "creatures", "engine": "stable_audio", **fields}), made)


def test_a_concept_of_an_older_checkpoint_is_turned_to_this_one(home: Path) -> None:
    card = shelved(home, concepts={"red ghoul": "gh", "imp": "im"})
    Concepts(home).put(Concept("Red Ghoul", checkpoint="older-1"))
    Concepts(home).put(Concept("imp", checkpoint="creatures"))  # the newest of that name: this one
    assert onward(home, card.id)[:-1] == (
        f"tunesmith concepts edit 'red ghoul' --checkpoint {card.id}",
        "tunesmith generate --creature-family 'red ghoul' --prompt '…'",
    )


def test_without_concepts_the_checkpoint_itself_is_named(home: Path) -> None:
    card = shelved(home, engine="an_engine_of_another_machine")
    assert onward(home, card.id)[0] == f"tunesmith generate --checkpoint {card.id} --prompt '…'"
    assert onward(home, "gone") == ()


def test_a_recipe_is_shown_as_it_would_be_written(tunesmith, workshop, home: Path) -> None:
    recipe = {
        "engine": {"name": "stable_audio", "window_seconds": 0.5},
        "data": {"paths": ["a", "b"]},
        "note": "\x1b[2J",
    }
    shelved(home, recipe=recipe, trained_at={"window_seconds": 0.5})
    shown = tunesmith("checkpoints", "show", "creatures").out
    assert "recipe\n  engine: {name: stable_audio, window_seconds: 0.5}\n  data:\n    paths: [a, b]\n  note: " in shown
    assert "trained_at    window_seconds=0.5" in shown
    assert "\x1b" not in shown
