"""Convolution in blocks is convolution."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.generation.sound.convolution import convolve


@pytest.mark.parametrize("length", [1, 5, 64, 65, 1000])
@pytest.mark.parametrize("taps", [1, 2, 100])
def test_equal_to_the_sum_over_all_taps(length: int, taps: int) -> None:
    stream = np.random.default_rng(0)
    samples = stream.normal(0, 1, (2, length)).astype(np.float32)
    kernel = stream.normal(0, 1, taps).astype(np.float32)
    expected = [np.convolve(channel.astype(np.float64), kernel) for channel in samples]
    np.testing.assert_allclose(convolve(samples, kernel, block_samples=64), expected, atol=1e-4)
