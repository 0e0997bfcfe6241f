"""The denoiser's objective: predict the noise (or velocity) that was added to latents.

DDPM's closed form (Ho et al., 2020, arXiv 2006.11239), offset noise, min-SNR weights (Hang et al., 2023,
arXiv 2303.09556), everything after the prediction in float32.

Batch keys: `latents` [batch, 4, h, w]; `states` [batch, tokens, width] or `input_ids` [batch, 77] or
[batch, chunks, 77]; `mask` [batch, 1, h, w] if the loss is masked. Replay adds what was recorded instead of drawn:
`noise` [batch, 4, h, w] (offset included, unless `offsets` [batch, 4] are recorded too) and `timesteps` [batch].
"""

from __future__ import annotations

import torch
from torch import nn

from tunesmith.engines.protocol import Batch, Loss, Model
from tunesmith.engines.stable_diffusion.choices import knobs
from tunesmith.engines.stable_diffusion.facts import StableDiffusionKnobs
from tunesmith.engines.stable_diffusion.load import home_of
from tunesmith.engines.stable_diffusion.text import text_states
from tunesmith.numeric.losses import mean_squared, min_snr_weight, weighted_mean
from tunesmith.numeric.noise import add_noise, offset_noise, snr
from tunesmith.numeric.rng import BatchRng
from tunesmith.numeric.targets import velocity
from tunesmith.recipe.schema import Recipe

_LEAST_MASK = 1e-6  # a wholly black mask weighs nothing instead of dividing by zero


def denoiser_loss(model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
    """Weighted mean over items of the (masked, min-SNR weighted) squared error of the prediction."""
    chosen = knobs(recipe)
    modules = {**model.frozen, **model.components}
    denoiser = modules["denoiser"]
    device, dtype = home_of(denoiser)
    latents = batch.tensors["latents"].to(device, torch.float32)
    noise = _noise(batch, rng, chosen, latents)
    timesteps = _timesteps(batch, rng, len(model.settings.alpha_bar)).to(device)
    alpha_bar = model.settings.alpha_bar.to(device)[timesteps]
    noisy = add_noise(latents, noise, alpha_bar)
    states = _states(modules, batch, chosen)
    prediction = denoiser(noisy.to(dtype), timesteps, states.to(device, dtype)).sample.float()
    kind = model.settings.prediction
    target = velocity(latents, noise, alpha_bar) if kind == "velocity" else noise
    per_item = mean_squared(prediction, target, _mask(batch, device))
    if chosen.min_snr_gamma is not None:
        name = "velocity" if kind == "velocity" else "noise"
        per_item = per_item * min_snr_weight(snr(alpha_bar), chosen.min_snr_gamma, name)
    total = weighted_mean(per_item, batch.weights.to(device))
    return Loss(total, per_item.detach())


def _noise(batch: Batch, rng: BatchRng, chosen: StableDiffusionKnobs, latents: torch.Tensor) -> torch.Tensor:
    recorded, offsets = batch.tensors.get("noise"), batch.tensors.get("offsets")
    noise = rng.normal("noise", latents.shape[1:]) if recorded is None else recorded.float()
    if recorded is None and chosen.noise_offset > 0:
        offsets = rng.normal("noise offset", latents.shape[1:2])
    if offsets is not None:
        noise = offset_noise(noise, chosen.noise_offset, offsets)
    return noise.to(latents.device)


def _timesteps(batch: Batch, rng: BatchRng, count: int) -> torch.Tensor:
    recorded: torch.Tensor | None = batch.tensors.get("timesteps")
    return rng.integers("timesteps", 0, count) if recorded is None else recorded.long()


def _states(modules: dict[str, nn.Module], batch: Batch, chosen: StableDiffusionKnobs) -> torch.Tensor:
    if "states" in batch.tensors:
        states: torch.Tensor = batch.tensors["states"]
        return states
    return text_states(modules["text_encoder"], batch.tensors["input_ids"], chosen.clip_skip)


def _mask(batch: Batch, device: torch.device) -> torch.Tensor | None:
    """Weights whose mean is 1 for each item, so that a small mask does not make a small step."""
    mask: torch.Tensor | None = batch.tensors.get("mask")
    if mask is None:
        return None
    share = mask.flatten(1).mean(1).clamp_min(_LEAST_MASK)
    normalised: torch.Tensor = mask / share[:, None, None, None]
    return normalised.to(device)
