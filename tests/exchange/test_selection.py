"""Names become a base and attachments; `tests/cli` takes the same through trained checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.catalog.card import Card, base_of
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import CatalogError
from tunesmith.exchange.selection import named_weight, select
from tunesmith_test_engines.pictures import write_pictures_base


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("peter", "peter", 1.0),
        ("peter:0.8", "peter", 0.8),
        ("peter:-1", "peter", -1.0),
        ("C:/loras/peter.safetensors", "C:/loras/peter.safetensors", 1.0),
        ("C:/loras/peter.safetensors:0.5", "C:/loras/peter.safetensors", 0.5),
    ],
)
def test_a_name_may_carry_a_weight(text: str, name: str, weight: float) -> None:
    assert named_weight(text) == (name, weight)


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf", "1e300", "10.5", "-11"])
def test_a_weight_is_a_number_that_makes_sense(weight: str) -> None:
    with pytest.raises(CatalogError, match=f"the weight of 'first' is {weight}. Expected a number from -10 to 10"):
        named_weight(f"first:{weight}")


def put(
    shelf: Shelf, name: str, *, engine: str = "test_pictures", kind: str = "adapter", base: dict[str, str] | None = None
) -> Card:
    folder = shelf.home / f"draft-{name}"
    folder.mkdir(parents=True)
    if kind == "weights":
        write_pictures_base(folder / "model.safetensors")
    else:
        (folder / "adapter_model.safetensors").write_bytes(b"")
    return shelf.put(Card(name=name, engine=engine, kind=kind, base=base or {}), folder)


def test_the_base_of_a_card_or_the_one_that_is_named(home: Path) -> None:
    card = put(Shelf(home), "peter", base={"path": "sd.safetensors", "init": "mother"})
    assert base_of(card).path == "sd.safetensors"
    assert base_of(card).init is None
    assert base_of(card, "other").path == "other"
    with pytest.raises(CatalogError, match="names no base"):
        base_of(put(Shelf(home), "orphan"))


def test_full_weights_are_the_base(home: Path) -> None:
    shelf = Shelf(home)
    one, two = put(shelf, "one", kind="weights"), put(shelf, "two", kind="weights")
    chosen = select(shelf, [one.id])
    assert chosen.base.source.endswith("model.safetensors")
    assert chosen.attachments == ()
    assert [used.name for used in chosen.used] == [one.id]
    with pytest.raises(CatalogError, match="both full weights"):
        select(shelf, [one.id, two.id])


def test_the_active_one_stands_in_for_none_named(home: Path) -> None:
    shelf = Shelf(home)
    card = put(shelf, "one", kind="weights")
    shelf.activate(card.id)
    (used,) = select(shelf, None, engine="test_pictures").used
    assert (used.name, used.active) == (card.id, True)
    with pytest.raises(CatalogError, match="--base"):
        select(shelf, [], engine="test_pictures")


def test_checkpoints_of_another_engine_are_refused(home: Path) -> None:
    shelf = Shelf(home)
    card = put(shelf, "hum", engine="test_tokens")
    with pytest.raises(CatalogError, match="a checkpoint of test_tokens"):
        select(shelf, [card.id], engine="test_pictures")
