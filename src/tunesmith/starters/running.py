"""Recipes that ship with tunesmith, run as ordinary jobs: the demo and the building of starters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf, weights_path
from tunesmith.engines.index import recipe_facts
from tunesmith.errors import JobError, Stopped
from tunesmith.executors.inline import InlineExecutor
from tunesmith.jobs.folder import JobFolder, create_job, list_jobs
from tunesmith.jobs.status import Status, read_status
from tunesmith.recipe.load import read_recipe, recipe_hash
from tunesmith.recipe.schema import Recipe

RECIPES = Path(__file__).parent / "recipes"

RunJob = Callable[[JobFolder], int]


@dataclass(frozen=True)
class Done:
    """A finished job and the last checkpoint it registered."""

    folder: JobFolder
    status: Status
    card: Card

    @property
    def weights(self) -> Path:
        """What to open of a checkpoint of full weights."""
        return weights_path(Shelf(self.folder.home).path(self.card))


def run_inline(folder: JobFolder) -> int:
    """Do a job in this process, saying nothing."""
    executor = InlineExecutor()
    return executor.poll(executor.submit(folder.path, {})).exit_code or 0


def shipped_recipe(name: str, overrides: Mapping[str, Any], *, share: float = 1.0) -> Recipe:
    """A recipe of this package with values of its own laid over it, and only a `share` of its steps."""
    words = [f"{path}={_yaml(value)}" for path, value in overrides.items()]
    recipe = read_recipe([RECIPES / f"{name}.yaml"], words, recipe_facts)
    steps = max(2, round((recipe.length.steps or 0) * share))
    warmup = min(recipe.optimiser.warmup_steps, steps - 1)
    return replace(
        recipe,
        length=replace(recipe.length, steps=steps),
        optimiser=replace(recipe.optimiser, warmup_steps=warmup),
    )


def run_recipe(recipe: Recipe, home: Path, *, run_job: RunJob, again: bool = False) -> Done:
    """Run a recipe as a job under `home`; with `again` an earlier job of the very same recipe is finished instead.

    Raises Stopped where it was stopped (the state is saved), JobError where it failed.
    """
    folder = (_earlier(recipe, home) if again else None) or create_job(home, "train", recipe)
    if read_status(folder).state != "completed":
        run_job(folder)
    status = finished(folder)
    return Done(folder, status, Shelf(home).get(status.checkpoints[-1]))


def finished(folder: JobFolder) -> Status:
    """The status of a job that has come to its end. Raises Stopped where it was stopped, JobError where it failed."""
    status = read_status(folder)
    if status.state in ("paused", "cancelled"):
        raise Stopped(
            f"stopped in the job {folder.id}; its state is saved",
            do=f"finish that job with `tunesmith jobs resume {folder.id}`, or run the same command again",
        )
    if status.state != "completed":
        raise JobError(
            f"the job {folder.id} is {status.state}: {status.reason}",
            do=f"see `tunesmith jobs logs {folder.id}`; run the same command again once that is mended",
        )
    return status


def _earlier(recipe: Recipe, home: Path) -> JobFolder | None:
    """The newest job of that recipe that has not gone wrong for good."""
    wanted = recipe_hash(recipe)
    for folder in reversed(list_jobs(home)):
        if recipe_hash(read_recipe([folder.recipe_file], (), recipe_facts)) == wanted:
            return folder
    return None


def _yaml(value: Any) -> str:
    """Paths, lists and maps of them as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(entry) for entry in value) + "]"
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
