"""`tunesmith checkpoints`: what was trained or brought in, and which one is used."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.onward import generating, onward
from tunesmith.cli.options import AsJson, Yes
from tunesmith.cli.screen import Screen, human_bytes, plain
from tunesmith.cli.surroundings import surroundings_of

if TYPE_CHECKING:
    from tunesmith.catalog.card import Card
    from tunesmith.catalog.shelf import Shelf

group = typer.Typer(help="what was trained; hand it on", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="its id, the beginning of it, or its name")]
EngineName = Annotated[str | None, typer.Option("--engine", help="only this engine's")]


@group.command("list")
def list_all(context: typer.Context, engine: EngineName = None, as_json: AsJson = False) -> None:
    """List every checkpoint, newest first; a star marks the active ones."""
    shelf = shelf_of(context)
    cards = shelf.list(engine)
    active = active_ids(shelf, cards)
    screen = Screen(as_json)
    for problem in shelf.damaged():
        screen.warn(problem.reason)
    if as_json:
        screen.document([{**plain(card), "active": card.id in active} for card in cards])
        return
    rows = []
    for card in cards:
        loss = card.measures.get("holdout_loss")
        mark = "*" if card.id in active else ""
        rows.append((mark, card.id, card.name, card.engine, card.method, card.step, loss, card.created_utc))
    screen.table(("", "checkpoint", "name", "engine", "method", "step", "held-out loss", "made"), rows)
    screen.next_steps(
        *(("tunesmith checkpoints show CHECKPOINT", "tunesmith checkpoints activate CHECKPOINT") if cards else ()),
        *(() if cards else ("tunesmith demo",)),
    )


@group.command()
def show(context: typer.Context, checkpoint: Name, as_json: AsJson = False) -> None:
    """Show everything known about one: base, data, measures, files, recipe."""
    from tunesmith.recipe.writer import dump

    shelf = shelf_of(context)
    card = shelf.get(checkpoint)
    folder = shelf.path(card)
    screen = Screen(as_json)
    if as_json:
        active = card.id in active_ids(shelf, (card,))
        screen.document({**plain(card), "folder": folder, "active": active})
        return
    sizes = {name: human_bytes((folder / name).stat().st_size) for name in card.files if (folder / name).exists()}
    fields = {name: value for name, value in plain(card).items() if name != "recipe"}
    screen.fields({"folder": folder, **fields, "files": sizes})
    screen.say("recipe", indent(dump(plain(card.recipe)).rstrip(), "  "))
    screen.next_steps(*onward(shelf.home, card.id))


@group.command()
def activate(context: typer.Context, checkpoint: Name) -> None:
    """Use this one whenever none is named."""
    card = shelf_of(context).activate(checkpoint)
    screen = Screen()
    screen.say(f"{card.id} is now the active checkpoint of {card.engine}")
    screen.next_steps(generating(f"--engine {card.engine}"))


@group.command()
def deactivate(
    context: typer.Context, engine: Annotated[str, typer.Argument(help="whose checkpoint to stop using")]
) -> None:
    """Use the base alone whenever no checkpoint is named."""
    from tunesmith.engines.index import engine_named

    engine_named(engine)
    before = shelf_of(context).deactivate(engine)
    Screen().say(f"{before.id} is no longer active" if before else f"no checkpoint of {engine} was active")


@group.command()
def delete(
    context: typer.Context,
    checkpoint: Name,
    force: Annotated[bool, typer.Option(help="also when it is active, or others were made from it")] = False,
    yes: Yes = False,
) -> None:
    """Delete a checkpoint and its files."""
    shelf = shelf_of(context)
    card = shelf.get(checkpoint)
    if not yes:
        typer.confirm(f"Delete {card.id} ({card.name}, step {card.step})?", abort=True)
    shelf.delete(checkpoint, force=force)
    Screen().say(f"deleted {card.id}")


@group.command()
def compare(
    context: typer.Context,
    one: Annotated[str, typer.Argument(help="a checkpoint")],
    other: Annotated[str, typer.Argument(help="another one")],
    as_json: AsJson = False,
) -> None:
    """Put two side by side: recipe, data, measures."""
    from tunesmith.exchange.compare import compare_cards

    shelf = shelf_of(context)
    rows = compare_cards(shelf.get(one), shelf.get(other))
    screen = Screen(as_json)
    if as_json:
        screen.document(rows)
        return
    screen.table(("", one, other), rows)


def shelf_of(context: typer.Context) -> Shelf:
    """The catalog of this home."""
    from tunesmith.catalog.shelf import Shelf

    return Shelf(surroundings_of(context).home)


def active_ids(shelf: Shelf, cards: tuple[Card, ...]) -> set[str]:
    """Ids of the active checkpoints of the engines of `cards`."""
    found = (shelf.active(engine) for engine in {card.engine for card in cards})
    return {card.id for card in found if card is not None}
