"""The window that a sound is made in and its length: as asked, else as its checkpoint was trained, else as the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.catalog.card import Card
    from tunesmith.cli.screen import Screen
    from tunesmith.engines.protocol import Base, Engine

_WINDOW = "window_seconds"
_ROUNDING_SECONDS = 1e-6


def with_window(
    request: Any, asked: Mapping[str, Any], *, engine: Engine, base: Base, cards: Mapping[str, Card], screen: Screen
) -> Any:
    """The request with the knobs that were not `asked` for set as its checkpoints were trained.

    Warns where the sound is longer than they have ever heard. Requests of engines without windows stay as they are.
    """
    if _WINDOW not in {entry.name for entry in fields(request)}:
        return request
    own = _own_window(engine, base)
    trained = _trained_window(cards, screen)
    window = trained if trained is None or own is None else min(trained, own)
    if "seconds" not in asked:
        limits = (getattr(request, _WINDOW), window, own)
        request = replace(request, seconds=min([request.seconds, *(limit for limit in limits if limit is not None)]))
    if window is None:
        return request
    if request.seconds > window + _ROUNDING_SECONDS:
        screen.warn(f"the checkpoint was trained at {window:g} s; {request.seconds:g} s are more than it has seen")
        return request
    if _WINDOW in asked:
        return request
    screen.say(f"window {window:g} s, which the checkpoint was trained at (--window-seconds sets another)")
    return replace(request, window_seconds=window)


def _own_window(engine: Engine, base: Base) -> float | None:
    """The base's own: what a recipe trains at that says nothing about it."""
    from tunesmith.recipe.schema import Recipe

    found = engine.trained_at(base, Recipe(engine.facts.name, engine.facts.section())).get(_WINDOW)
    return None if found is None else float(found)


def _trained_window(cards: Mapping[str, Card], screen: Screen) -> float | None:
    """That of the first checkpoint whose card tells one; said where others differ."""
    windows = {name: card.trained_at.get(_WINDOW) for name, card in cards.items()}
    known = {name: float(seconds) for name, seconds in windows.items() if isinstance(seconds, int | float)}
    if len(set(known.values())) > 1:
        each = ", ".join(f"{name} at {seconds:g} s" for name, seconds in known.items())
        screen.say(f"the checkpoints were trained at different windows ({each}); the first one's is used")
    return next(iter(known.values()), None)
