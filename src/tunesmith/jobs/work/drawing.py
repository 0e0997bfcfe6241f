"""Drawing with a recipe's engine: a request like what was trained, and the media it ends in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base, Engine, Media, Sampler
from tunesmith.recipe.schema import Recipe


def request_for(engine: Engine, base: Base, recipe: Recipe, *, prompt: str, seed: int, like: Item | None = None) -> Any:
    """A generation request at the size or window that the recipe trains at, where there is one.

    Sounds are as long as the item `like`, or else as the window.
    """
    wanted = {"prompt": prompt, "seed": seed, **engine.trained_at(base, recipe)}
    window = wanted.get("window_seconds")
    if window is not None:
        length = like.media["audio"].facts["seconds"] if like is not None and "audio" in like.media else window
        wanted["seconds"] = min(window, length)
    known = {entry.name for entry in fields(engine.facts.request)}
    return engine.facts.request(**{name: value for name, value in wanted.items() if name in known})


def drawn(engine: Engine, sampler: Sampler, request: Any, should_stop: Callable[[], bool]) -> Media | None:
    """The media; None where it was stopped on the way."""
    found = [event for event in engine.sample(sampler, request, should_stop) if isinstance(event, Media)]
    return found[-1] if found else None
