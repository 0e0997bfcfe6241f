"""Figures that say how close two things are, and how sure a mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def psnr_db(a: torch.Tensor, b: torch.Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB of two tensors of one shape; `peak` is the range of their values."""
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else 10.0 * math.log10(peak**2 / error)


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|, Euclidean over all values; 0 where both are zero."""
    size = float(b.double().norm())
    difference = float((a.double() - b.double()).norm())
    return difference / size if size else (0.0 if difference == 0 else math.inf)


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of `values` (Efron, 1979)."""
    if not values:
        raise ValueError("no values to resample")
    sample = torch.tensor(values, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    picks = torch.randint(0, len(values), (resamples, len(values)), generator=rng)
    tail = (1.0 - confidence) / 2.0
    low, high = torch.quantile(sample[picks].mean(1), torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return float(low), float(high)
