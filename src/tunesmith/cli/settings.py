"""`tunesmith settings`: what holds for every run on this machine."""

from __future__ import annotations

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, plain
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer(help="what holds for every run on this machine", no_args_is_help=False)


@group.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the settings."""
    if context.invoked_subcommand is not None:
        return
    here = surroundings_of(context)
    screen = Screen(as_json)
    values = plain(here.settings())
    if as_json:
        screen.document({"home": here.home, "settings": values})
        return
    screen.fields({"home": here.home, **values})
    screen.next_steps("tunesmith settings set KEY VALUE")


@group.command("set")
def change(context: typer.Context, key: str, value: str) -> None:
    """Set one value, such as `tunesmith settings set device cpu`."""
    from tunesmith.recipe.settings import write_setting

    here = surroundings_of(context)
    write_setting(here.home, key, value)
    Screen().say(f"{key} is now {plain(here.settings())[key]}")
