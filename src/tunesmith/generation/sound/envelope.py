"""Levels and gains at a control rate of 2 kHz: one level for all channels, so that the image stays where it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import signal

from tunesmith.generation.sound.samples import Samples, blocks

Points: TypeAlias = npt.NDArray[np.float64]  # [points], one for each hop, at its centre

HOP_SECONDS = 0.0005
HOLD_SECONDS = 0.0125  # half a period of 40 Hz: low tones do not modulate their own gain


def hop_samples(rate: int) -> int:
    """Samples a point stands for."""
    return max(1, round(rate * HOP_SECONDS))


def points_in(seconds: float, rate: int) -> int:
    """Points that cover `seconds`."""
    return math.ceil(seconds * rate / hop_samples(rate))


def peaks(samples: Samples, rate: int) -> Points:
    """The largest absolute sample of all channels in each hop."""
    highest, lowest = (_each_hop(samples, rate, kind).max(axis=0) for kind in (np.maximum, np.minimum))
    return np.asarray(np.maximum(highest, lowest), dtype=np.float64)


def _each_hop(samples: Samples, rate: int, kind: np.ufunc) -> npt.NDArray[np.float32]:
    starts = np.arange(0, samples.shape[1], hop_samples(rate))
    found: npt.NDArray[np.float32] = kind.reduceat(samples, starts, axis=1)
    return found if kind is np.maximum else -found


def channel_levels(samples: Samples, rate: int, *, seconds: float) -> Points:
    """Root mean square of each channel [channels, points], smoothed by one pole of `seconds`."""
    hop = hop_samples(rate)
    starts = np.arange(0, samples.shape[1], hop)
    power = np.empty((samples.shape[0], len(starts)))
    for part in blocks(len(starts)):
        chunk = samples[:, part.start * hop : part.stop * hop].astype(np.float64)
        power[:, part] = np.add.reduceat(np.square(chunk), starts[part] - starts[part.start], axis=1)
    power /= np.diff(np.append(starts, samples.shape[1]))
    return np.sqrt(smooth(power, rate, seconds=seconds))


def held(levels: Points, rate: int) -> Points:
    """The largest level of the last 12.5 ms."""
    return window_extreme(levels, before=points_in(HOLD_SECONDS, rate), after=0, largest=True)


def window_extreme(levels: Points, *, before: int, after: int, largest: bool) -> Points:
    """The largest (or smallest) of the points from `before` before to `after` after each point."""
    padded = np.pad(levels, (before, after), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1)
    found = windows.max(axis=1) if largest else windows.min(axis=1)
    return np.asarray(found, dtype=np.float64)


def smooth(levels: Points, rate: int, *, seconds: float) -> Points:
    """One pole of this time constant over the last axis, from 0."""
    keep = _pole(seconds, rate)
    return np.asarray(signal.lfilter([1 - keep], [1, -keep], levels), dtype=np.float64)


def follow(levels: Points, rate: int, *, attack_seconds: float, release_seconds: float) -> Points:
    """One pole from 0 whose time constant is the attack's while levels rise and the release's while they fall."""
    rising, falling = _pole(attack_seconds, rate), _pole(release_seconds, rate)
    value = 0.0
    followed = np.empty_like(levels)
    for part in blocks(len(levels)):
        row = []
        for level in levels[part].tolist():
            value = level + (value - level) * (rising if level > value else falling)
            row.append(value)
        followed[part] = row
    return followed


def apply_gain(samples: Samples, rate: int, gains: Points) -> Samples:
    """Samples times the gains (factors), straight lines between the hops' centres; one gain for all channels."""
    changed = np.empty_like(samples)
    for part, row in stretched(gains, rate, samples.shape[1]):
        np.multiply(samples[:, part], row, out=changed[:, part])
    return changed


def stretched(points: Points, rate: int, length: int) -> Iterable[tuple[slice, npt.NDArray[np.float32]]]:
    """Points at the control rate as (slice, values) at the sample rate, block by block."""
    hop = hop_samples(rate)
    centres = np.minimum(np.arange(len(points)) * hop + (hop - 1) / 2, length - 1)
    for part in blocks(length):
        yield part, np.interp(np.arange(part.start, part.stop), centres, points).astype(np.float32)


def _pole(seconds: float, rate: int) -> float:
    return math.exp(-hop_samples(rate) / (rate * seconds)) if seconds > 0 else 0.0
