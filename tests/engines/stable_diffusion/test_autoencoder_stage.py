"""The autoencoder's objective against closed forms, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tunesmith.engines.protocol import Batch
from tunesmith.engines.stable_diffusion import engine
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.schema import BaseSection, MethodSection, Recipe

CPU = torch.device("cpu")


def _recipe(**knobs: Any) -> Recipe:
    return Recipe(
        "stable_diffusion",
        engine.facts.section(resolution=32, **knobs),
        base=BaseSection(architecture="tiny32"),
        method=MethodSection(name="scratch", stage="autoencoder"),
    )


def _batch(count: int = 4) -> Batch:
    """Smooth pictures that differ."""
    axis = torch.linspace(0, 1, 32)
    pictures = [
        torch.stack(
            [axis[None] * (i + 1) / count + 0 * axis[:, None], axis[:, None] + 0 * axis[None], axis.outer(axis)]
        )
        for i in range(count)
    ]
    pixels = (torch.stack(pictures).clamp(0, 1) * 255).to(torch.uint8)
    return Batch({"pixels": pixels}, ("",) * count, ("",) * count, torch.ones(count))


def _model(recipe: Recipe) -> Any:
    return engine.load_model(engine.open(recipe.base), recipe, CPU, torch.float32)


@pytest.mark.parametrize("reconstruction", ["l1", "l2"])
def test_loss_is_the_sum_of_its_terms(reconstruction: str) -> None:
    knobs = {"edge_weight": 0.5, "kl_weight": 0.01, "scale_weight": 0.2}
    recipe, batch = _recipe(reconstruction=reconstruction, **knobs), _batch()
    model, rng = _model(recipe), BatchRng(0, (0, 1, 2, 3))
    loss = engine.loss(model, batch, recipe, rng)
    vae = model.components["autoencoder"]
    pictures = batch.tensors["pixels"].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(pictures).latent_dist
        latents = posterior.mean + posterior.std * rng.normal("latents", posterior.mean.shape[1:])
        rebuilt = vae.decode(latents).sample
    difference = rebuilt - pictures
    distance = difference.abs() if reconstruction == "l1" else difference.square()
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean(dim=(1, 2, 3))
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean(dim=(1, 2, 3))
    normal = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(posterior.mean, posterior.std), normal)
    expected = distance.mean(dim=(1, 2, 3)) + 0.5 * (across + down) / 2 + 0.01 * kl.mean(dim=(1, 2, 3))
    expected_square = (posterior.mean.square() + posterior.var).mean(dim=(1, 2, 3))  # E[z^2] of a normal
    expected = expected + 0.2 * expected_square.log() ** 2
    torch.testing.assert_close(loss.per_item, expected, rtol=1e-5, atol=1e-6)
    assert float(loss.named["kl"]) == pytest.approx(float(kl.mean()), rel=1e-4)
    assert float(loss.named["latent_std"]) == pytest.approx(float(latents.std()), rel=1e-4)


def test_it_learns_to_rebuild() -> None:
    recipe, batch = _recipe(), _batch()
    model = _model(recipe)
    measure = engine.measures("autoencoder")["psnr_db"]
    before = measure(model, batch, recipe)
    optimiser = torch.optim.AdamW(model.components["autoencoder"].parameters(), lr=2e-3)
    for step in range(20):
        optimiser.zero_grad()
        engine.loss(model, batch, recipe, BatchRng(0, tuple(range(4 * step, 4 * step + 4)))).total.backward()
        optimiser.step()
    loss = engine.loss(model, batch, recipe, BatchRng(0, (0, 1, 2, 3)))
    assert 0.5 < float(loss.named["latent_std"]) < 2.0
    after = measure(model, batch, recipe)
    assert after > before + 4
    assert math.isfinite(after)


def test_psnr_is_that_of_the_mean_latents() -> None:
    recipe, batch = _recipe(), _batch()
    model = _model(recipe)
    vae = model.components["autoencoder"]
    pictures = batch.tensors["pixels"].float() / 127.5 - 1
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    expected = 10 * math.log10(4.0 / float((rebuilt - pictures).square().mean()))
    assert engine.measures("autoencoder")["psnr_db"](model, batch, recipe) == pytest.approx(expected, rel=1e-4)
    assert engine.measures("denoiser") == {}
