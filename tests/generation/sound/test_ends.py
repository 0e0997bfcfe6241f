"""Trim cuts where the sound is, fades are straight lines."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.generation.sound.ends import fade, trim

RATE = 48_000
PADDING = 1440  # 30 ms


def _with_burst(first: int, last: int, level: float = 0.5, channels: int = 1) -> np.ndarray:
    samples = np.zeros((channels, RATE), dtype=np.float32)
    samples[0, first:last] = level
    return samples


def test_a_burst_is_cut_out_with_its_padding() -> None:
    samples = _with_burst(10_000, 12_000)
    kept, facts = trim(samples, RATE, threshold_db=-40, padding_seconds=0.03)
    assert (kept == samples[:, 10_000 - PADDING : 12_000 + PADDING]).all()
    assert facts == {"threshold_db": -40.0, "start_samples": 10_000 - PADDING, "end_samples": RATE - 12_000 - PADDING}


def test_padding_ends_where_the_sound_does() -> None:
    kept, facts = trim(_with_burst(100, RATE - 50), RATE, threshold_db=-40, padding_seconds=0.03)
    assert kept.shape == (1, RATE)
    assert (facts["start_samples"], facts["end_samples"]) == (0, 0)


def test_channels_are_cut_together() -> None:
    samples = _with_burst(10_000, 12_000, channels=2)
    samples[1, 30_000:31_000] = -0.3
    kept, _ = trim(samples, RATE, threshold_db=-40, padding_seconds=0.0)
    assert kept.shape == (2, 21_000)
    assert (kept == samples[:, 10_000:31_000]).all()


@pytest.mark.parametrize(("level", "starts_at"), [(0.0101, 5_000), (0.0099, 10_000), (-0.0101, 5_000)])
def test_the_threshold_is_minus_forty(level: float, starts_at: int) -> None:
    samples = _with_burst(10_000, 12_000)
    samples[0, 5_000] = level
    _, facts = trim(samples, RATE, threshold_db=-40, padding_seconds=0.0)
    assert facts["start_samples"] == starts_at


def test_a_quiet_sound_is_no_silence() -> None:
    samples = _with_burst(10_000, 12_000, level=10 ** (-50 / 20))
    samples[0, 5_000] = 10 ** (-71 / 20)
    kept, facts = trim(samples, RATE, threshold_db=-40, padding_seconds=0.0)
    assert kept.shape == (1, 2_000)
    assert facts["threshold_db"] == pytest.approx(-70, abs=1e-3)


@pytest.mark.parametrize(("level", "length", "kept_samples"), [(0.0, RATE, 2400), (9e-5, RATE, 2400), (0.0, 10, 10)])
def test_of_silence_fifty_milliseconds_stay(level: float, length: int, kept_samples: int) -> None:
    kept, facts = trim(np.full((2, length), level, np.float32), RATE, threshold_db=-40, padding_seconds=0.03)
    assert kept.shape == (2, kept_samples)
    assert facts["silent"]
    assert facts["end_samples"] == length - kept_samples


def test_fades_are_straight_lines() -> None:
    samples = np.ones((2, 1000), dtype=np.float32)
    faded, facts = fade(samples, 10_000, seconds=0.008)
    expected = [min(i, 999 - i, 80) / 80 for i in range(1000)]
    np.testing.assert_allclose(faded, [expected] * 2, atol=1e-7)
    assert facts == {"fade_samples": 80}
    assert (samples == 1).all(), "the input is not changed"


@pytest.mark.parametrize(("length", "count"), [(100, 50), (101, 50), (3, 1), (1, 0)])
def test_fades_of_short_sounds_meet_in_the_middle(length: int, count: int) -> None:
    faded, facts = fade(np.ones((1, length), np.float32), RATE, seconds=1.0)
    assert facts["fade_samples"] == count
    expected = [min(i, length - 1 - i, count) / max(count, 1) for i in range(length)] if count else [1.0]
    np.testing.assert_allclose(faded[0], expected, atol=1e-7)
