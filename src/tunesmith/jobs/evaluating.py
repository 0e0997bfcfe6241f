"""Submitting an evaluation: a job made of a checkpoint's card. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.catalog.card import base_of
from tunesmith.catalog.shelf import Shelf
from tunesmith.engines.index import recipe_facts
from tunesmith.errors import CatalogError, JobError
from tunesmith.jobs.folder import JobFolder, create_job
from tunesmith.recipe.load import recipe_from

REPORT = "report.json"
PICTURES = 24

NAME_START = "evaluate-"


def create_evaluation(
    home: Path,
    checkpoint: str,
    *,
    data: Sequence[Path] = (),
    world: Sequence[Path] = (),
    pictures: int = PICTURES,
    request: Mapping[str, Any] | None = None,
) -> JobFolder:
    """A job of kind `evaluate` for a checkpoint trained here, measured on what its recipe held out.

    `data` names other items of the concept to measure on, `world` items of the base's world (otherwise the prior items
    of the recipe), `request` knobs of the generation request. Raises CatalogError where the card does not know enough.
    """
    shelf = Shelf(home)
    card = shelf.get(checkpoint)
    if not card.recipe or card.origin == "imported":
        raise CatalogError(
            f"{card.id} was imported, and its card knows no recipe to measure by",
            expected="a checkpoint trained with tunesmith",
        )
    asked = recipe_from(card.recipe, recipe_facts)
    section = asked.data
    if data:
        section = replace(section, holdout_paths=tuple(str(path.absolute()) for path in data))
    recipe = replace(
        asked,
        base=replace(base_of(card), init=str(shelf.path(card))),
        data=section,
        length=replace(asked.length, max_minutes=None),
        output=replace(
            asked.output, name=f"{NAME_START}{card.name}", exports=(), folder=None, preview_every_steps=None
        ),
    )
    details = {
        "checkpoint": card.id,
        "base": _section(asked.base) if asked.method.name == "full" else None,
        "words": [trigger for trigger in card.concepts.values() if isinstance(trigger, str) and trigger],
        "world": [str(path.absolute()) for path in world],
        "pictures": pictures,
        "request": dict(request or {}),
    }
    return create_job(home, "evaluate", recipe, details=details)


def read_report(folder: JobFolder) -> dict[str, Any]:
    """What a finished evaluation found. Raises JobError where there is no report."""
    try:
        found: dict[str, Any] = json.loads((folder.results / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"the evaluation {folder.id} left no report ({error})", do="run it again") from error
    return found


def _section(base: Any) -> dict[str, Any]:
    """How to open what a full fine-tune started from."""
    return {"path": base.path, "parts": dict(base.parts), "allow_download": base.allow_download}
