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


def fall_interval(
    before: Sequence[float], after: Sequence[float], confidence: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """(fall, low, high): the share of the mean of `before` that is gone in `after`, and its bootstrap interval.

    The two are measured on the same items in the same order, and pairs are resampled (Efron, 1979): what items differ
    by among themselves does not widen the interval.
    """
    if not before or len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after")
    pairs = torch.tensor([list(before), list(after)], dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    picks = torch.randint(0, len(before), (resamples, len(before)), generator=rng)
    means = pairs[:, picks].mean(-1)
    tail = (1.0 - confidence) / 2.0
    low, high = torch.quantile(1 - means[1] / means[0], torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    whole = pairs.mean(-1)
    return float(1 - whole[1] / whole[0]), float(low), float(high)


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
