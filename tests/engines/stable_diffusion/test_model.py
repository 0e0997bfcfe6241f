"""What a recipe loads: components, frozen helpers, precision, and what a checkpoint has to carry."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import TOKEN_LIMITS, StableDiffusionKnobs
from tunesmith.errors import PlanRefused, RecipeError
from tunesmith.numeric.noise import alphas_cumprod, scaled_linear_betas
from tunesmith.recipe.schema import BaseSection, DataSection, MethodSection, Recipe

CPU = torch.device("cpu")
BOTH = ("denoiser", "text_encoder")


def _load(
    tiny: Any, method: MethodSection, data: DataSection | None = None, dtype: torch.dtype = torch.bfloat16
) -> Any:
    recipe = Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(resolution=32),
        data=data or DataSection(),
        base=BaseSection(path=str(tiny.single)),
        method=method,
    )
    return engine.load_model(tiny.open(), recipe, CPU, dtype)


@pytest.mark.parametrize(
    ("method", "data", "components", "frozen"),
    [
        (MethodSection(), DataSection(), {"denoiser"}, set()),
        (MethodSection(), DataSection(shuffle_tags=True), {"denoiser"}, {"text_encoder"}),
        (MethodSection(components=BOTH), DataSection(), {"denoiser", "text_encoder"}, set()),
        (MethodSection(components=("text_encoder",)), DataSection(), {"text_encoder"}, {"denoiser"}),
        (MethodSection(name="full", stage="autoencoder"), DataSection(), {"autoencoder"}, set()),
    ],
)
def test_what_is_loaded(tiny: Any, method: MethodSection, data: DataSection, components: set, frozen: set) -> None:
    model = _load(tiny, method, data)
    assert set(model.components) == components
    assert set(model.frozen) == frozen
    full = method.name == "full"
    for module in model.components.values():
        assert {p.dtype for p in module.parameters()} == {torch.float32 if full else torch.bfloat16}
        assert all(p.requires_grad == full for p in module.parameters())
    for module in model.frozen.values():
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in module.parameters())


def test_the_schedule_is_stable_diffusions(tiny: Any) -> None:
    from diffusers import DDPMScheduler

    model = _load(tiny, MethodSection())
    expected = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    assert torch.equal(model.settings.alpha_bar, expected)
    assert torch.equal(model.settings.alpha_bar, alphas_cumprod(scaled_linear_betas(0.00085, 0.012, 1000)))


def test_adapters_need_a_stage_that_takes_them(tiny: Any) -> None:
    model = _load(tiny, MethodSection(name="full", stage="autoencoder"))
    with pytest.raises(PlanRefused, match="autoencoder"):
        engine.targets(model, MethodSection())
    with pytest.raises(PlanRefused, match="cannot train"):
        _load(tiny, MethodSection(components=("autoencoder",)))


def test_targets_of_a_text_encoder_have_other_live_names(tiny: Any) -> None:
    model = _load(tiny, MethodSection(components=BOTH))
    targets = engine.targets(model, MethodSection(components=BOTH))
    text = [target for target in targets if target.component == "text_encoder"]
    assert len(text) == 12
    assert all(target.canonical == f"text_model.{target.live}" for target in text)


def test_frozen_parts_made_from_the_seed_go_into_the_checkpoint() -> None:
    base = engine.open(BaseSection(architecture="tiny32"))
    recipe = Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(resolution=32),
        base=BaseSection(architecture="tiny32"),
        method=MethodSection(name="scratch"),
    )
    weights = engine.trained_weights(engine.load_model(base, recipe, CPU, torch.float32))
    assert set(weights) == {"denoiser", "text_encoder", "autoencoder"}
    live = dataclasses.replace(recipe, data=DataSection(shuffle_tags=True))
    again = engine.trained_weights(engine.load_model(base, live, CPU, torch.float32))
    assert all(torch.equal(again["text_encoder"][name], tensor) for name, tensor in weights["text_encoder"].items())


@pytest.mark.parametrize("values", [{"tokens": 100}, {"buckets": True, "bucket_low": 512, "bucket_high": 256}])
def test_knobs_that_contradict_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        StableDiffusionKnobs(**values)
    assert TOKEN_LIMITS == (75, 150, 225)


@pytest.mark.parametrize(("knob", "expected"), [("auto", "epsilon"), ("epsilon", "epsilon"), ("velocity", "velocity")])
def test_what_is_predicted_follows_the_recipe_into_previews(tiny: Any, knob: str, expected: str) -> None:
    recipe = Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(resolution=32, prediction=knob),
        base=BaseSection(path=str(tiny.single)),
    )
    base = tiny.open()
    model = engine.load_model(base, recipe, CPU, torch.float32)
    assert model.settings.prediction == expected
    schedule = engine.load_sampler(base, CPU, torch.float32, model).settings.schedule
    assert schedule["prediction_type"] == {"epsilon": "epsilon", "velocity": "v_prediction"}[expected]
    assert engine.load_sampler(base, CPU, torch.float32).settings.schedule["prediction_type"] == "epsilon"


def test_a_new_base_may_not_contradict_its_architecture() -> None:
    recipe = Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(resolution=32, prediction="velocity"),
        base=BaseSection(architecture="tiny32"),
        method=MethodSection(name="scratch"),
    )
    with pytest.raises(PlanRefused, match="architecture file"):
        engine.load_model(engine.open(recipe.base), recipe, CPU, torch.float32)
