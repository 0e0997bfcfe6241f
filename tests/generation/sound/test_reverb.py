"""Rooms ring as long as they say, keep the level of noise and the place of the sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tunesmith.generation.sound.reverb import ROOMS, Room, add_reverb, impulse_response

RATE = 48_000


@pytest.mark.parametrize("name", ROOMS)
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_a_room_falls_by_sixty_decibels_in_its_time(name: str, rate: int) -> None:
    """Schroeder's backward integral (1965), read from -5 to -25 dB as ISO 3382 does, times three."""
    response = impulse_response(ROOMS[name], rate, seed=7).astype(np.float64)
    left_db = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])
    start, stop = (int(np.argmax(left_db <= level)) for level in (-5, -25))
    slope = np.polyfit(np.arange(start, stop) / rate, left_db[start:stop], 1)[0]
    assert -60 / slope == pytest.approx(ROOMS[name].seconds, rel=0.15)
    assert np.sum(response**2) == pytest.approx(1, abs=1e-5)
    assert len(response) == round(rate * ROOMS[name].seconds)


@pytest.mark.parametrize("keep_tail", [True, False])
def test_the_tail_is_kept_or_cut(keep_tail: bool, tone: Callable) -> None:
    samples = tone(300, 0.5, gains=(1.0, 0.5))
    done, facts = add_reverb(samples, RATE, room=ROOMS["room"], mix=0.5, keep_tail=keep_tail, seed=0)
    tail = RATE // 2 - 1 if keep_tail else 0
    assert done.shape == (2, RATE + tail)
    assert facts["tail_samples"] == tail
    assert np.abs(done[:, -1]).max() < 2e-3
    assert np.abs(done[:, RATE - 960 : RATE - 480]).max() > 0.2, "it ends no earlier"


def test_dry_and_wet_are_mixed() -> None:
    impulse = np.zeros((1, 10), dtype=np.float32)
    impulse[0, 0] = 1
    response = impulse_response(ROOMS["cave"], RATE, seed=4)
    done, _ = add_reverb(impulse, RATE, room=ROOMS["cave"], mix=0.3, keep_tail=True, seed=4)
    expected = 0.3 * np.concatenate([response, np.zeros(9)])
    expected[0] += 0.7
    np.testing.assert_allclose(done[0], expected, atol=1e-7)


def test_noise_keeps_its_level_in_a_room() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 4 * RATE)).astype(np.float32)
    done, _ = add_reverb(noise, RATE, room=ROOMS["room"], mix=1.0, keep_tail=True, seed=1)
    settled = done[0, RATE : 4 * RATE]
    assert 20 * np.log10(settled.std() / noise.std()) == pytest.approx(0, abs=0.2)


def test_seeds_make_rooms() -> None:
    first, again, other = (impulse_response(ROOMS["room"], RATE, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert abs(float(first @ other)) < 0.2


def test_a_tiny_room_at_a_low_rate_is_finite() -> None:
    response = impulse_response(Room(0.0005, 0.1, 5000), 8_000, seed=0)
    assert np.isfinite(response).all()
    assert np.sum(response**2) == pytest.approx(1, abs=1e-5)
