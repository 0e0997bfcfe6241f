"""Noise schedules against diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from tunesmith.numeric.noise import add_noise, alphas_cumprod, offset_noise, scaled_linear_betas, snr

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
ALPHA_BAR = alphas_cumprod(scaled_linear_betas(0.00085, 0.012, 1000))


def filled(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_schedule_is_that_of_diffusers_to_the_bit() -> None:
    assert torch.equal(scaled_linear_betas(0.00085, 0.012, 1000), SCHEDULER.betas)
    assert torch.equal(ALPHA_BAR, SCHEDULER.alphas_cumprod)


def test_adding_noise_is_that_of_diffusers_to_the_bit() -> None:
    x, noise, at = filled(3, 4, 5, 6), filled(3, 4, 5, 7)[..., :6], torch.tensor([0, 500, 999])
    assert torch.equal(add_noise(x, noise, ALPHA_BAR[at]), SCHEDULER.add_noise(x, noise, at))


def test_a_scalar_alpha_bar_serves_the_whole_batch() -> None:
    x, noise = filled(2, 3), filled(3, 2).T
    assert torch.equal(add_noise(x, noise, ALPHA_BAR[7]), add_noise(x, noise, ALPHA_BAR[[7, 7]]))


def test_snr_against_diffusers() -> None:
    at = torch.arange(0, 1000, 37)
    torch.testing.assert_close(snr(ALPHA_BAR[at]), compute_snr(SCHEDULER, at), rtol=1e-5, atol=0)


@pytest.mark.parametrize("strength", [0.0, 0.05, 1.0])
def test_offset_noise_shifts_each_channel(strength: float) -> None:
    noise, offsets = filled(2, 3, 4, 4), filled(2, 3)
    shifted = offset_noise(noise, strength, offsets)
    expected = (strength * offsets)[:, :, None, None].expand_as(noise)
    torch.testing.assert_close(shifted - noise, expected, atol=1e-6, rtol=0)
