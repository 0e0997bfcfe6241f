"""What trains, at which rate, for how long."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training_run import recipe_of
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Stage
from tunesmith.errors import PlanRefused
from tunesmith.recipe.schema import LengthSection
from tunesmith.training.components import rates_of, settled, total_steps

FACTS = engine_named("test_pictures").facts
BOTH = ("text_encoder", "denoiser")


@pytest.mark.parametrize(
    ("components", "rates", "expected"),
    [
        ((), {}, {"denoiser": 1e-2}),
        (BOTH, {}, {"denoiser": 1e-2, "text_encoder": 1e-2}),
        (BOTH, {"text_encoder": 5e-5}, {"denoiser": 1e-2, "text_encoder": 5e-5}),
        (BOTH, {"denoiser": 0.0}, {"text_encoder": 1e-2}),
        (("denoiser",), {"text_encoder": 1e-3}, {"denoiser": 1e-2}),
        ((), {"text_encoder": 0.0}, {"denoiser": 1e-2}),
    ],
)
def test_rates_by_component(components: Any, rates: Any, expected: dict[str, float]) -> None:
    recipe = recipe_of(Path(), method={"components": components}, optimiser={"rates": rates})
    assert rates_of(FACTS, recipe) == expected
    once = settled(FACTS, recipe)
    assert once.method.components == tuple(expected)
    assert settled(FACTS, once) == once


@pytest.mark.parametrize(
    ("method", "optimiser", "match"),
    [
        ({"stage": "codec"}, {}, "method.stage is 'codec'.*one of denoiser, autoencoder"),
        ({"stage": "autoencoder"}, {}, "cannot be trained by method 'lora'.*full, scratch"),
        ({"components": ("head",)}, {}, "no component 'head'.*denoiser, text_encoder"),
        ({}, {"rates": {"head": 1.0}}, "no component 'head'"),
        ({}, {"rates": {"text_encoder": 1e-3}}, "it does not train.*components=.denoiser, text_encoder"),
        ({}, {"rates": {"denoiser": 0.0}}, "nothing would train"),
        ({}, {"rate": 0.0}, "nothing would train"),
    ],
)
def test_what_cannot_train_is_refused(method: Any, optimiser: Any, match: str) -> None:
    with pytest.raises(PlanRefused, match=match):
        rates_of(FACTS, recipe_of(Path(), method=method, optimiser=optimiser))


def test_the_order_is_the_stages_not_the_users() -> None:
    facts = replace(FACTS, stages=(Stage("denoiser", ("c", "b", "a"), ("a", "c")),))
    recipe = recipe_of(Path(), method={"components": ("a", "b", "c")})
    assert list(rates_of(facts, recipe)) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (LengthSection(steps=7, epochs=3), 7),
        (LengthSection(epochs=3), 30),
        (LengthSection(epochs=3, accumulation=4), 8),
    ],
)
def test_total_steps(length: LengthSection, expected: int) -> None:
    assert total_steps(length, 10) == expected


def test_a_run_needs_a_length() -> None:
    with pytest.raises(PlanRefused, match=r"length\.steps or length\.epochs"):
        total_steps(LengthSection(), 10)


def test_the_plan_asks_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import tunesmith.training.components"
    subprocess.run([sys.executable, "-c", code], check=True)
