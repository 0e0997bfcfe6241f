"""Measures of one sound clip: level, loudness, faults, envelope, spectrum. numpy, scipy, pyloudnorm; no torch.

Samples are float [channels, samples], full scale 1. Levels are in dB relative to full scale: a full-scale sine has a
peak of 0 dBFS and an RMS of -3.01 dBFS. Silence is -inf dB. Every function raises what `check_sound` does: DataError
for an empty or non-finite sound, ValueError for another shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly
from scipy.signal.windows import hann

from tunesmith.numeric.fingerprints import Fingerprint, closest_pairs, fingerprint, fingerprint_distance
from tunesmith.numeric.timbre import check_sound

__all__ = [
    "FULL_SCALE", "ClipMeasures", "Fingerprint", "Spectrum", "attack_seconds", "clipped_runs", "closest_pairs",
    "crest_db", "dc_offset", "decay_seconds", "fingerprint", "fingerprint_distance", "loudness_lufs", "measure_clip",
    "peak", "rms_dbfs", "silence_share", "spectrum", "stereo_correlation", "true_peak_dbfs",
]  # fmt: skip

FULL_SCALE = 0.9999  # 16 bits reach 0.99997
SILENCE_DBFS = -60.0
ROLLOFF = 0.85

_SHORTEST_RUN = 3
_FRAME_SECONDS = 0.01  # of envelope and silence: one period at 100 Hz
_STEP_SECONDS = 0.001
_LOUDNESS_BLOCK_SECONDS = 0.4
_LOUDNESS_RATE = 8_000
_LOUDNESS_CHANNELS = 5
_SPECTRUM_SECONDS = 0.046
_OVERSAMPLING = 4
_MOST_OVERSHOOT = 4.0  # over the samples of the same block: 12 dB, more than any sound shows
_BLOCK = 4096
_MARGIN = 64

Samples = NDArray[Any]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """A clip's power spectrum in figures: `centroid`, `rolloff` and `bandwidth` in Hz, `flatness` of 0 to 1.

    All 0 for silence. See `spectrum`.
    """

    centroid_hz: float
    rolloff_hz: float
    bandwidth_hz: float
    flatness: float


@dataclass(frozen=True)
class ClipMeasures:
    """Every measure of one clip; what each means says the function of its name."""

    seconds: float
    rate: int
    channels: int
    peak: float
    true_peak_dbfs: float
    rms_dbfs: float
    loudness_lufs: float
    crest_db: float
    dc_offset: float
    clipped_runs: int
    silence_share: float
    attack_seconds: float
    decay_seconds: float
    stereo_correlation: float
    spectrum: Spectrum


def measure_clip(samples: Samples, rate: int) -> ClipMeasures:
    """All measures of samples [channels, samples] at `rate` Hz."""
    check_sound(samples)
    return ClipMeasures(
        seconds=samples.shape[1] / rate,
        rate=rate,
        channels=samples.shape[0],
        peak=peak(samples),
        true_peak_dbfs=true_peak_dbfs(samples),
        rms_dbfs=rms_dbfs(samples),
        loudness_lufs=loudness_lufs(samples, rate),
        crest_db=crest_db(samples),
        dc_offset=dc_offset(samples),
        clipped_runs=clipped_runs(samples),
        silence_share=silence_share(samples, rate),
        attack_seconds=attack_seconds(samples, rate),
        decay_seconds=decay_seconds(samples, rate),
        stereo_correlation=stereo_correlation(samples),
        spectrum=spectrum(samples, rate),
    )


def peak(samples: Samples) -> float:
    """The largest absolute sample."""
    check_sound(samples)
    return float(np.abs(samples).max())


def true_peak_dbfs(samples: Samples) -> float:
    """The peak between samples in dBFS, by oversampling four times (ITU-R BS.1770-4, annex 2).

    Reads up to 0.7 dB low near half the rate, as four times oversampling does. Never below the sample peak.
    """
    highest = peak(samples)
    sound = np.asarray(samples, dtype=np.float32)
    length = sound.shape[1]
    for at in range(0, length, _BLOCK):
        first, stop = max(0, at - _MARGIN), min(length, at + _BLOCK + _MARGIN)
        part = sound[:, first:stop]
        if np.abs(part).max() < highest / _MOST_OVERSHOOT:
            continue
        dense: NDArray[Any] = resample_poly(part, _OVERSAMPLING, 1, axis=1, window=_peak_filter())
        # Where a block is cut, the filter rings: the margins belong to its neighbours.
        low = (at - first) * _OVERSAMPLING
        inner = dense[:, low : low + min(_BLOCK, length - at) * _OVERSAMPLING]
        highest = max(highest, float(np.abs(inner).max()))
    return _decibels(highest**2)


def rms_dbfs(samples: Samples) -> float:
    """Root mean square over all channels in dBFS."""
    check_sound(samples)
    return _decibels(_power(samples))


def crest_db(samples: Samples) -> float:
    """Peak over RMS in dB: 3.01 for a sine, 0 for a square wave; 0 for silence."""
    power = _power(samples)
    return _decibels(peak(samples) ** 2 / power) if power > 0 else 0.0


def loudness_lufs(samples: Samples, rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4, by pyloudnorm); -inf for what stays below -70 LUFS.

    A clip shorter than a gating block of 0.4 s is one block of its own length. Channels beyond five count as their
    mean, rates below 8 kHz are raised first, since the weighting reaches up to there.
    """
    from pyloudnorm import Meter  # type: ignore[import-untyped]

    check_sound(samples)
    sound = np.asarray(samples, dtype=np.float64)
    if sound.shape[0] > _LOUDNESS_CHANNELS:
        sound = sound.mean(axis=0, keepdims=True)
    times = -(-_LOUDNESS_RATE // rate)
    if times > 1:
        sound, rate = resample_poly(sound, times, 1, axis=1), rate * times
    block_seconds = _LOUDNESS_BLOCK_SECONDS
    if sound.shape[1] < block_seconds * rate:
        block_seconds = (sound.shape[1] + 1e-3) / rate  # a hair more, so that rounding down keeps the last sample
        sound = np.pad(sound, ((0, 0), (0, 1)))
    # Of pyloudnorm's filters this one has the standard's coefficients at 48 kHz.
    meter = Meter(rate, filter_class="DeMan", block_size=block_seconds)
    return float(meter.integrated_loudness(sound.T))


def dc_offset(samples: Samples) -> float:
    """The mean of the channel whose mean lies farthest from 0."""
    check_sound(samples)
    means = np.asarray(samples, dtype=np.float64).mean(axis=1)
    return float(means[np.abs(means).argmax()])


def clipped_runs(samples: Samples) -> int:
    """How often, over all channels, three or more samples in a row stand at full scale on one side (FULL_SCALE)."""
    check_sound(samples)
    runs = 0
    for at_limit in (samples >= FULL_SCALE, samples <= -FULL_SCALE):
        if not at_limit.any():
            continue
        edges = np.diff(np.pad(at_limit, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        lengths = np.nonzero(edges < 0)[1] - np.nonzero(edges > 0)[1]  # row by row in both
        runs += int((lengths >= _SHORTEST_RUN).sum())
    return runs


def silence_share(samples: Samples, rate: int, *, below_dbfs: float = SILENCE_DBFS) -> float:
    """The share of time, in steps of 10 ms, whose RMS over all channels lies below `below_dbfs`."""
    check_sound(samples)
    powers = _powers(samples, max(1, round(_FRAME_SECONDS * rate)))
    return float((powers < 10.0 ** (below_dbfs / 10.0)).mean())


def attack_seconds(samples: Samples, rate: int) -> float:
    """From where the envelope first reaches 10 % of its maximum to where it first reaches 90 %; 0 for silence.

    The envelope is the RMS over 10 ms, every millisecond: a click has an attack of up to 10 ms.
    """
    envelope = _envelope(samples, rate)
    return float((envelope >= 0.9).argmax() - (envelope >= 0.1).argmax()) * _step(rate) / rate


def decay_seconds(samples: Samples, rate: int) -> float:
    """From where the envelope last has 90 % of its maximum to where it last has 10 %, or the clip ends; 0 for silence.

    An exponential decay of time constant t takes ln(9) t.
    """
    return attack_seconds(samples[:, ::-1], rate)


def stereo_correlation(samples: Samples) -> float:
    """Pearson's correlation of the first two channels: 1 for mono, -1 for opposite phase; 0 where one is constant."""
    check_sound(samples)
    if samples.shape[0] == 1:
        return 1.0
    left, right = np.asarray(samples[:2], dtype=np.float64)
    left, right = left - left.mean(), right - right.mean()
    size = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / size if size > 0 else 0.0


def spectrum(samples: Samples, rate: int) -> Spectrum:
    """Centroid, rolloff (85 % of the power lies below), bandwidth (standard deviation about the centroid), flatness.

    Of the power over all channels and frames of 46 ms (Hann, half overlapped), so loud moments count most; the lowest
    two bins, where a DC offset stands, are left out. Flatness is geometric over arithmetic mean of a frame's bins,
    averaged by power: exp(-0.5772) = 0.56 for white noise of any length, near 0 for tones.
    """
    check_sound(samples)
    size = min(2 ** round(math.log2(max(64.0, _SPECTRUM_SECONDS * rate))), samples.shape[1])
    if size < 8:
        return Spectrum(0.0, 0.0, 0.0, 0.0)
    hertz = np.fft.rfftfreq(size, 1.0 / rate)[2:]
    power, flat = np.zeros(len(hertz)), 0.0
    for frames in _frame_powers(samples, size):
        totals = frames.sum(1)
        heard = totals > 0
        power += frames.sum(0)
        # Bins 100 dB below the frame's mean count as that: what a codec cut away is not infinitely quiet.
        floor = 1e-10 * totals[heard, None] / len(hertz)
        flat += float((np.exp(np.log(np.maximum(frames[heard], floor)).mean(1)) * len(hertz)).sum())
    total = float(power.sum())
    if total <= 0:
        return Spectrum(0.0, 0.0, 0.0, 0.0)
    centroid = float(hertz @ power) / total
    spread = math.sqrt(float(np.square(hertz - centroid) @ power) / total)
    rolloff = float(hertz[int(np.searchsorted(np.cumsum(power), ROLLOFF * total))])
    return Spectrum(centroid, rolloff, spread, flat / total)


@cache
def _peak_filter() -> Array:
    """Low pass at half the original rate, 81 taps at four times that rate; passes the original samples unchanged."""
    return np.asarray(firwin(20 * _OVERSAMPLING + 1, 1.0 / _OVERSAMPLING, window=("kaiser", 5.0)))


def _decibels(power: float) -> float:
    return 10.0 * math.log10(power) if power > 0 else -math.inf


def _power(samples: Samples) -> float:
    check_sound(samples)
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _powers(samples: Samples, size: int) -> Array:
    """Mean power over all channels of each `size` samples in a row, the last ones fewer."""
    total = np.square(samples, dtype=np.float64).mean(axis=0)
    starts = np.arange(0, len(total), size)
    lengths = np.diff(np.append(starts, len(total)))
    return np.asarray(np.add.reduceat(total, starts) / lengths)


def _step(rate: int) -> int:
    return max(1, round(_STEP_SECONDS * rate))


def _envelope(samples: Samples, rate: int) -> Array:
    """RMS over 10 ms, a value each millisecond, relative to its maximum; silence lies around the clip."""
    check_sound(samples)
    powers = _powers(samples, _step(rate))
    width = max(1, round(_FRAME_SECONDS * rate / _step(rate)))
    moving = np.convolve(powers, np.full(width, 1.0 / width))
    highest = float(moving.max())
    return np.sqrt(moving / highest) if highest > 0 else moving


def _frame_powers(samples: Samples, size: int) -> Iterator[Array]:
    """Power spectra [frames, bins from the third on], summed over channels, a few hundred frames at a time."""
    window = hann(size, sym=False)
    views = np.lib.stride_tricks.sliding_window_view(samples, size, axis=1)[:, :: max(1, size // 2)]
    for at in range(0, views.shape[1], 256):
        spectra = np.fft.rfft(views[:, at : at + 256] * window, axis=2)[..., 2:]
        yield (np.square(spectra.real) + np.square(spectra.imag)).sum(0)
