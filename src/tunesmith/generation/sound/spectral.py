"""Steps in the short-time spectrum: noise taken away, formants moved. One gain for all channels, phases stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import signal

from tunesmith.generation.sound.samples import Facts, Samples

Spectra: TypeAlias = npt.NDArray[np.complex64]  # [channels, frames, bins]
Magnitudes: TypeAlias = npt.NDArray[np.float32]  # [frames, bins]

_FRAMES_AT_ONCE = 256
_WINDOW_POWER = 1.5  # the squares of four overlapping periodic Hann windows add up to this
_DENOISE_SAMPLES, _FORMANT_SAMPLES = 1024, 2048  # at 44.1 kHz; other rates take the nearest power of two in seconds
_QUIET_SHARE = 0.15
_FEWEST_FRAMES = 8
_SMOOTH_BINS, _TONE_FACTOR = 31, 2.0
_MOST_GAIN_DB = 12.0
_LIFTER_SECONDS = (0.0006, 0.004)  # shortest and longest
_PERIOD_SECONDS = (0.001, 0.0125)  # pitches of 80 to 1000 Hz
_PERIOD_SHARE, _CLEAR_PEAK = 0.7, 0.1
FACTOR_LIMITS = (0.5, 2.0)


def denoise(samples: Samples, rate: int, *, strength: float) -> tuple[Samples, Facts]:
    """Spectral subtraction (Boll, 1979): each bin's magnitude loses `strength` times the noise profile, down to 0.

    The profile is each bin's median over the quietest 15 % of the frames that lie wholly in the sound and are not
    digital silence. Noise is broad: what stands out of the profile by more than 6 dB over the median of the 31 bins
    around it is a steady tone of the sound, and only the part below that counts as noise. Magnitudes are the root
    mean square over the channels. A sound of fewer than 8 such frames stays as it is.
    """
    size = window_samples(rate, _DENOISE_SAMPLES)
    quiet = _quietest(samples, size)
    if not len(quiet):
        return samples, {"skipped": "too short to tell noise from sound"}
    profile = _noise_profile(samples, size, quiet)

    def gains(spectra: Spectra) -> Magnitudes:
        levels = magnitudes(spectra)
        removed = np.float32(strength) * profile / np.maximum(levels, np.float32(1e-20))
        return np.maximum(1 - removed, 0)

    return reshape_spectrum(samples, size, gains), {"profile_frames": len(quiet), "window_samples": size}


def shift_formants(samples: Samples, rate: int, *, size: float) -> tuple[Samples, Facts]:
    """Move the spectral envelope by the factor 2^(-0.35 size), within 0.5 to 2; pitch and harmonics stay in place.

    A larger creature has lower formants. The envelope is the spectrum's cepstrum up to 4 ms, or 0.7 of the pitch's
    period where a frame has a pitch; each bin is scaled by the envelope at f / factor over the one at f, within
    +-12 dB. A pure tone is its own formant: it stays where it is and only gets quieter.
    """
    factor = formant_factor(size)
    window = window_samples(rate, _FORMANT_SAMPLES)
    bins = window // 2 + 1
    source = np.minimum(np.arange(bins) / factor, bins - 1)
    below = np.minimum(source.astype(np.int64), bins - 2)
    share = (source - below).astype(np.float32)
    most = math.log(10) * _MOST_GAIN_DB / 20

    def gains(spectra: Spectra) -> Magnitudes:
        envelope = _log_envelope(magnitudes(spectra), rate)
        moved = envelope[:, below] * (1 - share) + envelope[:, below + 1] * share
        return np.exp(np.clip(moved - envelope, -most, most)).astype(np.float32)

    return reshape_spectrum(samples, window, gains), {"factor": round(factor, 6), "window_samples": window}


def formant_factor(size: float) -> float:
    """2^(-0.35 size), held within 0.5 and 2."""
    return float(min(max(2.0 ** (-0.35 * size), FACTOR_LIMITS[0]), FACTOR_LIMITS[1]))


def window_samples(rate: int, at_44100: int) -> int:
    """The power of two nearest to as many seconds as `at_44100` samples last at 44.1 kHz."""
    return 1 << round(math.log2(at_44100 * rate / 44_100))


def magnitudes(spectra: Spectra) -> Magnitudes:
    """Root mean square over the channels."""
    power = np.mean(np.square(spectra.real) + np.square(spectra.imag), axis=0)
    return np.asarray(np.sqrt(power), dtype=np.float32)


def reshape_spectrum(samples: Samples, size: int, gains: Callable[[Spectra], Magnitudes]) -> Samples:
    """Short-time Fourier transform, each bin of each frame times its gain, and back; gains of 1 give the sound back.

    Periodic Hann windows of `size` samples, a quarter of it apart, on the way in and on the way out.
    """
    hop, length = size // 4, samples.shape[1]
    lead = size - hop
    frames = math.ceil((length + lead) / hop)
    padded = np.zeros((samples.shape[0], (frames - 1) * hop + size), dtype=np.float32)
    padded[:, lead : lead + length] = samples
    total = np.zeros_like(padded)
    window = _window(size) / np.float32(_WINDOW_POWER)
    for first, spectra in _spectra(padded, size):
        changed = np.fft.irfft(spectra * gains(spectra), n=size, axis=-1).astype(np.float32) * window
        count = changed.shape[1]
        for quarter in range(4):
            start = (first + quarter) * hop
            piece = changed[:, :, quarter * hop : (quarter + 1) * hop]
            total[:, start : start + count * hop] += piece.reshape(len(samples), -1)
    return total[:, lead : lead + length]


def _window(size: int) -> npt.NDArray[np.float32]:
    return np.asarray(signal.windows.hann(size, sym=False), dtype=np.float32)


def _spectra(line: Samples, size: int) -> Iterator[tuple[int, Spectra]]:
    """(index of the first frame, spectra) of the frames that lie wholly in `line`, some hundred at a time."""
    hop = size // 4
    if line.shape[1] < size:
        return
    frames = np.lib.stride_tricks.sliding_window_view(line, size, axis=1)[:, ::hop]
    window = _window(size)
    for first in range(0, frames.shape[1], _FRAMES_AT_ONCE):
        spectra = np.fft.rfft(frames[:, first : first + _FRAMES_AT_ONCE] * window, axis=-1)
        yield first, spectra.astype(np.complex64, copy=False)


def _quietest(samples: Samples, size: int) -> npt.NDArray[np.int64]:
    """Indices of the quietest frames, in order of time; none where there are too few to choose from."""
    found = [np.sum(np.square(magnitudes(spectra)), axis=1, dtype=np.float64) for _, spectra in _spectra(samples, size)]
    energy = np.concatenate(found) if found else np.zeros(0)
    heard = np.flatnonzero(energy > 0)
    if len(heard) < _FEWEST_FRAMES:
        return np.zeros(0, dtype=np.int64)
    count = max(4, round(_QUIET_SHARE * len(heard)))
    return np.sort(heard[np.argsort(energy[heard], kind="stable")[:count]])


def _noise_profile(samples: Samples, size: int, quiet: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    rows = []
    for first, spectra in _spectra(samples, size):
        inside = quiet[(quiet >= first) & (quiet < first + spectra.shape[1])] - first
        if len(inside):
            rows.append(magnitudes(spectra[:, inside]))
    profile = np.median(np.concatenate(rows), axis=0)
    half = min(_SMOOTH_BINS // 2, len(profile) - 1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(profile, half, mode="reflect"), 2 * half + 1)
    return np.asarray(np.minimum(profile, _TONE_FACTOR * np.median(around, axis=1)), dtype=np.float32)


def _log_envelope(levels: Magnitudes, rate: int) -> npt.NDArray[np.float32]:
    """Natural logarithm of the smooth part of each frame's spectrum [frames, bins].

    The pitch is the highest peak of the cepstrum where pitches lie (Noll, Cepstrum pitch determination, 1967).
    """
    floor = np.maximum(levels.max(axis=1, keepdims=True) * np.float32(1e-5), np.float32(1e-12))
    cepstrum = np.fft.irfft(np.log(np.maximum(levels, floor)), axis=1)
    size = cepstrum.shape[1]
    shortest, longest = (seconds * rate for seconds in _LIFTER_SECONDS)
    first, last = (round(seconds * rate) for seconds in _PERIOD_SECONDS)
    periods = cepstrum[:, first : min(last, size // 2)]
    pitched = periods.max(axis=1) > _CLEAR_PEAK
    limits = np.where(pitched, np.maximum(_PERIOD_SHARE * (periods.argmax(axis=1) + first), shortest), longest)
    limits = np.minimum(limits, longest)[:, None]
    quefrency = np.minimum(np.arange(size), size - np.arange(size))
    lifter = np.cos(np.minimum(quefrency / limits, 1) * (np.pi / 2)) ** 2
    return np.asarray(np.fft.rfft(cepstrum * lifter, axis=1).real, dtype=np.float32)
