"""The ends of a sound: silence trimmed, short fades."""

from __future__ import annotations

import numpy as np

from tunesmith.generation.sound.samples import Facts, Samples, amplitude, decibels, is_silent, peak

_SILENCE_SECONDS = 0.05
_QUIET_DB = 20.0  # see `trim`


def trim(samples: Samples, rate: int, *, threshold_db: float, padding_seconds: float) -> tuple[Samples, Facts]:
    """Cut before the first and after the last sample above the threshold, less the padding. One cut for all channels.

    The threshold is `threshold_db` (dBFS), or 20 dB below the sound's own peak where that is lower: a quiet sound is
    not taken for silence. Of silence (peak below -80 dBFS) the first 50 ms stay.
    """
    length = samples.shape[1]
    if is_silent(samples):
        kept = min(length, max(1, round(_SILENCE_SECONDS * rate)))
        return samples[:, :kept], {"silent": True, "start_samples": 0, "end_samples": length - kept}
    threshold = min(amplitude(threshold_db), peak(samples) * amplitude(-_QUIET_DB))
    above = np.zeros(length, dtype=bool)
    for channel in samples:
        above |= channel > threshold
        above |= channel < -threshold
    padding = round(padding_seconds * rate)
    first = max(0, int(above.argmax()) - padding)
    last = min(length, length - int(above[::-1].argmax()) + padding)
    facts = {"threshold_db": decibels(threshold), "start_samples": first, "end_samples": length - last}
    return samples[:, first:last], facts


def fade(samples: Samples, rate: int, *, seconds: float) -> tuple[Samples, Facts]:
    """Linear ramps at both ends: sample i of the first N is multiplied by i/N, mirrored at the end.

    N = seconds * rate, at most half of the sound.
    """
    length = min(round(seconds * rate), samples.shape[1] // 2)
    if length == 0:
        return samples, {"fade_samples": 0}
    ramp = (np.arange(length) / length).astype(np.float32)
    faded = samples.copy()
    faded[:, :length] *= ramp
    faded[:, -length:] *= ramp[::-1]
    return faded, {"fade_samples": length}
