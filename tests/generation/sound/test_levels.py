"""Levels against closed forms and the loudness standard's own figures; targets are met, ceilings kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal

from tunesmith.generation.sound.levels import clip, loudness, measure, normalise_lufs, normalise_rms, true_peak

RATE = 48_000


def _rms_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


@pytest.mark.parametrize(("gains", "lufs"), [((1.0,), -3.01), ((1.0, 1.0), 0.0), ((0.0, 1.0), -3.01)])
def test_a_full_scale_tone_of_997_hz_has_the_standard_loudness(
    gains: tuple[float, ...], lufs: float, tone: Callable
) -> None:
    """ITU-R BS.1770-4: a 0 dBFS 997 Hz sine in one channel reads -3.01 LKFS; powers of channels add up."""
    found = measure(tone(997, 1.0, seconds=3, gains=gains), RATE)
    assert found["lufs"] == pytest.approx(lufs, abs=0.02)
    assert found["peak_db"] == pytest.approx(0, abs=0.01)
    assert found["true_peak_db"] == pytest.approx(0, abs=0.1)
    assert found["rms_db"] == pytest.approx(-3.01 - 10 * np.log10(len(gains) / sum(gains)), abs=0.01)


# The standard gives its filters for 48 kHz; elsewhere they are bilinear, which bends the shelf near Nyquist.
@pytest.mark.parametrize(
    ("rate", "within"), [(8_000, 0.2), (22_050, 0.1), (44_100, 0.02), (96_000, 0.05), (192_000, 0.05)]
)
def test_loudness_is_the_same_at_every_rate(rate: int, within: float, tone: Callable) -> None:
    expected = loudness(tone(500, 0.1, seconds=2), RATE)
    assert loudness(tone(500, 0.1, seconds=2, rate=rate), rate) == pytest.approx(expected, abs=within)


def test_silence_around_a_tone_is_gated_away(tone: Callable) -> None:
    alone = tone(997, 0.1, seconds=10)
    padded = np.pad(alone, ((0, 0), (0, 20 * RATE)))
    assert loudness(padded, RATE) == pytest.approx(loudness(alone, RATE), abs=0.1)


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.39, 0.4, 0.41, 0.46, 0.55])
def test_short_sounds_have_a_loudness(seconds: float, tone: Callable) -> None:
    found = loudness(tone(997, 0.1, seconds=seconds), RATE)
    assert found == pytest.approx(-23.01, abs=0.1)


def test_a_burst_after_the_last_whole_block_is_heard() -> None:
    samples = np.zeros((1, round(0.49 * RATE)), dtype=np.float32)
    samples[0, round(0.45 * RATE) :] = 0.5 * (-1) ** np.arange(samples.shape[1] - round(0.45 * RATE))
    assert loudness(samples, RATE) is not None


def test_silence_has_no_level() -> None:
    assert measure(np.zeros((2, 100), np.float32), RATE) == dict.fromkeys(("peak_db", "true_peak_db", "rms_db", "lufs"))


def test_the_true_peak_lies_between_the_samples(tone: Callable) -> None:
    samples = tone(RATE / 4, 0.5, phase=np.pi / 4) * signal.windows.tukey(RATE, 0.2).astype(np.float32)
    assert np.abs(samples).max() == pytest.approx(0.5 / np.sqrt(2), rel=1e-5)
    assert true_peak(samples, RATE) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("rate", "factor"), [(44_100, 4), (96_000, 2), (192_000, 1)])
@pytest.mark.parametrize("shift", [-1, 0, 1, 2, 3])
def test_the_true_peak_is_found_wherever_blocks_meet(rate: int, factor: int, shift: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.01, (1, 300_000)).astype(np.float32)
    at = (1 << 18) - 2 + shift
    samples[0, at : at + 4] = [-0.5, 0.5, 0.5, -0.5]  # the peak lies between the two in the middle
    expected = np.abs(signal.resample_poly(samples, factor, 1, axis=1)).max()
    assert expected > (0.75 if factor > 1 else 0.49)
    assert true_peak(samples, rate) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("level", [1e-3, 0.1, 1.5])
@pytest.mark.parametrize("gains", [(1.0,), (1.0, 0.25)])
def test_rms_is_brought_to_the_target(level: float, gains: tuple[float, ...], tone: Callable) -> None:
    samples = tone(300, level, gains=gains)
    done, facts = normalise_rms(samples, target_db=-18, ceiling_db=-1)
    assert _rms_db(done) == pytest.approx(-18, abs=1e-3)
    assert facts["ceiling"] is None
    assert facts["gain_db"] == pytest.approx(-18 - _rms_db(samples), abs=1e-3)
    assert facts["measured_db"] == pytest.approx(_rms_db(samples), abs=1e-3)
    assert facts["reached_db"] == pytest.approx(-18, abs=1e-3)


def test_the_peak_ceiling_rules_a_click() -> None:
    samples = np.zeros((1, 2647), dtype=np.float32)
    samples[0, 1323] = 0.3
    done, facts = normalise_rms(samples, target_db=-18, ceiling_db=-1)
    assert facts["ceiling"] == "peak"
    assert np.abs(done).max() == pytest.approx(10 ** (-1 / 20), rel=1e-6)
    assert facts["reached_db"] == pytest.approx(-1 - 10 * np.log10(2647), abs=1e-3)
    assert _rms_db(done) == pytest.approx(facts["reached_db"], abs=1e-3)


@pytest.mark.parametrize(("level", "expected"), [(0.1, 0.1), (1.7, 10 ** (-1 / 20))])
def test_without_a_target_only_the_ceiling_acts(level: float, expected: float, tone: Callable) -> None:
    done, facts = normalise_rms(tone(300, level), target_db=0, ceiling_db=-1)
    assert np.abs(done).max() == pytest.approx(expected, rel=1e-3)
    assert facts["target_db"] is None


@pytest.mark.parametrize("level", [2e-4, 0.05, 1.2])
def test_loudness_is_brought_to_the_target(level: float, tone: Callable) -> None:
    done, facts = normalise_lufs(tone(997, level, seconds=2), RATE, target_lufs=-23, ceiling_db=-1)
    assert loudness(done, RATE) == pytest.approx(-23, abs=0.02)
    assert np.abs(done).max() == pytest.approx(10 ** ((-23 + 3.01) / 20), rel=0.01)
    assert facts["ceiling"] is None
    assert facts["reached_lufs"] == pytest.approx(-23, abs=0.02)


def test_the_true_peak_ceiling_rules(tone: Callable) -> None:
    samples = tone(RATE / 4, 0.5, phase=np.pi / 4) * signal.windows.tukey(RATE, 0.2).astype(np.float32)
    done, facts = normalise_lufs(samples, RATE, target_lufs=0, ceiling_db=-2)
    assert facts["ceiling"] == "true_peak"
    assert true_peak(done, RATE) == pytest.approx(10 ** (-2 / 20), rel=1e-4)
    assert np.abs(done).max() < 10 ** (-4.9 / 20), "the samples themselves stay 3 dB below"


def test_silence_stays_silence() -> None:
    samples = np.full((2, 30_000), 5e-5, dtype=np.float32)
    for done, facts in (
        normalise_rms(samples, target_db=-18, ceiling_db=-1),
        normalise_lufs(samples, RATE, target_lufs=-18, ceiling_db=-1),
    ):
        assert (done == samples).all()
        assert facts["gain_db"] == 0


def test_clip_keeps_the_balance() -> None:
    samples = np.array([[0.5, 2.0, -1.0, -4.0], [0.25, -0.5, 1.0, 8.0]], dtype=np.float32)
    done, facts = clip(samples)
    np.testing.assert_allclose(done, [[0.5, 1.0, -1.0, -0.5], [0.25, -0.25, 1.0, 1.0]])
    assert facts == {"clipped_samples": 2}
