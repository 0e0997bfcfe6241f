"""`tunesmith plan`: the forecast. Nothing is started and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.flags import with_knob_flags
from tunesmith.cli.options import AsJson, BaseConfigs, Words
from tunesmith.cli.request import requested_recipe
from tunesmith.cli.screen import Screen, human_bytes, human_seconds
from tunesmith.cli.surroundings import surroundings_of

if TYPE_CHECKING:
    from tunesmith.jobs.work import Probe
    from tunesmith.recipe.schema import Recipe

group = typer.Typer()


@group.command(short_help="what a recipe will do, before it does it")
@with_knob_flags
def plan(
    context: typer.Context,
    words: Words = None,
    base_config: BaseConfigs = None,
    probe: Annotated[bool, typer.Option("--probe", help="also run three real steps, and forget them")] = False,
    as_json: AsJson = False,
    **knobs: object,
) -> None:
    """Say what a recipe will do before it does it: steps, views, memory, minutes, disk, findings."""
    from tunesmith.jobs.forecast import to_json, to_text
    from tunesmith.jobs.plan import check_refusals, plan_recipe
    from tunesmith.recipe.settings import with_settings

    here = surroundings_of(context)
    home = here.home
    recipe = with_settings(requested_recipe(words, base_config, knobs), here.settings())
    forecast, _ = plan_recipe(recipe, home)
    screen = Screen(as_json)
    screen.say(to_text(forecast))
    measured = _probe(recipe, home, screen) if probe and not forecast.refusals else None
    if as_json:
        screen.document({**to_json(forecast), "probe": measured})
    check_refusals(forecast)
    screen.next_steps("tunesmith train, with the same words, starts it")


def _probe(recipe: Recipe, home: Path, screen: Screen) -> Probe:
    from tunesmith.jobs.work import probe_steps

    measured = probe_steps(recipe, home)
    peaks = ", ".join(f"{phase} {human_bytes(size)}" for phase, size in measured.peak_bytes.items())
    screen.say(
        f"  measured   {measured.seconds_per_step:.3f} s/step over {measured.steps} steps, "
        f"{human_seconds(measured.minutes * 60)} for all of them; peak {peaks}"
    )
    return measured
