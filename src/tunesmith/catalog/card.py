"""Card: everything known about one checkpoint, as kept in its meta.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tunesmith.errors import CatalogError
from tunesmith.recipe.schema import BaseSection

FORMAT = 1
FILE = "meta.json"


@dataclass(frozen=True)
class Card:
    """What a checkpoint is, what it was made from, and how good it measured.

    `id` is given by the shelf when empty. `kind` is adapter or weights, `origin` trained or imported. `base` says how
    to open the base again (a recipe's base section), `base_hash` which one it was. `trained_at` holds knobs of a
    generation request: the size or window it was trained at. `concepts` maps each concept to how it is used (trigger,
    and what the engine adds). `credits` and `licences` come from the items, `measures` from
    evaluation (finite numbers), `parent` is the checkpoint it started from. `files` maps names inside the
    checkpoint's folder to SHA-256. `created_utc` is ISO 8601, such as 2026-01-31T12:00:00Z.
    """

    name: str
    engine: str
    id: str = ""
    method: str = ""
    stage: str = ""
    kind: str = "adapter"
    origin: str = "trained"
    base: Mapping[str, Any] = field(default_factory=dict)
    base_hash: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    trained_at: Mapping[str, Any] = field(default_factory=dict)
    dataset_hash: str = ""
    item_count: int = 0
    concepts: Mapping[str, Any] = field(default_factory=dict)
    credits: tuple[Any, ...] = ()
    licences: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    parent: str | None = None
    job: str | None = None
    step: int = 0
    created_utc: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


_TEXTS = (
    "id",
    "name",
    "engine",
    "method",
    "stage",
    "kind",
    "origin",
    "base_hash",
    "dataset_hash",
    "created_utc",
)
_MAPS = ("base", "recipe", "trained_at", "concepts", "measures", "files")
_LISTS = ("credits", "licences")
_COUNTS = ("item_count", "step")
_MAYBE = ("parent", "job")


def to_json(card: Card) -> dict[str, Any]:
    """The card as kept on disk, its format number first."""
    return {"format": FORMAT, **dataclasses.asdict(card)}


def from_json(document: Any, source: str) -> Card:
    """The card in a parsed meta.json. Raises CatalogError naming `source` and the field that is wrong.

    Fields that a later version added are ignored; a later format is refused.
    """
    if not isinstance(document, dict):
        raise CatalogError(f"{source} holds no card", expected="a JSON object")
    if document.get("format") != FORMAT:
        raise CatalogError(
            f"{source} has format {document.get('format')!r}", expected=str(FORMAT), do="update tunesmith"
        )
    known = {entry.name for entry in dataclasses.fields(Card)}
    given: dict[str, Any] = {name: value for name, value in document.items() if name in known}
    for name in ("id", "name", "engine"):
        if not given.get(name):
            raise CatalogError(f"{source} does not say its {name}")
    given.update({name: tuple(given[name]) for name in _LISTS if isinstance(given.get(name), list)})
    card = Card(**given)
    check(card, source)
    return card


def check(card: Card, source: str) -> None:
    """Raise CatalogError for the first field of a wrong type or value."""
    kinds = (
        (_TEXTS, str, "text"),
        (_MAPS, Mapping, "a map"),
        (_LISTS, tuple, "a list"),
        (_COUNTS, int, "a whole number"),
        (_MAYBE, str | None, "text or null"),
    )
    for names, kind, words in kinds:
        for name in names:
            value = getattr(card, name)
            if not isinstance(value, kind):
                raise CatalogError(f"{source}: {name} is {value!r}", expected=words)
    choices = {"kind": ("adapter", "weights"), "origin": ("trained", "imported")}
    for name, allowed in choices.items():
        if getattr(card, name) not in allowed:
            raise CatalogError(f"{source}: {name} is {getattr(card, name)!r}", expected=" or ".join(allowed))
    for name, value in card.measures.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CatalogError(f"{source}: the measure {name} is {value!r}", expected="a finite number")
    for name, digest in card.files.items():
        if not isinstance(digest, str) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise CatalogError(f"{source}: {name!r} is no file of a checkpoint", expected="names inside its folder")


def read_card(folder: Path) -> Card:
    """The card of a checkpoint's folder. Raises CatalogError naming the file where it is damaged."""
    file = folder / FILE
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise CatalogError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        do = "restore the file, or delete the folder"
        raise CatalogError(f"{file} is damaged: {error}", expected="a checkpoint's card", do=do) from error
    card = from_json(document, str(file))
    if card.id != folder.name:
        raise CatalogError(f"{file} says it is {card.id!r}", expected=f"{folder.name!r}, its folder's name")
    return card


def base_of(card: Card, base: str | None = None) -> BaseSection:
    """How to open the base of a card; `base` wins. Raises CatalogError where the card does not know one."""
    if base is not None:
        return BaseSection(path=base)
    known = {entry.name for entry in fields(BaseSection)} - {"init"}
    given = {name: value for name, value in card.base.items() if name in known}
    if not given.get("path") and not given.get("parts") and not given.get("architecture"):
        raise CatalogError(f"the card of {card.id} names no base", do="name one with --base")
    return BaseSection(**given)
