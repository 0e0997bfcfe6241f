"""Samplers over a denoiser of latents with variance-exploding noise: x + level * noise at falling levels.

`clean(noisy, level)` is the denoiser's guess of the clean x [batch, ...]. Every sampler is an iterator of
(steps done, latents); its last latents are at level 0. In log-levels, with h = log(level) - log(next level):
Karras et al., 2022, arXiv 2206.00364 (Euler, Heun); Lu et al., 2022, arXiv 2211.01095 (DPM-Solver++, SDE form).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch

from tunesmith.numeric.rng import generator

Clean = Callable[[torch.Tensor, float], torch.Tensor]
Steps = Iterator[tuple[int, torch.Tensor]]


class LevelSampler(Protocol):
    """One way from noise to a clean x."""

    def __call__(self, clean: Clean, x: torch.Tensor, levels: Sequence[float], *, seed: int) -> Steps:
        """(steps done, latents) after every step; `x` is at levels[0], `levels` [steps + 1] end in 0."""
        ...


def exponential_levels(lowest: float, highest: float, steps: int) -> tuple[float, ...]:
    """Levels evenly spaced in their logarithm from `highest` down to `lowest`, and 0 behind them: [steps + 1]."""
    if steps == 1:
        return (highest, 0.0)
    low, high = math.log(lowest), math.log(highest)
    return (*(math.exp(high + (low - high) * index / (steps - 1)) for index in range(steps)), 0.0)


def _euler(clean: Clean, x: torch.Tensor, levels: Sequence[float], *, seed: int) -> Steps:
    del seed
    for step, (level, after) in enumerate(itertools.pairwise(levels), start=1):
        slope = (x - clean(x, level)) / level
        x = x + slope * (after - level)
        yield step, x


def _heun(clean: Clean, x: torch.Tensor, levels: Sequence[float], *, seed: int) -> Steps:
    del seed
    for step, (level, after) in enumerate(itertools.pairwise(levels), start=1):
        slope = (x - clean(x, level)) / level
        ahead = x + slope * (after - level)
        if after > 0:
            there = (ahead - clean(ahead, after)) / after
            ahead = x + 0.5 * (slope + there) * (after - level)
        x = ahead
        yield step, x


def _euler_ancestral(clean: Clean, x: torch.Tensor, levels: Sequence[float], *, seed: int) -> Steps:
    """Each step goes below the next level and is brought back by fresh noise, so that the variance is right."""
    for step, (level, after) in enumerate(itertools.pairwise(levels), start=1):
        fresh = min(after, after * math.sqrt(max(0.0, level**2 - after**2)) / level)
        below = math.sqrt(after**2 - fresh**2)
        x = x + (x - clean(x, level)) / level * (below - level)
        if fresh > 0:
            x = x + fresh * _noise(x, seed, step)
        yield step, x


def _dpmpp_2m(clean: Clean, x: torch.Tensor, levels: Sequence[float], *, seed: int) -> Steps:
    """DPM-Solver++(2M), algorithm 2: an Adams-Bashforth step in the clean guess."""
    del seed
    guesses: list[torch.Tensor] = []
    for step, (level, after) in enumerate(itertools.pairwise(levels), start=1):
        guesses = [*guesses[-1:], clean(x, level)]
        if after == 0:
            x = guesses[-1]
        else:
            h = math.log(level / after)
            target = guesses[-1]
            if len(guesses) > 1:
                ratio = math.log(levels[step - 2] / level) / h
                target = target + (guesses[-1] - guesses[-2]) / (2 * ratio)
            x = (after / level) * x - math.expm1(-h) * target
        yield step, x


def _dpmpp_3m_sde(clean: Clean, x: torch.Tensor, levels: Sequence[float], *, seed: int) -> Steps:
    """SDE-DPM-Solver++ with a polynomial through three clean guesses.

    The stochastic equation decays twice as fast as the deterministic one, so 2h stands where h did; the polynomial is
    integrated exactly against the decay (phi functions of exponential integrators).
    """
    guesses: list[torch.Tensor] = []
    for step, (level, after) in enumerate(itertools.pairwise(levels), start=1):
        guesses = [*guesses[-2:], clean(x, level)]
        if after == 0:
            x = guesses[-1]
        else:
            h = math.log(level / after)
            decay = 2 * h
            x = math.exp(-decay) * x - math.expm1(-decay) * guesses[-1]
            if len(guesses) > 1:
                phi_2 = math.expm1(-decay) / decay + 1
                before = math.log(levels[step - 2] / level) / h
                first = (guesses[-1] - guesses[-2]) / before
                if len(guesses) > 2:
                    phi_3 = phi_2 / decay - 0.5
                    earlier = math.log(levels[step - 3] / levels[step - 2]) / h
                    other = (guesses[-2] - guesses[-3]) / earlier
                    bend = (first - other) / (before + earlier)
                    x = x + phi_2 * (first + bend * before) - phi_3 * bend
                else:
                    x = x + phi_2 * first
            x = x + after * math.sqrt(-math.expm1(-2 * h)) * _noise(x, seed, step)
        yield step, x


def _noise(like: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Standard normal numbers that depend on seed and step alone, drawn on the CPU so that devices agree."""
    return torch.randn(like.shape, generator=generator(seed, step, "sampler")).to(like)


SAMPLERS: Mapping[str, LevelSampler] = {
    "euler": _euler,
    "heun": _heun,
    "euler_a": _euler_ancestral,
    "dpmpp_2m": _dpmpp_2m,
    "dpmpp_3m_sde": _dpmpp_3m_sde,
}
