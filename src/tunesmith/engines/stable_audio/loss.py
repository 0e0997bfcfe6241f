"""The denoiser's objective: predict the velocity of latents on the cosine schedule.

t in 0 to 1, alpha = cos(pi t / 2), sigma = sin(pi t / 2), noisy = alpha x + sigma e, target = alpha e - sigma x, plain
squared error (stable-audio-tools, training/diffusion.py; Salimans & Ho, 2022, arXiv 2202.00512).

Batch keys: `latents` [batch, channels, frames], `seconds` [batch, 2], `keep` [batch], and `states` [batch, tokens,
width] or `input_ids` [batch, tokens], with `own_tokens` [batch]. Recorded draws replace random ones: `noise` like the
latents and `times` [batch].
"""

from __future__ import annotations

import torch
from torch import nn

from tunesmith.engines.protocol import Batch, Loss, Model
from tunesmith.engines.stable_audio.choices import knobs
from tunesmith.engines.stable_audio.conditions import conditions, predict, rotary
from tunesmith.engines.stable_audio.encode import prompt_states
from tunesmith.engines.stable_audio.load import home_of
from tunesmith.numeric.losses import mean_squared, weighted_mean
from tunesmith.numeric.noise import cosine_angles, stretched
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.schema import Recipe


def denoiser_loss(model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
    """Weighted mean over items of the squared error of the velocity."""
    modules = {**model.frozen, **model.components}
    denoiser = modules["denoiser"]
    device, _ = home_of(denoiser)
    latents = batch.tensors["latents"].to(device, torch.float32)
    noise = batch.tensors.get("noise")
    noise = (rng.normal("noise", latents.shape[1:]) if noise is None else noise.float()).to(device)
    times = _times(batch, rng, knobs(recipe).timesteps).to(device)
    alpha, sigma = (stretched(value, latents) for value in cosine_angles(times))
    told = conditions(
        modules["projection"],
        _states(modules, batch),
        batch.tensors["own_tokens"],
        batch.tensors["seconds"],
        batch.tensors["keep"],
    )
    places = rotary(model.settings.base.architecture["denoiser"], latents.shape[2])
    answer = predict(denoiser, alpha * latents + sigma * noise, times, told, places)
    per_item = mean_squared(answer, alpha * noise - sigma * latents)
    return Loss(weighted_mean(per_item, batch.weights.to(device)), per_item.detach())


def _times(batch: Batch, rng: BatchRng, how: str) -> torch.Tensor:
    recorded: torch.Tensor | None = batch.tensors.get("times")
    if recorded is not None:
        return recorded.float()
    uniform = rng.uniform("times")
    # By the inverse of the normal distribution, so that strata of the uniform numbers hold here too.
    return torch.special.ndtri(uniform.double()).sigmoid().float() if how == "logit_normal" else uniform


def _states(modules: dict[str, nn.Module], batch: Batch) -> torch.Tensor:
    if "states" in batch.tensors:
        states: torch.Tensor = batch.tensors["states"]
        return states
    return prompt_states(modules["text_encoder"], batch.tensors["input_ids"], batch.tensors["own_tokens"])
