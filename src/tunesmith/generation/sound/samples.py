"""What a sound is here: float32 samples [channels, samples] with full scale at 1. Checks, decibels, blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError, NonFinite

Samples: TypeAlias = npt.NDArray[np.float32]
Facts: TypeAlias = dict[str, Any]  # JSON-ready: what a step did

MOST_CHANNELS = 2
RATES = (8_000, 192_000)
SILENCE = 1e-4  # -80 dBFS: a sound whose peak is below this is silence, which no step makes louder
_LOUDEST = 100.0  # far beyond any decoder's overshoot; more means another scale
_BLOCK_SAMPLES = 1 << 18


def check_sound(samples: npt.NDArray[Any], rate: int) -> Samples:
    """`samples` as float32, or DataError for a wrong shape, type, rate or scale; NonFinite for NaN and infinities."""
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= MOST_CHANNELS or samples.shape[1] == 0:
        raise DataError(f"a sound has the shape {samples.shape}", expected="[1 or 2 channels, 1 or more samples]")
    if not np.issubdtype(samples.dtype, np.floating):
        raise DataError(f"a sound holds {samples.dtype}", expected="floats with full scale at 1")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"a sound has {rate} samples a second", expected=f"{RATES[0]} to {RATES[1]}")
    loudest = peak(samples)
    if not math.isfinite(loudest):
        wrong = int(np.count_nonzero(~np.isfinite(samples)))
        raise NonFinite(f"{wrong:,} of a sound's {samples.size:,} samples are NaN or infinite")
    if loudest > _LOUDEST:
        raise DataError(f"a sound peaks at {loudest:g}", expected="floats with full scale at 1")
    return np.ascontiguousarray(samples, dtype=np.float32)


def amplitude(decibels: float) -> float:
    """The factor of a level or gain in dB."""
    return float(10.0 ** (decibels / 20.0))


def decibels(factor: float) -> float | None:
    """20 log10 of an amplitude, rounded for reports; None for 0."""
    return round(20.0 * math.log10(factor), 4) if factor > 0 else None


def peak(samples: npt.NDArray[Any]) -> float:
    """The largest absolute sample of all channels; NaN where there is one."""
    return float(np.maximum(samples.max(), -samples.min()))


def mean_square(samples: Samples) -> float:
    """Mean of the squares over channels and samples, summed in float64."""
    total = sum(float(np.sum(np.square(samples[:, part], dtype=np.float64))) for part in blocks(samples.shape[1]))
    return total / samples.size


def is_silent(samples: Samples) -> bool:
    """Whether the peak is below -80 dBFS."""
    return peak(samples) < SILENCE


def blocks(length: int, size: int = _BLOCK_SAMPLES) -> Iterator[slice]:
    """Slices that cover range(length) in order, so that long sounds need no whole-length temporaries."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def random_stream(seed: int, purpose: str) -> np.random.Generator:
    """A generator that depends on nothing but `seed` (0 or more) and `purpose`."""
    return np.random.default_rng([seed, *purpose.encode()])
