"""What `plan` and `train` were asked for: files, overrides and flags become one recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.flags import overrides_from, sort_words
from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.recipe.schema import Recipe


def requested_recipe(
    words: Sequence[str] | None, base_configs: Sequence[Path] | None, knobs: Mapping[str, Any]
) -> Recipe:
    """Base configurations, then files, then overrides, then flags. Without a file the usual engine is meant."""
    from tunesmith.engines.index import engine_names, recipe_facts
    from tunesmith.recipe.load import read_recipe
    from tunesmith.recipe.settings import check_device

    files, overrides = sort_words(words or ())
    paths = [*(base_configs or ()), *(Path(name) for name in files)]
    flags = overrides_from(knobs)
    if not paths and not overrides and not flags:
        raise RecipeError(
            "nothing was asked for",
            expected="a recipe, or flags",
            do="try `tunesmith train recipe.yaml`, or `tunesmith train --data FOLDER --base FILE --steps 900 --name X`",
        )
    named = any(entry.startswith(("engine.name=", "engine=")) for entry in overrides)
    usual = () if paths or named else (f"engine.name={engine_names()[0]}",)
    recipe = read_recipe(paths, (*usual, *overrides, *flags), recipe_facts)
    check_device(recipe.resources.device, "resources.device")
    return recipe
