"""Loops: a sound whose end runs into its start, and how much of a click is left at the seam."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunesmith.generation.sound.samples import Samples, peak

# In the middle of a crossfade of two parts of equal power and correlation r, linear curves give (1 + r) / 2 of the
# power and equal-power ones 1 + r. In dB both are equally wrong where (1 + r)^2 = 2.
LINEAR_FROM = math.sqrt(2) - 1
_PERCENT = 99.0


@dataclass(frozen=True)
class Loop:
    """A loop [channels, samples], shorter than its source by the crossfade; `curve` is "linear" or "equal_power"."""

    samples: Samples
    crossfade_samples: int
    correlation: float
    curve: str


def make_loop(samples: Samples, rate: int, *, crossfade_seconds: float) -> Loop:
    """The sound's last part laid over its first, fading out while that fades in; played again and again it is seamless.

    The crossfade is at most half of the sound. Its curves are linear where both parts are alike (correlation of
    0.414 or more over all channels), else of equal power.
    """
    length = samples.shape[1]
    count = min(round(crossfade_seconds * rate), length // 2)
    if count == 0:
        return Loop(samples, 0, 0.0, "linear")
    head, tail = samples[:, :count], samples[:, length - count :]
    found = correlation(head, tail)
    curve = "linear" if found >= LINEAR_FROM else "equal_power"
    place = np.arange(count) / count  # 0 at the seam: the first sample is the one that followed the last
    inward, outward = (
        (place, 1 - place) if curve == "linear" else (np.sin(place * np.pi / 2), np.cos(place * np.pi / 2))
    )
    looped = samples[:, : length - count].copy()
    looped[:, :count] = head * inward.astype(np.float32) + tail * outward.astype(np.float32)
    return Loop(looped, count, found, curve)


def correlation(first: Samples, second: Samples) -> float:
    """Normalised inner product of two sounds of one shape, over all channels; 0 where one is silent."""
    one, two = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    power = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / power if power > 0 else 0.0


def loop_click(samples: Samples) -> float:
    """The jump from the last sample to the first over the 99th percentile of the sound's own steps.

    Steps are differences of neighbouring samples, of all channels together. About 1 or less: the seam is a step like
    others. Far above 1: a click. 0 for silence and for a single sample.
    """
    jump = float(np.abs(samples[:, 0] - samples[:, -1]).max())
    if jump == 0 or samples.shape[1] < 2:
        return 0.0
    steps = np.abs(np.diff(samples, axis=1))
    usual = float(np.percentile(steps, _PERCENT))
    return jump / (usual or peak(steps))
