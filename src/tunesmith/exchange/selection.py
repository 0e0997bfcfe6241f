"""Which base and which checkpoints a generation uses, from names: the active one where none is named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.adapters.files import read_adapter
from tunesmith.catalog.card import Card, base_of
from tunesmith.catalog.shelf import Shelf, weights_path
from tunesmith.engines.index import engine_named, engine_names
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import CatalogError
from tunesmith.exchange.importing import check_fits
from tunesmith.generation.session import Attachment
from tunesmith.recipe.schema import BaseSection

LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Used:
    """One checkpoint of a generation. `active` says that it was not named: the catalog's active one is used."""

    name: str
    weight: float
    active: bool = False


@dataclass(frozen=True)
class Selection:
    """What to open and attach. `used` names every checkpoint, full weights included."""

    engine: Engine
    base: Base
    attachments: tuple[Attachment, ...]
    used: tuple[Used, ...]


def select(
    shelf: Shelf,
    checkpoints: Sequence[str] | None,
    *,
    base: str | None = None,
    engine: str | None = None,
) -> Selection:
    """Resolve `NAME[:WEIGHT]` checkpoints (ids, names, or files) and the base under them.

    `checkpoints` None means the active one, if there is one; an empty list means the bare base. A checkpoint of full
    weights is the base itself. Raises CatalogError where no base can be told, AdapterError where a layer does not fit.
    """
    names = [named_weight(text) for text in checkpoints or ()]
    cards = {name: shelf.get(name) for name, _ in names if not Path(name).exists()}
    chosen = engine_named(engine or next((card.engine for card in cards.values()), engine_names()[0]))
    active = shelf.active(chosen.facts.name) if checkpoints is None else None
    if active is not None:
        names, cards = [(active.id, 1.0)], {active.id: active}
    wrong = next((card for card in cards.values() if card.engine != chosen.facts.name), None)
    if wrong is not None:
        raise CatalogError(f"{wrong.id} is a checkpoint of {wrong.engine}", expected=f"one of {chosen.facts.name}")
    opened = chosen.open(_base_section(shelf, cards, base))
    attachments = []
    for name, weight in names:
        card = cards.get(name)
        if card is not None and card.kind == "weights":
            continue
        adapter = read_adapter(shelf.path(card) if card is not None else Path(name), chosen.layouts, opened)
        check_fits(chosen, opened, adapter)
        attachments.append(Attachment(adapter, weight, card.id if card is not None else Path(name).stem))
    used = tuple(Used(cards[name].id if name in cards else name, weight, active is not None) for name, weight in names)
    return Selection(chosen, opened, tuple(attachments), used)


def named_weight(text: str) -> tuple[str, float]:
    """`peter:0.8` -> (peter, 0.8); without a number the weight is 1. Raises CatalogError for a weight out of range."""
    name, colon, number = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        weight = float(number)
    except ValueError:
        return text, 1.0
    if not math.isfinite(weight) or abs(weight) > LARGEST_WEIGHT:
        expected = f"a number from {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
        raise CatalogError(f"the weight of {name!r} is {number}", expected=expected, do=f"write {name}:1")
    return name, weight


def _base_section(shelf: Shelf, cards: dict[str, Card], base: str | None) -> BaseSection:
    if base is not None:
        return BaseSection(path=shelf.base_path(base))
    whole = [card for card in cards.values() if card.kind == "weights"]
    if len(whole) > 1:
        raise CatalogError(f"{whole[0].id} and {whole[1].id} are both full weights", expected="one of them at a time")
    if whole:
        return BaseSection(path=str(weights_path(shelf.path(whole[0]))))
    for card in cards.values():
        if card.base:
            return base_of(card)
    raise CatalogError("no base is named", expected="a base to generate with", do="name one with --base")
