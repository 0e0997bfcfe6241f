"""An engine lookup for recipe tests: one toy engine with every kind of knob, and presets where a folder is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import RecipeError
from tunesmith.recipe.knobs import knob


@dataclass(frozen=True)
class ToySection:
    """Knobs of the toy engine."""

    resolution: int = knob(64, low=8, high=4096, unit="pixels", help="side of the square")
    gamma: float | None = knob(None, above=0, help="loss weighting; None: off")
    flip: bool = knob(False, help="mirror")
    sizes: tuple[int, ...] = knob((64, 128), low=8, help="sides of the buckets")
    mode: str = knob("plain", choices=("plain", "fancy"), help="how")


def lookup(name: str) -> tuple[type, Mapping[str, Path]]:
    """The toy engine's section, without presets."""
    if name != "toy":
        raise RecipeError(f"no engine is called {name!r}", expected="one of toy")
    return ToySection, {}
