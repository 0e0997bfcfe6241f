"""Which engines exist: our own and those installed by others under the entry point group `tunesmith.engines`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from tunesmith.engines.protocol import Engine
from tunesmith.errors import RecipeError

GROUP = "tunesmith.engines"
OWN = {
    "stable_diffusion": "tunesmith.engines.stable_diffusion:engine",
    "stable_audio": "tunesmith.engines.stable_audio:engine",
}


def engine_names() -> tuple[str, ...]:
    """Every engine that can be asked for, our own first."""
    return (*OWN, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in OWN))


@cache
def engine_named(name: str) -> Engine:
    """The engine called `name`; importing it does not import torch. Unknown names get the nearest ones."""
    targets = dict(OWN)
    for point in entry_points(group=GROUP):
        targets.setdefault(point.name, point.value)
    if name not in targets:
        near = difflib.get_close_matches(name, targets, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"no engine is called {name!r}", expected=f"one of {', '.join(targets)}", do=hint)
    module, _, attribute = targets[name].partition(":")
    engine: Engine = getattr(import_module(module), attribute)
    return engine


def recipe_facts(name: str) -> tuple[type, Mapping[str, Path]]:
    """What reading a recipe needs of an engine: the section class of its knobs, and its presets by name."""
    facts = engine_named(name).facts
    return facts.section, facts.presets
