"""The exciter's overtones are those of a cube, and nothing folds back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal

from tunesmith.generation.sound.harmonics import excite

RATE = 48_000


@pytest.mark.parametrize("amount", [0.2, 1.0])
@pytest.mark.parametrize("hz", [3000, 5000])
def test_a_tone_gets_its_third_harmonic(amount: float, hz: int, tone: Callable, strength: Callable) -> None:
    """With u = sin: (3u - u^3) / 2 = 9/8 sin x + 1/8 sin 3x."""
    samples = tone(hz, 0.4) * signal.windows.tukey(RATE, 0.2).astype(np.float32)
    done, facts = excite(samples, RATE, amount=amount, hz=2500)
    ends = [signal.butter(2, 2500, "high", fs=RATE), signal.butter(2, RATE / 6, "low", fs=RATE)]
    band = 0.4 * np.prod([np.abs(signal.freqz(*end, worN=[hz], fs=RATE)[1][0]) ** 2 for end in ends])
    middle = done[0, RATE // 4 : RATE * 3 // 4].astype(np.float64)
    assert strength(middle, hz) == pytest.approx(0.4 + 0.5 * amount * band * 9 / 8, rel=1e-3)
    assert strength(middle, 3 * hz) == pytest.approx(0.5 * amount * band / 8, rel=1e-3)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) / len(middle) * 4
    known = np.zeros(len(spectrum), dtype=bool)
    for partial in (hz, 3 * hz):
        known[partial // 2 - 20 : partial // 2 + 20] = True
    assert spectrum[~known].max() < 1e-5
    assert facts == {"from_hz": 2500, "to_hz": 8000.0}


def test_all_channels_get_the_loudest_ones_gain(tone: Callable) -> None:
    samples = tone(3000, 0.5, gains=(0.3, 1.0))
    done, _ = excite(samples, RATE, amount=1.0, hz=2500)
    np.testing.assert_allclose(done[0], done[1] * 0.3, atol=1e-7)


def test_there_may_be_no_room_or_nothing_to_excite(tone: Callable) -> None:
    low = tone(100, 1e-4)
    done, facts = excite(low, 8000, amount=1.0, hz=2500)
    assert (done == low).all()
    assert "8000 Hz" in facts["skipped"]
    done, facts = excite(low, RATE, amount=1.0, hz=2500)
    assert (done == low).all()
    assert facts["skipped"] == "nothing above 2500 Hz"
