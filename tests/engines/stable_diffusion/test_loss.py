"""The denoiser's loss and gradients against a plain loop over diffusers' modules and schedulers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from tunesmith.engines.protocol import Batch, Model
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import StableDiffusionKnobs
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.schema import BaseSection, DataSection, MethodSection, Recipe

CPU = torch.device("cpu")
RNG = BatchRng(3, (10, 11, 12))
SCHEDULER = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False
)


def _recipe(tiny: Any, method: MethodSection | None = None, **knobs: Any) -> Recipe:
    return Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(resolution=32, **knobs),
        base=BaseSection(path=str(tiny.single)),
        method=method or MethodSection(name="full", components=("denoiser", "text_encoder")),
    )


def _batch(**changed: torch.Tensor) -> Batch:
    generator = torch.Generator().manual_seed(8)
    ids = torch.randint(0, 49406, (3, 1, 77), generator=generator)
    ids[:, :, 0], ids[:, :, -1] = 49406, 49407
    tensors = {
        "latents": torch.randn(3, 4, 16, 16, generator=generator),
        "input_ids": ids,
        "noise": torch.randn(3, 4, 16, 16, generator=generator),
        "timesteps": torch.tensor([3, 400, 981]),
        **changed,
    }
    return Batch(tensors, ("a", "b", "c"), ("", "", ""), torch.ones(3))


def _model(tiny: Any, recipe: Recipe) -> Model:
    return engine.load_model(tiny.open(), recipe, CPU, torch.float32)


def _plain(tiny: Any, batch: Batch, *, velocity: bool = False, states: torch.Tensor | None = None) -> Any:
    """Prediction, target and squared error [batch] the way diffusers' example scripts write them."""
    latents, noise, timesteps = (batch.tensors[key] for key in ("latents", "noise", "timesteps"))
    noisy = SCHEDULER.add_noise(latents, noise, timesteps)
    if states is None:
        states = tiny.pipeline.text_encoder(batch.tensors["input_ids"][:, 0])[0]
    prediction = tiny.pipeline.unet(noisy, timesteps, states).sample
    target = SCHEDULER.get_velocity(latents, noise, timesteps) if velocity else noise
    return torch.nn.functional.mse_loss(prediction, target, reduction="none")


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
def test_loss_is_that_of_a_plain_loop(tiny: Any, prediction: str) -> None:
    recipe, batch = _recipe(tiny, prediction=prediction), _batch()
    loss = engine.loss(_model(tiny, recipe), batch, recipe, RNG)
    expected = _plain(tiny, batch, velocity=prediction == "velocity").mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss.per_item, expected.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.total, expected.mean(), rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_a_plain_loop(tiny: Any) -> None:
    recipe, batch = _recipe(tiny), _batch()
    model = _model(tiny, recipe)
    engine.loss(model, batch, recipe, RNG).total.backward()
    reference = {"denoiser": tiny.pipeline.unet, "text_encoder": tiny.pipeline.text_encoder}
    try:
        for module in reference.values():
            module.requires_grad_(True)
        _plain(tiny, batch).mean().backward()
        for role, module in reference.items():
            ours = dict(model.components[role].named_parameters())
            for name, parameter in module.named_parameters():
                torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    finally:
        for module in reference.values():
            module.zero_grad(set_to_none=True)
            module.requires_grad_(False)


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
def test_min_snr_is_diffusers_weighting(tiny: Any, prediction: str) -> None:
    recipe, batch = _recipe(tiny, min_snr_gamma=5.0, prediction=prediction), _batch()
    ours = engine.loss(_model(tiny, recipe), batch, recipe, RNG).per_item
    snr = compute_snr(SCHEDULER, batch.tensors["timesteps"])
    weights = snr.clamp(max=5.0) / (snr + 1 if prediction == "velocity" else snr)
    expected = _plain(tiny, batch, velocity=prediction == "velocity").mean(dim=(1, 2, 3)) * weights
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-6)


def test_cached_states_give_the_same_loss_as_token_ids(tiny: Any) -> None:
    batch = _batch()
    live = _recipe(tiny)
    expected = engine.loss(_model(tiny, live), batch, live, RNG).per_item
    with torch.no_grad():
        states = tiny.pipeline.text_encoder(batch.tensors["input_ids"][:, 0])[0]
    tensors = {key: value for key, value in batch.tensors.items() if key != "input_ids"}
    cached = _recipe(tiny, MethodSection(name="full"))
    model = _model(tiny, cached)
    assert set(model.components) == {"denoiser"}
    assert not model.frozen
    ours = engine.loss(model, dataclasses.replace(batch, tensors={**tensors, "states": states}), cached, RNG).per_item
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)


def test_offset_noise_is_part_of_input_and_target(tiny: Any) -> None:
    recipe, batch = _recipe(tiny, noise_offset=0.1), _batch()
    offsets = torch.linspace(-1, 1, 12).reshape(3, 4)
    recorded = dataclasses.replace(batch, tensors={**batch.tensors, "offsets": offsets})
    ours = engine.loss(_model(tiny, recipe), recorded, recipe, RNG).per_item
    noise = batch.tensors["noise"] + 0.1 * offsets[:, :, None, None]
    expected = _plain(tiny, dataclasses.replace(batch, tensors={**batch.tensors, "noise": noise})).mean(dim=(1, 2, 3))
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-6)
    # Recorded noise without offsets is taken as it is: it was recorded after the offset.
    plain = engine.loss(_model(tiny, recipe), batch, recipe, RNG).per_item
    torch.testing.assert_close(plain, _plain(tiny, batch).mean(dim=(1, 2, 3)).detach(), rtol=1e-6, atol=1e-6)


def test_drawn_noise_and_timesteps_come_from_positions(tiny: Any) -> None:
    recipe = _recipe(tiny, noise_offset=0.1)
    batch = _batch()
    kept = {key: batch.tensors[key] for key in ("latents", "input_ids")}
    ours = engine.loss(_model(tiny, recipe), dataclasses.replace(batch, tensors=kept), recipe, RNG).per_item
    noise = RNG.normal("noise", (4, 16, 16)) + 0.1 * RNG.normal("noise offset", (4,))[:, :, None, None]
    drawn = {**kept, "noise": noise, "timesteps": RNG.integers("timesteps", 0, 1000)}
    expected = _plain(tiny, dataclasses.replace(batch, tensors=drawn)).mean(dim=(1, 2, 3)).detach()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert len(set(drawn["timesteps"].tolist())) > 1


def test_a_mask_weighs_places_and_keeps_the_scale(tiny: Any) -> None:
    recipe = _recipe(tiny)
    mask = torch.zeros(3, 1, 16, 16)
    mask[0, :, :, :4] = 1.0  # a quarter of the picture
    mask[1] = 0.5  # everything equally
    batch = _batch(mask=mask)
    ours = engine.loss(_model(tiny, recipe), batch, recipe, RNG).per_item
    squares = _plain(tiny, batch).detach()
    assert float(ours[0]) == pytest.approx(float(squares[0, :, :, :4].mean()), rel=1e-5)
    assert float(ours[1]) == pytest.approx(float(squares[1].mean()), rel=1e-5)
    assert float(ours[2]) == 0.0  # wholly masked: no gradient, no division by zero


def test_item_weights_scale_the_total_only(tiny: Any) -> None:
    recipe, batch = _recipe(tiny), _batch()
    weighted = dataclasses.replace(batch, weights=torch.tensor([2.0, 0.0, 1.0]))
    loss = engine.loss(_model(tiny, recipe), weighted, recipe, RNG)
    plain = engine.loss(_model(tiny, recipe), batch, recipe, RNG)
    assert torch.equal(loss.per_item, plain.per_item)
    torch.testing.assert_close(loss.total.detach(), (plain.per_item * weighted.weights).mean())


def test_a_bfloat16_base_computes_the_loss_in_float32(tiny: Any) -> None:
    recipe, batch = _recipe(tiny, MethodSection()), _batch()
    states = {key: value for key, value in batch.tensors.items() if key != "input_ids"}
    states["states"] = torch.randn(3, 77, 32, generator=torch.Generator().manual_seed(0))
    batch = dataclasses.replace(batch, tensors=states)
    model = engine.load_model(tiny.open(), recipe, CPU, torch.bfloat16)
    loss = engine.loss(model, batch, recipe, RNG)
    assert loss.total.dtype == torch.float32
    exact = engine.loss(_model(tiny, recipe), batch, recipe, RNG)
    torch.testing.assert_close(loss.per_item, exact.per_item, rtol=0.02, atol=0.02)  # bfloat16 keeps 8 bits


def test_v_prediction_bases_are_followed(tiny: Any) -> None:
    recipe, batch = _recipe(tiny), _batch()
    model = _model(tiny, recipe)
    model = dataclasses.replace(model, settings=dataclasses.replace(model.settings, prediction="velocity"))
    expected = _plain(tiny, batch, velocity=True).mean(dim=(1, 2, 3)).detach()
    torch.testing.assert_close(engine.loss(model, batch, recipe, RNG).per_item, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("components", [("denoiser",), ("denoiser", "text_encoder")])
def test_checkpointing_changes_no_gradient(tiny: Any, components: tuple[str, ...]) -> None:
    gradients = []
    for checkpointing in (False, True):
        method = MethodSection(name="full", components=components, gradient_checkpointing=checkpointing)
        recipe = dataclasses.replace(_recipe(tiny, method), data=DataSection(shuffle_tags=True))
        model = _model(tiny, recipe)
        engine.loss(model, _batch(), recipe, RNG).total.backward()
        named = [p for role in components for p in model.components[role].named_parameters()]
        gradients.append({name: parameter.grad for name, parameter in named})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
