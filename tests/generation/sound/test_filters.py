"""Corners where they should be, no phase, halves that add up; scipy is the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal

from tunesmith.generation.sound.filters import band_limit, corners, split, zero_phase

RATE = 48_000


@pytest.mark.parametrize(("low", "high"), [(40.0, 0.0), (0.0, 16_000.0), (40.0, 16_000.0), (250.0, 3000.0)])
def test_one_pass_loses_three_decibels_at_each_corner(low: float, high: float) -> None:
    at = [hz for hz in (low, high) if hz]
    _, response = signal.sosfreqz(corners(RATE, highpass_hz=low, lowpass_hz=high), worN=at, fs=RATE)
    assert 20 * np.log10(np.abs(response)) == pytest.approx([-3.0103] * len(at), abs=0.01)


def test_both_passes_are_the_square_of_one() -> None:
    impulse = np.zeros((1, RATE), dtype=np.float32)
    impulse[0, RATE // 2] = 1
    filtered, facts = band_limit(impulse, RATE, highpass_hz=40, lowpass_hz=16_000)
    ends = [signal.butter(2, 40, "high", fs=RATE), signal.butter(2, 16_000, "low", fs=RATE)]
    one_pass = np.prod([signal.freqz(*end, worN=RATE // 2, fs=RATE)[1] for end in ends], axis=0)
    found = np.fft.rfft(np.roll(filtered[0].astype(np.float64), RATE // 2))[:-1]
    np.testing.assert_allclose(found.real, np.abs(one_pass) ** 2, atol=2e-6)
    np.testing.assert_allclose(found.imag, 0, atol=2e-6)  # no phase
    assert facts == {"highpass_hz": 40, "lowpass_hz": 16_000}


@pytest.mark.parametrize("hz", [40.0, 16_000.0])
def test_a_tone_at_a_corner_loses_six_decibels(hz: float, tone: Callable, strength: Callable) -> None:
    filtered, _ = band_limit(tone(hz, seconds=2), RATE, highpass_hz=40, lowpass_hz=16_000)
    middle = filtered[0, RATE // 2 : RATE // 2 + RATE]
    assert 20 * np.log10(strength(middle, hz) / 0.5) == pytest.approx(-6.02, abs=0.02)


@pytest.mark.parametrize("length", [1, 2, 7, 16, 1000, 300_000])
@pytest.mark.parametrize("highpass", [40.0, 0.0])
def test_equal_to_scipy_at_every_length(length: int, highpass: float) -> None:
    samples = np.random.default_rng(length).uniform(-1, 1, (2, length)).astype(np.float32)
    sections = corners(RATE, highpass_hz=highpass, lowpass_hz=9000)
    usual = 15 if highpass else 9
    expected = signal.sosfiltfilt(sections, samples.astype(np.float64), padlen=min(usual, length - 1))
    np.testing.assert_allclose(zero_phase(samples, sections), expected, atol=1e-6)


@pytest.mark.parametrize("order", [2, 4])
def test_halves_add_up_and_are_complements(order: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.2, (2, RATE)).astype(np.float32)
    low, high = split(samples, RATE, hz=1200, order=order)
    np.testing.assert_allclose(low + high, samples, atol=1e-6)
    expected = signal.sosfiltfilt(signal.butter(order, 1200, "high", fs=RATE, output="sos"), samples)
    # Away from the ends, where each filter has its own way to begin.
    np.testing.assert_allclose(high[:, 2000:-2000], expected[:, 2000:-2000], atol=2e-6)


def test_corners_that_the_rate_does_not_hold_are_left_out() -> None:
    samples = np.random.default_rng(0).normal(0, 0.2, (1, 800)).astype(np.float32)
    filtered, facts = band_limit(samples, 8000, highpass_hz=0, lowpass_hz=16_000)
    assert (filtered == samples).all()
    assert facts == {"highpass_hz": None, "lowpass_hz": None}
    low, high = split(samples, 8000, hz=5000)
    assert (low == samples).all()
    assert not high.any()
