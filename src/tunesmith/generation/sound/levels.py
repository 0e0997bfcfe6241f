"""How loud a sound is, and bringing it to a level: RMS or loudness first, a peak ceiling after."""

from __future__ import annotations

import math

import numpy as np
import pyloudnorm  # type: ignore[import-untyped]
from scipy import signal

from tunesmith.generation.sound.samples import (
    Facts,
    Samples,
    amplitude,
    blocks,
    decibels,
    is_silent,
    mean_square,
    peak,
)

_BLOCK_SECONDS = 0.4  # BS.1770's gating block; blocks overlap by three quarters
_OVERSAMPLED_HZ = 192_000  # true peak is read at four times the rate, or less where that is this much already
_MARGIN_SAMPLES = 32  # more than the half length of the interpolation filter


def measure(samples: Samples, rate: int) -> Facts:
    """peak_db, true_peak_db and rms_db in dBFS, lufs in LUFS; null where there is no level.

    RMS is over all channels together. A sine of full scale has -3.01 dBFS RMS here.
    """
    return {
        "peak_db": decibels(peak(samples)),
        "true_peak_db": decibels(true_peak(samples, rate)),
        "rms_db": decibels(math.sqrt(mean_square(samples))),
        "lufs": loudness(samples, rate),
    }


def true_peak(samples: Samples, rate: int) -> float:
    """The largest absolute value of the oversampled sound (ITU-R BS.1770-4, annex 2), never below the sample peak."""
    factor = max(1, min(4, _OVERSAMPLED_HZ // rate))
    highest = peak(samples)
    if factor == 1:
        return highest
    for part in blocks(samples.shape[1]):
        start = max(0, part.start - _MARGIN_SAMPLES)
        finer = signal.resample_poly(samples[:, start : part.stop + _MARGIN_SAMPLES], factor, 1, axis=1)
        inside = finer[:, (part.start - start) * factor : (part.stop - start) * factor]
        highest = max(highest, peak(inside))
    return highest


def loudness(samples: Samples, rate: int) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770-4): K-weighted, gated blocks of 400 ms; None below -70 LUFS.

    A sound shorter than a block, or whose whole blocks are all gated away, is measured as one block.
    """
    if is_silent(samples):
        return None
    length = samples.shape[1]
    block, step = _BLOCK_SECONDS * rate, _BLOCK_SECONDS * rate / 4
    if length >= block:
        whole = math.ceil(block + math.floor((length - block) / step + 1e-6) * step)
        gated = _meter(samples[:, :whole], rate, _BLOCK_SECONDS)
        if gated is not None:
            return gated
    return _meter(samples, rate, length / rate * (1 - 1e-9))


def _meter(samples: Samples, rate: int, block_seconds: float) -> float | None:
    # The filters of pyloudnorm's default class miss the standard's by 0.04 dB; these are the standard's.
    meter = pyloudnorm.Meter(rate, filter_class="DeMan", block_size=block_seconds)
    with np.errstate(all="ignore"):
        found = float(meter.integrated_loudness(samples.T))
    return round(found, 4) if math.isfinite(found) else None


def normalise_rms(samples: Samples, *, target_db: float, ceiling_db: float) -> tuple[Samples, Facts]:
    """RMS to `target_db` (dBFS; 0: left as it is), then down, never up, until no sample exceeds `ceiling_db`.

    Silence stays as it is. `ceiling` in the facts is "peak" where the ceiling ruled, so that the target is missed.
    """
    facts: Facts = {"mode": "rms", "target_db": target_db or None, "ceiling_db": ceiling_db}
    if is_silent(samples):
        return samples, {**facts, "measured_db": None, "gain_db": 0.0, "ceiling": None, "reached_db": None}
    measured = math.sqrt(mean_square(samples))
    gain = amplitude(target_db) / measured if target_db else 1.0
    gain, ruled = _under(ceiling_db, gain, peak(samples))
    facts |= {"measured_db": decibels(measured), "gain_db": decibels(gain), "ceiling": "peak" if ruled else None}
    return samples * np.float32(gain), {**facts, "reached_db": decibels(gain * measured)}


def normalise_lufs(samples: Samples, rate: int, *, target_lufs: float, ceiling_db: float) -> tuple[Samples, Facts]:
    """Integrated loudness to `target_lufs`, then down, never up, until the true peak is `ceiling_db` (dBTP) or less.

    The loudness is measured on the sound raised to full scale, so that the absolute gate of -70 LUFS does not hide
    a quiet one. Silence stays as it is. `ceiling` in the facts is "true_peak" where the ceiling ruled.
    """
    facts: Facts = {"mode": "lufs", "target_lufs": target_lufs, "ceiling_db": ceiling_db}
    nothing = {**facts, "measured_lufs": None, "gain_db": 0.0, "ceiling": None, "reached_lufs": None}
    if is_silent(samples):
        return samples, nothing
    raised = 1.0 / peak(samples)
    heard = loudness(samples * np.float32(raised), rate)
    if heard is None:  # only what K-weighting takes away, such as an offset
        return samples, nothing
    measured = heard - 20 * math.log10(raised)
    gain, ruled = _under(ceiling_db, amplitude(target_lufs - measured), true_peak(samples, rate))
    facts |= {"measured_lufs": round(measured, 4), "gain_db": decibels(gain)}
    facts |= {"ceiling": "true_peak" if ruled else None, "reached_lufs": round(measured + 20 * math.log10(gain), 4)}
    return samples * np.float32(gain), facts


def _under(ceiling_db: float, gain: float, highest: float) -> tuple[float, bool]:
    """(the gain, or the largest one that keeps `highest` under the ceiling; whether the ceiling ruled)."""
    ceiling = amplitude(ceiling_db)
    return (ceiling / highest, True) if gain * highest > ceiling else (gain, False)


def clip(samples: Samples) -> tuple[Samples, Facts]:
    """No sample beyond full scale. Where one is, all channels of that instant are scaled down alike."""
    clipped = samples.copy()
    count = 0
    for part in blocks(samples.shape[1]):
        row = clipped[:, part]
        highest = np.abs(row).max(axis=0)
        beyond = highest > 1
        count += int(np.count_nonzero(beyond))
        if beyond.any():
            row[:, beyond] /= highest[beyond]
    return clipped, {"clipped_samples": count}
