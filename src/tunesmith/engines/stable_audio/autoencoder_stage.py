"""The autoencoder's objective: the sound back as its spectra have it, and latents near a standard normal.

Multi-resolution STFT loss (Yamamoto et al., 2020, arXiv 1910.11480, equations 4 to 6) over mid and side of stereo, a
distance of the samples themselves for the phase, and the KL of a Gaussian posterior. No discriminator: it would be a
second model to train, and sounds of a starter's size do without.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tunesmith.engines.protocol import Batch, Loss, Model
from tunesmith.engines.stable_audio.choices import knobs
from tunesmith.numeric.losses import weighted_mean
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.schema import Recipe

# Window lengths in samples; hops are a quarter of them.
RESOLUTIONS = (2048, 1024, 512, 256, 128, 64)
_FLOOR = 1e-4  # magnitudes below count as silence: -80 dB under full scale


def autoencoder_loss(model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
    """Weighted mean over items of spectra, samples, KL (mean per latent number) and log^2 of the latents' size."""
    chosen, module = knobs(recipe), model.components["autoencoder"]
    device = next(module.parameters()).device
    sounds = _padded(to_unit(batch.tensors["samples"]).to(device), module)
    posterior = module.encode(sounds).latent_dist  # type: ignore[operator]
    mean, std = posterior.mean.float(), posterior.std.float()
    noise = batch.tensors.get("noise")
    if noise is None:
        noise = rng.normal("latents", mean.shape[1:])
    latents = mean + std * noise.to(mean)
    rebuilt = module.decode(latents.to(posterior.mean.dtype)).sample.float()  # type: ignore[operator]
    spectra = spectral_distances(rebuilt, sounds)
    samples = F.l1_loss(rebuilt, sounds, reduction="none").flatten(1).mean(1)
    kl = 0.5 * (mean.square() + std.square() - 1.0 - 2.0 * std.log()).flatten(1).mean(1)
    # The noise schedule expects latents of unit size, and a weak KL leaves them at two or three.
    scale = (mean.square() + std.square()).flatten(1).mean(1).log().square()
    per_item = spectra + chosen.waveform_weight * samples + chosen.kl_weight * kl + chosen.scale_weight * scale
    named = {
        "spectra": spectra.mean().detach(),
        "samples": samples.mean().detach(),
        "kl": kl.mean().detach(),
        "latent_std": latents.detach().std(),
    }
    return Loss(weighted_mean(per_item, batch.weights.to(device)), per_item.detach(), named)


def to_unit(samples: torch.Tensor) -> torch.Tensor:
    """int16 samples as float32 in -1 to 1."""
    return samples.float() / 32767.0


def _padded(sounds: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    """Zeros behind, up to whole latent frames, without which the tail would be lost."""
    hop = int(module.hop_length)  # type: ignore[arg-type]
    return F.pad(sounds, (0, -sounds.shape[-1] % hop))


def spectral_distances(rebuilt: torch.Tensor, sounds: torch.Tensor) -> torch.Tensor:
    """Convergence plus log-magnitude distance [batch], mean over resolutions, of [batch, channels, samples]."""
    one, other = _mid_side(rebuilt), _mid_side(sounds)
    found = torch.zeros(len(sounds), device=sounds.device)
    lengths = [length for length in RESOLUTIONS if length <= sounds.shape[-1]]
    for length in lengths:
        a, b = _magnitudes(one, length), _magnitudes(other, length)
        size = b.flatten(1).norm(dim=1).clamp_min(_FLOOR * length**0.5)
        convergence = (b - a).flatten(1).norm(dim=1) / size
        logs = (b.clamp_min(_FLOOR).log() - a.clamp_min(_FLOOR).log()).abs().flatten(1).mean(1)
        found = found + convergence + logs
    return found / max(1, len(lengths))


def _mid_side(sounds: torch.Tensor) -> torch.Tensor:
    """Sum and difference of two channels, which is how stereo errors are heard; one channel stays."""
    if sounds.shape[1] != 2:
        return sounds
    left, right = sounds.unbind(1)
    return torch.stack([(left + right) / 2, (left - right) / 2], dim=1)


def _magnitudes(sounds: torch.Tensor, length: int) -> torch.Tensor:
    """|STFT| [batch, channels * bins, frames] with a Hann window, scaled so that full scale is about 1."""
    flat = sounds.flatten(0, 1)
    window = torch.hann_window(length, device=sounds.device)
    spectrum = torch.stft(flat, length, length // 4, window=window, return_complex=True, center=True)
    # Smooth at zero, where the absolute value has no gradient.
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() * (2.0 / length)
    return magnitude.reshape(len(sounds), -1, magnitude.shape[-1])


@torch.no_grad()
def spectral_distance(model: Model, batch: Batch, recipe: Recipe) -> float:
    """Spectral distance of sounds rebuilt from their mean latents; lower is better."""
    del recipe
    module = model.components["autoencoder"]
    weight = next(module.parameters())
    sounds = _padded(to_unit(batch.tensors["samples"]).to(weight.device), module)
    latents = module.encode(sounds.to(weight.dtype)).latent_dist.mean  # type: ignore[operator]
    rebuilt = module.decode(latents).sample.float()  # type: ignore[operator]
    return float(spectral_distances(rebuilt, sounds).mean())
