"""Layers of seeded noise: a grain texture that follows the sound, and a steady bed beneath it.

The same noise for all channels, scaled by each channel's own level: a hard-panned sound gets a hard-panned layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

from tunesmith.generation.sound.convolution import convolve
from tunesmith.generation.sound.envelope import channel_levels, stretched
from tunesmith.generation.sound.filters import corners, zero_phase
from tunesmith.generation.sound.samples import (
    Facts,
    Samples,
    amplitude,
    decibels,
    is_silent,
    mean_square,
    random_stream,
)

# Kind of texture -> the band its grains keep, in Hz.
TEXTURES: Mapping[str, tuple[float, float]] = {
    "chitter": (1600.0, 9000.0),
    "rasp": (350.0, 4200.0),
    "buzz": (500.0, 2200.0),
    "screech": (2200.0, 14000.0),
}
_LEVEL_SECONDS = 0.020
# -3 dB an octave within 0.05 dB or so (J. O. Smith, Spectral Audio Signal Processing, "Synthesis of 1/F noise").
_PINK = ([0.049922035, -0.095993537, 0.050612699, -0.004408786], [1, -2.494956002, 2.017265875, -0.522189400])


@dataclass(frozen=True)
class Grains:
    """A texture: its kind, its level against the sound's own (1: as loud), and the grains' length and irregularity."""

    kind: str
    amount: float
    seconds: float
    spray: float


def add_texture(samples: Samples, rate: int, *, grains: Grains, seed: int) -> tuple[Samples, Facts]:
    """Add noise cut into Hann grains and band-limited, as loud as `amount` times the sound's level of the last 20 ms.

    Grains come one a grain length; with spray s each is moved by up to s lengths and made softer by up to 80 % of s.
    """
    low_hz, high_hz = TEXTURES[grains.kind]
    stream = random_stream(seed, "texture")
    noise = _grain_shape(samples.shape[1], rate, grains, stream)
    noise *= stream.standard_normal(noise.shape, dtype=np.float32)
    noise = _unit(zero_phase(noise, corners(rate, highpass_hz=low_hz, lowpass_hz=high_hz)))
    levels = channel_levels(samples, rate, seconds=_LEVEL_SECONDS)
    layered = samples.copy()
    for channel, level in zip(layered, levels, strict=True):
        for part, row in stretched(level * grains.amount, rate, len(channel)):
            channel[part] += row * noise[0, part]
    return layered, {"kind": grains.kind, "against_sound_db": decibels(grains.amount)}


def _grain_shape(length: int, rate: int, grains: Grains, stream: np.random.Generator) -> Samples:
    """[1, length]: the sum of all grains' windows."""
    size = max(2, round(rate * grains.seconds))
    starts = np.arange(0, length, size, dtype=np.float64)
    starts += stream.uniform(-1, 1, len(starts)) * grains.spray * size
    places = np.clip(np.round(starts), 0, length - 1).astype(np.int64)
    train = np.zeros((1, length), dtype=np.float32)
    np.add.at(train[0], places, stream.uniform(1 - 0.8 * grains.spray, 1, len(places)).astype(np.float32))
    window: npt.NDArray[np.float32] = signal.windows.hann(size + 1, sym=False)[1:].astype(np.float32)
    return convolve(train, window)[:, :length]


def add_noise_bed(samples: Samples, *, level_db: float, colour: str, seed: int) -> tuple[Samples, Facts]:
    """Add steady noise `level_db` against each channel's own RMS; pink noise loses 3 dB an octave."""
    if is_silent(samples):
        return samples, {"skipped": "silence"}
    noise: Samples = random_stream(seed, "noise bed").standard_normal((1, samples.shape[1]), dtype=np.float32)
    if colour == "pink":
        noise = signal.lfilter(*_PINK, noise).astype(np.float32)
    noise = _unit(noise)
    layered = samples.copy()
    for index in range(len(samples)):
        level = math.sqrt(mean_square(samples[index : index + 1])) * amplitude(level_db)
        layered[index] += np.float32(level) * noise[0]
    return layered, {"colour": colour, "against_sound_db": level_db}


def _unit(noise: Samples) -> Samples:
    level = math.sqrt(mean_square(noise))
    return noise / np.float32(level) if level > 0 else noise
