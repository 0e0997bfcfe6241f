"""What a demo learns from: a concept the starter never met, and the world it comes into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shares = Mapping[str, float]


def nothing_shown(results: Path) -> Shares:
    """Where no checker can tell what is shown."""
    del results
    return {}


@dataclass(frozen=True)
class Examples:
    """Folders of captioned items. `held_out` is None where a share of `own` is held out instead.

    `kind` says what the concept is, `recipe` which of this package's teaches it. `prior` are items of the base's world
    to keep in mind while training, `others` more of them to measure by. `template` is how the concept is called.
    `evaluated` prompts are drawn as `request` says. `shown(results)` reads off the results of an evaluation, by its
    folder names, in which share of them the concept is.
    """

    kind: str
    recipe: str

    own: Path
    held_out: Path | None
    prior: Path
    others: Path
    trigger: str
    prompt: str
    template: str
    evaluated: int
    request: Mapping[str, Any]
    shown: Callable[[Path], Shares] = nothing_shown
