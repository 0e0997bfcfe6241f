"""Butterworth filters run forward and backward, block by block: no phase shift, whatever the length of the sound."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import signal

from tunesmith.generation.sound.samples import Facts, Samples, blocks

Sections: TypeAlias = npt.NDArray[np.float64]  # [sections, 6], scipy's second-order sections

_REACH = 0.49  # a corner above this share of the rate is as good as Nyquist


def is_reachable(hz: float, rate: int) -> bool:
    """Whether a sound of this rate holds frequencies on both sides of `hz`."""
    return 0 < hz <= _REACH * rate


def corners(rate: int, *, highpass_hz: float = 0.0, lowpass_hz: float = 0.0, order: int = 2) -> Sections:
    """Sections of one pass: a high-pass and a low-pass, either left out where it is 0 or beyond Nyquist."""
    wanted = (("highpass", highpass_hz), ("lowpass", lowpass_hz))
    made = [signal.butter(order, hz, kind, fs=rate, output="sos") for kind, hz in wanted if is_reachable(hz, rate)]
    return np.concatenate([np.zeros((0, 6)), *made])


def zero_phase(samples: Samples, sections: Sections) -> Samples:
    """Filter each channel forward and backward, in float64; its magnitude response is the square of one pass.

    Both ends are extended by point reflection and start from the filter's steady state (Gustafsson, Determining the
    initial states in forward-backward filtering, 1996, is the better and dearer way). Sounds shorter than the usual
    extension get a shorter one.
    """
    if not len(sections):
        return samples
    filtered = np.empty_like(samples)
    for channel, out in zip(samples, filtered, strict=True):
        _both_ways(channel, sections, out)
    return filtered


def _both_ways(channel: npt.NDArray[np.float32], sections: Sections, out: npt.NDArray[np.float32]) -> None:
    length = len(channel)
    taps = 2 * len(sections) + 1 - min(int((sections[:, 2] == 0).sum()), int((sections[:, 5] == 0).sum()))
    padding = min(3 * taps, length - 1)
    line = np.empty(length + 2 * padding)
    line[padding : padding + length] = channel
    line[:padding] = 2 * line[padding] - line[2 * padding : padding : -1]
    end = padding + length
    line[end:] = 2 * line[end - 1] - line[end - 2 : end - 2 - padding : -1]
    steady = signal.sosfilt_zi(sections)
    for backward in (False, True):
        state: Any = None
        view = line[::-1] if backward else line
        for part in blocks(len(line)):
            state = steady * view[part][0] if state is None else state
            view[part], state = signal.sosfilt(sections, view[part], zi=state)
    out[:] = line[padding:end]


def band_limit(samples: Samples, rate: int, *, highpass_hz: float, lowpass_hz: float) -> tuple[Samples, Facts]:
    """High-pass and low-pass, order 2 each way: -3 dB a pass and so -6 dB at each corner; 0 leaves one out.

    A corner that the rate does not hold (at or above 0.49 of it) is left out too and reported as null.
    """
    sections = corners(rate, highpass_hz=highpass_hz, lowpass_hz=lowpass_hz)
    kept = {"highpass_hz": highpass_hz, "lowpass_hz": lowpass_hz}
    facts = {name: hz if is_reachable(hz, rate) else None for name, hz in kept.items()}
    return zero_phase(samples, sections), facts


def split(samples: Samples, rate: int, *, hz: float, order: int = 2) -> tuple[Samples, Samples]:
    """(below, above) `hz`. They add up to the sound: forward-backward Butterworth halves are exact complements."""
    low = zero_phase(samples, corners(rate, lowpass_hz=hz, order=order))
    return low, samples - low
