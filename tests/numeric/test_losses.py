"""Losses against torch and the formulas of the papers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tunesmith.numeric.losses import mean_squared, min_snr_weight, weighted_mean

RNG = torch.Generator().manual_seed(1)
A, B = torch.randn(3, 4, 5, 5, generator=RNG), torch.randn(3, 4, 5, 5, generator=RNG)


def test_mean_squared_is_torchs_per_item() -> None:
    expected = torch.stack([F.mse_loss(a, b) for a, b in zip(A, B, strict=True)])
    torch.testing.assert_close(mean_squared(A, B), expected)
    assert mean_squared(A.bfloat16(), B.bfloat16()).dtype == torch.float32


def test_a_mask_leaves_out_what_it_covers() -> None:
    mask = torch.ones(3, 1, 5, 5)
    mask[..., :2, :] = 0
    kept = (A - B)[..., 2:, :].square().sum((1, 2, 3)) / (4 * 5 * 5)
    torch.testing.assert_close(mean_squared(A, B, mask), kept)


def test_weights_multiply_and_the_count_divides() -> None:
    assert float(weighted_mean(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 0.5]))) == 2.0
    assert float(weighted_mean(torch.tensor([4.0]), torch.tensor([0.5]))) == 2.0


@pytest.mark.parametrize(
    ("prediction", "snr", "expected"),
    [("noise", 20.0, 0.25), ("noise", 2.0, 1.0), ("velocity", 20.0, 5 / 21), ("velocity", 2.0, 2 / 3)],
)
def test_min_snr(prediction: str, snr: float, expected: float) -> None:
    assert float(min_snr_weight(torch.tensor([snr]), 5.0, prediction)) == pytest.approx(expected)


def test_min_snr_knows_two_predictions() -> None:
    with pytest.raises(ValueError, match="neither"):
        min_snr_weight(torch.ones(1), 5.0, "sample")
