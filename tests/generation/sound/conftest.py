"""Sounds whose every figure is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

RATE = 48_000
Sound = npt.NDArray[np.float32]


@pytest.fixture
def tone() -> Callable[..., Sound]:
    """tone(hz, level=0.5, seconds=1.0, rate=48000, gains=(1.0,)): a sine [channels, samples], one gain a channel."""

    def make(
        hz: float,
        level: float = 0.5,
        *,
        seconds: float = 1.0,
        rate: int = RATE,
        gains: tuple[float, ...] = (1.0,),
        phase: float = 0.0,
    ) -> Sound:
        line = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate + phase)
        return np.outer(gains, line).astype(np.float32)

    return make


@pytest.fixture
def strength() -> Callable[..., float]:
    """strength(line, hz, rate=48000): amplitude of the sine of that frequency in a line of whole periods."""

    def measure(line: npt.NDArray[np.float32], hz: float, rate: int = RATE) -> float:
        turns = np.exp(-2j * np.pi * hz * np.arange(len(line)) / rate)
        return float(2 * np.abs(np.mean(line.astype(np.float64) * turns)))

    return measure
