"""Bases called by a checkpoint's name: what was trained here is a base for what comes next. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunesmith.catalog.shelf import Shelf, weights_path
from tunesmith.recipe.schema import Recipe


def named_bases(recipe: Recipe, home: Path) -> Recipe:
    """The recipe with full weights of the catalog, named in `base.path` or a part by id or name, as their paths.

    A file or folder of that name comes first; of several checkpoints of one name the newest. Other names stay.
    """
    base = recipe.base
    names = [name for name in (base.path, *base.parts.values()) if name and not Path(name).exists()]
    if not names:
        return recipe
    shelf = Shelf(home)
    places: dict[str, str] = {}
    for card in shelf.list(recipe.engine):  # newest first
        if card.kind == "weights":
            for name in (card.id, card.name):
                places.setdefault(name, str(weights_path(shelf.path(card))))
    return replace(
        recipe,
        base=replace(
            base,
            path=places.get(base.path, base.path) if base.path in names else base.path,
            parts={role: places.get(part, part) if part in names else part for role, part in base.parts.items()},
        ),
    )
