"""From a job's folder to a checked plan: recipe, engine, base and items, and whether the job may go on with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf, weights_path
from tunesmith.engines.index import engine_named, recipe_facts
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import JobError, PlanRefused
from tunesmith.jobs.bases import named_bases
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.forecast import Plan, to_json
from tunesmith.jobs.items import Gathered, gather
from tunesmith.jobs.machine import read_machine
from tunesmith.jobs.plan import check_refusals, make_plan
from tunesmith.jobs.records import Planned
from tunesmith.jobs.refusals import check_engine
from tunesmith.jobs.work.run import Run
from tunesmith.recipe.load import read_recipe, resume_differences
from tunesmith.recipe.schema import Recipe
from tunesmith.training.components import settled, total_steps
from tunesmith.weights.atomic import write_json, write_text
from tunesmith.weights.hashes import HashCache


@dataclass(frozen=True)
class Opened:
    """What a job works with. `recipe` is as asked for, `settled` has its components spelt out."""

    recipe: Recipe
    settled: Recipe
    engine: Engine
    base: Base
    base_sha256: str
    gathered: Gathered
    plan: Plan
    parent: Card | None = None
    init_adapter: Path | None = None

    @property
    def steps(self) -> int:
        """The run's length."""
        return self.plan.steps


def open_recipe(recipe: Recipe, home: Path, *, generated: Path | None = None) -> Opened:
    """Read and plan what a recipe names; refusals are raised. `generated` holds prior items the base drew."""
    engine = engine_named(recipe.engine)
    check_engine(recipe, engine)
    parent, init_adapter, recipe = _initial(named_bases(recipe, home), home)
    base = engine.open(recipe.base)
    gathered = gather(recipe, engine, home=home, generated=generated)
    plan = make_plan(recipe, engine, base, gathered=gathered, machine=read_machine(home), home=home)
    check_refusals(plan)
    return Opened(
        recipe=recipe,
        settled=settled(engine.facts, recipe),
        engine=engine,
        base=base,
        base_sha256=_fingerprint(base, home),
        gathered=gathered,
        plan=plan,
        parent=parent,
        init_adapter=init_adapter,
    )


def open_job(run: Run) -> Opened:
    """Read, plan and check everything a job names. Raises what a person can mend."""
    folder = run.folder
    recipe = read_recipe([folder.recipe_file], (), recipe_facts)
    before = _accepted(folder, recipe)
    if recipe.length.max_minutes is not None:
        run.stops.deadline_seconds = run.started_seconds + 60 * recipe.length.max_minutes
    opened = open_recipe(recipe, folder.home, generated=folder.prior)
    _check_same(folder, opened)
    if before is not None:
        _say_longer(run, before, opened)
    run.emit(Planned(opened.steps))
    return opened


def accept(folder: JobFolder, opened: Opened) -> None:
    """Keep what the states will belong to: the recipe as it stands, and the plan with the hashes of data and base."""
    identity = {"dataset_hash": opened.gathered.hash, "base_sha256": opened.base_sha256}
    write_json(folder.plan_file, {**to_json(opened.plan), **identity})
    write_text(folder.accepted_file, folder.recipe_file.read_text(encoding="utf-8"))


def has_states(folder: JobFolder) -> bool:
    """Whether something was saved that a changed recipe would no longer fit."""
    return folder.states.is_dir() and any(folder.states.glob("step-*"))


def _accepted(folder: JobFolder, recipe: Recipe) -> Recipe | None:
    """The recipe the states belong to, if there are any. Raises JobError where `recipe` may not go on from it."""
    if not has_states(folder):
        return None
    if not folder.accepted_file.exists():
        raise JobError(
            f"{folder.id} has states, but {folder.accepted_file.name}, which says what recipe they belong to, is gone",
            do=f"restore it, or copy {folder.recipe_file.name} to it if that was never changed",
        )
    before = read_recipe([folder.accepted_file], (), recipe_facts)
    differences = resume_differences(before, recipe)
    if differences:
        raise JobError(
            f"{folder.id} cannot go on with a changed recipe: {'; '.join(differences)}",
            expected="the recipe it was started with; only its length may grow",
            do=f"undo the change in {folder.recipe_file}, or start a new job",
        )
    return before


def _check_same(folder: JobFolder, opened: Opened) -> None:
    """Raise JobError where items or base are no longer those the states were made with."""
    if not has_states(folder):
        return
    try:
        known: Any = json.loads(folder.plan_file.read_text(encoding="utf-8"))
        if not isinstance(known, dict):
            raise ValueError("not a map")
    except (OSError, ValueError) as error:
        raise JobError(
            f"{folder.id} has states, but {folder.plan_file.name}, which says what items and base they belong to, "
            f"cannot be read ({error})",
            do="restore it; or write {} into it if neither items nor base were changed",
        ) from error
    if known.get("dataset_hash") not in (None, opened.gathered.hash):
        raise JobError(
            f"the items of {folder.id} have changed since it was started",
            expected="the same files and captions, so that the run goes on as if it had never stopped",
            do="put them back, or start a new job",
        )
    if known.get("base_sha256") not in (None, opened.base_sha256):
        raise JobError(
            f"the base of {folder.id} has changed since it was started", do="put it back, or start a new job"
        )


def _say_longer(run: Run, before: Recipe, opened: Opened) -> None:
    steps = total_steps(before.length, opened.plan.batches_per_epoch)
    if opened.steps <= steps:
        return
    schedule = opened.recipe.optimiser.schedule
    if schedule == "constant":
        run.warn(f"goes on from {steps} to {opened.steps} steps, as if that length had been asked for from the start")
    else:
        run.warn(
            f"goes on from {steps} to {opened.steps} steps: the {schedule} schedule now spans {opened.steps} steps, "
            "while the steps done so far had the rates of the shorter run"
        )


def _initial(recipe: Recipe, home: Path) -> tuple[Card | None, Path | None, Recipe]:
    """(checkpoint it starts from, adapter to start from, recipe with full weights as its base) for `base.init`."""
    init = recipe.base.init
    if init is None:
        return None, None, recipe
    card: Card | None = None
    path = Path(init)
    if not path.exists():
        shelf = Shelf(home)
        card = shelf.get(init)
        path = shelf.path(card)
    if recipe.method.name in ("lora", "dora"):
        if card is not None and card.kind != "adapter":
            raise PlanRefused(
                f"base.init is {card.id}, which holds full weights, and method {recipe.method.name} starts an adapter",
                do="name it as base.path instead",
            )
        return card, path, recipe
    if card is not None and card.kind == "adapter":
        raise PlanRefused(
            f"base.init is the adapter {card.id}, and method {recipe.method.name} trains whole components",
            do="merge it into a checkpoint first and name that as base.path, or use method lora",
        )
    weights = weights_path(path)
    return card, None, replace(recipe, base=replace(recipe.base, path=str(weights), init=None))


def _fingerprint(base: Base, home: Path) -> str:
    """SHA-256 over the bytes of every file the base reads; each file is hashed once and remembered."""
    hashes = HashCache(home / "cache" / "hashes.json")
    digest = hashlib.sha256(base.header_hash.encode())
    for place in base.files:
        files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        for file in files:
            digest.update(hashes.get(file).encode())
    hashes.save()
    return digest.hexdigest()
