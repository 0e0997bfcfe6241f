"""Turning a knob of length, method or optimiser changes what it names, and the run with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training_run import make_run, recipe_of
from tunesmith.recipe.schema import LengthSection, MethodSection, OptimiserSection
from tunesmith.training.components import total_steps

BOTH = {"components": ("denoiser", "text_encoder")}
BASE: dict[str, Any] = {"length": {"steps": 5}}

# knob -> (what the run has beside, the turned knob)
TURNED: dict[str, tuple[dict[str, Any], Any]] = {
    "method.name": ({}, "dora"),
    "method.components": ({}, ("denoiser", "text_encoder")),
    "method.rank": ({}, 3),
    "method.alpha": ({}, 1.0),
    "method.conv_rank": ({}, 2),
    "method.conv_alpha": ({"method": {"conv_rank": 2}}, 1.0),
    "method.dropout": ({}, 0.5),
    "optimiser.name": ({}, "lion"),
    "optimiser.rate": ({}, 3e-3),
    "optimiser.rates": ({"method": BOTH}, {"text_encoder": 1e-4}),
    "optimiser.betas": ({}, (0.5, 0.9)),
    "optimiser.eps": ({}, 1e-3),
    "optimiser.weight_decay": ({}, 1.0),
    "optimiser.clip_norm": ({}, 1e-4),
    "optimiser.schedule": ({}, "linear"),
    "optimiser.warmup_steps": ({}, 3),
    "optimiser.restarts": ({"optimiser": {"schedule": "cosine_restarts"}}, 2),
    "length.steps": ({"optimiser": {"schedule": "cosine"}}, 7),
    "length.batch_items": ({}, 1),
    "length.accumulation": ({}, 2),
    "length.seed": ({}, 9),
}
# Seen elsewhere: gradient_checkpointing gives the same gradients by computing twice (test_prepare), stage picks other
# components (test_components), ema_decay leaves the weights and adds an average (test_average, below), epochs says
# steps another way (below), max_minutes ends the run (test_loop).
ELSEWHERE = {
    "method.gradient_checkpointing",
    "method.stage",
    "optimiser.ema_decay",
    "length.epochs",
    "length.max_minutes",
}


def run_with(world: Path, beside: dict[str, Any], knob: str = "", value: Any = None) -> dict[str, torch.Tensor]:
    sections = {name: {**BASE.get(name, {}), **beside.get(name, {})} for name in {*BASE, *beside}}
    if knob:
        section, name = knob.split(".")
        sections.setdefault(section, {})[name] = value
    run = make_run(world, recipe_of(world, **sections))
    run.go(5)
    return {name: tensor.detach() for name, tensor in run.state.parameters.items()}


def test_every_knob_of_these_sections_is_turned_here_or_elsewhere() -> None:
    sections = {"method": MethodSection, "optimiser": OptimiserSection, "length": LengthSection}
    knobs = {f"{key}.{name}" for key, section in sections.items() for name in section.__dataclass_fields__}
    assert knobs == set(TURNED) | ELSEWHERE


@pytest.mark.parametrize("knob", TURNED)
def test_turning_a_knob_changes_the_weights(world: Path, knob: str) -> None:
    beside, value = TURNED[knob]
    plain, turned = run_with(world, beside), run_with(world, beside, knob, value)
    again = run_with(world, beside)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert plain.keys() != turned.keys() or any(
        plain[name].shape != turned[name].shape or not torch.equal(plain[name], turned[name]) for name in plain
    )


def test_rates_turn_only_their_own_component(world: Path) -> None:
    """One step: later ones see each other's weights."""
    first = {"length": {"steps": 1}, "method": BOTH, "optimiser": {"clip_norm": None}}
    plain = make_run(world, recipe_of(world, **first))
    turned = make_run(
        world, recipe_of(world, **{**first, "optimiser": {"clip_norm": None, "rates": {"denoiser": 1e-4}}})
    )
    plain.go(1)
    turned.go(1)
    for name, value in plain.state.parameters.items():
        if name.startswith("text_encoder/"):
            assert torch.equal(value, turned.state.parameters[name])
    ups = [name for name in plain.state.parameters if name.startswith("denoiser/") and name.endswith(".up")]
    assert any(not torch.equal(plain.state.parameters[name], turned.state.parameters[name]) for name in ups)


def test_an_average_leaves_the_weights_as_they_are(world: Path) -> None:
    plain, turned = run_with(world, {}), run_with(world, {}, "optimiser.ema_decay", 0.9)
    assert all(torch.equal(plain[name], turned[name]) for name in plain)


def test_epochs_are_steps_by_another_name(world: Path) -> None:
    recipe = recipe_of(world, length={"steps": None, "epochs": 2})
    run = make_run(world, recipe)
    assert total_steps(recipe.length, run.batches.per_epoch) == 2 * run.batches.per_epoch


def test_clipping_is_off_without_a_limit(world: Path) -> None:
    open_end = run_with(world, {}, "optimiser.clip_norm", None)
    wide = run_with(world, {}, "optimiser.clip_norm", 1e9)
    for name, value in open_end.items():
        torch.testing.assert_close(value, wide[name], rtol=1e-5, atol=1e-8)
