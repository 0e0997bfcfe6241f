"""Sounds that no creature makes: noises, tones, sweeps, clicks, bells, textures. No torch.

The sound starter's autoencoder hears them beside the voices, so that it can say what a new family brings.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.starters.voice_filters import INNER_RATE, Samples, band_limited, falling, finished, power, resonator
from tunesmith.starters.voice_sources import (
    CONTROL_STEP,
    at_samples,
    generator,
    phase,
    pulse_times,
    pulses,
    wandering,
)

SECONDS = (0.05, 60.0)
_QUIETEST_DB, _LOUDEST_DB = -18.0, -1.0


def random_noise_sound(rng: random.Random, seconds: float, rate: int = INNER_RATE) -> NDArray[np.float32]:
    """One sound [channels=1, samples] at `rate` Hz, of one to three layers, within -1 to 1.

    Raises DataError: a length outside SECONDS.
    """
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise DataError(f"no sound lasts {seconds} seconds", expected=f"{SECONDS[0]} to {SECONDS[1]}")
    samples = round(seconds * INNER_RATE)
    total = np.zeros(samples)
    for _ in range(1 + int(rng.random() * 3)):
        layer = _LAYERS[int(rng.random() * len(_LAYERS))](samples, rng) * _course(samples, rng)
        # Peaks count too, else a lone click drowns what goes on beside it.
        total += layer / (power(layer) + 0.2 * np.abs(layer).max()) * 10 ** (-rng.random())
    limit_hz = _between(rng, 2500.0, 9900.0)
    return finished(band_limited(total, limit_hz), _QUIETEST_DB + (_LOUDEST_DB - _QUIETEST_DB) * rng.random(), rate)


def _between(rng: random.Random, low: float, high: float) -> float:
    """A number between two, even in octaves."""
    return float(low * (high / low) ** rng.random())


def _source(rng: random.Random) -> np.random.Generator:
    return generator(int(rng.random() * 2**32), 5)


def _course(samples: int, rng: random.Random) -> Samples:
    """A loudness [samples]: a swell, a decay, beats, or bursts."""
    seconds = np.arange(samples) / INNER_RATE
    kind = int(rng.random() * 4)
    if kind == 0:
        return np.asarray(np.sin(np.pi * np.arange(samples) / samples) ** _between(rng, 0.2, 3.0))
    if kind == 1:
        return np.exp(-seconds * _between(rng, 1.0, 15.0))
    turns = seconds * _between(rng, 1.0, 60.0) + rng.random()
    if kind == 2:
        return np.asarray(1 - 0.9 * rng.random() * np.sin(np.pi * turns) ** 2)
    share = 0.2 + 0.7 * rng.random()
    return np.asarray(np.sin(np.pi * np.minimum(turns % 1.0 / share, 1.0)))


def _noise(samples: int, rng: random.Random) -> Samples:
    """Noise of any colour."""
    noise = _source(rng).standard_normal(samples)
    return falling(noise, _between(rng, 60.0, 9000.0)) if rng.random() < 0.6 else np.diff(noise, prepend=0.0)


def _texture(samples: int, rng: random.Random) -> Samples:
    """Noise in bands, each with a loudness that wanders."""
    total, source = np.zeros(samples), _source(rng)
    noise = source.standard_normal(samples)
    for _ in range(1 + int(rng.random() * 4)):
        centre = _between(rng, 120.0, 8000.0)
        band = resonator(noise, centre, centre * _between(rng, 0.02, 0.6))
        moving = np.exp(wandering(samples // CONTROL_STEP + 2, _between(rng, 2.0, 40.0), source))
        total += band / power(band) * at_samples(moving, samples)
    return total


def _sweep(samples: int, rng: random.Random) -> Samples:
    """A tone that goes from one frequency to another, straight or swinging."""
    share = np.arange(samples // CONTROL_STEP + 2) / (samples / CONTROL_STEP)
    octaves = (4 * rng.random() - 2) * share
    octaves += 0.5 * rng.random() * np.sin(2 * np.pi * share * samples / INNER_RATE * _between(rng, 0.5, 12.0))
    return np.sin(2 * np.pi * phase(np.clip(_between(rng, 200.0, 4000.0) * 2**octaves, 50.0, 9000.0), samples))


def _tone(samples: int, rng: random.Random) -> Samples:
    """Pulses of a wandering pitch, through some resonances."""
    source = _source(rng)
    points = samples // CONTROL_STEP + 2
    hertz = _between(rng, 40.0, 3500.0) * 2 ** (
        0.3 * rng.random() * wandering(points, _between(rng, 1.0, 20.0), source)
    )
    at = pulse_times(phase(hertz, samples), 0.05 * rng.random() ** 3, source)
    tone = np.diff(falling(pulses(at, np.ones(len(at)), samples), _between(rng, 100.0, 6000.0)), prepend=0.0)
    for _ in range(int(rng.random() * 4)):
        centre = _between(rng, 150.0, 7000.0)
        tone = tone + 3 * rng.random() * resonator(tone, centre, centre * _between(rng, 0.03, 0.4))
    return tone


def _clicks(samples: int, rng: random.Random) -> Samples:
    """Clicks at any times, dull or bright, some of them ringing."""
    source = _source(rng)
    count = 1 + int(samples / INNER_RATE * _between(rng, 4.0, 120.0))
    struck = pulses(source.random(count) * samples, source.standard_normal(count), samples)
    centre = _between(rng, 200.0, 7000.0)
    return falling(struck, _between(rng, 500.0, 9000.0)) + resonator(struck, centre, centre * _between(rng, 0.01, 0.5))


def _bells(samples: int, rng: random.Random) -> Samples:
    """Struck bars and bells: partials at any ratios that die away, the high ones first."""
    total = np.zeros(samples)
    seconds = np.arange(samples) / INNER_RATE
    for _ in range(1 + int(rng.random() * 3)):
        begin = int(rng.random() * 0.7 * samples)
        since = seconds[: samples - begin]
        lowest, decay = _between(rng, 120.0, 1500.0), _between(rng, 2.0, 20.0)
        for number in range(2 + int(rng.random() * 5)):
            hertz = min(lowest * (1 + number * (0.3 + 1.4 * rng.random())), 9000.0)
            wave = np.sin(2 * np.pi * (hertz * since + rng.random())) * np.exp(-since * decay * (1 + 0.5 * number))
            # A strike takes a moment, else it clicks.
            total[begin:] += wave * np.minimum(since / 0.002, 1.0) / (1 + number * rng.random())
    return total


_LAYERS: tuple[Callable[[int, random.Random], Samples], ...] = (_noise, _texture, _sweep, _tone, _clicks, _bells)
