"""Which components train and at which rate, and how long a run is. No torch: the plan asks the same questions."""

from __future__ import annotations

import math
from dataclasses import replace

from tunesmith.engines.protocol import EngineFacts, Stage
from tunesmith.errors import PlanRefused
from tunesmith.recipe.schema import LengthSection, Recipe

USUAL_VALIDATIONS = 10


def stage_of(facts: EngineFacts, recipe: Recipe) -> Stage:
    """The stage that the recipe trains. Raises PlanRefused where the engine lacks it or its method."""
    method = recipe.method
    stage = next((stage for stage in facts.stages if stage.name == method.stage), None)
    if stage is None:
        names = ", ".join(stage.name for stage in facts.stages)
        raise PlanRefused(
            f"method.stage is {method.stage!r}, which engine {facts.name} does not have",
            expected=f"one of {names}",
            do=f"set method.stage={facts.stages[0].name}",
        )
    if method.name not in stage.methods:
        raise PlanRefused(
            f"stage {stage.name} of engine {facts.name} cannot be trained by method {method.name!r}",
            expected=f"one of {', '.join(stage.methods)}",
            do=f"set method.name={stage.methods[0]}",
        )
    return stage


def rates_of(facts: EngineFacts, recipe: Recipe) -> dict[str, float]:
    """Component -> learning rate of everything that trains, in the stage's order; rate 0 leaves a component out.

    Raises PlanRefused for components and rates that the stage does not have, and where nothing would train.
    """
    stage, section = stage_of(facts, recipe), recipe.optimiser
    chosen = recipe.method.components or stage.usual
    for name in (*recipe.method.components, *section.rates):
        if name not in stage.components:
            raise PlanRefused(
                f"stage {stage.name} has no component {name!r}",
                expected=f"one of {', '.join(stage.components)}",
                do="correct method.components or optimiser.rates",
            )
    for name, rate in section.rates.items():
        if rate > 0 and name not in chosen and not recipe.method.components:
            raise PlanRefused(
                f"optimiser.rates gives {name} a rate, but it does not train",
                do=f"set method.components=[{', '.join((*chosen, name))}], or leave the rate out",
            )
    rates = {name: section.rates.get(name, section.rate) for name in stage.components if name in chosen}
    rates = {name: rate for name, rate in rates.items() if rate > 0}
    if not rates:
        raise PlanRefused("every component has rate 0, so nothing would train", do="give one of them a rate above 0")
    return rates


def settled(facts: EngineFacts, recipe: Recipe) -> Recipe:
    """The recipe with `method.components` spelt out, without those of rate 0. Settling twice changes nothing."""
    return replace(recipe, method=replace(recipe.method, components=tuple(rates_of(facts, recipe))))


def validate_every_steps(recipe: Recipe, steps: int) -> int:
    """Steps from one measurement of the held-out loss to the next: as asked, else about ten times in a run."""
    asked = recipe.output.validate_every_steps
    return asked if asked is not None else math.ceil(steps / USUAL_VALIDATIONS)


def total_steps(length: LengthSection, batches_per_epoch: int) -> int:
    """Optimiser steps of a whole run; the last step of the last epoch may reach into the next one."""
    if length.steps is not None:
        return length.steps
    if length.epochs is None:
        raise PlanRefused("the recipe does not say how long to train", do="set length.steps or length.epochs")
    return math.ceil(length.epochs * batches_per_epoch / length.accumulation)
