"""Filters of creature voices: formants, edges of the spectrum, ends without clicks, other sample rates. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, resample_poly, sosfilt

Samples = NDArray[np.float64]

INNER_RATE = 22_050  # everything is made at this rate, so that another rate is the same sound
SPEED_OF_SOUND = 350.0  # in warm, moist air, m/s
_FADE_SECONDS = (0.004, 0.012)


def power(samples: Samples) -> float:
    """Root mean square, never 0."""
    return math.sqrt(float(np.mean(samples * samples))) + 1e-12


def resonances_hz(tract_metres: float, count: int = 5) -> list[float]:
    """The first resonances of a uniform tube closed at one end: (2 n - 1) c / 4 L (Fant, 1960)."""
    return [(2 * number - 1) * SPEED_OF_SOUND / (4 * tract_metres) for number in range(1, count + 1)]


def resonator(samples: Samples, centre_hz: float, width_hz: float) -> Samples:
    """A band around `centre_hz`, its gain 1 there and 0 at 0 Hz (constant peak gain; Steiglitz, 1994)."""
    radius = math.exp(-math.pi * width_hz / INNER_RATE)
    turn = 2 * math.pi * centre_hz / INNER_RATE
    gain = (1 - radius * radius) / 2
    feed, back = [gain, 0.0, -gain], [1.0, -2 * radius * math.cos(turn), radius * radius]
    return np.asarray(lfilter(feed, back, samples))


def formants(samples: Samples, centres_hz: Sequence[float], amplitudes: Sequence[float]) -> Samples:
    """A mouth: resonators side by side. Those near or above half the sample rate are left out."""
    total = np.zeros_like(samples)
    for number, (centre, amplitude) in enumerate(zip(centres_hz, amplitudes, strict=True)):
        if centre < 0.43 * INNER_RATE:
            # Signs alternate, else neighbours cancel between their centres.
            sign = 1.0 if number % 2 == 0 else -1.0
            total += sign * amplitude * resonator(samples, centre, 50.0 + 0.09 * centre)
    return total


def falling(samples: Samples, edge_hz: float) -> Samples:
    """A spectrum that falls by 12 dB an octave above the edge: two one-pole filters."""
    pole = math.exp(-2 * math.pi * edge_hz / INNER_RATE)
    return np.asarray(lfilter([(1 - pole) ** 2], [1.0, -2 * pole, pole * pole], samples))


def slope(samples: Samples) -> Samples:
    """The difference of neighbouring samples: what a mouth radiates of a flow, 6 dB more per octave."""
    found: Samples = np.diff(samples, prepend=0.0)
    return found


@cache
def _band(limit_hz: float) -> Samples:
    low = butter(1, 45.0, "highpass", fs=INNER_RATE, output="sos")
    high = butter(4, min(limit_hz, 0.45 * INNER_RATE), "lowpass", fs=INNER_RATE, output="sos")
    return np.concatenate([low, high])


def band_limited(samples: Samples, limit_hz: float) -> Samples:
    """Without what lies far above the limit, and without rumble below 45 Hz."""
    return np.asarray(sosfilt(_band(limit_hz), samples))


def finished(samples: Samples, peak_db: float, rate: int) -> NDArray[np.float32]:
    """The clip [channels=1, samples] at `rate`: faded ends, no constant part, its peak at `peak_db` dBFS.

    The peak is that at the inner rate; between samples it may be a little higher.
    """
    window = np.ones(len(samples))
    fades = [min(len(samples) // 2, int(seconds * INNER_RATE)) for seconds in _FADE_SECONDS]
    window[: fades[0]] = np.sin(np.linspace(0, np.pi / 2, fades[0])) ** 2
    window[len(window) - fades[1] :] = np.cos(np.linspace(0, np.pi / 2, fades[1])) ** 2
    faded = samples * window
    faded -= window * (faded.sum() / window.sum())
    loudest = float(np.abs(faded).max())
    if loudest > 0:
        faded *= 10 ** (peak_db / 20) / loudest
    return at_rate(faded, rate)[None].astype(np.float32)


def at_rate(samples: Samples, rate: int, *, of_rate: int = INNER_RATE) -> Samples:
    """The same sound [samples] at another sample rate; its length is rounded to the nearest sample."""
    if rate == of_rate:
        return samples
    common = math.gcd(rate, of_rate)
    found = np.asarray(resample_poly(samples, rate // common, of_rate // common))
    count = round(len(samples) * rate / of_rate)
    return np.pad(found, (0, max(0, count - len(found))))[:count]
