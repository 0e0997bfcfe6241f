"""Which clips are one recording: small maps of how each one moves, and how far two maps are apart. No torch.

What is kept is where a sound is stronger or weaker than around that moment and that band, as no two takes of a creature
or of a noise are. Level, polarity, channels, silence around it and another rate change next to nothing, codecs and a
tenth of a second cut off little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from tunesmith.numeric.timbre import ANALYSIS_RATE, LOWEST_HZ, log_mel, mel_of

LONGEST_SECONDS = 10.0
SHIFT_SECONDS = 0.3

_MEL_BANDS, _FRAME, _HOP = 48, 2048, 180  # 93 ms every 8 ms at ANALYSIS_RATE: a shift by half a hop changes little
_EVERY = 2  # neighbouring bands overlap, so half of them say nearly as much
_AROUND_FRAMES, _AROUND_BANDS = 41, 9  # a third of a second
_RANGE_DB = 48.0
_SILENT_DBFS = -90.0
_STEPS_PER_DB = 4
_NYQUIST_SHARE = 0.95
_REACH = round(SHIFT_SECONDS * ANALYSIS_RATE / _HOP)
_ROWS = 16

BANDS = _MEL_BANDS // _EVERY


@dataclass(frozen=True)
class Fingerprint:
    """A clip's first 10 s of sound, in quarters of a decibel; 3 kB a second.

    `texture` int8 [frames, bands]: level against the third of a second and the nine bands around it. `profile` uint8
    [bands]: mean level above 48 dB under the loudest. `bands`: how many of them the clip's rate can hold. No frames
    for silence.
    """

    texture: NDArray[np.int8]
    profile: NDArray[np.uint8]
    bands: int


def fingerprint(samples: NDArray[Any], rate: int) -> Fingerprint:
    """The fingerprint of samples [channels, samples] at `rate` Hz. Raises what `check_sound` does."""
    part = samples[:, : round(2 * LONGEST_SECONDS * rate)]
    if (part == part[:1]).all():  # mono in two channels: the mean of equal powers is one of them
        part = part[:1]
    power = log_mel(part, rate, bands=_MEL_BANDS, frame=_FRAME, hop=_HOP)
    loudest = float(power.max())
    above = np.clip(power - (loudest - _RANGE_DB), 0.0, None)
    heard = np.flatnonzero(above.max(1) > 0)
    if loudest < _SILENT_DBFS:
        return Fingerprint(np.zeros((0, BANDS), dtype=np.int8), np.zeros(BANDS, dtype=np.uint8), BANDS)
    last = min(int(heard[-1]) + 1, int(heard[0]) + round(LONGEST_SECONDS * ANALYSIS_RATE / _HOP))
    levels = above[heard[0] : last]
    moved = levels - uniform_filter1d(levels, _AROUND_FRAMES, axis=0, mode="nearest")
    texture = moved - uniform_filter1d(moved, _AROUND_BANDS, axis=1, mode="nearest")
    return Fingerprint(
        texture=np.rint(texture[:, ::_EVERY] * _STEPS_PER_DB).clip(-127, 127).astype(np.int8),
        profile=np.rint(levels.mean(0)[::_EVERY] * _STEPS_PER_DB).astype(np.uint8),
        bands=_bands_below(_NYQUIST_SHARE * rate / 2.0),
    )


def fingerprint_distance(a: Fingerprint, b: Fingerprint) -> float:
    """How different two fingerprints are over the bands that both can hold: 0 one recording, 1 nothing in common.

    The larger of two: 1 - correlation of the textures at the best shift of up to 0.3 s; the difference of the profiles
    over their sum (Bray and Curtis, 1957), which alone tells steady tones apart. Silence is like silence only.
    Measured on synthetic voices and noises: codecs, rates and cuts of 0.1 s stay below 0.15, two takes above 0.3. Of a
    steady tone only the ends move, so cut it is another sound.
    """
    if not len(a.texture) or not len(b.texture):
        return 0.0 if len(a.texture) == len(b.texture) else 1.0
    return next(_distances((a, b), min(a.bands, b.bands)))[2]


def closest_pairs(fingerprints: Sequence[Fingerprint], within: float) -> list[tuple[int, int, float]]:
    """(i, j, distance) of all pairs at most `within` apart, i < j, in order; silence is left out.

    All pairs are compared at once, in the frequency domain: a thousand clips of 2 s take seconds.
    """
    heard = [at for at, one in enumerate(fingerprints) if len(one.texture)]
    pairs = []
    for bands in {fingerprints[at].bands for at in heard}:
        chosen = [at for at in heard if fingerprints[at].bands >= bands]
        for i, j, distance in _distances([fingerprints[at] for at in chosen], bands):
            one, other = chosen[i], chosen[j]
            if distance <= within and min(fingerprints[one].bands, fingerprints[other].bands) == bands:
                pairs.append((one, other, distance))
    return sorted(pairs)


def _distances(prints: Sequence[Fingerprint], bands: int) -> Iterator[tuple[int, int, float]]:
    """(i, j, distance) of every two of them, i < j, over the first `bands` bands."""
    if len(prints) < 2:
        return
    size = 2 ** (max(len(one.texture) for one in prints) + _REACH).bit_length()
    profiles = np.stack([one.profile[:bands] for one in prints]).astype(np.float32)
    norms = np.array([np.linalg.norm(one.texture[:, :bands].astype(np.float32)) for one in prints])
    spectra = np.stack([np.fft.rfft(one.texture[:, :bands], size, axis=0) for one in prints], axis=1)
    spectra = spectra.astype(np.complex64)  # [frequencies, clips, bands]
    for first in range(0, len(prints), _ROWS):
        rows = spectra[:, first : first + _ROWS].conj()
        cross = np.matmul(rows, spectra[:, first:].transpose(0, 2, 1))
        shifts = np.fft.irfft(cross, size, axis=0)
        best = np.maximum(shifts[: _REACH + 1].max(0), shifts[-_REACH:].max(0))
        for row in range(len(best)):
            i = first + row
            scale = norms[i] * norms[i + 1 :]
            alike = np.divide(best[row, row + 1 :], scale, out=np.zeros(len(scale)), where=scale > 0)
            alike[(norms[i] == 0) & (norms[i + 1 :] == 0)] = 1.0  # both steady: their profiles decide
            levels = np.maximum(profiles[i].sum() + profiles[i + 1 :].sum(1), 1e-9)
            apart = np.abs(profiles[i] - profiles[i + 1 :]).sum(1) / levels
            for offset, value in enumerate(np.maximum(apart, 1.0 - alike)):
                yield i, i + 1 + offset, float(min(1.0, max(0.0, value)))


def _bands_below(hertz: float) -> int:
    """How many of the kept bands end below a frequency."""
    ends = np.linspace(mel_of(LOWEST_HZ), mel_of(ANALYSIS_RATE / 2.0), _MEL_BANDS + 2)[2::_EVERY]
    return max(1, int((ends <= mel_of(hertz)).sum()))
