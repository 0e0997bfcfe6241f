"""Convolution with a short kernel, block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import signal

from tunesmith.generation.sound.samples import Samples, blocks

_BLOCK_SAMPLES = 1 << 18


def convolve(samples: Samples, kernel: npt.NDArray[np.float32], *, block_samples: int = _BLOCK_SAMPLES) -> Samples:
    """The full convolution of every channel with `kernel`: [channels, samples + len(kernel) - 1]."""
    tail = len(kernel) - 1
    total = np.zeros((samples.shape[0], samples.shape[1] + tail), dtype=np.float32)
    for part in blocks(samples.shape[1], max(block_samples, len(kernel))):
        total[:, part.start : part.stop + tail] += signal.fftconvolve(samples[:, part], kernel[None], axes=1)
    return total
