"""Losses per item, and how items are weighed."""

from __future__ import annotations

import torch


def mean_squared(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared difference [batch] in float32 over all axes but the first.

    `mask` [batch, ...] (broadcast over missing axes of size 1) multiplies the squares; the mean stays one over all
    places, so a picture of which little counts weighs little.
    """
    squares = (prediction.float() - target.float()).square()
    if mask is not None:
        squares = squares * mask.to(squares)
    return squares.flatten(1).mean(1)


def weighted_mean(per_item: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """mean(per_item * weights), a scalar; both [batch].

    Divided by the count, not by the sum of weights: an item of weight 0.5 moves the model half as much even where it
    is alone in its batch.
    """
    return (per_item * weights.to(per_item)).mean()


def min_snr_weight(snr: torch.Tensor, gamma: float, prediction: str) -> torch.Tensor:
    """Weights [batch] that keep nearly clean steps from dominating (Hang et al., 2023, arXiv 2303.09556, section 3.4).

    `snr` [batch]; `prediction` is what the network predicts: "noise" gives min(snr, gamma) / snr, "velocity"
    min(snr, gamma) / (snr + 1).
    """
    if prediction not in ("noise", "velocity"):
        raise ValueError(f"prediction is {prediction!r}, neither 'noise' nor 'velocity'")
    return snr.clamp(max=gamma) / (snr if prediction == "noise" else snr + 1.0)
