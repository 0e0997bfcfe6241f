"""`tunesmith plan`: the forecast. Nothing is started and nothing is written."""

from __future__ import annotations

import typer

from tunesmith.cli.flags import with_knob_flags
from tunesmith.cli.options import AsJson, BaseConfigs, Words
from tunesmith.cli.request import requested_recipe
from tunesmith.cli.screen import Screen

group = typer.Typer()


@group.command()
@with_knob_flags
def plan(
    context: typer.Context,
    words: Words = None,
    base_config: BaseConfigs = None,
    as_json: AsJson = False,
    **knobs: object,
) -> None:
    """Say what a recipe will do before it does it: steps, views, memory, minutes, disk, findings."""
    recipe = requested_recipe(words, base_config, knobs)
    Screen(as_json).say(recipe.engine)
