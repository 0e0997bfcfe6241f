"""The exciter: overtones made from the upper part of a sound."""

from __future__ import annotations

import numpy as np

from tunesmith.generation.sound.filters import corners, is_reachable, zero_phase
from tunesmith.generation.sound.samples import SILENCE, Facts, Samples, blocks, peak

_MIX = 0.5
_NARROWEST = 1.2


def excite(samples: Samples, rate: int, *, amount: float, hz: float) -> tuple[Samples, Facts]:
    """Add half of `amount` times the saturated band above `hz`: u becomes (3u - u^3) / 2, u the band over its peak.

    The band ends at a sixth of the rate, so that the third harmonic, the only one a cube makes, still fits under
    Nyquist and nothing folds back. All channels get the gain of the loudest one at each instant.
    """
    top = rate / 6
    if top < _NARROWEST * hz or not is_reachable(hz, rate):
        return samples, {"skipped": f"no third harmonic of {hz:g} Hz fits into {rate} Hz"}
    band = zero_phase(samples, corners(rate, highpass_hz=hz, lowpass_hz=top))
    loudest = peak(band)
    if loudest < SILENCE:
        return samples, {"skipped": f"nothing above {hz:g} Hz"}
    excited = samples.copy()
    for part in blocks(samples.shape[1]):
        level = np.abs(band[:, part]).max(axis=0) / np.float32(loudest)
        excited[:, part] += np.float32(_MIX * amount) * band[:, part] * (1.5 - 0.5 * np.square(level))
    return excited, {"from_hz": hz, "to_hz": round(top, 2)}
