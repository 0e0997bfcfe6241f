"""`tunesmith concepts`: the registry of characters, creature families and styles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.onward import concept_flag, generating
from tunesmith.cli.options import AsJson, Yes
from tunesmith.cli.screen import Screen, plain
from tunesmith.cli.surroundings import surroundings_of

if TYPE_CHECKING:
    from tunesmith.catalog.concepts import Concept, Concepts
    from tunesmith.catalog.families import Families

group = typer.Typer(help="characters, creature families, styles", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="the concept's name")]
Trigger = Annotated[str | None, typer.Option(help="the word that calls it, such as qb_peter")]
EngineName = Annotated[str | None, typer.Option("--engine", help="the engine it belongs to")]
Checkpoint = Annotated[str | None, typer.Option(help="the checkpoint that knows it")]
Strength = Annotated[float | None, typer.Option(help="weight of the checkpoint when it is called")]
Negative = Annotated[str | None, typer.Option("--negative", help="what to keep out of its pictures")]
Template = Annotated[str | None, typer.Option(help="prompt pattern, such as '{trigger} person, {prompt}, watercolor'")]
Lora = Annotated[Path | None, typer.Option(metavar="FILE", help="a LoRA file that stays where it is, or a PEFT folder")]
Notes = Annotated[str | None, typer.Option(help="anything worth keeping")]


@group.command("list")
def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List every concept: the registry's, and the creature families of the project that this folder is in."""
    from tunesmith.catalog.resolving import known_concepts

    screen = Screen(as_json)
    families = _families()
    found = known_concepts(surroundings_of(context).home, families)
    if families is not None:
        for line in (
            *(problem.error().message for problem in families.problems),
            *(one.text for one in families.notes),
        ):
            screen.warn(line)
    if as_json:
        screen.document([{**plain(known.concept), "from": known.source} for known in found])
        return
    columns = ("name", "trigger", "engine", "checkpoint", "strength", "from")
    rows = [(*(getattr(known.concept, column) for column in columns[:-1]), known.source) for known in found]
    screen.table(columns, rows)
    if not found:
        screen.next_steps("tunesmith concepts add NAME --trigger qb_name")


@group.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one concept, where it comes from and what it hides."""
    from tunesmith.catalog.families import find_project
    from tunesmith.catalog.resolving import find_concept, resolve_concept
    from tunesmith.errors import CatalogError

    screen = Screen(as_json)
    home, project = surroundings_of(context).home, find_project(Path.cwd())
    known = find_concept(home, name, project)
    try:
        resolve_concept(home, name, project)
    except CatalogError as error:
        screen.warn(error.message)
    fields = {**plain(known.concept), "from": known.source, "said": known.said}
    if as_json:
        screen.document(fields)
    else:
        screen.fields(fields)


@group.command()
def add(
    context: typer.Context,
    name: Name,
    trigger: Trigger = None,
    engine: EngineName = None,
    checkpoint: Checkpoint = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(metavar="ID|latest", help="a checkpoint that knows it: takes its trigger and engine too"),
    ] = None,
    lora: Lora = None,
    strength: Strength = None,
    negative: Negative = None,
    template: Template = None,
    notes: Notes = None,
) -> None:
    """Add a concept. Without --trigger it is the checkpoint's (--from-checkpoint), else the name itself."""
    from tunesmith.catalog.concepts import Concept
    from tunesmith.catalog.resolving import card_named, card_trigger
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.errors import CatalogError

    registry = _registry(context)
    if any(entry.name.strip().casefold() == name.strip().casefold() for entry in registry.list()):
        raise CatalogError(f"there already is a concept {name!r}", do=f"change it with: tunesmith concepts edit {name}")
    _check_one({"--checkpoint": checkpoint, "--from-checkpoint": from_checkpoint})
    _check_one({"--checkpoint": checkpoint, "--lora": lora})
    named = from_checkpoint or checkpoint
    card = card_named(Shelf(registry.home), named, engine) if named is not None else None
    if trigger is None:
        trigger = (card_trigger(card, name) if card is not None and from_checkpoint else "") or name
    # A name stays, and means the newest of that name; `latest` and the beginning of an id do not.
    used = None if card is None else (checkpoint if checkpoint == card.name else card.id)
    usual = Concept(name)
    concept = Concept(
        name=name,
        trigger=trigger,
        engine=card.engine if card is not None else _engine(engine, lora),
        checkpoint=_file(lora) if lora is not None else used,
        strength=usual.strength if strength is None else strength,
        negative_prompt=negative or "",
        template=template or usual.template,
        notes=notes or "",
    )
    registry.put(concept)
    screen = Screen()
    screen.say(f"added {name}, called by {concept.trigger!r}")
    if from_checkpoint and card is not None:
        screen.say(f"it uses {concept.checkpoint} of {concept.engine}")
    families = _families()
    if families is not None and (hidden := families.sources_of(name)):
        screen.say(f"the one in {' and '.join(hidden)} of {families.project} is passed over from now on")
    screen.next_steps(generating(f"{concept_flag(concept.engine)} {quote(name)}"))


@group.command("import")
def import_project(
    context: typer.Context,
    project: Annotated[Path, typer.Argument(help="the folder with configs/ or library/ in it")],
    force: Annotated[bool, typer.Option("--force", help="replace concepts of the same names")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the creature families and model versions of a project into the registry; the LoRA files stay there."""
    from tunesmith.catalog.copying import copy_families
    from tunesmith.catalog.families import SOURCES, find_project, read_families
    from tunesmith.errors import CatalogError

    families = read_families(project.expanduser().resolve())
    if not families.looked_in:
        above = find_project(families.project)
        do = f"did you mean {above}?" if above is not None else ""
        raise CatalogError(f"{project} has no creature families", expected=" or ".join(SOURCES), do=do)
    done = copy_families(surroundings_of(context).home, families, force=force)
    screen = Screen(as_json)
    for note in families.notes:
        screen.warn(note.text)
    if as_json:
        screen.document(done)
    for one in done:
        if one.outcome == "refused":
            screen.warn(f"{one.name} was left out: {one.said}")
        else:
            screen.say(f"{one.outcome} {one.name}" + (f" ({one.said})" if one.said else ""))
    if any(one.outcome == "kept" for one in done):
        screen.say("what is kept can be replaced with --force")
    if families.problems and not families.list():
        raise families.problems[0].error()


@group.command()
def edit(
    context: typer.Context,
    name: Name,
    trigger: Trigger = None,
    engine: EngineName = None,
    checkpoint: Checkpoint = None,
    lora: Lora = None,
    strength: Strength = None,
    negative: Negative = None,
    template: Template = None,
    notes: Notes = None,
) -> None:
    """Change what is given, keep the rest."""
    registry = _registry(context)
    _check_one({"--checkpoint": checkpoint, "--lora": lora})
    _check_checkpoint(context, checkpoint)
    given = {
        "trigger": trigger,
        "engine": engine,
        "checkpoint": checkpoint if lora is None else _file(lora),
        "strength": strength,
        "negative_prompt": negative,
        "template": template,
        "notes": notes,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    registry.put(replace(_own(registry, name), **changes))
    Screen().say(f"{name}: changed {', '.join(changes) or 'nothing'}")


@group.command()
def remove(context: typer.Context, name: Name, yes: Yes = False) -> None:
    """Forget a concept; its checkpoint stays."""
    registry = _registry(context)
    _own(registry, name)
    if not yes:
        typer.confirm(f"Forget the concept {name}?", abort=True)
    registry.remove(name)
    Screen().say(f"forgot {name}")


def _own(registry: Concepts, name: str) -> Concept:
    """The concept of the registry; of what only a project's files have, the error says where it is to be changed."""
    from tunesmith.errors import CatalogError

    families = _families()
    try:
        return registry.get(name)
    except CatalogError:
        if families is None or not (sources := families.sources_of(name)):
            raise
        do = f"change it there, or copy it first with: tunesmith concepts import {families.project}"
        raise CatalogError(f"{name!r} is not in the registry but in {' and '.join(sources)}", do=do) from None


def _check_one(given: Mapping[str, object]) -> None:
    """Raise CatalogError where two flags name the same thing."""
    from tunesmith.errors import CatalogError

    if all(value is not None for value in given.values()):
        raise CatalogError(f"{' and '.join(given)} both name what to use", do="keep one of the two")


def _engine(engine: str | None, lora: Path | None) -> str:
    """The engine that was named; a LoRA file does not say which one it is for."""
    from tunesmith.engines.index import engine_named, engine_names
    from tunesmith.errors import CatalogError

    if engine is None and lora is not None:
        names = ", ".join(engine_names())
        raise CatalogError(f"which engine {lora} is for is not said", expected=f"--engine with one of {names}")
    return engine_named(engine or engine_names()[0]).facts.name


def _file(lora: Path) -> str:
    """The LoRA as the registry keeps it: its whole path. Raises CatalogError where it is not there."""
    from tunesmith.catalog.resolving import check_file

    lora = lora.expanduser()
    # Without `..`, and with the link itself where the file is one: it may be there to be turned to the next version.
    return str(check_file(lora.parent.resolve() / lora.name, "--lora"))


def _families() -> Families | None:
    """What the project has that the working folder lies in."""
    from tunesmith.catalog.families import find_project, read_families

    project = find_project(Path.cwd())
    return read_families(project) if project is not None else None


def _check_checkpoint(context: typer.Context, name: str | None) -> None:
    """Raise CatalogError with the nearest names where the shelf has no such checkpoint."""
    if name is not None:
        from tunesmith.catalog.shelf import Shelf

        Shelf(surroundings_of(context).home).get(name)


def _registry(context: typer.Context) -> Concepts:
    from tunesmith.catalog.concepts import Concepts

    return Concepts(surroundings_of(context).home)
