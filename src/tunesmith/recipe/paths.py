"""Paths of a recipe as seen from one folder, so that the recipe can be read in another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunesmith.recipe.schema import Recipe


def absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every folder and file it names made absolute, taken from `folder`; `~` is the user's home.

    `base.path`, `base.init`, `base.architecture` and parts may also be names (`starter`, a hub id, a checkpoint):
    they change only where something of that name exists.
    """
    data, base, output = recipe.data, recipe.base, recipe.output
    return replace(
        recipe,
        data=replace(
            data,
            paths=tuple(_absolute(path, folder) for path in data.paths),
            holdout_paths=tuple(_absolute(path, folder) for path in data.holdout_paths),
            prior_paths=tuple(_absolute(path, folder) for path in data.prior_paths),
        ),
        base=replace(
            base,
            path=_if_there(base.path, folder),
            parts={role: _if_there(part, folder) or part for role, part in base.parts.items()},
            init=_if_there(base.init, folder),
            architecture=_if_there(base.architecture, folder),
        ),
        output=replace(output, folder=None if output.folder is None else _absolute(output.folder, folder)),
    )


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).absolute())


def _if_there(path: str | None, folder: Path) -> str | None:
    if path is None or not path:
        return path
    absolute = _absolute(path, folder)
    return absolute if Path(absolute).exists() else path
