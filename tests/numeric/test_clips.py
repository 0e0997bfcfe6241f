"""Every measure against a sound whose figure is known on paper."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.signal import sosfilt

from tunesmith.errors import DataError
from tunesmith.numeric import clips
from tunesmith.numeric.clips import (
    attack_seconds,
    clipped_runs,
    crest_db,
    dc_offset,
    decay_seconds,
    loudness_lufs,
    measure_clip,
    peak,
    rms_dbfs,
    silence_share,
    spectrum,
    stereo_correlation,
    true_peak_dbfs,
)

RATE = 48_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal((1, 4 * RATE))


def sine(hertz: float, seconds=1.0, *, level_db=0.0, rate=RATE, phase=0.0) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hertz * t + phase)[None]


def square(hertz: float) -> np.ndarray:
    return np.where(np.arange(RATE) * 2 * hertz // RATE % 2 == 0, 1.0, -1.0)[None]


# ---------------------------------------------------------------- level


def test_levels_of_a_sine():
    assert peak(sine(1000)) == pytest.approx(1)
    assert rms_dbfs(sine(1000)) == pytest.approx(10 * math.log10(0.5))
    assert crest_db(sine(1000, level_db=-17)) == pytest.approx(10 * math.log10(2))


def test_levels_of_a_square_wave():
    assert rms_dbfs(square(100)) == pytest.approx(0)
    assert crest_db(0.3 * square(100)) == pytest.approx(0)


def test_channels_count_together():
    assert rms_dbfs(np.concatenate([sine(1000), np.zeros((1, RATE))])) == pytest.approx(10 * math.log10(0.25))
    assert peak(np.concatenate([-sine(1000), 0.1 * sine(50)])) == pytest.approx(1)


def test_integers_of_a_narrow_kind_do_not_overflow():
    assert rms_dbfs(np.full((1, 10), 1, np.float16)) == 0


@pytest.mark.parametrize("share", [4, 5, 6])
def test_true_peak_between_samples(share):
    """EBU Tech 3341's idea: a sine whose samples miss its peaks; tolerance +0.2, -0.4 dB."""
    fade = np.hanning(RATE)
    sound = sine(RATE / share, level_db=-6, phase=math.pi / share) * np.minimum(1, 20 * fade)
    assert -6.4 < true_peak_dbfs(sound) < -5.8
    if share == 4:
        assert 20 * math.log10(peak(sound)) == pytest.approx(-6 - 10 * math.log10(2), abs=0.01)


def test_true_peak_finds_the_one_place(monkeypatch):
    """In the middle of a long quiet sound, across the seam of two blocks."""
    sound = np.zeros((2, 20_000))
    burst = sine(RATE / 4, 0.02, level_db=-6, phase=math.pi / 4) * np.hanning(960)
    sound[1, 8192 - 480 : 8192 + 480] = burst
    whole = true_peak_dbfs(sound)
    monkeypatch.setattr(clips, "_BLOCK", 100_000)
    assert whole == pytest.approx(true_peak_dbfs(sound), abs=1e-4)
    assert -6.2 < whole < -5.8


def test_silence():
    nothing = np.zeros((2, 4800))
    assert (peak(nothing), crest_db(nothing), dc_offset(nothing), clipped_runs(nothing)) == (0, 0, 0, 0)
    assert rms_dbfs(nothing) == true_peak_dbfs(nothing) == loudness_lufs(nothing, RATE) == -math.inf
    assert silence_share(nothing, RATE) == 1
    assert attack_seconds(nothing, RATE) == decay_seconds(nothing, RATE) == stereo_correlation(nothing) == 0
    assert dataclasses.astuple(spectrum(nothing, RATE)) == (0, 0, 0, 0)


# ---------------------------------------------------------------- loudness


@pytest.mark.parametrize("level", [0.0, -18.0, -40.0])
def test_loudness_of_the_standards_tone(level):
    """ITU-R BS.1770-4: a full-scale 997 Hz sine in one channel reads -3.01 LKFS."""
    assert loudness_lufs(sine(997, level_db=level), RATE) == pytest.approx(-3.01 + level, abs=0.02)


TONES = {  # EBU Tech 3341, table 1: (dBFS, seconds) of a stereo 1 kHz tone, all reading -23 LUFS within 0.1
    1: [(-23, 20)],
    3: [(-36, 10), (-23, 60), (-36, 10)],
    4: [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)],
    5: [(-26, 20), (-20, 20.1), (-26, 20)],
}


@pytest.mark.parametrize("case", TONES)
def test_loudness_of_the_reference_tones(case):
    tone = np.concatenate([sine(1000, length, level_db=level, rate=16_000) for level, length in TONES[case]], axis=1)
    assert loudness_lufs(np.repeat(tone, 2, axis=0), 16_000) == pytest.approx(-23, abs=0.1)


def test_loudness_of_surround():
    """EBU Tech 3341, case 6: five channels, the rear ones weighted."""
    sound = np.concatenate([sine(1000, 5, level_db=level) for level in (-28, -28, -24, -30, -30)])
    assert loudness_lufs(sound, RATE) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("seconds", [0.399, 0.1, 0.02])
def test_loudness_of_short_clips_is_one_block(seconds):
    """The K-weighting's coefficients at 48 kHz as ITU-R BS.1770-4 prints them, and the mean square of all samples."""
    weighting = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
    sound = np.concatenate([sine(500, seconds), 0.5 * NOISE[:, : round(seconds * RATE)]])
    power = np.square(sosfilt(weighting, sound)).mean(axis=1).sum()
    assert loudness_lufs(sound, RATE) == pytest.approx(-0.691 + 10 * math.log10(power), abs=0.02)


@pytest.mark.parametrize("rate", [1000, 4000, 8000, 44_100, 192_000])
def test_loudness_at_every_rate(rate):
    expected = loudness_lufs(sine(300, 2), RATE)
    # The weighting's shelf is warped near half of a low rate.
    assert loudness_lufs(sine(300, 2, rate=rate), rate) == pytest.approx(expected, abs=0.25)


def test_loudness_of_many_channels_is_that_of_their_mean():
    sound = np.repeat(sine(997), 6, axis=0)
    assert loudness_lufs(sound, RATE) == pytest.approx(-3.01, abs=0.02)


# ---------------------------------------------------------------- faults


def test_dc_offset():
    assert dc_offset(sine(100) + 0.125) == pytest.approx(0.125)
    assert dc_offset(np.concatenate([sine(100) + 0.01, sine(100) - 0.3])) == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("values", "runs"),
    [
        ([0, 1, 1, 1, 0], 1),
        ([1, 1, 0, 1, 1], 0),
        ([1, 1, 1], 1),
        ([1, 1, 1, -1, -1, -1], 2),
        ([0, 32_767 / 32_768, 32_767 / 32_768, 1.5, 0], 1),
        ([-1, -1, -1, -1, 0, -1, -1, -1], 2),
        ([0.99] * 10, 0),
    ],
)
def test_clipped_runs(values, runs):
    assert clipped_runs(np.array([values])) == runs
    assert clipped_runs(np.array([values, values[::-1]])) == 2 * runs


def test_clipped_runs_of_a_square_wave():
    assert clipped_runs(square(100)) == 200
    assert clipped_runs(0.9 * square(100)) == 0


def test_silence_share():
    sound = sine(1000)
    sound[:, RATE // 4 :] *= 1e-4
    assert silence_share(sound, RATE) == pytest.approx(0.75)
    assert silence_share(sound, RATE, below_dbfs=-90) == 0


def test_stereo_correlation():
    left, right = sine(440), sine(440, phase=math.pi / 3)
    assert stereo_correlation(left) == 1
    assert stereo_correlation(np.concatenate([left, 0.1 * left + 0.2])) == pytest.approx(1)
    assert stereo_correlation(np.concatenate([left, -left])) == pytest.approx(-1)
    assert stereo_correlation(np.concatenate([left, right])) == pytest.approx(0.5)
    assert stereo_correlation(np.concatenate([left, 0 * left])) == 0


# ---------------------------------------------------------------- envelope


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_attack_of_a_ramp(rate, seconds):
    """A straight rise takes 0.8 of its length from 10 to 90 %."""
    t = np.arange(rate) / rate
    sound = sine(1000, rate=rate) * np.minimum(t / seconds, 1)
    assert attack_seconds(sound, rate) == pytest.approx(0.8 * seconds, abs=0.002)
    assert decay_seconds(sound[:, ::-1], rate) == pytest.approx(0.8 * seconds, abs=0.002)


@pytest.mark.parametrize("constant", [0.05, 0.2])
def test_decay_of_an_exponential(constant):
    t = np.arange(2 * RATE) / RATE
    sound = sine(1000, 2) * np.exp(-t / constant)
    assert decay_seconds(sound, RATE) == pytest.approx(constant * math.log(9), abs=0.003)
    assert attack_seconds(sound, RATE) <= 0.01


# ---------------------------------------------------------------- spectrum


def test_spectrum_of_a_sine():
    found = spectrum(sine(1000, level_db=-30) + 0.2, RATE)
    bin_hertz = RATE / 2048
    assert found.centroid_hz == pytest.approx(1000, abs=1)
    assert found.rolloff_hz == pytest.approx(1000, abs=bin_hertz)
    assert found.bandwidth_hz < bin_hertz  # the window's main lobe
    assert found.flatness < 1e-6


def test_spectrum_of_two_sines():
    found = spectrum(np.concatenate([sine(1000), sine(5000)]), RATE)
    assert found.centroid_hz == pytest.approx(3000, abs=2)
    assert found.bandwidth_hz == pytest.approx(2000, abs=2)
    assert found.rolloff_hz == pytest.approx(5000, abs=RATE / 2048)


def test_spectrum_weighs_by_power():
    found = spectrum(sine(1000) + 0.5 * sine(6000), RATE)
    assert found.centroid_hz == pytest.approx((1000 + 0.25 * 6000) / 1.25, rel=1e-3)


@pytest.mark.parametrize("seconds", [0.1, 4.0])
def test_spectrum_of_white_noise(seconds):
    found = spectrum(NOISE[:, : round(seconds * RATE)], RATE)
    loose = 0.002 / math.sqrt(seconds) + 0.01
    assert found.centroid_hz == pytest.approx(RATE / 4, rel=loose)
    assert found.rolloff_hz == pytest.approx(0.85 * RATE / 2, rel=loose)
    assert found.bandwidth_hz == pytest.approx(RATE / 2 / math.sqrt(12), rel=loose)
    # Powers of noise are exponentially distributed: their geometric mean is exp(-Euler's constant) of the mean.
    assert found.flatness == pytest.approx(math.exp(-0.5772157), rel=0.02)


def test_spectrum_is_blind_to_level_and_to_silence_around():
    loud, quiet = spectrum(NOISE, RATE), spectrum(1e-3 * np.pad(NOISE, ((0, 0), (RATE, RATE))), RATE)
    np.testing.assert_allclose(dataclasses.astuple(loud), dataclasses.astuple(quiet), rtol=0.005)


def test_spectrum_of_a_cut_band_is_not_flat():
    filtered = np.fft.irfft(np.fft.rfft(NOISE) * (np.fft.rfftfreq(NOISE.shape[1], 1 / RATE) < 6000))
    found = spectrum(filtered, RATE)
    assert found.rolloff_hz == pytest.approx(0.85 * 6000, rel=0.02)
    assert found.flatness < 0.01


# ---------------------------------------------------------------- all


def test_measure_clip_is_every_measure():
    sound = np.concatenate([sine(440, 0.5), 0.5 * sine(600, 0.5)])
    found = measure_clip(sound, RATE)
    assert (found.seconds, found.rate, found.channels) == (0.5, RATE, 2)
    for name in ("peak", "true_peak_dbfs", "rms_dbfs", "crest_db", "dc_offset", "clipped_runs", "stereo_correlation"):
        assert getattr(found, name) == getattr(clips, name)(sound)
    for name in ("loudness_lufs", "silence_share", "attack_seconds", "decay_seconds", "spectrum"):
        assert getattr(found, name) == getattr(clips, name)(sound, RATE)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 4800])
def test_any_length(count):
    values = dataclasses.asdict(measure_clip(NOISE[:, :count], RATE))
    spectral = values.pop("spectrum")
    assert not any(math.isnan(value) for value in (*values.values(), *spectral.values()))


@pytest.mark.parametrize("bad", [np.zeros((1, 0)), np.array([[0.0, math.nan]])])
def test_no_sound(bad):
    with pytest.raises(DataError):
        measure_clip(bad, RATE)


def test_another_shape():
    with pytest.raises(ValueError, match="channels, samples"):
        measure_clip(np.zeros(10), RATE)


def test_without_torch():
    code = (
        "import sys, numpy, tunesmith.numeric.clips as clips\n"
        "clips.measure_clip(numpy.ones((1, 5000)), 8000)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
