"""What a network may be asked to predict, and how one answer turns into another.

With a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar): noisy = a x + s noise, velocity = a noise - s x
(Salimans & Ho, 2022, arXiv 2202.00512, appendix D). All tensors [batch, ...]; `alpha_bar` a scalar or [batch].
"""

from __future__ import annotations

import torch

from tunesmith.numeric.noise import stretched


def _signal_and_noise(alpha_bar: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kept = stretched(alpha_bar, like)
    return kept.sqrt(), (1.0 - kept).sqrt()


def velocity(x: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The velocity that leads from `noise` to `x`."""
    a, s = _signal_and_noise(alpha_bar, x)
    return a * noise - s * x


def x_from_noise(noisy: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The clean x that `noisy` holds if `noise` was added to it."""
    a, s = _signal_and_noise(alpha_bar, noisy)
    return (noisy - s * noise) / a


def x_from_velocity(noisy: torch.Tensor, velocity: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The clean x that `noisy` holds if its velocity is `velocity`."""
    a, s = _signal_and_noise(alpha_bar, noisy)
    return a * noisy - s * velocity


def noise_from_velocity(noisy: torch.Tensor, velocity: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The noise that `noisy` holds if its velocity is `velocity`."""
    a, s = _signal_and_noise(alpha_bar, noisy)
    return a * velocity + s * noisy
