"""Noise schedules of diffusion models and how noise is added.

`alpha_bar` is the share of signal variance left, the running product of 1 - beta (DDPM, Ho et al., 2020,
arXiv 2006.11239, equation 4). Functions take it as a scalar or as [batch] and stretch it over the axes of `x`.
"""

from __future__ import annotations

import math

import torch


def scaled_linear_betas(low: float, high: float, steps: int) -> torch.Tensor:
    """Betas [steps] float32 whose square roots are evenly spaced (latent diffusion, `scaled_linear` in diffusers)."""
    return torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float32) ** 2


def alphas_cumprod(betas: torch.Tensor) -> torch.Tensor:
    """alpha_bar [steps]: the share of signal variance left after each step."""
    return torch.cumprod(1.0 - betas, dim=0)


def stretched(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A scalar or [batch] as [batch, 1, ...] on the device and in the dtype of `like` [batch, ...]."""
    values = values.to(device=like.device, dtype=like.dtype)
    return values.reshape(values.shape + (1,) * (like.dim() - values.dim())) if values.dim() else values


def add_noise(x: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise, [batch, ...] (DDPM, equation 4)."""
    kept = stretched(alpha_bar, x)
    return kept.sqrt() * x + (1.0 - kept).sqrt() * noise


def snr(alpha_bar: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), in the shape of `alpha_bar`."""
    return alpha_bar / (1.0 - alpha_bar)


def offset_noise(noise: torch.Tensor, strength: float, offsets: torch.Tensor) -> torch.Tensor:
    """Noise [batch, channels, ...] plus `strength` times one number per channel, `offsets` [batch, channels].

    Lets a model learn very dark and very bright pictures (Guttenberg, "Diffusion with offset noise", 2023).
    """
    return noise + strength * stretched(offsets, noise)


def cosine_angles(times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(signal, noise) shares cos(pi t / 2), sin(pi t / 2) of the cosine schedule at times in 0 to 1, in their shape.

    From the angle itself: as square roots of alpha_bar the smaller one would lose half its digits near the ends.
    """
    angles = times * (math.pi / 2)
    return torch.cos(angles), torch.sin(angles)
