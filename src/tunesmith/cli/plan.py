"""`tunesmith plan`: the forecast. Nothing is started and nothing is written."""

from __future__ import annotations

import typer

from tunesmith.cli.flags import with_knob_flags
from tunesmith.cli.options import AsJson, BaseConfigs, Words
from tunesmith.cli.request import requested_recipe
from tunesmith.cli.screen import Screen
from tunesmith.cli.surroundings import surroundings_of

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
    from tunesmith.jobs.forecast import to_json, to_text
    from tunesmith.jobs.plan import check_refusals, plan_recipe

    forecast, _ = plan_recipe(requested_recipe(words, base_config, knobs), surroundings_of(context).home)
    screen = Screen(as_json)
    if as_json:
        screen.document(to_json(forecast))
    screen.say(to_text(forecast))
    check_refusals(forecast)
    screen.next_steps("tunesmith train, with the same words, starts it")
