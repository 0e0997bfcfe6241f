"""Bases called by a checkpoint's name: what was trained here is a base for what comes next. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunesmith.catalog.shelf import Shelf
from tunesmith.recipe.schema import Recipe


def named_bases(recipe: Recipe, home: Path) -> Recipe:
    """The recipe with full weights of the catalog, named in `base.path` or a part by id or name, as their paths."""
    base, shelf = recipe.base, Shelf(home)
    return replace(
        recipe,
        base=replace(
            base,
            path=shelf.base_path(base.path, recipe.engine) if base.path else base.path,
            parts={role: shelf.base_path(part, recipe.engine) for role, part in base.parts.items()},
        ),
    )
