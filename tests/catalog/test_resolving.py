from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.catalog.card import Card
from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.catalog.copying import copy_families
from tunesmith.catalog.families import read_families
from tunesmith.catalog.resolving import (
    FAMILY_TEMPLATE,
    card_named,
    card_trigger,
    concept_of,
    known_concepts,
    resolve_concept,
)
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import CatalogError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose ghoul stands in both places, with both LoRA files."""
    folder = tmp_path / "project"
    for place, scale in (("configs", 0.8), ("library", 0.6)):
        (folder / place).mkdir(parents=True)
        entry = {"lora_path": f"lora/{place}.safetensors", "trigger": "ghoul", "scale": scale}
        others = {"wisp": {"lora_path": "lora/wsip.safetensors"}} if place == "configs" else {}
        (folder / place / "creature_families.json").write_text(json.dumps({"ghoul": entry, **others}))
    (folder / "lora").mkdir()
    for name in ("configs", "library", "wisp"):
        (folder / "lora" / f"{name}.safetensors").touch()
    return folder


def checkpoint(home: Path, name: str, **fields: object) -> Card:
    folder = home / "made"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    return Shelf(home).put(Card(name=name, engine="toy", **fields), folder)  # type: ignore[arg-type]


def test_the_registry_wins_over_library_over_configs(home: Path, project: Path) -> None:
    library = resolve_concept(home, "GHOUL", project)
    assert (library.name, library.strength, library.engine) == ("ghoul", 0.6, "stable_audio")
    assert library.adapter == project / "lora" / "library.safetensors"
    said = library.said
    assert said.index("from library/creature_families.json") < said.index("passed over: configs/creature_families.json")
    (project / "library" / "creature_families.json").unlink()
    configs = resolve_concept(home, "ghoul", project)
    assert (configs.strength, "passed over" in configs.said) == (0.8, False)
    Concepts(home).put(Concept("Ghoul", trigger="gh_1", engine="toy", strength=0.5))
    own = resolve_concept(home, "ghoul", project)
    assert (own.trigger, own.strength, own.adapter, own.engine) == ("gh_1", 0.5, None, "toy")
    assert own.said == "Ghoul is from the registry; passed over: configs/creature_families.json"
    assert resolve_concept(home, "ghoul", None).said == "Ghoul is from the registry"


def test_a_concept_keeps_its_template_and_a_family_its_trigger_rule(home: Path, project: Path) -> None:
    Concepts(home).put(Concept("peter", trigger="qb_peter", template="{trigger} person, {prompt}"))
    peter = resolve_concept(home, "peter", project)
    assert peter.prompt("qb_peter reading") == "qb_peter person, qb_peter reading"
    ghoul = resolve_concept(home, "ghoul", project)
    assert ghoul.template is None
    assert ghoul.prompt("creature screech") == "creature screech, ghoul"
    assert ghoul.prompt("a Ghoul screech") == "a Ghoul screech"
    assert ghoul.prompt("") == "ghoul"


def test_a_checkpoint_of_the_catalog_is_named_by_its_id(home: Path) -> None:
    card = checkpoint(home, "growls")
    Concepts(home).put(Concept("ghoul", checkpoint="growls", strength=0.25))
    found = resolve_concept(home, "ghoul", None)
    assert (found.adapter, found.engine, found.strength) == (card.id, "toy", 0.25)
    Concepts(home).put(Concept("ghoul", checkpoint="grows"))
    with pytest.raises(CatalogError, match=r"'ghoul' of the registry: no checkpoint.*'growls'.*concepts edit ghoul"):
        resolve_concept(home, "ghoul", None)
    assert resolve_concept(home, "ghoul", None, needs_adapter=False).adapter is None


def test_a_missing_file_is_an_error_when_it_is_used(home: Path, project: Path) -> None:
    assert [known.concept.name for known in known_concepts(home, read_families(project))] == ["ghoul", "wisp"]
    with pytest.raises(CatalogError, match=r"'wisp' of configs.*wsip\.safetensors, which does not exist.*wisp\.safet"):
        resolve_concept(home, "wisp", project)
    Concepts(home).put(Concept("long", checkpoint=f"/{'x' * 5000}"))
    with pytest.raises(CatalogError, match="does not exist"):
        resolve_concept(home, "long", None)


def test_a_miss_says_where_was_looked(home: Path, project: Path) -> None:
    Concepts(home).put(Concept("goblin"))
    with pytest.raises(CatalogError, match=r"no concept is called 'gholu' in the registry or in library/.*'ghoul'"):
        resolve_concept(home, "gholu", project)
    with pytest.raises(CatalogError, match=r"no folder from here upwards.*'goblin'"):
        resolve_concept(home, "gobln", None)
    with pytest.raises(CatalogError, match="concepts list"):
        resolve_concept(home, "zzz", None)


def test_a_damaged_file_is_said_and_stops_no_other(home: Path, project: Path) -> None:
    (project / "library" / "creature_families.json").write_text("{")
    found = resolve_concept(home, "ghoul", project)
    assert found.strength == 0.8
    assert "library/creature_families.json was not read" in found.said


def test_what_is_odd_about_an_entry_is_said(home: Path, project: Path) -> None:
    entry = {"lora_path": "lora/configs.safetensors", "scael": 0.3}
    (project / "library" / "creature_families.json").write_text(json.dumps({"ghoul": entry}))
    assert "did you mean 'scale'?" in resolve_concept(home, "ghoul", project).said


def test_a_model_version_lies_over_a_family_of_another_name(home: Path, project: Path) -> None:
    versions = {
        "v2": {"lora_path": "lora/wisp.safetensors", "scale": 0.3, "base_model": "some/base"},
        "bare": {"negative_prompt": "music"},
    }
    (project / "configs" / "model_versions.json").write_text(json.dumps(versions))
    family, v2, bare = (resolve_concept(home, name, project) for name in ("ghoul", "v2", "bare"))
    both = v2.over(family)
    assert (both.adapter, both.strength, both.base) == (project / "lora" / "wisp.safetensors", 0.3, "some/base")
    assert both.trigger == "ghoul"
    assert (v2.said in both.said, family.said in both.said) == (True, True)
    assert (bare.over(family).strength, bare.over(family).adapter) == (0.6, family.adapter)  # left out: the family's
    assert (bare.strength, bare.adapter, bare.negative_prompt) == (1.0, None, "music")
    styled = Concept("styled", trigger="st", template="{trigger}: {prompt}", strength=0.9)
    Concepts(home).put(styled)
    mixed = v2.over(resolve_concept(home, "styled", project))
    assert (mixed.prompt("x"), mixed.strength) == ("st: x", 0.3)


@pytest.mark.parametrize(
    ("concepts", "name", "expected"),
    [
        ({}, "ghoul", ""),
        ({"growler": "gr"}, "ghoul", "gr"),
        ({"growler": "gr", "Ghoul": "gh"}, "ghoul", "gh"),
        ({"growler": "gr", "ghoul": {"trigger": "gh", "weight": 1}}, "ghoul", "gh"),
        ({"ghoul": 3}, "ghoul", ""),
    ],
)
def test_a_card_gives_its_trigger(concepts: dict[str, object], name: str, expected: str) -> None:
    assert card_trigger(Card("a", "toy", concepts=concepts), name) == expected


def test_a_card_of_several_others_gives_none() -> None:
    with pytest.raises(CatalogError, match=r"one \(1\), two \(2\)"):
        card_trigger(Card("a", "toy", id="a-1", concepts={"one": "1", "two": "2"}), "ghoul")


def test_the_latest_checkpoint(home: Path) -> None:
    with pytest.raises(CatalogError, match="no checkpoint of toy"):
        card_named(Shelf(home), "latest", "toy")
    checkpoint(home, "old", created_utc="2026-01-01T00:00:00Z")
    new = checkpoint(home, "new", created_utc="2026-02-01T00:00:00Z")
    assert card_named(Shelf(home), "latest") == card_named(Shelf(home), "new", "toy") == new
    with pytest.raises(CatalogError, match="one of other"):
        card_named(Shelf(home), "new", "other")


def test_families_are_copied_and_resolve_as_before(home: Path, project: Path) -> None:
    before = resolve_concept(home, "ghoul", project)
    done = {one.name: one for one in copy_families(home, read_families(project))}
    assert {name: one.outcome for name, one in done.items()} == {"ghoul": "added", "wisp": "added"}
    assert "wsip" in done["wisp"].said
    after = resolve_concept(home, "ghoul", None)
    for field in ("name", "trigger", "strength", "negative_prompt", "adapter", "template", "engine"):
        assert getattr(after, field) == getattr(before, field)
    assert Concepts(home).get("ghoul").template == FAMILY_TEMPLATE
    assert {one.outcome for one in copy_families(home, read_families(project))} == {"same"}


def test_copying_never_overwrites_unless_forced(home: Path, project: Path) -> None:
    ours = Concepts(home).put(Concept("GHOUL", trigger="ours"))
    kept = copy_families(home, read_families(project))[0]
    assert (kept.outcome, "trigger" in kept.said) == ("kept", True)
    assert Concepts(home).get("ghoul") == ours
    assert copy_families(home, read_families(project), force=True)[0].outcome == "replaced"
    assert Concepts(home).get("ghoul") == concept_of(read_families(project).get("ghoul"))


def test_what_cannot_be_copied_is_refused_alone(home: Path, project: Path) -> None:
    good = {"lora_path": "lora/wisp.safetensors"}
    entries = {"a/b": good, "imp": good, "IMP": good, "bad": {}, "ghoul": {"lora_path": "lora/library.safetensors"}}
    (project / "library" / "creature_families.json").write_text(json.dumps(entries))
    (project / "configs" / "creature_families.json").write_text(json.dumps({"ghoul": {}}))
    done = {one.name: one.outcome for one in copy_families(home, read_families(project))}
    assert done == {"a/b": "refused", "IMP": "added", "imp": "refused", "bad": "refused", "ghoul": "added"}
    assert [concept.name for concept in Concepts(home).list()] == ["ghoul", "IMP"]


def test_a_pinned_base_is_not_lost_on_the_way(home: Path, project: Path) -> None:
    versions = {"v2": {"lora_path": "lora/wisp.safetensors", "base_model": "some/base", "notes": "growls"}}
    (project / "configs" / "model_versions.json").write_text(json.dumps(versions))
    copy_families(home, read_families(project))
    assert Concepts(home).get("v2").notes == "growls; base_model some/base"
