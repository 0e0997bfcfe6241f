"""What a sound is like, as numbers: log-mel spectra, cepstra, an embedding, distances of round trips. No torch.

Sounds are float [channels, samples], full scale 1. All are resampled to ANALYSIS_RATE first, so sounds of different
rates compare; what lies above half of it is not heard, and a sound of a lower rate has nothing up there.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal import get_window, resample_poly

from tunesmith.errors import DataError

ANALYSIS_RATE = 22_050
FRAME, HOP = 1024, 256  # 46 ms every 12 ms
LOWEST_HZ = 40.0  # a DC offset leaks into what lies below
FLOOR_DB = -100.0
# An embedding hears this far below the loudest band: recordings differ in what hiss or rounding lies further down.
RANGE_DB = 50.0
EDGE_DB = 40.0  # what lies further below the peak before and after a sound is no part of it
CEPSTRA = 20
DELTA_REACH = 2  # frames to either side that a delta is fitted over
# (FFT, hop, window) of Yamamoto et al. (2020), table 1, made for 24 kHz.
RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
DISTANCE_FLOOR_DB = -80.0

Samples = NDArray[Any]
Array = NDArray[np.float32]


def check_sound(samples: Samples) -> None:
    """Raise DataError for an empty or non-finite sound, ValueError for anything but [channels, samples]."""
    if samples.ndim != 2:
        raise ValueError(f"a sound is [channels, samples], not {samples.shape}")
    if not samples.size or not np.isfinite(samples).all():
        found = "the sound holds values that are not finite" if samples.size else "the sound is empty"
        raise DataError(found, expected="samples between -1 and 1", do="leave it out, or make it again")


def at_analysis_rate(samples: Samples, rate: int) -> Array:
    """The sound [channels, samples] at ANALYSIS_RATE, float32, raising what `check_sound` does."""
    check_sound(samples)
    divisor = math.gcd(ANALYSIS_RATE, int(rate))
    up, down = ANALYSIS_RATE // divisor, int(rate) // divisor
    resampled = resample_poly(np.asarray(samples, dtype=np.float32), up, down, axis=1)
    return np.asarray(resampled, dtype=np.float32)


def log_mel(
    samples: Samples, rate: int, *, bands: int = 64, frame: int = FRAME, hop: int = HOP, floor_db: float = FLOOR_DB
) -> Array:
    """Power in mel bands in dB, [frames, bands], float32; a full-scale sine inside a band reads about 0.

    Frame i is centred on sample i * hop at ANALYSIS_RATE; beyond the ends is silence. Powers of channels are averaged,
    so opposite phases do not cancel. Mel scale: 2595 log10(1 + f / 700) (O'Shaughnessy, 1987), triangles of height 1
    from LOWEST_HZ to half of ANALYSIS_RATE.
    """
    power = np.square(_magnitudes(at_analysis_rate(samples, rate), frame, hop, frame)).mean(0)
    # A sine's power spreads over the window's main lobe: noise bandwidth of the window, in bins.
    window = get_window("hann", frame)
    spread = frame * float(np.square(window).sum()) / float(window.sum()) ** 2
    mel = power @ _mel_filters(bands, frame) / spread
    levels = 10.0 * np.log10(np.maximum(mel, np.finfo(np.float32).tiny))
    return np.asarray(np.maximum(levels, floor_db), dtype=np.float32)


def mfcc(samples: Samples, rate: int, *, count: int = CEPSTRA) -> Array:
    """Mel-frequency cepstra [frames, count]: orthonormal DCT-II over the bands of `log_mel`, in dB.

    Only coefficient 0 knows the level (a gain of g dB adds 8 g: root of 64 bands), as long as nothing meets the floor.
    """
    return _cepstra(log_mel(samples, rate), count)


def timbre_embedding(samples: Samples, rate: int) -> Array:
    """A sound as one vector [80]: mean and deviation over time of 20 cepstra and of their deltas.

    Level-independent down to FLOOR_DB: levels count from the loudest band, and stop RANGE_DB below it. Silence before
    and after the sound does not count either; silence within it does. Any length works, 0.05 s are 5 frames.
    """
    check_sound(samples)
    levels = log_mel(_heard(samples), rate, floor_db=FLOOR_DB - RANGE_DB)
    loudest = float(levels.max())
    silent = loudest <= FLOOR_DB
    levels = np.full_like(levels, -RANGE_DB) if silent else np.maximum(levels - loudest, -RANGE_DB)
    cepstra = _cepstra(levels, CEPSTRA)
    deltas = _deltas(cepstra)
    return np.concatenate([cepstra.mean(0), cepstra.std(0), deltas.mean(0), deltas.std(0)])


def multi_resolution_stft_distance(a: Samples, b: Samples, rate: int) -> float:
    """How far `b` is from `a`, both [channels, samples] of one shape: 0 when equal, 1.2 at half the level.

    Spectral convergence + mean absolute difference of log magnitudes, averaged over three resolutions (Yamamoto et al.,
    2020, arXiv 1910.11480, section 2.2). Convergence is relative to `a`. Magnitudes stop DISTANCE_FLOOR_DB below a
    full-scale sine, so inaudible differences of silences do not count.
    """
    one, other = _pair(a, b, rate)
    floor = 10.0 ** (DISTANCE_FLOOR_DB / 20.0)
    total = 0.0
    for frame, hop, window in RESOLUTIONS:
        was = np.maximum(_magnitudes(one, frame, hop, window), floor)
        now = np.maximum(_magnitudes(other, frame, hop, window), floor)
        total += float(np.linalg.norm(was - now) / np.linalg.norm(was)) + float(np.abs(np.log(was / now)).mean())
    return total / len(RESOLUTIONS)


def log_mel_distance(a: Samples, b: Samples, rate: int) -> float:
    """Mean absolute difference in dB of the log-mel spectra, channel by channel, of two sounds of one shape.

    Levels stop at DISTANCE_FLOOR_DB. A gain of g dB costs up to g.
    """
    _same_shape(a, b)
    differences = [
        log_mel(one[None], rate, floor_db=DISTANCE_FLOOR_DB) - log_mel(other[None], rate, floor_db=DISTANCE_FLOOR_DB)
        for one, other in zip(a, b, strict=True)
    ]
    return float(np.abs(differences).mean())


def mel_of(hertz: float) -> float:
    """A frequency on the mel scale."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _heard(samples: Samples) -> Samples:
    """The sound from its first to its last sample within EDGE_DB of the peak; frames then start with the sound."""
    envelope = np.abs(samples).max(0)
    loud = np.flatnonzero(envelope >= envelope.max() * 10.0 ** (-EDGE_DB / 20.0))
    return samples[:, loud[0] : loud[-1] + 1]


def _pair(a: Samples, b: Samples, rate: int) -> tuple[Array, Array]:
    _same_shape(a, b)
    return at_analysis_rate(a, rate), at_analysis_rate(b, rate)


def _same_shape(a: Samples, b: Samples) -> None:
    if a.shape != b.shape:
        raise ValueError(f"sounds of one shape are compared, not {a.shape} and {b.shape}")


def _magnitudes(samples: Array, frame: int, hop: int, window: int) -> Array:
    """[channels, samples] to [channels, frames, bins], scaled so that the peak of a full-scale sine is 1."""
    shape = get_window("hann", window).astype(np.float32)
    left = (frame - window) // 2
    padded = np.pad(shape, (left, frame - window - left)) * np.float32(2.0 / shape.sum())
    edges = np.pad(samples, ((0, 0), (frame // 2, frame - frame // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(edges, frame, axis=1)[:, : samples.shape[1] + 1 : hop]
    return np.asarray(np.abs(scipy.fft.rfft(frames * padded, axis=2)), dtype=np.float32)


@cache
def _mel_filters(bands: int, frame: int) -> Array:
    """[bins, bands]. No triangle is narrower than a bin to either side, else a low band would hold no bin at all."""
    hertz = np.fft.rfftfreq(frame, 1.0 / ANALYSIS_RATE)
    mels = np.linspace(mel_of(LOWEST_HZ), mel_of(ANALYSIS_RATE / 2.0), bands + 2)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    below = np.maximum(corners[1:-1] - corners[:-2], hertz[1])
    above = np.maximum(corners[2:] - corners[1:-1], hertz[1])
    offset = hertz[:, None] - corners[1:-1]
    filters: Array = np.clip(1.0 - np.maximum(-offset / below, offset / above), 0.0, None).astype(np.float32)
    filters.flags.writeable = False
    return filters


def _cepstra(levels: Array, count: int) -> Array:
    return np.asarray(scipy.fft.dct(levels, type=2, norm="ortho", axis=1)[:, :count], dtype=np.float32)


def _deltas(values: Array) -> Array:
    """Slope per frame of a line fitted over DELTA_REACH frames to either side; the ends repeat."""
    padded = np.pad(values, ((DELTA_REACH, DELTA_REACH), (0, 0)), mode="edge")
    count = len(values)
    reach = range(1, DELTA_REACH + 1)
    slope = sum(step * (padded[DELTA_REACH + step :][:count] - padded[DELTA_REACH - step :][:count]) for step in reach)
    return np.asarray(slope / (2.0 * sum(step * step for step in reach)), dtype=np.float32)
