from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import CatalogError
from tunesmith.jobs.bases import named_bases
from tunesmith.recipe.schema import BaseSection, Recipe


def shelved(home: Path, kind: str, name: str) -> tuple[str, str]:
    """(id, path of its weights) of a checkpoint in the catalog."""
    made = home / "made"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    shelf = Shelf(home)
    card = shelf.put(Card(name=name, engine="none", kind=kind, created_utc="2026-01-31T12:00:00Z"), made)  # type: ignore[arg-type]
    return card.id, str(shelf.path(card) / "model.safetensors")


def on(recipe: Recipe, home: Path, path: str, **parts: str) -> BaseSection:
    return named_bases(replace(recipe, base=BaseSection(path=path, parts=parts)), home).base


def test_full_weights_are_a_base_by_name_and_by_id(recipe: Recipe, tmp_path: Path) -> None:
    identity, place = shelved(tmp_path, "weights", "demo-world")
    assert on(recipe, tmp_path, "demo-world").path == place
    found = on(recipe, tmp_path, "somewhere/else", autoencoder=identity)
    assert found.path == "somewhere/else"
    assert found.parts == {"autoencoder": place}


def test_an_unknown_name_stays_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    assert on(recipe, tmp_path, "nobody").path == "nobody"
    shelved(tmp_path, "weights", "demo-world")
    for name in ("nobody", "starter", "someone/demo-worl", "folder/demo-worl"):
        assert on(recipe, tmp_path, name).path == name


def test_an_adapter_and_a_misspelt_name_are_told(recipe: Recipe, tmp_path: Path) -> None:
    shelved(tmp_path / "one", "adapter", "peter")
    with pytest.raises(CatalogError, match=r"peter is an adapter, which is no base. .*Name a file or a folder"):
        on(recipe, tmp_path / "one", "peter")
    shelved(tmp_path / "two", "weights", "demo-world")
    with pytest.raises(CatalogError, match=r"no base is called 'demo-worl'. Did you mean 'demo-world'"):
        on(recipe, tmp_path / "two", "demo-worl")


def test_a_file_of_that_name_comes_first(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelved(tmp_path, "weights", "demo-world")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-world").write_text("mine")
    assert on(recipe, tmp_path, "demo-world").path == "demo-world"
