"""`tunesmith train`: make a job of a recipe and start it, or go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.flags import overrides_from, sort_words, with_knob_flags
from tunesmith.cli.options import AsJson, BaseConfigs, Detach, On, Words
from tunesmith.cli.request import requested_recipe
from tunesmith.cli.screen import Screen
from tunesmith.cli.start import start
from tunesmith.cli.surroundings import Surroundings, surroundings_of

if TYPE_CHECKING:
    from tunesmith.jobs.folder import JobFolder

group = typer.Typer()

Resume = Annotated[str | None, typer.Option("-r", "--resume", metavar="JOB", help="go on with this job")]


@group.command(short_help="teach: a LoRA, full weights, from scratch")
@with_knob_flags
def train(
    context: typer.Context,
    words: Words = None,
    base_config: BaseConfigs = None,
    resume: Resume = None,
    on: On = None,
    detach: Detach = False,
    as_json: AsJson = False,
    **knobs: object,
) -> int:
    """Train what a recipe or flags ask for: a LoRA, a full fine-tune, a model from scratch.

    `tunesmith train recipe.yaml length.steps=1200`, or without a file
    `tunesmith train --data FOLDER --base FILE --steps 1200 --name NAME`.
    """
    from tunesmith.executors.index import executor_named
    from tunesmith.jobs.folder import create_job
    from tunesmith.jobs.forecast import to_text
    from tunesmith.jobs.plan import refuse_or_pass
    from tunesmith.recipe.settings import with_settings

    here = surroundings_of(context)
    settings = here.settings()
    screen = Screen(as_json)
    on = on or settings.executor
    executor_named(on)  # a name that is not one is refused before a job is made
    if resume is not None:
        return start(_resumed(here, resume, words, base_config, knobs), on, screen, detach=detach)
    recipe = with_settings(requested_recipe(words, base_config, knobs), settings)
    screen.say(to_text(refuse_or_pass(recipe, here.home)))
    return start(create_job(here.home, "train", recipe), on, screen, detach=detach)


def _resumed(
    here: Surroundings, job: str, words: list[str] | None, base_configs: list[Path] | None, knobs: dict[str, object]
) -> JobFolder:
    """The job, with what was given on top of its recipe. Refuses changes a run that has started cannot take."""
    from tunesmith.engines.index import recipe_facts
    from tunesmith.errors import JobError
    from tunesmith.jobs.folder import find_job
    from tunesmith.recipe.load import read_recipe, resume_differences, to_yaml
    from tunesmith.weights.atomic import write_text

    if Path(job).is_file():
        raise JobError(
            f"{job} is a file of weights",
            expected="a job, which knows its optimiser, position and step too",
            do=f"start from these weights with --base {job}, or from an adapter with --init {job}",
        )
    folder = find_job(here.home, job)
    files, overrides = sort_words(words or ())
    paths = [*(base_configs or ()), *(Path(name) for name in files)]
    changes = (*overrides, *overrides_from(knobs))
    if not paths and not changes:
        return folder
    before = read_recipe([folder.recipe_file], (), recipe_facts)
    # A recipe file given again stands for itself: what it says now is compared with what the job was started with.
    after = read_recipe(paths or [folder.recipe_file], changes, recipe_facts)
    differences = resume_differences(before, after)
    if differences:
        raise JobError(
            f"{folder.id} cannot go on with a changed recipe: {'; '.join(differences)}",
            expected="the recipe it was started with; only length may grow",
            do="start a new job, with --init CHECKPOINT to build on this one",
        )
    write_text(folder.recipe_file, to_yaml(after))
    return folder
