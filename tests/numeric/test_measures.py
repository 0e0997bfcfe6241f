"""Measures against scikit-image, scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from skimage.metrics import peak_signal_noise_ratio

from tunesmith.numeric.measures import bootstrap_interval, psnr_db, relative_l2

RNG = torch.Generator().manual_seed(0)


def test_psnr_is_that_of_scikit_image() -> None:
    a, b = torch.rand(3, 8, 8, generator=RNG), torch.rand(3, 8, 8, generator=RNG)
    for peak in (1.0, 2.0):
        expected = peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=peak)
        assert psnr_db(a, b, peak) == pytest.approx(expected, rel=1e-6)
    assert psnr_db(a, a) == math.inf


def test_relative_l2() -> None:
    assert relative_l2(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.8)
    assert relative_l2(torch.zeros(2), torch.zeros(2)) == 0.0
    assert relative_l2(torch.ones(2), torch.zeros(2)) == math.inf


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    values = torch.randn(40, generator=RNG).tolist()
    low, high = bootstrap_interval(values, confidence=0.9, seed=3)
    theirs = bootstrap(
        (np.array(values),), np.mean, confidence_level=0.9, n_resamples=2000, method="percentile", random_state=1
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.08 * spread)  # two different draws of 2,000 resamples
    assert high == pytest.approx(theirs.high, abs=0.08 * spread)
    assert bootstrap_interval(values, confidence=0.9, seed=3) == (low, high)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([], seed=0)
