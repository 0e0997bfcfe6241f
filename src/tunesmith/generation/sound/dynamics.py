"""Compression, in one band or three, and the limiter. One gain for all channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith.generation.sound.envelope import (
    HOLD_SECONDS,
    Points,
    apply_gain,
    follow,
    held,
    peaks,
    points_in,
    window_extreme,
)
from tunesmith.generation.sound.filters import split
from tunesmith.generation.sound.samples import Facts, Samples, amplitude, peak

_MULTIBAND_ORDER = 4
_LOOKAHEAD_SECONDS = 0.002
_FLOOR = 1e-6  # -120 dBFS


@dataclass(frozen=True)
class Curve:
    """A downward compressor: above `threshold_db` (dBFS, peak) the level rises `ratio` times slower; hard knee."""

    threshold_db: float
    ratio: float
    attack_seconds: float
    release_seconds: float
    makeup_db: float = 0.0


@dataclass(frozen=True)
class Bands:
    """Corners between low, middle and high, and the gain of each in dB."""

    low_hz: float
    high_hz: float
    low_gain_db: float = 0.0
    middle_gain_db: float = 0.0
    high_gain_db: float = 0.0


def compress(samples: Samples, rate: int, *, curve: Curve) -> tuple[Samples, Facts]:
    """The compressor. Level: the largest sample of any channel in the last 12.5 ms.

    Static rule: L dBFS above the threshold T becomes T + (L - T) / ratio, plus makeup. The reduction in dB follows
    this with one pole of the attack's time constant while it grows and of the release's while it shrinks
    (Giannoulis, Massberg and Reiss, Digital dynamic range compressor design, 2012, smooth branching).
    """
    reduction = _reduction_db(peaks(samples, rate), rate, curve)
    gains = 10 ** ((curve.makeup_db - reduction) / 20)
    facts = {"most_reduction_db": round(float(reduction.max()), 4), "makeup_db": curve.makeup_db}
    return apply_gain(samples, rate, gains), facts


def _reduction_db(levels: Points, rate: int, curve: Curve) -> Points:
    level_db = 20 * np.log10(np.maximum(held(levels, rate), _FLOOR))
    wanted = np.maximum(level_db - curve.threshold_db, 0) * (1 - 1 / curve.ratio)
    return follow(wanted, rate, attack_seconds=curve.attack_seconds, release_seconds=curve.release_seconds)


def multiband(samples: Samples, rate: int, *, bands: Bands, curve: Curve) -> tuple[Samples, Facts]:
    """Three bands, each with its own gain and then the same compressor, added up again.

    Forward-backward Butterworth of order 4 each way, so that with gains of 0 dB and nothing above the threshold the
    bands add up to the sound.
    """
    parts = (
        ("low", bands.low_hz, bands.low_gain_db),
        ("middle", bands.high_hz, bands.middle_gain_db),
        ("high", None, bands.high_gain_db),
    )
    rest, total, facts = samples, np.zeros_like(samples), {}
    for name, top_hz, gain_db in parts:
        band, rest = (rest, rest) if top_hz is None else split(rest, rate, hz=top_hz, order=_MULTIBAND_ORDER)
        band = band * np.float32(amplitude(gain_db)) if gain_db else band
        squeezed, found = compress(band, rate, curve=curve)
        total += squeezed
        facts[f"{name}_reduction_db"] = found["most_reduction_db"]
    return total, facts


def limit(samples: Samples, rate: int, *, ceiling_db: float) -> tuple[Samples, Facts]:
    """A look-ahead limiter: no sample exceeds `ceiling_db` (dBFS), and what stays below is not touched.

    The gain a peak needs is reached in a straight line over the 2 ms before it, held for 12.5 ms after it, and given
    back within 2 ms. (A tanh at this place, as in other tools, takes 2.4 dB off a peak that just meets the ceiling.)
    """
    ceiling = amplitude(ceiling_db)
    if peak(samples) <= ceiling:
        return samples, {"ceiling_db": ceiling_db, "most_reduction_db": 0.0}
    needed = np.minimum(1.0, ceiling * (1 - 1e-6) / np.maximum(peaks(samples, rate), _FLOOR))
    ahead, hold = points_in(_LOOKAHEAD_SECONDS, rate), points_in(HOLD_SECONDS, rate)
    # One point more on either side: between two centres the gain is a mixture of both.
    lowest = window_extreme(needed, before=hold + 1, after=ahead + 1, largest=False)
    ramps = np.convolve(np.pad(lowest, (ahead, 0), mode="edge"), np.full(ahead + 1, 1 / (ahead + 1)), mode="valid")
    facts = {"ceiling_db": ceiling_db, "most_reduction_db": round(float(-20 * np.log10(ramps.min())), 4)}
    return apply_gain(samples, rate, ramps), facts
