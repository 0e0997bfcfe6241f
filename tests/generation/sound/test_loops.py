"""Loops have no seam, keep their level, and the click measure tells one with a seam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tunesmith.generation.sound.loops import LINEAR_FROM, correlation, loop_click, make_loop

RATE = 48_000
COUNT = 4800


def _noise(channels: int = 1, seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.2, (channels, round(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_end_runs_into_the_start(channels: int) -> None:
    samples = _noise(channels)
    loop = make_loop(samples, RATE, crossfade_seconds=0.1)
    assert loop.samples.shape == (channels, RATE - COUNT)
    assert loop.crossfade_samples == COUNT
    # What follows the loop's last sample is what followed it in the source.
    assert (loop.samples[:, -1] == samples[:, RATE - COUNT - 1]).all()
    assert (loop.samples[:, 0] == samples[:, RATE - COUNT]).all()
    assert (loop.samples[:, COUNT:] == samples[:, COUNT : RATE - COUNT]).all()


def test_a_periodic_sound_is_crossed_linearly_and_stays_as_it_is(tone: Callable) -> None:
    samples = tone(240, 0.5)
    loop = make_loop(samples, RATE, crossfade_seconds=0.1)
    assert loop.curve == "linear"
    assert loop.correlation == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(loop.samples, samples[:, : RATE - COUNT], atol=1e-6)


def test_noise_is_crossed_at_equal_power() -> None:
    loop = make_loop(_noise(seconds=30), RATE, crossfade_seconds=10)
    assert loop.curve == "equal_power"
    assert abs(loop.correlation) < 0.01
    levels = [part.std() for part in np.split(loop.samples[0, : 10 * RATE], 10)]
    assert levels == pytest.approx([0.2] * 10, rel=0.02)


@pytest.mark.parametrize(("alike", "curve"), [(LINEAR_FROM + 0.02, "linear"), (LINEAR_FROM - 0.02, "equal_power")])
def test_the_better_curve_is_taken(alike: float, curve: str) -> None:
    stream = np.random.default_rng(1)
    shared, own = stream.normal(0, 0.2, (2, 10 * RATE))
    samples = np.concatenate([shared, alike * shared + np.sqrt(1 - alike**2) * own])[None].astype(np.float32)
    loop = make_loop(samples, RATE, crossfade_seconds=10)
    assert loop.curve == curve
    assert loop.correlation == pytest.approx(alike, abs=0.01)
    # In the middle both curves would be wrong by 1.5 dB here: (1 + r) / 2 and 1 + r of the power, r = 0.414.
    middle = loop.samples[0, 5 * RATE - 2400 : 5 * RATE + 2400].std() / 0.2
    share = (1 + alike) / 2 if curve == "linear" else 1 + alike
    assert middle == pytest.approx(np.sqrt(share), rel=0.04)


def test_correlation_is_over_all_channels() -> None:
    one = np.array([[1.0, 2.0], [3.0, -1.0]], dtype=np.float32)
    two = np.array([[2.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    assert correlation(one, two) == pytest.approx((2 + 3 - 1) / np.sqrt(15 * 6))
    assert correlation(one, np.zeros_like(one)) == 0


def test_a_click_is_measured_against_the_sounds_own_steps(tone: Callable) -> None:
    whole = tone(100, 0.5)  # 100 periods: the seam is a step like others
    jump = 0.5 * np.sin(2 * np.pi * 100 / RATE)
    assert loop_click(whole) == pytest.approx(jump / np.percentile(np.abs(np.diff(whole)), 99), rel=1e-4)
    assert loop_click(whole) < 1.01
    cut = whole[:, : RATE - 120]  # ends on the trough
    assert loop_click(cut) == pytest.approx(0.5 / np.percentile(np.abs(np.diff(cut)), 99), rel=1e-3)
    assert loop_click(cut) > 70
    assert loop_click(make_loop(cut, RATE, crossfade_seconds=0.1).samples) < 1.05


def test_clicks_of_stereo_sounds_are_those_of_the_worse_channel(tone: Callable) -> None:
    cut = tone(100, 0.5, gains=(0.0, 1.0))[:, : RATE - 120]
    assert loop_click(cut) == pytest.approx(loop_click(cut[::-1]))
    assert loop_click(cut) > 70


@pytest.mark.parametrize(("length", "count"), [(100, 50), (2, 1), (1, 0)])
def test_short_sounds_have_short_crossfades(length: int, count: int) -> None:
    loop = make_loop(np.full((1, length), 0.5, np.float32), RATE, crossfade_seconds=0.1)
    assert loop.crossfade_samples == count
    assert loop.samples.shape == (1, length - count)
    np.testing.assert_allclose(loop.samples, 0.5, atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros((2, 100)), np.ones((1, 1)), np.full((1, 50), 0.3)])
def test_what_does_not_move_has_no_click(samples: np.ndarray) -> None:
    assert loop_click(samples.astype(np.float32)) == 0


def test_one_step_among_rests_is_measured_against_itself() -> None:
    samples = np.zeros((1, 1000), dtype=np.float32)
    samples[0, 500:] = 0.5
    assert loop_click(samples) == pytest.approx(1)
