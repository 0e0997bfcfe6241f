"""Looks for the features of creature families in a sound, each where its family has it. No torch.

A score is how much stands out where the feature should be, over what is beside it in time or frequency; 1 is where
it counts as found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.ndimage import uniform_filter1d

from tunesmith.starters.voice_families import (
    BUBBLE_SHARE,
    METAL_PARTIALS,
    Family,
    bubble_hz,
    pipe_seconds,
    siren_hz,
)
from tunesmith.starters.voice_filters import INNER_RATE, Samples
from tunesmith.starters.voice_measures import spectrogram

_PHASES = 24  # where in its cycle a siren or a row of drops may begin
_STEP = 128
# What a score of 1 is, in each detector's own unit: dB for the first three, nepers, share of the power.
_FOUND: Mapping[str, float] = {"metal": 6.5, "siren": 3.2, "bubbles": 5.0, "pipe": 0.8, "ring": 0.33}


def feature_scores(sound: Samples, family: Family) -> dict[str, float]:
    """How clearly a sound [samples] at the inner rate has each of a family's features, by name; from 1 it has it."""
    # A ring moves every tone by its own frequency, up and down.
    rings = [feature.setting for feature in family.features if feature.name == "ring"]
    shifts = [sign * ring for ring in rings for sign in (-1.0, 1.0)] or [0.0]
    return {
        feature.name: _DETECTORS[feature.name](sound, feature.setting, shifts) / _FOUND[feature.name]
        for feature in family.features
    }


def _metal(sound: Samples, setting: float, shifts: Sequence[float]) -> float:
    """dB by which the partials stand out of what is 25 to 90 Hz away, but for the quarter that do so least."""
    window = 4096
    mean = spectrogram(sound, window=window, step=1024, bins=window).mean(axis=0)
    level_db = 10 * np.log10(mean + 1e-9 * mean.max())
    width = INNER_RATE / window
    found = []
    for ratio, _ in METAL_PARTIALS:
        for shift in shifts:
            place = abs(setting * ratio + shift) / width
            near = round(place)
            if near >= 18:  # lower, there is nothing to compare with
                peak = level_db[int(place - 1.5) : int(place + 2.5) + 1].max()
                beside = np.concatenate([level_db[near - 16 : near - 5], level_db[near + 6 : near + 17]])
                found.append(float(np.clip(peak - np.median(beside), -5.0, 20.0)))
    return float(np.mean(sorted(found)[len(found) // 4 :]))


def _siren(sound: Samples, setting: float, shifts: Sequence[float]) -> float:
    return _traced(sound, setting, shifts, siren_hz)


def _bubbles(sound: Samples, setting: float, shifts: Sequence[float]) -> float:
    return _traced(sound, setting, shifts, bubble_hz, share=(0.13 * BUBBLE_SHARE, 0.87 * BUBBLE_SHARE))


def _traced(
    sound: Samples,
    setting: float,
    shifts: Sequence[float],
    trace: Callable[[float, Samples], Samples],
    *,
    share: tuple[float, float] = (0.0, 1.0),
) -> float:
    """dB by which the best of the traces stands out of all that begin elsewhere in the cycle.

    What stays in its place is on every trace alike and cancels.
    """
    window = 512
    power = spectrogram(sound, window=window, step=_STEP, bins=2 * window)
    total = uniform_filter1d(power.sum(axis=1), int(INNER_RATE / _STEP / setting) | 1 if share[1] < 1 else 1)
    level_db = 10 * np.log10(power + 1e-4 * total.max() / window)
    rows = np.arange(len(power))[None]
    cycles = setting * rows * _STEP / INNER_RATE + np.arange(_PHASES)[:, None] / _PHASES
    counts = (total > 0.015 * total.max())[None] & (cycles % 1.0 >= share[0]) & (cycles % 1.0 <= share[1])
    scores = np.zeros(_PHASES)
    for shift in shifts:
        bins = np.round(np.abs(trace(setting, cycles) + shift) * 2 * window / INNER_RATE).astype(int)
        bins = np.clip(bins, 1, window - 1)
        along = np.maximum(np.maximum(level_db[rows, bins], level_db[rows, bins - 1]), level_db[rows, bins + 1])
        scores += (along * counts).sum(axis=1) / np.maximum(counts.sum(axis=1), 1) / len(shifts)
    return float(scores.max() - scores.mean())


def _pipe(sound: Samples, setting: float, shifts: Sequence[float]) -> float:
    """Nepers of the ripple that the mean log spectrum below 4 kHz has at the pipe's spacing (a cepstrum's value)."""
    bins = 2048
    power = spectrogram(sound, window=1024, step=256, bins=bins)
    total = power.sum(axis=1)
    loud = power[total > 1e-3 * total.max()]
    first, last = 20, int(4000 / INNER_RATE * bins)
    spectrum = np.log(loud[:, first:last] + 1e-6 * loud.max()).mean(axis=0)
    window = np.hanning(len(spectrum))
    ripple = (spectrum - uniform_filter1d(spectrum, 61)) * window
    hertz = np.arange(first, last) * INNER_RATE / bins
    return float(2 * np.sum(ripple * np.cos(2 * np.pi * hertz * pipe_seconds(setting))) / window.sum())


def _ring(sound: Samples, setting: float, shifts: Sequence[float]) -> float:
    """Share of the power that goes up and down twice per period of the tone; 0.5 is all that there can be."""
    power = sound * sound
    slow = uniform_filter1d(power, INNER_RATE // 20)
    level = np.where(slow > 0.02 * slow.max(), power / (slow + 1e-12), 0.0)
    seconds = np.arange(len(sound)) / INNER_RATE
    waves = [level @ np.exp(-2j * np.pi * (2 * setting + off) * seconds) for off in (-0.5, 0.0, 0.5)]
    return float(np.abs(waves).max() / level.sum())


_DETECTORS: Mapping[str, Callable[[Samples, float, Sequence[float]], float]] = {
    "metal": _metal,
    "siren": _siren,
    "bubbles": _bubbles,
    "pipe": _pipe,
    "ring": _ring,
}
