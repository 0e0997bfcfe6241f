"""What sets a creature's throat in motion: pulses without aliasing, breath, and slow curves. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tunesmith.starters.voice_filters import INNER_RATE, Samples

CONTROL_STEP = 21  # samples between two values of a slow curve: 1050 Hz
CONTROL_RATE = INNER_RATE / CONTROL_STEP
_TAPS = 32
_PHASES = 256
_PULSE_EDGE = 0.42  # of the sample rate: pulses have nothing above


@dataclass(frozen=True)
class Throat:
    """Slow curves of one clip at the control rate [points]: frequency in Hz, loudness from 0, mouth from 0 to 1."""

    frequency: Samples
    loudness: Samples
    mouth: Samples
    samples: int


def generator(variation: int, purpose: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the two."""
    return np.random.Generator(np.random.PCG64([variation, purpose]))


def control_seconds(samples: int) -> Samples:
    """When the control points of a clip are, in seconds; the last is past its end."""
    return np.arange(samples // CONTROL_STEP + 2) / CONTROL_RATE


def at_samples(curve: Samples, samples: int) -> Samples:
    """A control curve at every sample."""
    at = np.arange(samples) / CONTROL_STEP
    return np.interp(at, np.arange(len(curve)), curve)


def wandering(points: int, rate_hz: float, source: np.random.Generator) -> Samples:
    """A smooth random curve of deviation 1 that changes about `rate_hz` times a second."""
    count = int(points / CONTROL_RATE * rate_hz) + 4
    knots = source.standard_normal(count)
    return np.interp(np.arange(points) / CONTROL_RATE * rate_hz, np.arange(count), knots)


def beating(points: int, rate_hz: float, depth: float, source: np.random.Generator) -> Samples:
    """A loudness curve that dips to 1 - depth about `rate_hz` times a second, never quite evenly."""
    rate = rate_hz * 2 ** (0.15 * wandering(points, 9.0, source))
    turn = np.cumsum(rate) / CONTROL_RATE + source.random()
    return 1 - depth * (0.5 + 0.5 * np.cos(2 * np.pi * turn))


def phase(frequency: Samples, samples: int) -> Samples:
    """Periods gone by at every sample, for a control curve in Hz."""
    return np.cumsum(at_samples(frequency, samples)) / INNER_RATE


@cache
def _pulse_shapes() -> Samples:
    """A band-limited impulse at _PHASES places between two samples [phase, tap]."""
    at = np.arange(_TAPS)[None] - _TAPS / 2 + 1 - np.arange(_PHASES)[:, None] / _PHASES
    window = np.where(np.abs(at) < _TAPS / 2, np.cos(np.pi * at / _TAPS) ** 2, 0.0)
    return 2 * _PULSE_EDGE * np.sinc(2 * _PULSE_EDGE * at) * window


def pulses(at: Samples, strengths: Samples, samples: int) -> Samples:
    """Impulses at any times [pulse], counted in samples, each of its strength; nothing above 0.42 of the rate aliases.

    Sums of windowed sinc functions (Stilson and Smith, 1996).
    """
    heard = (strengths != 0) & (at >= 0) & (at < samples)
    at, strengths = at[heard], strengths[heard]
    first = np.floor(at).astype(np.int64)
    shape = _pulse_shapes()[((at - first) * _PHASES).astype(np.int64)] * strengths[:, None]
    where = first[:, None] + np.arange(_TAPS)[None]
    total = np.bincount(where.ravel(), weights=shape.ravel(), minlength=samples + _TAPS)
    return np.asarray(total[_TAPS // 2 - 1 : _TAPS // 2 - 1 + samples], dtype=np.float64)


def pulse_times(turns: Samples, jitter: float, source: np.random.Generator) -> Samples:
    """When each period begins, in samples [pulse]; `jitter` is a deviation in shares of a period."""
    count = int(turns[-1])
    at = np.arange(1, count + 1) + jitter * np.clip(source.standard_normal(count), -2.5, 2.5)
    return np.interp(at, turns, np.arange(len(turns)))


def breath(samples: int, crackle: float, source: np.random.Generator) -> Samples:
    """White noise of power 1; with `crackle` it comes in bursts."""
    noise = source.standard_normal(samples)
    if crackle > 0:
        bursts = np.exp(crackle * 0.65 * wandering(samples // CONTROL_STEP + 2, 260.0, source))
        noise = noise * at_samples(bursts, samples)
        noise /= np.sqrt(np.mean(noise * noise))
    return noise


def on_curve(curve: Sequence[tuple[float, float]], at: NDArray[np.float64]) -> Samples:
    """A curve of the tables at any shares of its call or clip."""
    return np.interp(at, [place for place, _ in curve], [value for _, value in curve])
