"""What can be done with a checkpoint: the commands that `train`, `jobs`, `checkpoints` and `concepts` end with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.catalog.card import Card


def onward(home: Path, checkpoint: str) -> tuple[str, ...]:
    """Its concepts into the registry, where they are not there with it yet; a generation that calls them; an export.

    Empty for a checkpoint that is gone by now.
    """
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.errors import CatalogError

    try:
        card = Shelf(home).get(checkpoint)
    except CatalogError:
        return ()
    name = next(iter(card.concepts), None)
    called = f"--checkpoint {card.id}" if name is None else f"{concept_flag(card.engine)} {quote(name)}"
    return (*_registering(home, card), generating(called), f"tunesmith checkpoints export {card.id}")


def generating(called: str) -> str:
    """The command that generates with what is `called` by flags."""
    return f"tunesmith generate {called} --prompt '…'"


def concept_flag(engine: str) -> str:
    """What people call a concept of an engine: of sounds it is a creature family."""
    from tunesmith.engines.index import engine_named, engine_names

    sounds = engine in engine_names() and engine_named(engine).facts.media[:1] == ("audio",)
    return "--creature-family" if sounds else "--concept"


def _registering(home: Path, card: Card) -> Iterator[str]:
    """Commands after which each concept of the card means this checkpoint."""
    from tunesmith.catalog.concepts import Concepts

    known = {concept.name.strip().casefold(): concept for concept in Concepts(home).list()}
    for name in card.concepts:
        own = known.get(name.strip().casefold())
        if own is None:
            yield f"tunesmith concepts add {quote(name)} --from-checkpoint {card.id}"
        elif own.checkpoint not in (card.id, card.name):
            yield f"tunesmith concepts edit {quote(name)} --checkpoint {card.id}"
