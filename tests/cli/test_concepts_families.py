from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf

GHOUL = {"lora_path": "lora\\ghoul.safetensors", "trigger": "ghoul", "scale": 0.8, "negative_prompt": "music, speech"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two families, one version and one bad entry; the working folder lies in it."""
    folder = tmp_path / "project"
    for name in ("configs", "library", "lora", "outputs"):
        (folder / name).mkdir(parents=True)
    (folder / "lora" / "ghoul.safetensors").touch()
    entries = {"ghoul": GHOUL, "wisp": {"lora_path": "lora/wisp.safetensors"}, "bad": {"trigger": "x"}}
    (folder / "configs" / "creature_families.json").write_text(json.dumps(entries))
    version = {"v1": {**GHOUL, "base_model": "some/base", "scael": 2}}
    (folder / "library" / "model_versions.json").write_text(json.dumps(version))
    monkeypatch.chdir(folder / "outputs")
    return folder


@pytest.fixture
def card(home: Path) -> Card:
    """A checkpoint of the test engine that knows a ghoul."""
    made = home / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"x")
    concepts = {"ghoul": "gh_1", "imp": "im_1"}
    return Shelf(home).put(Card(name="creatures", engine="test_pictures", concepts=concepts), made)


def test_families_of_the_project_are_listed_beside_our_own(tunesmith, project: Path) -> None:
    assert tunesmith("concepts", "add", "wisp", "--engine", "test_pictures").code == 0
    ran = tunesmith("concepts", "list", "--json")
    assert [(entry["name"], entry["from"]) for entry in ran.document] == [
        ("ghoul", "configs"),
        ("v1", "library"),
        ("wisp", "registry"),
    ]
    assert ran.document[0]["checkpoint"] == str(project / "lora" / "ghoul.safetensors")
    assert "lora_path is missing" in ran.err
    assert "did you mean 'scale'?" in ran.err
    table = tunesmith("concepts", "list").out.splitlines()
    assert table[0].split() == ["name", "trigger", "engine", "checkpoint", "strength", "from"]
    assert [row.split()[-1] for row in table[1:4]] == ["configs", "library", "registry"]


def test_outside_of_a_project_nothing_is_added(tunesmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tunesmith("concepts", "list", "--json").document == []


def test_a_family_is_shown_with_where_it_comes_from(tunesmith, project: Path) -> None:
    shown = tunesmith("concepts", "show", "Ghoul", "--json").document
    assert (shown["name"], shown["trigger"], shown["strength"], shown["from"]) == ("ghoul", "ghoul", 0.8, "configs")
    assert "configs/creature_families.json" in shown["said"]
    missing = tunesmith("concepts", "show", "wisp")
    assert missing.code == 0
    assert "wisp.safetensors, which does not exist" in missing.err
    assert "lora_path is missing" in tunesmith("concepts", "show", "bad").error
    assert "Did you mean 'ghoul'" in tunesmith("concepts", "show", "goul").error


def test_a_family_is_changed_where_it_stands(tunesmith, project: Path) -> None:
    for words in (("edit", "ghoul", "--strength", 0.5), ("remove", "ghoul", "--yes")):
        error = tunesmith("concepts", *words).error
        assert "is not in the registry but in configs/creature_families.json" in error
        assert f"concepts import {project}" in error


@pytest.mark.parametrize(
    ("words", "trigger"), [((), "gh_1"), (("--trigger", "other"), "other"), (("--trigger", ""), "")]
)
def test_a_concept_from_a_checkpoint(tunesmith, card: Card, words: tuple[str, ...], trigger: str) -> None:
    for given in (card.id, "latest"):
        ran = tunesmith("concepts", "add", "Ghoul", "--from-checkpoint", given, "--negative", "music", *words)
        assert ran.code == 0, ran.err
        assert card.id in ran.out
        shown = tunesmith("concepts", "show", "ghoul", "--json").document
        assert (shown["trigger"], shown["engine"], shown["checkpoint"]) == (trigger, "test_pictures", card.id)
        assert (shown["negative_prompt"], shown["strength"]) == ("music", 1.0)
        assert tunesmith("concepts", "remove", "Ghoul", "--yes").code == 0


def test_a_checkpoint_by_name_stays_a_name_and_brings_its_engine(tunesmith, card: Card) -> None:
    assert tunesmith("concepts", "add", "ghoul", "--checkpoint", "creatures").code == 0
    shown = tunesmith("concepts", "show", "ghoul", "--json").document
    assert (shown["trigger"], shown["engine"], shown["checkpoint"]) == ("ghoul", "test_pictures", "creatures")


def test_a_loose_lora_needs_no_catalog(tunesmith, project: Path, card: Card) -> None:
    lora = project / "lora" / "ghoul.safetensors"
    ran = tunesmith("concepts", "add", "ghoul", "--lora", "../lora/ghoul.safetensors", "--engine", "test_pictures")
    assert ran.code == 0, ran.err
    assert "configs/creature_families.json" in ran.out
    shown = tunesmith("concepts", "show", "ghoul", "--json").document
    assert (shown["checkpoint"], shown["from"]) == (str(lora), "registry")
    both = tunesmith("concepts", "add", "imp", "--lora", lora, "--from-checkpoint", "latest")
    assert both.code == 0, both.err
    shown = tunesmith("concepts", "show", "imp", "--json").document
    assert (shown["checkpoint"], shown["trigger"], shown["engine"]) == (str(lora), "im_1", "test_pictures")
    assert tunesmith("concepts", "edit", "imp", "--lora", project / "lora").code == 0
    assert tunesmith("concepts", "show", "imp", "--json").document["checkpoint"] == str(project / "lora")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--from-checkpoint", "craetures"), "Did you mean 'creatures'"),
        (("--from-checkpoint", "latest", "--engine", "stable_audio"), "no checkpoint of stable_audio"),
        (("--from-checkpoint", "creatures", "--engine", "stable_audio"), "is a checkpoint of test_pictures"),
        (("--from-checkpoint", "latest"), "knows several concepts, none called 'new'"),
        (("--from-checkpoint", "latest", "--checkpoint", "creatures"), "--checkpoint and --from-checkpoint both"),
        (("--lora", "../lora/ghoul.safetensors", "--checkpoint", "creatures"), "--checkpoint and --lora both"),
        (("--lora", "../lora/ghoul.safetensors"), "--engine with one of stable_diffusion"),
        (("--lora", "../lora/gohul.safetensors", "--engine", "stable_audio"), "Did you mean ghoul.safetensors"),
        (("--engine", "stable_adio"), "Did you mean 'stable_audio'"),
    ],
)
def test_what_does_not_fit_is_refused(tunesmith, project: Path, card: Card, words: tuple[str, ...], found: str) -> None:
    ran = tunesmith("concepts", "add", "new", *words)
    assert ran.code == 2
    assert found in ran.error


def test_a_name_in_another_case_is_taken(tunesmith) -> None:
    assert tunesmith("concepts", "add", "ghoul").code == 0
    assert "there already is a concept 'GHOUL'" in tunesmith("concepts", "add", "GHOUL").error


def test_a_project_is_imported_once_and_never_over_ours(tunesmith, project: Path, home: Path) -> None:
    assert tunesmith("concepts", "add", "wisp", "--trigger", "ours").code == 0
    ran = tunesmith("concepts", "import", project, "--json")
    assert ran.code == 0, ran.err
    outcomes = {one["name"]: one["outcome"] for one in ran.document}
    assert outcomes == {"ghoul": "added", "v1": "added", "wisp": "kept", "bad": "refused"}
    assert "bad was left out" in ran.err
    shown = tunesmith("concepts", "show", "ghoul", "--json").document
    assert (shown["from"], shown["checkpoint"]) == ("registry", str(project / "lora" / "ghoul.safetensors"))
    again = tunesmith("concepts", "import", "..")
    assert "same ghoul" in again.out
    assert "kept wisp" in again.out
    assert "--force" in again.out
    assert tunesmith("concepts", "show", "wisp", "--json").document["trigger"] == "ours"
    assert "replaced wisp" in tunesmith("concepts", "import", project, "--force").out
    assert tunesmith("concepts", "show", "wisp", "--json").document["trigger"] == ""


def test_what_has_no_families_is_not_imported(tunesmith, project: Path, tmp_path: Path) -> None:
    assert f"Did you mean {project}?" in tunesmith("concepts", "import", project / "outputs").error
    assert "creature_families.json" in tunesmith("concepts", "import", tmp_path / "nowhere").error
    for file in project.glob("*/*.json"):
        file.write_text("{")
    assert "is no JSON" in tunesmith("concepts", "import", project).error
