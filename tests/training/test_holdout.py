"""Validation: fixed draws over the whole range, honest about which weights, and no trace in the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training_run import Run, make_run, recipe_of
from tunesmith.data.order import HOLDOUT_ITEMS
from tunesmith.engines.protocol import Batch
from tunesmith.numeric.rng import BatchRng
from tunesmith.training.average import averaged
from tunesmith.training.holdout import Holdout


def holdout(run: Run, **changes: Any) -> Holdout:
    given = {
        "recipe": run.recipe,
        "items": run.items[:3],
        "reader": run.reader,
        "precision": run.step.precision,
        **changes,
    }
    return Holdout(changes.pop("engine", run.engine), run.model, **{k: v for k, v in given.items() if k != "engine"})


class Watching:
    """The run's engine, noting what each validation batch is asked with."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.seen: list[tuple[tuple[str, ...], BatchRng, torch.Tensor, bool]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run.engine, name)

    def loss(self, model: Any, batch: Batch, recipe: Any, rng: BatchRng) -> Any:
        loss = self._run.engine.loss(model, batch, recipe, rng)
        training = any(module.training for module in model.components["denoiser"].modules())
        self.seen.append((batch.keys, rng, rng.integers("timesteps", 0, 1000), training))
        return loss


def test_the_same_weights_give_the_same_figure_wherever_the_run_is(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    first = holdout(run).measure(run.state)
    torch.rand(5)
    run.state.position_items += 1000
    assert holdout(run).measure(run.state) == first
    assert (first.weights, first.step) == ("raw", 0)
    run.go(3)
    later = holdout(run).measure(run.state)
    assert later.loss != first.loss
    assert later.step == 3


def test_every_item_covers_the_timesteps_evenly_and_positions_never_repeat(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    watching = Watching(run)
    measured = holdout(run, engine=watching)
    measured.measure(run.state)
    repeats = measured.repeats
    assert repeats == 16
    positions = [at for _, rng, _, _ in watching.seen for at in rng.positions]
    assert sorted(positions) == list(range(3 * repeats))
    for item in run.items[:3]:
        steps = [
            int(step)
            for keys, _, times, _ in watching.seen
            for key, step in zip(keys, times, strict=True)
            if key == item.key
        ]
        assert sorted(step * repeats // 1000 for step in steps) == list(range(repeats))
    assert {rng.seed for _, rng, _, _ in watching.seen} != {run.recipe.length.seed}
    assert not any(training for *_, training in watching.seen)


def test_modes_and_global_random_numbers_are_left_as_they_were(world: Path) -> None:
    run = make_run(world, recipe_of(world, method={"dropout": 0.5}))
    modes = [module.training for module in run.model.components["denoiser"].modules()]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    holdout(run).measure(run.state)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in run.model.components["denoiser"].modules()] == modes
    assert any(modes)
    assert all(value.grad is None for value in run.state.parameters.values())


def test_the_average_is_what_is_measured_where_there_is_one(world: Path) -> None:
    run = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    run.go(4)
    before = run.bits()
    figure = holdout(run).measure(run.state)
    assert figure.weights == "ema"
    after = run.bits()
    assert all(torch.equal(after[name], before[name]) for name in before)
    ema, run.state.ema = run.state.ema, None
    assert holdout(run).measure(run.state).loss != figure.loss
    for name, value in run.state.parameters.items():
        assert ema is not None
        value.data = ema[name]
    assert holdout(run).measure(run.state).loss == figure.loss
    with averaged(run.state) as which:
        assert which == "raw"


def test_figures_are_means_over_items_by_concept_with_prior_items_apart(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    items = list(run.items[:3])
    alone = [holdout(run, items=[item]).measure(run.state) for item in items]
    assert all(figure.per_concept == {} for figure in alone)
    both = holdout(run, items=items).measure(run.state)
    assert both.per_concept.keys() == {"one", "two"}
    assert both.loss == pytest.approx((2 * both.per_concept["one"] + both.per_concept["two"]) / 3, rel=1e-9)
    prior = holdout(run, items=[*items[:2], replace(items[2], prior=True)]).measure(run.state)
    assert prior.per_concept.keys() == {"one", "prior", "two"}
    assert prior.loss == pytest.approx((prior.per_concept["one"] + prior.per_concept["two"]) / 2, rel=1e-9)


def test_batch_size_does_not_change_the_figure(world: Path) -> None:
    figures = []
    for batch_items in (1, 4):
        run = make_run(world, recipe_of(world, length={"batch_items": batch_items}))
        figures.append(holdout(run).measure(run.state).loss)
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_captions_are_not_dropped(world: Path) -> None:
    plain = make_run(world, recipe_of(world))
    dropping = make_run(world, recipe_of(world, data={"caption_dropout": 1.0}))
    assert holdout(plain).measure(plain.state).loss == holdout(dropping).measure(dropping.state).loss
    assert plain.losses(1) != dropping.losses(1)


def test_of_many_items_every_nth_is_measured(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    many = holdout(run, items=[run.items[0]] * (2 * HOLDOUT_ITEMS + 1))
    assert len(many.chosen) == (2 * HOLDOUT_ITEMS + 1 + 2) // 3
    assert many.repeats == 1
