"""The short-time spectrum gives back what it took; noise goes, tones stay; formants move, pitch does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, signal

from tunesmith.generation.sound.spectral import (
    denoise,
    formant_factor,
    magnitudes,
    reshape_spectrum,
    shift_formants,
    window_samples,
)

RATE = 48_000


def _noise(level: float = 0.003, *, channels: int = 1, seconds: float = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, (channels, round(seconds * RATE))).astype(np.float32)


def _rms_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


@pytest.mark.parametrize(
    ("rate", "size"), [(8_000, 256), (22_050, 512), (44_100, 1024), (48_000, 1024), (96_000, 2048), (192_000, 4096)]
)
def test_windows_last_about_as_long_at_every_rate(rate: int, size: int) -> None:
    assert window_samples(rate, 1024) == size


@pytest.mark.parametrize("length", [1, 100, 255, 256, 257, 1000, 70_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_gains_of_one_give_the_sound_back(length: int, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (channels, length)).astype(np.float32)
    same = reshape_spectrum(samples, 256, lambda spectra: np.ones(spectra.shape[1:], np.float32))
    assert same.shape == samples.shape
    np.testing.assert_allclose(same, samples, atol=1e-6)


def test_spectra_are_those_of_scipy() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1, 300 * 256)).astype(np.float32)
    seen = []

    def look(spectra: np.ndarray) -> np.ndarray:
        seen.append(magnitudes(spectra))
        return np.ones(spectra.shape[1:], np.float32)

    reshape_spectrum(samples, 1024, look)
    found = np.concatenate(seen)[3:]  # the first three frames begin before the sound
    reference = signal.ShortTimeFFT(signal.windows.hann(1024, sym=False), 256, RATE)
    expected = np.abs(reference.stft(samples[0].astype(np.float64), p0=2, p1=200)).T
    np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-4)


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_a_noise_floor_is_lowered_as_the_rule_says(strength: float) -> None:
    """Magnitudes of noise are Rayleigh: with median m, E[max(r - s m, 0)^2] / E[r^2], before frames overlap again."""
    samples = _noise()
    done, _ = denoise(samples, RATE, strength=strength)
    floor = strength * np.sqrt(np.log(2))
    left, _ = integrate.quad(lambda r: (r - floor) ** 2 * 2 * r * np.exp(-(r**2)), floor, np.inf)
    found = _rms_db(done) - _rms_db(samples)
    # The quietest frames are quieter than the median one; overlapping frames average what remains.
    assert 10 * np.log10(left) - 2.5 < found < 10 * np.log10(left) + 0.5


@pytest.mark.parametrize("from_second", [0.0, 1.0])
@pytest.mark.parametrize("subtracted", [0.25, 1.0])
def test_a_loud_tone_stays(from_second: float, subtracted: float, tone: Callable) -> None:
    clean = tone(1500, 0.5, seconds=2)
    clean[:, : round(from_second * RATE)] = 0
    done, _ = denoise(clean + _noise(), RATE, strength=subtracted)
    part = slice(round(1.25 * RATE), round(1.75 * RATE))
    assert 20 * np.log10(_strength(done[0, part], 1500) / 0.5) == pytest.approx(0, abs=0.05)


def _strength(line: np.ndarray, hz: float) -> float:
    return float(2 * np.abs(np.mean(line * np.exp(-2j * np.pi * hz * np.arange(len(line)) / RATE))))


def test_pauses_between_tones_become_quieter(tone: Callable) -> None:
    samples = tone(1500, 0.5, seconds=2)
    samples[:, RATE:] = 0
    samples += _noise()
    done, facts = denoise(samples, RATE, strength=1.0)
    pause = slice(RATE + 4800, 2 * RATE - 4800)
    assert _rms_db(done[:, pause]) - _rms_db(samples[:, pause]) < -6
    assert facts["profile_frames"] == round(0.15 * ((2 * RATE - 1024) // 256 + 1))


def test_padding_is_no_noise_floor() -> None:
    samples = np.pad(_noise(), ((0, 0), (RATE, RATE)))
    done, _ = denoise(samples, RATE, strength=1.0)
    assert _rms_db(done) - _rms_db(samples) < -6
    assert not done[:, : RATE - 1024].any()


def test_short_sounds_are_left_alone() -> None:
    samples = _noise(seconds=0.05)
    done, facts = denoise(samples, RATE, strength=1.0)
    assert (done == samples).all()
    assert "too short" in facts["skipped"]


@pytest.mark.parametrize(
    ("size", "factor"), [(0, 1.0), (1, 0.7846), (-1, 1.2746), (2.9, 0.5), (-2.9, 2.0), (-1 / 0.35, 2.0)]
)
def test_size_gives_the_factor(size: float, factor: float) -> None:
    assert formant_factor(size) == pytest.approx(factor, abs=1e-4)


def _vowel(pitch_hz: int, formant_hz: float) -> np.ndarray:
    pulses = np.zeros(RATE)
    pulses[:: RATE // pitch_hz] = 1
    angle, radius = 2 * np.pi * formant_hz / RATE, np.exp(-np.pi * 120 / RATE)
    line = signal.lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], pulses)
    return (0.5 * line / np.abs(line).max()).astype(np.float32)[None]


def _formant_hz(line: np.ndarray, pitch_hz: int) -> float:
    """Centre of the strongest harmonics, weighted by power."""
    hz = np.arange(1, 6000 // pitch_hz) * pitch_hz
    powers = np.array([_strength(line[4800:43_200], at) ** 2 for at in hz])
    near = powers > powers.max() / 10
    return float((hz[near] * powers[near]).sum() / powers[near].sum())


@pytest.mark.parametrize("size", [-1.0, 1.0, 0.5])
@pytest.mark.parametrize(("pitch_hz", "formant_hz"), [(100, 1000), (100, 2200), (200, 1000), (400, 2200)])
def test_formants_move_and_the_pitch_stays(size: float, pitch_hz: int, formant_hz: float) -> None:
    vowel = _vowel(pitch_hz, formant_hz)
    before = _formant_hz(vowel[0], pitch_hz)
    done, facts = shift_formants(vowel, RATE, size=size)
    # Harmonics are a tenth to a third of the formant apart: its centre is read no finer than this.
    assert _formant_hz(done[0], pitch_hz) / before == pytest.approx(2 ** (-0.35 * size), rel=0.06)
    line = done[0, 4800:43_200].astype(np.float64)
    rhythm = signal.correlate(line, line, mode="full", method="fft")[len(line) - 1 :]
    shortest = RATE // pitch_hz // 2
    assert np.argmax(rhythm[shortest : 3 * shortest]) + shortest == RATE // pitch_hz
    assert facts["factor"] == pytest.approx(2 ** (-0.35 * size), abs=1e-5)


def test_no_shift_changes_nothing_and_silence_stays() -> None:
    vowel = _vowel(100, 1000)
    np.testing.assert_allclose(shift_formants(vowel, RATE, size=0)[0], vowel, atol=2e-6)
    assert not shift_formants(np.zeros((2, 5000), np.float32), RATE, size=1)[0].any()
