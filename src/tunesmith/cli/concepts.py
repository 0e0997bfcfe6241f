"""`tunesmith concepts`: the registry of characters, creature families and styles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import AsJson, Yes
from tunesmith.cli.screen import Screen
from tunesmith.cli.surroundings import surroundings_of

if TYPE_CHECKING:
    from tunesmith.catalog.concepts import Concepts

group = typer.Typer(help="characters, creature families, styles", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="the concept's name")]
Trigger = Annotated[str | None, typer.Option(help="the word that calls it, such as qb_peter")]
EngineName = Annotated[str | None, typer.Option("--engine", help="the engine it belongs to")]
Checkpoint = Annotated[str | None, typer.Option(help="the checkpoint that knows it")]
Strength = Annotated[float | None, typer.Option(help="weight of the checkpoint when it is called")]
Negative = Annotated[str | None, typer.Option("--negative", help="what to keep out of its pictures")]
Template = Annotated[str | None, typer.Option(help="prompt pattern, such as '{trigger} person, {prompt}, watercolor'")]
Notes = Annotated[str | None, typer.Option(help="anything worth keeping")]


@group.command("list")
def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List every concept."""
    screen = Screen(as_json)
    found = _registry(context).list()
    if as_json:
        screen.document(found)
        return
    rows = [(entry.name, entry.trigger, entry.engine, entry.checkpoint, entry.strength) for entry in found]
    screen.table(("name", "trigger", "engine", "checkpoint", "strength"), rows)
    if not found:
        screen.next_steps("tunesmith concepts add NAME --trigger qb_name")


@group.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one concept."""
    screen = Screen(as_json)
    concept = _registry(context).get(name)
    if as_json:
        screen.document(concept)
    else:
        from tunesmith.cli.screen import plain

        screen.fields(plain(concept))


@group.command()
def add(
    context: typer.Context,
    name: Name,
    trigger: Trigger = None,
    engine: EngineName = None,
    checkpoint: Checkpoint = None,
    strength: Strength = None,
    negative: Negative = None,
    template: Template = None,
    notes: Notes = None,
) -> None:
    """Add a concept. Without --trigger its name is the trigger."""
    from tunesmith.catalog.concepts import Concept
    from tunesmith.engines.index import engine_names
    from tunesmith.errors import CatalogError

    registry = _registry(context)
    if any(entry.name == name for entry in registry.list()):
        raise CatalogError(f"there already is a concept {name!r}", do=f"change it with: tunesmith concepts edit {name}")
    _check_checkpoint(context, checkpoint)
    concept = Concept(
        name=name,
        trigger=trigger or name,
        engine=engine or engine_names()[0],
        checkpoint=checkpoint,
        strength=1.0 if strength is None else strength,
        negative_prompt=negative or "",
        template=template or "{trigger} {prompt}",
        notes=notes or "",
    )
    registry.put(concept)
    Screen().say(f"added {name}, called by {concept.trigger!r}")


@group.command()
def edit(
    context: typer.Context,
    name: Name,
    trigger: Trigger = None,
    engine: EngineName = None,
    checkpoint: Checkpoint = None,
    strength: Strength = None,
    negative: Negative = None,
    template: Template = None,
    notes: Notes = None,
) -> None:
    """Change what is given, keep the rest."""
    registry = _registry(context)
    _check_checkpoint(context, checkpoint)
    given = {
        "trigger": trigger,
        "engine": engine,
        "checkpoint": checkpoint,
        "strength": strength,
        "negative_prompt": negative,
        "template": template,
        "notes": notes,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    registry.put(replace(registry.get(name), **changes))
    Screen().say(f"{name}: changed {', '.join(changes) or 'nothing'}")


@group.command()
def remove(context: typer.Context, name: Name, yes: Yes = False) -> None:
    """Forget a concept; its checkpoint stays."""
    registry = _registry(context)
    registry.get(name)
    if not yes:
        typer.confirm(f"Forget the concept {name}?", abort=True)
    registry.remove(name)
    Screen().say(f"forgot {name}")


def _check_checkpoint(context: typer.Context, name: str | None) -> None:
    """Raise CatalogError with the nearest names where the shelf has no such checkpoint."""
    if name is not None:
        from tunesmith.catalog.shelf import Shelf

        Shelf(surroundings_of(context).home).get(name)


def _registry(context: typer.Context) -> Concepts:
    from tunesmith.catalog.concepts import Concepts

    return Concepts(surroundings_of(context).home)
