"""Facts and presets: every preset is a valid recipe of this engine, and its header says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.engines.index import recipe_facts
from tunesmith.engines.protocol import Machine
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import PRESETS
from tunesmith.recipe.load import read_recipe
from tunesmith.recipe.schema import Recipe


def _read(tmp_path: Path, name: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"preset: {name}\nengine: {{name: stable_diffusion}}\nbase: {{architecture: sd15}}\n")
    return read_recipe([file], [], recipe_facts)


def test_there_are_presets() -> None:
    assert set(PRESETS) == {"character", "character_fast", "concepts"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recipes(tmp_path: Path, name: str) -> None:
    recipe = _read(tmp_path, name)
    assert set(recipe.method.components) <= set(engine.facts.stages[0].components)
    assert set(recipe.output.exports) <= set(engine.layouts.adapter_layouts)
    machine = Machine("cpu", 24 << 30, 2, True, {}, {})
    estimate = engine.estimate(engine.open(recipe.base), recipe, {"512x512": 35}, machine)
    assert estimate.trainable_parameters == recipe.method.rank * (589_824 if recipe.method.components else 423_936)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_headers_say_what_was_measured(name: str) -> None:
    header = [line for line in PRESETS[name].read_text().splitlines() if line.startswith("#")]
    assert any("Measured:" in line for line in header)


def test_the_character_preset_keeps_the_known_figures(tmp_path: Path) -> None:
    recipe = _read(tmp_path, "character")
    assert (recipe.method.rank, recipe.method.alpha, recipe.length.steps) == (16, 8.0, 1200)
    assert (recipe.optimiser.rate, recipe.optimiser.rates) == (1e-4, {"text_encoder": 5e-5})
    assert recipe.settings.resolution == 512
