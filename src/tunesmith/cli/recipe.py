"""`tunesmith recipe`: write one to start from, and show what one says in full."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tunesmith.cli.flags import overrides_from, with_knob_flags
from tunesmith.cli.options import AsJson, BaseConfigs, Words
from tunesmith.cli.request import requested_recipe
from tunesmith.cli.screen import Screen

group = typer.Typer(help="everything a run is asked for, as YAML", no_args_is_help=True)

# What nobody but the user can know; written into a new recipe to be replaced.
_BLANKS = {
    "data.paths": "[PATH/TO/PICTURES]",
    "base.path": "PATH/TO/BASE.safetensors",
    "length.steps": "1200",
    "output.name": "my_concept",
    "output.concepts": "{my_concept: my_trigger}",
}


@group.command()
@with_knob_flags
def new(
    out: Annotated[Path, typer.Argument(help="the file to write")],
    engine: Annotated[str | None, typer.Option(help="the engine; the usual one if left out")] = None,
    preset: Annotated[str | None, typer.Option(help="start from this preset of the engine")] = None,
    force: Annotated[bool, typer.Option(help="replace a file that is there")] = False,
    **knobs: object,
) -> None:
    """Write a commented recipe: every knob with its meaning, default and range."""
    from tunesmith.cli.commented import commented_yaml
    from tunesmith.engines.index import engine_names, recipe_facts
    from tunesmith.errors import RecipeError
    from tunesmith.recipe.load import read_recipe
    from tunesmith.weights.atomic import write_text

    if out.exists() and not force:
        raise RecipeError(f"{out} is there already", do="choose another name, or replace it with --force")
    head = [f"engine.name={engine or engine_names()[0]}", *([f"preset={preset}"] if preset else [])]
    given = overrides_from(knobs)
    known = {entry.partition("=")[0] for entry in given}
    blanks = [f"{path}={value}" for path, value in _BLANKS.items() if path not in known]
    if preset is not None or "length.epochs" in known:
        blanks = [entry for entry in blanks if not entry.startswith("length.")]
    if 'method.name="scratch"' in given or "base.architecture" in known:
        blanks = [entry for entry in blanks if not entry.startswith("base.")]
    recipe = read_recipe([], [*head, *blanks, *given], recipe_facts)
    write_text(out, commented_yaml(recipe))
    screen = Screen()
    screen.say(f"wrote {out}")
    left = [path for path in _BLANKS if path in ("data.paths", "base.path", "output.name") and path not in known]
    edit = [f"edit {out}: {', '.join(left)} at least"] if left else []
    screen.next_steps(*edit, f"tunesmith plan {quote(str(out))}")


@group.command()
@with_knob_flags
def show(
    words: Words = None,
    base_config: BaseConfigs = None,
    full: Annotated[bool, typer.Option(help="also the knobs left at their defaults")] = False,
    as_json: AsJson = False,
    **knobs: object,
) -> None:
    """Show what recipe files, overrides and flags add up to."""
    from tunesmith.recipe.load import recipe_hash, to_document
    from tunesmith.recipe.writer import dump

    recipe = requested_recipe(words, base_config, knobs)
    screen = Screen(as_json)
    if as_json:
        screen.document({"recipe": to_document(recipe, full=full), "recipe_hash": recipe_hash(recipe)})
        return
    screen.say(dump(to_document(recipe, full=full)).rstrip(), "", f"recipe hash {recipe_hash(recipe)[:16]}")
