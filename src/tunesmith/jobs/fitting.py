"""Which of an engine's presets this machine can do, by the same estimate that the plan uses. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.index import engine_named, recipe_facts
from tunesmith.engines.protocol import Machine
from tunesmith.jobs.plan import peak_bytes, phase_forecast, total_minutes
from tunesmith.recipe.load import read_recipe
from tunesmith.recipe.schema import BaseSection
from tunesmith.training.components import settled

EXAMPLE_ITEMS = 30
_EXAMPLE_SIDE = 1024


@dataclass(frozen=True)
class Fit:
    """What a preset takes with thirty items on the engine's usual full-size base."""

    engine: str
    preset: str
    peak_bytes: int
    fits: bool
    minutes: tuple[float, float] | None
    steps: int


def fit_presets(engine_name: str, machine: Machine, *, limit_bytes: int) -> tuple[Fit, ...]:
    """Every preset of an engine, in the order of its files; the base's sizes stand in for its weights."""
    engine = engine_named(engine_name)
    facts = {"width": _EXAMPLE_SIDE, "height": _EXAMPLE_SIDE, "has_alpha": False}
    media = {role: MediaFile(Path("example"), "", facts) for role in engine.facts.media}
    item = Item("example", media, {"caption": "example"}, "example")
    found = []
    for preset in engine.facts.presets:
        recipe = read_recipe(
            [],
            [f"engine.name={engine_name}", f"preset={preset}", "base.path=example", "data.paths=[example]"],
            recipe_facts,
        )
        recipe = settled(engine.facts, replace(recipe, base=BaseSection(architecture=engine.facts.architectures[0])))
        steps = recipe.length.steps or (recipe.length.epochs or 1) * EXAMPLE_ITEMS // recipe.length.batch_items
        recipe = replace(recipe, length=replace(recipe.length, steps=steps))
        base = engine.open(recipe.base)
        estimate = engine.estimate(base, recipe, {engine.shape(item, recipe): EXAMPLE_ITEMS}, machine)
        peak = peak_bytes(estimate)
        minutes = total_minutes(tuple(phase_forecast(cost, machine) for cost in estimate.phases))
        found.append(Fit(engine_name, preset, peak, peak <= limit_bytes, minutes, steps))
    return tuple(found)
