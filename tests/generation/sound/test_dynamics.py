"""Compressor and limiter against their static curves and time constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.generation.sound.dynamics import Bands, Curve, compress, limit, multiband

RATE = 48_000
POLISH = Curve(-18, 4, 0.005, 0.090, 3.0)


@pytest.mark.parametrize("level_db", [-40, -18, -12, -6, 0])
@pytest.mark.parametrize("hz", [50, 1000, 7000])
def test_the_static_curve_is_four_to_one_above_minus_eighteen(
    level_db: float, hz: float, tone: Callable, strength: Callable
) -> None:
    squeezed, facts = compress(tone(hz, 10 ** (level_db / 20)), RATE, curve=POLISH)
    expected = (level_db if level_db <= -18 else -18 + (level_db + 18) / 4) + 3
    settled = squeezed[0, RATE // 2 :]
    assert 20 * np.log10(strength(settled, hz)) == pytest.approx(expected, abs=0.03)
    assert facts["most_reduction_db"] == pytest.approx(max(0, (level_db + 18) * 0.75), abs=0.05)


def test_reduction_grows_by_the_attack_and_shrinks_by_the_release() -> None:
    steps = np.concatenate([np.full(RATE // 2, 0.5), np.full(RATE, 0.05)]).astype(np.float32)[None]
    squeezed, _ = compress(steps, RATE, curve=Curve(-18, 4, 0.020, 0.090))
    reduction = -20 * np.log10(squeezed[0] / steps[0])
    full = (20 * np.log10(0.5) + 18) * 0.75
    seconds = (np.arange(steps.shape[1]) + 12) / RATE  # gains stand at the centre of their hop
    rising = slice(100, RATE // 2 - 100)
    np.testing.assert_allclose(reduction[rising], full * (1 - np.exp(-seconds[rising] / 0.020)), atol=0.01)
    falling = slice(RATE // 2 + 700, None)  # after the hold of 12.5 ms
    expected = full * np.exp(-(seconds[falling] - 0.5 - 0.0125) / 0.090)
    np.testing.assert_allclose(reduction[falling], expected, atol=0.01 * full)


def test_a_ratio_of_one_changes_nothing(tone: Callable) -> None:
    samples = tone(100, 0.9)
    np.testing.assert_allclose(compress(samples, RATE, curve=Curve(-18, 1, 0.005, 0.09))[0], samples, atol=1e-7)


def test_the_loud_channel_rules_both(tone: Callable) -> None:
    samples = tone(500, 0.8, gains=(1.0, 0.05))
    squeezed, _ = compress(samples, RATE, curve=POLISH)
    np.testing.assert_allclose(squeezed[1], squeezed[0] * 0.05, atol=1e-7)


def test_bands_that_are_left_alone_add_up(tone: Callable) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (2, RATE)).astype(np.float32)
    curve, bands = Curve(0, 2, 0.004, 0.120), Bands(250, 3000)
    np.testing.assert_allclose(multiband(samples, RATE, bands=bands, curve=curve)[0], samples, atol=1e-6)


def test_each_band_is_compressed_by_its_own_level(tone: Callable, strength: Callable) -> None:
    samples = tone(50, 0.1) + tone(800, 0.5) + tone(12_000, 0.01)
    done, facts = multiband(samples, RATE, bands=Bands(250, 3000), curve=Curve(-26, 2, 0.004, 0.120))
    settled = done[0, RATE // 2 :]
    middle_db = 20 * np.log10(0.5)
    assert 20 * np.log10(strength(settled, 800)) == pytest.approx(-26 + (middle_db + 26) / 2, abs=0.1)
    assert 20 * np.log10(strength(settled, 50)) == pytest.approx(-26 + (-20 + 26) / 2, abs=0.1)
    assert 20 * np.log10(strength(settled, 12_000)) == pytest.approx(-40, abs=0.1)
    assert facts["high_reduction_db"] == 0


def test_bands_have_gains(tone: Callable, strength: Callable) -> None:
    samples = tone(50, 0.1) + tone(800, 0.1) + tone(12_000, 0.1)
    done, _ = multiband(samples, RATE, bands=Bands(250, 3000, -6, 0, 6), curve=Curve(0, 2, 0.004, 0.120))
    middle = done[0, RATE // 4 : RATE * 3 // 4]
    found = [20 * np.log10(strength(middle, hz) / 0.1) for hz in (50, 800, 12_000)]
    assert found == pytest.approx([-6, 0, 6], abs=0.05)


@pytest.mark.parametrize("hz", [40, 400, 5000])
def test_a_limited_tone_is_turned_down_and_not_bent(hz: float, tone: Callable) -> None:
    samples = tone(hz, 1.0)
    done, facts = limit(samples, RATE, ceiling_db=-6)
    scale = 10 ** (-6 / 20)
    middle = slice(RATE // 4, RATE * 3 // 4)
    np.testing.assert_allclose(done[:, middle], samples[:, middle] * scale, atol=2e-3)
    assert np.abs(done).max() <= scale
    assert facts["most_reduction_db"] == pytest.approx(6, abs=1e-3)


def test_a_peak_is_caught_and_the_rest_left_alone(tone: Callable) -> None:
    samples = tone(300, 0.4)
    samples[0, 24_000] = -1.6
    done, _ = limit(samples, RATE, ceiling_db=-1)
    assert np.abs(done).max() <= 10 ** (-1 / 20)
    far = np.r_[0 : 24_000 - 200, 24_000 + 900 : RATE]  # 2 ms and a hop before, 14.5 ms and a hop after
    np.testing.assert_allclose(done[:, far], samples[:, far], rtol=2e-6)
    untouched, _ = limit(tone(300, 0.8), RATE, ceiling_db=-1)
    assert (untouched == tone(300, 0.8)).all()


@settings(deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 44_100, 192_000]),
    length=st.integers(1, 3000),
    channels=st.integers(1, 2),
    ceiling_db=st.floats(-30, 0),
    seed=st.integers(0, 2**32),
)
def test_no_sample_passes_the_limiter(rate: int, length: int, channels: int, ceiling_db: float, seed: int) -> None:
    stream = np.random.default_rng(seed)
    samples = (stream.standard_cauchy((channels, length)) * 0.1).clip(-50, 50).astype(np.float32)
    done, _ = limit(samples, rate, ceiling_db=ceiling_db)
    assert np.abs(done).max() <= 10 ** (ceiling_db / 20) * (1 + 1e-6)
    assert (np.abs(done) <= np.abs(samples) * (1 + 1e-6)).all(), "a limiter raises nothing"
