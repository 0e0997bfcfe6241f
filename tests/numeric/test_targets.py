"""Targets against diffusers, and round trips between them."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler

from tunesmith.numeric.noise import add_noise
from tunesmith.numeric.targets import noise_from_velocity, velocity, x_from_noise, x_from_velocity

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
AT = torch.tensor([1, 300, 800])
KEPT = SCHEDULER.alphas_cumprod[AT].double()
RNG = torch.Generator().manual_seed(3)
X = torch.randn(3, 4, 5, generator=RNG, dtype=torch.float64)
NOISE = torch.randn(3, 4, 5, generator=RNG, dtype=torch.float64)


def test_velocity_is_that_of_diffusers() -> None:
    torch.testing.assert_close(velocity(X, NOISE, KEPT), SCHEDULER.get_velocity(X, NOISE, AT), rtol=1e-6, atol=1e-6)


def test_round_trips() -> None:
    noisy, speed = add_noise(X, NOISE, KEPT), velocity(X, NOISE, KEPT)
    torch.testing.assert_close(x_from_noise(noisy, NOISE, KEPT), X)
    torch.testing.assert_close(x_from_velocity(noisy, speed, KEPT), X)
    torch.testing.assert_close(noise_from_velocity(noisy, speed, KEPT), NOISE)


def test_the_clean_x_is_that_of_diffusers() -> None:
    noisy = add_noise(X, NOISE, KEPT)
    for row, at in enumerate(AT.tolist()):
        step = SCHEDULER.step(NOISE[row : row + 1], at, noisy[row : row + 1])
        mine = x_from_noise(noisy, NOISE, KEPT)[row : row + 1]
        torch.testing.assert_close(mine.clamp(-1, 1), step.pred_original_sample, rtol=1e-5, atol=1e-5)
