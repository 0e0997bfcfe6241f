"""Samplers against the exact solution for normally distributed data, whose best denoiser is known."""

from __future__ import annotations

import math

import pytest
import torch

from tunesmith.numeric.samplers import SAMPLERS, exponential_levels

SPREAD = 0.7  # standard deviation of the data


def best_guess(noisy: torch.Tensor, level: float) -> torch.Tensor:
    """E[x | noisy] for x ~ N(0, SPREAD^2)."""
    return noisy * SPREAD**2 / (SPREAD**2 + level**2)


def run(name: str, x: torch.Tensor, levels: tuple[float, ...], seed: int = 0) -> torch.Tensor:
    *_, (steps, last) = SAMPLERS[name](best_guess, x, levels, seed=seed)
    assert steps == len(levels) - 1
    return last


def exact(x: torch.Tensor, highest: float, lowest: float) -> torch.Tensor:
    """The probability flow from `highest` to `lowest`, then the last step, which is the guess itself."""
    at = x * math.sqrt((SPREAD**2 + lowest**2) / (SPREAD**2 + highest**2))
    return best_guess(at, lowest)


@pytest.mark.parametrize(("name", "error"), [("euler", 0.06), ("heun", 1e-3), ("dpmpp_2m", 2e-3)])
def test_deterministic_samplers_follow_the_flow(name: str, error: float) -> None:
    x = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64) * 80
    found = run(name, x, exponential_levels(0.02, 80.0, 100))
    wanted = exact(x, 80.0, 0.02)
    assert float(((found - wanted) / wanted).abs().max()) < error


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    x = torch.tensor([1.0], dtype=torch.float64) * 20

    def error(steps: int) -> float:
        return float((run(name, x, exponential_levels(0.05, 20.0, steps)) - exact(x, 20.0, 0.05)).abs())

    assert math.log2(error(80) / error(160)) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(("name", "steps"), [("euler_a", 400), ("dpmpp_3m_sde", 60)])
def test_stochastic_samplers_draw_the_data(name: str, steps: int) -> None:
    levels = exponential_levels(0.02, 80.0, steps)
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * math.hypot(80.0, SPREAD)
    found = run(name, x, levels)
    assert float(found.std()) == pytest.approx(SPREAD, rel=0.04)
    assert abs(float(found.mean())) < 0.02


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_seed_same_sound(name: str) -> None:
    levels = exponential_levels(0.3, 500.0, 7)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)) * 500
    assert torch.equal(run(name, x, levels, seed=4), run(name, x, levels, seed=4))
    other = run(name, x, levels, seed=5)
    assert torch.equal(run(name, x, levels, seed=4), other) == (name in ("euler", "heun", "dpmpp_2m"))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(name: str, steps: int) -> None:
    found = run(name, torch.tensor([5.0]), exponential_levels(0.3, 500.0, steps))
    assert torch.isfinite(found).all()


def test_levels_are_those_of_the_published_schedule() -> None:
    from diffusers import CosineDPMSolverMultistepScheduler

    scheduler = CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500)
    scheduler.set_timesteps(20)
    torch.testing.assert_close(
        torch.tensor(exponential_levels(0.3, 500.0, 20)), scheduler.sigmas.float(), rtol=1e-5, atol=0
    )
