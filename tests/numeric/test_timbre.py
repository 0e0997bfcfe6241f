"""Spectra, cepstra and distances of sounds against formulas written out, and closed forms."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy.signal import resample_poly

from tunesmith.errors import DataError
from tunesmith.numeric.timbre import (
    ANALYSIS_RATE,
    FLOOR_DB,
    FRAME,
    HOP,
    LOWEST_HZ,
    RANGE_DB,
    RESOLUTIONS,
    log_mel,
    log_mel_distance,
    mfcc,
    multi_resolution_stft_distance,
    timbre_embedding,
)

RATE = ANALYSIS_RATE


def _noise(seconds: float, *, seed: int = 0, channels: int = 1, level: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((channels, round(seconds * RATE)))).astype(np.float32)


def _tone(hertz: float, seconds: float = 0.5, *, rate: int = RATE, level: float = 1.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[None]


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mels / 2595) - 1)


def _corners(bands: int) -> np.ndarray:
    low, high = (2595 * math.log10(1 + f / 700) for f in (LOWEST_HZ, RATE / 2))
    return _mel_to_hertz(np.linspace(low, high, bands + 2))


def _frame_spectrum(sound: np.ndarray, centre: int, frame: int, window: int) -> np.ndarray:
    """Magnitudes of one channel's frame, by the definition of the Fourier transform."""
    place = np.arange(frame)
    shape = np.zeros(frame)
    left = (frame - window) // 2
    shape[left : left + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    index = centre - frame // 2 + place
    inside = (index >= 0) & (index < len(sound))
    values = np.where(inside, sound[np.clip(index, 0, len(sound) - 1)], 0.0) * shape
    return np.abs(_turns(frame) @ values) * 2 / shape.sum()


@cache
def _turns(frame: int) -> np.ndarray:
    return np.exp(-2j * np.pi * np.outer(np.arange(frame // 2 + 1), np.arange(frame)) / frame)


def test_log_mel_is_the_formula_written_out() -> None:
    sound = _noise(0.1, channels=2)
    found = log_mel(sound, RATE, bands=20)
    assert found.shape == (1 + sound.shape[1] // HOP, 20)
    assert found.dtype == np.float32
    corners, hertz = _corners(20), np.arange(FRAME // 2 + 1) * RATE / FRAME
    for at in (0, 3, len(found) - 1):
        power = np.mean([_frame_spectrum(channel, at * HOP, FRAME, FRAME) ** 2 for channel in sound], axis=0)
        triangles = [np.interp(hertz, corners[band : band + 3], [0, 1, 0], left=0, right=0) for band in range(20)]
        expected = [10 * math.log10(triangle @ power / 1.5) for triangle in triangles]  # a Hann window spreads 1.5 bins
        np.testing.assert_allclose(found[at], expected, atol=1e-3)


@pytest.mark.parametrize("level", [1.0, 0.01])
def test_a_sine_reads_its_level_in_its_band(level: float) -> None:
    for band in (12, 20, 30):
        found = log_mel(_tone(_corners(32)[band + 1], level=level), RATE, bands=32)[20]
        assert int(found.argmax()) == band
        assert found[band] == pytest.approx(20 * math.log10(level), abs=1.0)


@pytest.mark.parametrize(("bands", "frame"), [(64, FRAME), (128, FRAME), (128, 512)])
def test_every_band_hears_white_noise(bands: int, frame: int) -> None:
    heard = log_mel(_noise(2.0), RATE, bands=bands, frame=frame).mean(0)
    assert np.abs(np.diff(heard)).max() < 4, "no band falls between two bins of the transform"


def test_frames_are_centred_from_the_first_sample_to_the_last() -> None:
    assert len(log_mel(_noise(1.0)[:, : 3 * HOP], RATE)) == 4
    assert len(log_mel(_noise(1.0)[:, : 3 * HOP - 1], RATE)) == 3
    click = np.zeros((1, 10 * HOP), np.float32)
    click[0, 6 * HOP] = 1.0
    assert log_mel(click, RATE).mean(1).argmax() == 6


def test_silence_is_the_floor_and_offsets_stay_out() -> None:
    assert (log_mel(np.zeros((2, 3000), np.float32), RATE) == FLOOR_DB).all()
    assert (log_mel(np.zeros((1, 3000), np.float32), RATE, floor_db=-50) == -50).all()
    assert (log_mel(np.full((1, 9000), 0.5, np.float32), RATE)[15] == FLOOR_DB).all()


def test_mfcc_is_the_orthonormal_cosine_transform() -> None:
    levels = log_mel(_noise(0.1), RATE).astype(np.float64)
    found = mfcc(_noise(0.1), RATE, count=7)
    for k in range(7):
        scale = math.sqrt((1 if k == 0 else 2) / 64)
        expected = scale * (levels * np.cos(np.pi * k * (2 * np.arange(64) + 1) / 128)).sum(1)
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-4, atol=1e-3)
    louder = mfcc(10 * _noise(0.1), RATE, count=7) - found
    np.testing.assert_allclose(louder, np.tile([160.0] + 6 * [0.0], (len(found), 1)), atol=1e-2)


def test_the_embedding_holds_means_and_deviations() -> None:
    sound = _noise(0.4)
    levels = log_mel(sound, RATE).astype(np.float64)
    levels = np.maximum(levels - levels.max(), -RANGE_DB)
    steps = np.arange(64)
    table = np.array([np.sqrt((1 + (k > 0)) / 64) * np.cos(np.pi * k * (2 * steps + 1) / 128) for k in range(20)])
    cepstra = levels @ table.T
    deltas = np.empty_like(cepstra)
    for at in range(len(cepstra)):
        around = cepstra[np.clip(np.arange(at - 2, at + 3), 0, len(cepstra) - 1)]
        deltas[at] = [np.polyfit(np.arange(-2, 3), column, 1)[0] for column in around.T]  # the slope of a fitted line
    expected = np.concatenate([cepstra.mean(0), cepstra.std(0), deltas.mean(0), deltas.std(0)])
    np.testing.assert_allclose(timbre_embedding(sound, RATE), expected, rtol=1e-3, atol=1e-3)


def test_the_mean_delta_is_the_slope_of_a_decay() -> None:
    seconds = np.arange(RATE) / RATE
    dying = _noise(1.0) * 10 ** (-25 * seconds / 20)  # 25 dB a second
    slope = timbre_embedding(dying.astype(np.float32), RATE)[40]
    assert slope == pytest.approx(8 * -25 * HOP / RATE, rel=0.1)  # coefficient 0 is 8 times the mean level


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: 0.01 * x, id="level"),
        pytest.param(lambda x: -x, id="polarity"),
        pytest.param(lambda x: np.repeat(x, 2, axis=0), id="stereo"),
        pytest.param(lambda x: np.concatenate([x, -x]), id="opposite phases"),
        pytest.param(lambda x: np.pad(x, ((0, 0), (3001, 7000))), id="silence around"),
    ],
)
def test_the_embedding_does_not_change(change) -> None:
    sound = _noise(0.3, seed=4) + _tone(900, 0.3)
    np.testing.assert_allclose(timbre_embedding(change(sound), RATE), timbre_embedding(sound, RATE), atol=2e-3)


def test_rates_compare() -> None:
    sound, other = (resample_poly(_noise(0.5, seed=seed), 4, 1, axis=1) for seed in (1, 2))
    low = timbre_embedding(sound[:, ::2], 2 * RATE)
    high = timbre_embedding(sound, 4 * RATE)
    apart = np.linalg.norm(high - timbre_embedding(other, 4 * RATE))
    assert np.linalg.norm(high - low) < 0.1 * apart, "one noise at two rates, against two noises"


@pytest.mark.parametrize("samples", [1, 100, round(0.05 * 44_100)])
def test_short_sounds_have_an_embedding(samples: int) -> None:
    found = timbre_embedding(_noise(0.2)[:, :samples], 44_100)
    assert found.shape == (80,)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - timbre_embedding(_tone(500, 0.05), RATE)) > 10


def test_silence_has_a_quiet_embedding() -> None:
    silent = timbre_embedding(np.zeros((1, 5000), np.float32), RATE)
    assert silent[0] == pytest.approx(-8 * RANGE_DB)
    np.testing.assert_allclose(silent[1:], 0, atol=1e-3)


def test_stft_distance_is_the_formula_written_out() -> None:
    one, other = _noise(0.03, seed=1, channels=2), _noise(0.03, seed=2, channels=2, level=0.05)
    total = 0.0
    for frame, hop, window in RESOLUTIONS:
        spectra = [
            np.maximum([_frame_spectrum(c, at, frame, window) for c in s for at in range(0, s.shape[1] + 1, hop)], 1e-4)
            for s in (one, other)
        ]
        total += np.sqrt(((spectra[0] - spectra[1]) ** 2).sum() / (spectra[0] ** 2).sum())
        total += np.abs(np.log(spectra[0]) - np.log(spectra[1])).mean()
    assert multi_resolution_stft_distance(one, other, RATE) == pytest.approx(total / len(RESOLUTIONS), rel=1e-3)


def test_distances_of_a_gain_are_known() -> None:
    sound = _noise(0.5)
    assert multi_resolution_stft_distance(sound, sound, RATE) == 0
    assert log_mel_distance(sound, sound, RATE) == 0
    halved = multi_resolution_stft_distance(sound, sound / 2, RATE)
    assert halved == pytest.approx(0.5 + math.log(2), rel=0.02), "a few bins of noise lie under the floor"
    assert log_mel_distance(sound, sound / 2, RATE) == pytest.approx(20 * math.log10(2), rel=1e-3)


def test_distances_grow_with_the_error() -> None:
    sound, hiss = _tone(700) + 0.2 * _tone(2100), _noise(0.5, level=1.0)
    for distance in (multi_resolution_stft_distance, log_mel_distance):
        found = [distance(sound, sound + level * hiss, RATE) for level in (0.0, 0.001, 0.01, 0.1)]
        assert found == sorted(set(found))
        stereo = np.concatenate([sound, sound])
        assert distance(stereo, np.concatenate([sound, 0 * sound]), RATE) > found[1], "a lost channel counts"
        silence = np.zeros_like(sound)
        assert np.isfinite(distance(silence, sound, RATE))
        with pytest.raises(ValueError, match="one shape"):
            distance(sound, sound[:, 1:], RATE)


def test_sounds_that_are_none_are_refused() -> None:
    broken = _noise(0.1)
    broken[0, 5] = np.nan
    for measure in (log_mel, mfcc, timbre_embedding):
        with pytest.raises(DataError, match="not finite"):
            measure(broken, RATE)
        with pytest.raises(DataError, match="empty"):
            measure(np.zeros((1, 0), np.float32), RATE)
        with pytest.raises(ValueError, match=r"channels, samples"):
            measure(broken[0], RATE)
