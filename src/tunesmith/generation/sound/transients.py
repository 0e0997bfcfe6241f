"""Attacks: made harder or softer against what rings on, and given room by ducking the bed beneath them."""

from __future__ import annotations

import numpy as np

from tunesmith.generation.sound.envelope import apply_gain, follow, peaks, smooth
from tunesmith.generation.sound.filters import is_reachable, split
from tunesmith.generation.sound.samples import Facts, Samples, is_silent, peak

_FAST_SECONDS, _SLOW_SECONDS = 0.006, 0.080
_MOST_DB = 12.0
_QUIETEST = 1e-3  # levels 60 dB below the band's loudest moment are no transients
_DUCK_ATTACK_SECONDS, _DUCK_RELEASE_SECONDS = 0.002, 0.120


def shape_transients(
    samples: Samples, rate: int, *, attack: float, sustain: float, split_hz: float
) -> tuple[Samples, Facts]:
    """Change the band above `split_hz` by how fast its level moves; below, nothing changes.

    d = the level smoothed over 6 ms against the same over 80 ms, in dB, within +-12. Gain: `attack` * d dB while
    d > 0 (an onset), `sustain` * -d dB while d < 0 (what rings on). A steady sound has d = 0.
    """
    if not is_reachable(split_hz, rate):
        return samples, {"skipped": f"the sound holds nothing above {split_hz:g} Hz"}
    if is_silent(samples):
        return samples, {"skipped": "silence"}
    low, high = split(samples, rate, hz=split_hz)
    levels = peaks(high, rate)
    floor = max(_QUIETEST * float(levels.max()), 1e-9)
    fast, slow = (smooth(levels, rate, seconds=seconds) + floor for seconds in (_FAST_SECONDS, _SLOW_SECONDS))
    moves = np.clip(20 * np.log10(fast / slow), -_MOST_DB, _MOST_DB)
    gains_db = attack * np.maximum(moves, 0) + sustain * np.maximum(-moves, 0)
    facts = {"highest_gain_db": round(float(gains_db.max()), 4), "lowest_gain_db": round(float(gains_db.min()), 4)}
    return low + apply_gain(high, rate, 10 ** (gains_db / 20)), facts


def duck_bed(samples: Samples, rate: int, *, amount: float, split_hz: float) -> tuple[Samples, Facts]:
    """Turn the band below `split_hz` down while the one above is loud.

    Gain of the low band: 1 - amount * min(1, e / p), e the level of the high band (2 ms attack, 120 ms release), p
    the peak of the whole sound.
    """
    if not is_reachable(split_hz, rate):
        return samples, {"skipped": f"the sound holds nothing above {split_hz:g} Hz"}
    if is_silent(samples):
        return samples, {"skipped": "silence"}
    low, high = split(samples, rate, hz=split_hz)
    level = follow(peaks(high, rate), rate, attack_seconds=_DUCK_ATTACK_SECONDS, release_seconds=_DUCK_RELEASE_SECONDS)
    gains = 1 - amount * np.minimum(1, level / peak(samples))
    # A gain of 0 has no dB; the facts give the factor.
    return high + apply_gain(low, rate, gains), {"lowest_gain": round(float(gains.min()), 4)}
