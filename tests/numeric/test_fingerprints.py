"""Copies of a recording are near, other recordings far, and pairs found at once are those compared one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.signal import resample_poly

from tunesmith.numeric.fingerprints import (
    LONGEST_SECONDS,
    Fingerprint,
    closest_pairs,
    fingerprint,
    fingerprint_distance,
)

RATE = 32_000
NEAR, FAR = 0.2, 0.3


def take(seed: int, voice: int = 0, *, seconds=1.0) -> np.ndarray:
    """One take of a creature: takes of a `voice` share timbre and register, and differ as two calls do."""
    fixed, draw = np.random.default_rng(voice), np.random.default_rng((voice, seed))
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = fixed.uniform(80, 500) * 2 ** np.interp(t, np.linspace(0, seconds, 6), draw.normal(0, 0.3, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    bright = fixed.uniform(0.8, 2)
    sound = sum(np.sin(k * phase) / k**bright for k in range(1, 20)) + 0.2 * draw.standard_normal(len(t))
    sound *= np.minimum(t / 0.04, 1) * np.exp(-t / 0.5)
    return (0.5 * sound / np.abs(sound).max())[None]


def noise(seed: int) -> np.ndarray:
    t = np.arange(RATE) / RATE
    return (0.1 * np.random.default_rng(seed).standard_normal(RATE) * np.exp(-t))[None]


def tone(hertz: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)[None]


SOUNDS = {"take": take(0), "noise": noise(0), "tone": tone(440.0)}
COPIES = {
    "quieter": lambda x: (0.01 * x, RATE),
    "upside down": lambda x: (-x, RATE),
    "stereo": lambda x: (np.repeat(x, 2, axis=0), RATE),
    "opposite phase": lambda x: (np.concatenate([x, -x]), RATE),
    "padded": lambda x: (np.pad(x, ((0, 0), (7777, 5000))), RATE),
    "start cut": lambda x: (x[:, round(0.05 * RATE) :], RATE),
    "end cut": lambda x: (x[:, : -round(0.05 * RATE)], RATE),
    "48 kHz": lambda x: (resample_poly(x, 3, 2, axis=1), 48_000),
    "8 kHz": lambda x: (resample_poly(x, 1, 4, axis=1), 8000),
    "8 bits": lambda x: (np.round(x * 128) / 128, RATE),
}


@pytest.mark.parametrize(
    ("sound", "copy"),
    # All that moves in a steady tone is its ends.
    [pair for pair in itertools.product(SOUNDS, COPIES) if pair not in {("tone", "start cut"), ("tone", "end cut")}],
)
def test_copies_are_near(sound, copy):
    original = fingerprint(SOUNDS[sound], RATE)
    changed = fingerprint(*COPIES[copy](SOUNDS[sound]))
    assert fingerprint_distance(original, changed) < NEAR
    assert fingerprint_distance(original, original) == pytest.approx(0, abs=1e-6)


def test_others_are_far():
    takes = [take(seed, voice) for voice in range(4) for seed in range(4)]
    others = [*takes, *(noise(seed) for seed in range(3)), tone(440.0), tone(470.0), tone(1500.0)]
    prints = [fingerprint(sound, RATE) for sound in others]
    assert min(fingerprint_distance(a, b) for a, b in itertools.combinations(prints, 2)) > FAR


def brute_distance(a: Fingerprint, b: Fingerprint) -> float:
    """The definition, shift by shift, 0.3 s to either side (180 of 22,050 samples a frame)."""
    bands = min(a.bands, b.bands)
    one, other = (print_.texture[:, :bands].astype(float) for print_ in (a, b))
    best = -np.inf
    for shift in range(-37, 38):
        x, y = (one[shift:], other) if shift >= 0 else (one, other[-shift:])
        count = min(len(x), len(y))
        best = max(best, float((x[:count] * y[:count]).sum()))
    profiles = [print_.profile[:bands].astype(float) for print_ in (a, b)]
    apart = np.abs(profiles[0] - profiles[1]).sum() / (profiles[0] + profiles[1]).sum()
    alike = best / (np.linalg.norm(one) * np.linalg.norm(other))
    return max(apart, min(1.0, max(0.0, 1 - alike)))


@pytest.fixture(scope="module")
def mixture() -> list[Fingerprint]:
    """Of several lengths and rates, silence among them."""
    sounds = [(take(seed, seed % 2, seconds=0.5 + 0.2 * seed), RATE) for seed in range(5)]
    sounds += [COPIES[copy](take(1, 1, seconds=0.7)) for copy in ("8 kHz", "padded", "48 kHz")]
    sounds += [(np.zeros((1, 1000)), RATE), (noise(1)[:, :500], RATE), (take(0, 0, seconds=0.5), RATE)]
    return [fingerprint(sound, rate) for sound, rate in sounds]


def test_distance_is_the_best_shift(mixture):
    heard = [one for one in mixture if len(one.texture)]
    assert len(heard) == len(mixture) - 1
    for a, b in itertools.combinations(heard, 2):
        assert fingerprint_distance(a, b) == pytest.approx(brute_distance(a, b), abs=1e-4)
        assert fingerprint_distance(b, a) == pytest.approx(fingerprint_distance(a, b), abs=1e-5)


@pytest.mark.parametrize("within", [0.2, 0.7])
def test_pairs_at_once_are_those_one_by_one(mixture, within):
    expected = [
        (i, j)
        for i, j in itertools.combinations(range(len(mixture)), 2)
        if len(mixture[i].texture) and len(mixture[j].texture) and brute_distance(mixture[i], mixture[j]) <= within
    ]
    found = closest_pairs(mixture, within)
    assert [(i, j) for i, j, _ in found] == expected
    assert {(1, 5), (1, 6), (1, 7), (0, 10)} <= set(expected)


def test_many_pairs():
    """More clips than are compared in one go."""
    prints = [fingerprint(take(seed, seconds=0.3), RATE) for seed in range(20)]
    assert [(i, j) for i, j, _ in closest_pairs([*prints, *prints], 0.01)] == [(at, at + 20) for at in range(20)]


@pytest.mark.parametrize("sounds", [[], [take(0)], [np.zeros((1, 100))] * 3])
def test_no_pairs(sounds):
    assert closest_pairs([fingerprint(sound, RATE) for sound in sounds], 1.0) == []


def test_silence_is_like_silence_only():
    silence, sound = fingerprint(np.zeros((2, 5000)), RATE), fingerprint(take(0), RATE)
    assert fingerprint_distance(silence, silence) == 0
    assert fingerprint_distance(silence, sound) == fingerprint_distance(sound, silence) == 1


def test_long_clips_take_no_more_room():
    once = fingerprint(np.random.default_rng(0).standard_normal((1, 15 * 8000)), 8000)
    assert once.texture.nbytes < 4000 * LONGEST_SECONDS
    assert len(once.texture) == round(LONGEST_SECONDS * 22_050 / 180)


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_short_clips(count):
    click = np.zeros((1, count))
    click[0, count // 2] = 1
    assert fingerprint_distance(fingerprint(click, RATE), fingerprint(0.5 * click, RATE)) == pytest.approx(0, abs=1e-6)
