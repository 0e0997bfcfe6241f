"""Levels at the control rate, followers against their closed forms, gains between the points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunesmith.generation.sound.envelope import (
    apply_gain,
    channel_levels,
    follow,
    held,
    hop_samples,
    peaks,
    points_in,
    smooth,
    window_extreme,
)

RATE = 48_000
HOP = 24


@pytest.mark.parametrize(("rate", "hop"), [(8_000, 4), (44_100, 22), (48_000, 24), (192_000, 96)])
def test_a_hop_is_half_a_millisecond(rate: int, hop: int) -> None:
    assert hop_samples(rate) == hop
    assert points_in(0.0125, rate) == math.ceil(0.0125 * rate / hop)


@pytest.mark.parametrize("length", [1, 23, 24, 25, 1000])
def test_peaks_and_levels_of_each_hop(length: int) -> None:
    samples = np.random.default_rng(0).normal(0, 1, (2, length)).astype(np.float32)
    parts = [samples[:, start : start + HOP] for start in range(0, length, HOP)]
    np.testing.assert_allclose(peaks(samples, RATE), [np.abs(part).max() for part in parts])
    expected = [[np.sqrt(np.mean(row.astype(float) ** 2)) for row in part] for part in parts]
    np.testing.assert_allclose(channel_levels(samples, RATE, seconds=0), np.transpose(expected))


def test_followers_rise_and_fall_by_their_time_constants() -> None:
    levels = np.concatenate([np.ones(200), np.zeros(400)])
    found = follow(levels, RATE, attack_seconds=0.005, release_seconds=0.05)
    seconds = (np.arange(600) + 1) * 0.0005
    rise = 1 - np.exp(-seconds[:200] / 0.005)
    fall = rise[-1] * np.exp(-seconds[:400] / 0.05)
    np.testing.assert_allclose(found, np.concatenate([rise, fall]), atol=1e-9)
    np.testing.assert_allclose(smooth(levels, RATE, seconds=0.005)[:200], rise, atol=1e-9)
    assert (follow(levels, RATE, attack_seconds=0, release_seconds=0) == levels).all()


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 2), (4, 5), (100, 100)])
def test_window_extremes_are_those_of_every_window(before: int, after: int) -> None:
    levels = np.random.default_rng(0).normal(0, 1, 50)
    windows = [levels[max(0, at - before) : at + after + 1] for at in range(50)]
    found = window_extreme(levels, before=before, after=after, largest=True)
    assert found.tolist() == [window.max() for window in windows]
    assert window_extreme(levels, before=before, after=after, largest=False).tolist() == [w.min() for w in windows]


def test_levels_are_held_for_half_a_period_of_forty_hertz() -> None:
    levels = np.zeros(100)
    levels[10] = 1
    assert np.flatnonzero(held(levels, RATE)).tolist() == list(range(10, 36))  # 25 hops of 0.5 ms after it


@pytest.mark.parametrize("length", [1, 24, 1000, 600_000])
def test_gains_are_straight_between_the_centres_of_hops(length: int) -> None:
    length = length // HOP * HOP or length
    gains = np.random.default_rng(0).uniform(0, 2, math.ceil(length / HOP))
    samples = np.ones((2, length), dtype=np.float32)
    found = apply_gain(samples, RATE, gains)
    place = np.clip((np.arange(length) - (HOP - 1) / 2) / HOP, 0, len(gains) - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(gains) - 1)
    np.testing.assert_allclose(found[0], gains[below] + (gains[above] - gains[below]) * (place - below), atol=1e-5)
    assert (found[0] == found[1]).all()
