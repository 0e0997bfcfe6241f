"""Attacks by the closed form of two smoothed levels; the bed gives way by the amount asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tunesmith.generation.sound.transients import duck_bed, shape_transients

RATE = 48_000
ONSET = 12_000


def _at_onset(samples: np.ndarray) -> np.ndarray:
    late = samples.copy()
    late[:, :ONSET] = 0
    return late


def _gain_db(after: np.ndarray, before: np.ndarray, at: int) -> float:
    """RMS change over 2 ms around a sample."""
    part = slice(at - 48, at + 48)
    return float(10 * np.log10(np.mean(after[0, part] ** 2) / np.mean(before[0, part] ** 2)))


@pytest.mark.parametrize("attack", [0.25, 1.0, -0.5])
@pytest.mark.parametrize("milliseconds", [10, 20, 40, 120])
def test_an_onset_is_shaped_by_fast_against_slow(attack: float, milliseconds: int, tone: Callable) -> None:
    samples = _at_onset(tone(6000, 0.3))
    done, _ = shape_transients(samples, RATE, attack=attack, sustain=0, split_hz=1200)
    seconds = milliseconds / 1000
    moves = 20 * np.log10((1 - np.exp(-seconds / 0.006)) / (1 - np.exp(-seconds / 0.080)))
    at = ONSET + round(seconds * RATE)
    assert _gain_db(done, samples, at) == pytest.approx(attack * min(moves, 12), abs=0.15 + 0.03 * abs(attack) * moves)


def test_what_rings_on_is_sustain(tone: Callable) -> None:
    decay = np.exp(-np.arange(RATE) / RATE / 0.030).astype(np.float32)
    samples = tone(6000, 0.5) * decay
    raised, facts = shape_transients(samples, RATE, attack=0, sustain=0.5, split_hz=1200)
    # Long after the onset an exponential of 30 ms leaves 30 / (30 - 6) of itself in the fast level, while the slow one
    # falls by its own 80 ms: fast / slow -> (0.030 / 0.024 e^(-t/0.03)) / (0.030 / 0.050 (e^(-t/0.08) - e^(-t/0.03))).
    t = 0.08
    fast = 0.030 / 0.024 * (np.exp(-t / 0.030) - np.exp(-t / 0.006))
    slow = 0.030 / 0.050 * (np.exp(-t / 0.080) - np.exp(-t / 0.030))
    expected = -0.5 * 20 * np.log10(fast / slow)
    assert expected > 1
    assert _gain_db(raised, samples, round(t * RATE)) == pytest.approx(expected, abs=0.2)
    assert facts["lowest_gain_db"] == 0


@pytest.mark.parametrize(("hz", "tolerance"), [(6000, 2e-3), (100, 1e-4)])
def test_steady_tones_and_low_ones_stay(hz: float, tolerance: float, tone: Callable) -> None:
    samples = tone(hz, 0.5, seconds=2)
    done, _ = shape_transients(samples, RATE, attack=1, sustain=1, split_hz=1200)
    settled = slice(RATE, 2 * RATE - 2000)
    np.testing.assert_allclose(done[:, settled], samples[:, settled], atol=tolerance)


@pytest.mark.parametrize("level", [1.0, 0.01])
def test_shaping_does_not_depend_on_the_level(level: float, tone: Callable) -> None:
    samples = _at_onset(tone(6000, 0.5))
    one, _ = shape_transients(samples, RATE, attack=0.5, sustain=0, split_hz=1200)
    other, _ = shape_transients(samples * np.float32(level), RATE, attack=0.5, sustain=0, split_hz=1200)
    np.testing.assert_allclose(other, one * level, atol=1e-5 * level)


def test_the_bed_gives_way_while_high_sound_is_loud(tone: Callable, strength: Callable) -> None:
    bed = tone(100, 0.25, seconds=2)
    burst = tone(6000, 0.5, seconds=2)
    burst[:, : RATE // 2] = 0
    burst[:, RATE + RATE // 2 :] = 0
    done, facts = duck_bed(bed + burst, RATE, amount=0.4, split_hz=1800)
    expected = 1 - 0.4 * 0.5 / np.abs(bed + burst).max()
    assert strength(done[0, RATE - 4800 : RATE + 4800], 100) / 0.25 == pytest.approx(expected, abs=0.005)
    assert strength(done[0, 4800:19_200], 100) / 0.25 == pytest.approx(1, abs=0.005)
    assert strength(done[0, RATE - 4800 : RATE + 4800], 6000) / 0.5 == pytest.approx(1, abs=0.01)
    assert facts["lowest_gain"] == pytest.approx(expected, abs=0.02)


def test_a_bed_alone_is_not_ducked(tone: Callable) -> None:
    samples = tone(100, 0.5)
    done, _ = duck_bed(samples, RATE, amount=1.0, split_hz=1800)
    np.testing.assert_allclose(done[:, 4800:-4800], samples[:, 4800:-4800], atol=0.01)


def test_there_may_be_nothing_to_do() -> None:
    samples = np.ones((1, 100), dtype=np.float32)
    assert "4800 Hz" in shape_transients(samples, 8000, attack=1, sustain=0, split_hz=4800)[1]["skipped"]
    assert "4800 Hz" in duck_bed(samples, 8000, amount=1, split_hz=4800)[1]["skipped"]
    silent = np.zeros((1, 100), dtype=np.float32)
    for done, facts in (
        shape_transients(silent, RATE, attack=1, sustain=0, split_hz=1200),
        duck_bed(silent, RATE, amount=1, split_hz=1800),
    ):
        assert facts == {"skipped": "silence"}
        assert not done.any()
