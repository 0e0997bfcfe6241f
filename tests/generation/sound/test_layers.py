"""Texture and noise bed: as loud as asked, in their band, where the sound is, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal

from tunesmith.generation.sound.layers import TEXTURES, Grains, add_noise_bed, add_texture

RATE = 48_000


def _grains(kind: str = "rasp", amount: float = 0.3) -> Grains:
    return Grains(kind, amount, 0.022, 0.55)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


@pytest.mark.parametrize("kind", TEXTURES)
def test_a_texture_keeps_to_its_band_and_level(kind: str, tone: Callable) -> None:
    samples = tone(200, 0.5, seconds=4)
    done, facts = add_texture(samples, RATE, grains=_grains(kind), seed=3)
    layer = done - samples
    assert _rms(layer) / _rms(samples) == pytest.approx(0.3, rel=0.03)
    hz, power = signal.welch(layer[0], RATE, nperseg=4096)
    low, high = TEXTURES[kind]
    inside = power[(hz > low / 1.6) & (hz < high * 1.6)].sum() / power.sum()
    assert inside > 0.95
    assert facts == {"kind": kind, "against_sound_db": pytest.approx(-10.4576)}


def test_a_texture_comes_in_grains(tone: Callable) -> None:
    samples = tone(200, 0.5, seconds=4)
    done, _ = add_texture(samples, RATE, grains=Grains("chitter", 1.0, 0.05, 0.0), seed=0)
    power = np.square(done - samples)[0]
    power = signal.lfilter(np.ones(240) / 240, 1, power)[RATE // 2 :]
    spectrum = np.abs(np.fft.rfft(power - power.mean()))[:400]
    assert np.argmax(spectrum) / (len(power) / RATE) == pytest.approx(20, abs=0.6)  # without spray one grain in 50 ms


def test_a_texture_follows_the_sound(tone: Callable) -> None:
    samples = tone(200, 0.5, seconds=2)
    samples[:, RATE:] = 0
    done, _ = add_texture(samples, RATE, grains=_grains(), seed=1)
    layer = done - samples
    # The level falls by one neper in 40 ms: ten of them after 0.4 s.
    assert _rms(layer[:, RATE + RATE * 2 // 5 :]) < 1e-4 * _rms(layer[:, :RATE])


@pytest.mark.parametrize("colour", ["white", "pink"])
@pytest.mark.parametrize("gains", [(1.0,), (1.0, 0.1)])
def test_a_noise_bed_has_its_level_below_each_channel(colour: str, gains: tuple[float, ...], tone: Callable) -> None:
    samples = tone(200, 0.5, gains=gains)
    done, _ = add_noise_bed(samples, level_db=-30, colour=colour, seed=3)
    for before, after in zip(samples, done, strict=True):
        assert 20 * np.log10(_rms(after - before) / _rms(before)) == pytest.approx(-30, abs=0.02)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -3.01)])
def test_noise_colours_have_their_slopes(colour: str, slope: float) -> None:
    samples = np.full((1, 20 * RATE), 0.1, dtype=np.float32)
    done, _ = add_noise_bed(samples, level_db=-20, colour=colour, seed=0)
    hz, power = signal.welch((done - samples)[0], RATE, nperseg=8192)
    octaves = [10 * np.log10(power[(hz >= low) & (hz < 2 * low)].mean()) for low in (100, 200, 400, 800, 1600, 3200)]
    assert np.polyfit(range(6), octaves, 1)[0] == pytest.approx(slope, abs=0.15)


def test_seeds_decide(tone: Callable) -> None:
    samples = tone(200, 0.5, seconds=0.2)
    for layer in (
        lambda seed: add_texture(samples, RATE, grains=_grains(), seed=seed)[0],
        lambda seed: add_noise_bed(samples, level_db=-20, colour="pink", seed=seed)[0],
    ):
        assert (layer(5) == layer(5)).all()
        assert not np.allclose(layer(5), layer(6))


def test_silence_gets_no_layer() -> None:
    silent = np.zeros((2, 5000), dtype=np.float32)
    assert not add_texture(silent, RATE, grains=_grains(), seed=0)[0].any()
    assert not add_noise_bed(silent, level_db=-20, colour="white", seed=0)[0].any()
