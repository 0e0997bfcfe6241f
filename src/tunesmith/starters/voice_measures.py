"""What can be measured of any sound: spectrogram, pitch, and a vector that sums up its timbre and rhythm. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import dct

from tunesmith.errors import DataError
from tunesmith.starters.voice_filters import INNER_RATE, Samples, at_rate

_SHORTEST_SECONDS = 0.25
_SILENCE = 1e-4
_MELS = 40
_FLOOR = 3e-4  # of the loudest
_WINDOW = 1024
_COMPRESSION = 0.6  # of magnitudes, before autocorrelation: formants count for less (Tolonen and Karjalainen, 2000)
_NEARLY = 0.6  # the first peak so near to the highest is the period
_FINER = 2  # points between two lags
_ENVELOPE_STEP = 32
# Edges in Hz of the bands in which the loudness's own movement is measured.
_RHYTHM_HZ = (0.5, 2.0, 4.0, 7.0, 11.0, 16.0, 24.0, 33.0, 42.0, 52.0, 75.0, 120.0)


@dataclass(frozen=True)
class Track:
    """Pitch, frame by frame [frames]: Hz, how periodic (0 to 1), and the frame's power."""

    hertz: Samples
    periodic: Samples
    power: Samples


def heard(samples: NDArray[np.floating], rate: int) -> Samples | None:
    """Mono samples [samples] at the inner rate, of a sound [samples] or [channels, samples]; None where it is silent.

    Raises DataError: no samples, or some that are not finite.
    """
    sound = np.atleast_2d(np.asarray(samples, dtype=np.float64))
    if sound.ndim != 2 or sound.size == 0 or not np.isfinite(sound).all():
        raise DataError(
            f"a sound of shape {np.shape(samples)} cannot be heard",
            expected="finite numbers [samples] or [channels, samples]",
        )
    mono = at_rate(sound.mean(axis=0), INNER_RATE, of_rate=rate)
    if float(np.abs(mono).max(initial=0.0)) < _SILENCE:
        return None
    return np.pad(mono, (0, max(0, round(_SHORTEST_SECONDS * INNER_RATE) - mono.size)))


def spectrogram(sound: Samples, *, window: int, step: int, bins: int) -> Samples:
    """Power [frames, bins / 2 + 1] of frames `step` apart, the first around sample 0."""
    frames = _frames(sound, window, step)
    spectra = np.fft.rfft(frames * np.hanning(window), bins, axis=1)
    return np.asarray(spectra.real**2 + spectra.imag**2)


def _frames(sound: Samples, window: int, step: int) -> Samples:
    padded = np.pad(sound, window // 2)
    return sliding_window_view(padded, window)[::step]


def pitch_track(sound: Samples, lowest_hz: float, highest_hz: float) -> Track:
    """The pitch between two bounds, by autocorrelation of a spectrum whose peaks are flattened."""
    power = spectrogram(sound, window=_WINDOW, step=512, bins=2 * _WINDOW)
    finer = _FINER if highest_hz > 1500 else 1
    lags = np.fft.irfft(power ** (_COMPRESSION / 2), 2 * _WINDOW * finer, axis=1)
    rate = INNER_RATE * finer
    first, last = int(rate / highest_hz), min(int(rate / lowest_hz) + 2, _WINDOW * finer)
    band = lags[:, first:last] / (lags[:, :1] + 1e-12)
    middle = band[:, 1:-1]
    peaks = np.where((middle >= band[:, :-2]) & (middle > band[:, 2:]), middle, 0.0)
    highest = peaks.max(axis=1, keepdims=True)
    chosen = np.argmax((peaks >= _NEARLY * highest) & (peaks > 0), axis=1)
    found = np.where(highest[:, 0] > 0, rate / (first + 1 + chosen), lowest_hz)
    strength = peaks[np.arange(len(peaks)), chosen]
    return Track(found, strength, power.sum(axis=1))


@cache
def _mel_bands() -> Samples:
    """Triangles [mel, bin] of equal width on the mel scale, 60 to 8000 Hz."""
    low_mel, high_mel = (math.log10(1 + hertz / 700) for hertz in (60.0, 8000.0))
    edges = 700 * (10 ** np.linspace(low_mel, high_mel, _MELS + 2) - 1)
    bins = np.fft.rfftfreq(_WINDOW, 1 / INNER_RATE)
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (mid - low), (high - bins) / (high - mid)
    bands: Samples = np.maximum(0.0, np.minimum(rising, falling))
    return bands


def embedding(sound: Samples) -> Samples:
    """A vector [112] of timbre (mel cepstra), rhythm, pitch contour and course of loudness; level is not in it."""
    sound = sound / np.abs(sound).max()
    power = spectrogram(sound, window=_WINDOW, step=256, bins=_WINDOW)
    bands = power @ _mel_bands().T
    # What is much softer than the loudest is as good as silent, as it is in sounds that a model made.
    mels = 10 * np.log10(bands + _FLOOR * bands.max())
    total = 10 * np.log10(power.sum(axis=1) + 1e-7)
    cepstra = dct(mels, norm="ortho", axis=1)
    sounding = cepstra[total > total.max() - 30, :20]
    steps = np.diff(cepstra[:, :10], axis=0)
    return np.concatenate(
        [sounding.mean(axis=0), sounding.std(axis=0), steps.std(axis=0), _rhythm(sound), _contour(sound)]
    )


def envelope(sound: Samples) -> tuple[Samples, float]:
    """Loudness (root mean square of 32 samples) and its rate in Hz."""
    whole = sound[: len(sound) // _ENVELOPE_STEP * _ENVELOPE_STEP].reshape(-1, _ENVELOPE_STEP)
    return np.sqrt(np.mean(whole * whole, axis=1)), INNER_RATE / _ENVELOPE_STEP


def _rhythm(sound: Samples) -> Samples:
    """How much the loudness moves, band by band, of all its movement and of its mean; calls; beginning and end."""
    loudness, rate = envelope(sound)
    moving = np.abs(np.fft.rfft((loudness - loudness.mean()) * np.hanning(len(loudness)), 8192)) ** 2
    sums = np.concatenate([[0.0], np.cumsum(moving)])
    edges = np.searchsorted(np.fft.rfftfreq(8192, 1 / rate), _RHYTHM_HZ)
    bands = np.diff(sums[edges])
    of_all = np.log10(bands / (moving.sum() + 1e-12) + 1e-4)
    of_mean = np.log10(bands / (len(loudness) * loudness.mean()) ** 2 + 1e-5)
    hann = np.hanning(31)
    smooth = np.convolve(loudness, hann / hann.sum(), "same")
    loud = smooth > 0.12 * smooth.max()
    calls = np.sum(np.diff(loud.astype(int)) == 1) + int(loud[0]) + 0.5
    third = len(loudness) // 3
    ends = [20 * np.log10(1e-6 + part.mean() / loudness.mean()) for part in (loudness[:third], loudness[-third:])]
    rest = [*ends, loud.mean(), np.log(calls), np.log(calls * INNER_RATE / len(sound))]
    return np.concatenate([of_all, of_mean, rest])


def _contour(sound: Samples) -> Samples:
    """Middle, spread, rise and restlessness of the pitch in octaves, and how periodic the sound is."""
    track = pitch_track(sound, 45.0, 5000.0)
    loud = track.power > 0.03 * track.power.max()
    octaves = np.log2(track.hertz[loud])
    third = max(1, len(octaves) // 3)
    rise = float(np.median(octaves[-third:]) - np.median(octaves[:third]))
    restless = float(np.abs(np.diff(octaves)).mean()) if len(octaves) > 1 else 0.0
    return np.array([np.median(octaves), octaves.std(), rise, restless, track.periodic[loud].mean()])
