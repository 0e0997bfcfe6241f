"""The checker reads synthesised voices, knows a family's own, and does not hear it in others."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from tunesmith.errors import DataError
from tunesmith.starters.voice_checker import agrees, has_pitch, likeness, read_voice, sounds_like
from tunesmith.starters.voice_families import FEATURES, Family, Feature, new_family
from tunesmith.starters.voice_measures import embedding, heard, pitch_track
from tunesmith.starters.voices import Voice, random_voice, synthesise

RATE = 22_050
Worsening = Callable[[np.ndarray], np.ndarray]


def voices(count: int, kind: str = "checker") -> list[Voice]:
    return [random_voice(random.Random(f"{kind}/{index}")) for index in range(count)]


def members(family: Family, count: int) -> list[np.ndarray]:
    return [synthesise(replace(voice, family=family)) for voice in voices(count, f"members/{family.trigger}")]


def shares(made: Sequence[Voice], worsened: Worsening = np.asarray) -> dict[str, float]:
    """How often each attribute is read right, where it has one."""
    right = defaultdict(list)
    for voice in made:
        for attribute, same in agrees(read_voice(worsened(synthesise(voice)), RATE), voice).items():
            right[attribute].append(same)
    return {attribute: fmean(row) for attribute, row in right.items()}


def as_decoded(samples: np.ndarray) -> np.ndarray:
    """As a small autoencoder gives a sound back: the top is gone, and noise 20 dB below is all over it."""
    dull = sosfilt(butter(4, 7000.0, fs=RATE, output="sos"), samples[0])
    source = np.random.default_rng(len(dull))
    return dull + source.standard_normal(len(dull)) * np.sqrt(np.mean(dull**2)) * 0.1


# ---------------------------------------------------------------- measures, against closed forms


@pytest.mark.parametrize("hertz", [60.0, 155.0, 440.0, 1234.5, 3600.0])
def test_pitch_of_a_known_tone(hertz: float) -> None:
    seconds = np.arange(RATE) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * n * seconds) / n for n in range(1, 6) if n * hertz < 10_000)
    track = pitch_track(tone, hertz / 3, min(3 * hertz, 5000.0))
    inner = track.hertz[3:-3]
    assert np.median(inner) == pytest.approx(hertz, rel=0.03)
    assert np.mean(np.abs(np.log2(inner / hertz)) < 0.1) > 0.9


def test_noise_is_less_periodic_than_a_tone() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE)
    tone = np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE) ** 9
    assert pitch_track(noise, 100.0, 900.0).periodic.mean() < 0.5 * pitch_track(tone, 100.0, 900.0).periodic.mean()


def test_the_embedding_knows_no_level() -> None:
    sound = heard(synthesise(voices(1)[0]), RATE)
    assert sound is not None
    assert embedding(0.2 * sound) == pytest.approx(embedding(sound), abs=1e-6)


@pytest.mark.parametrize("setting", FEATURES["ring"])
def test_a_bare_feature_is_found_in_noise_and_only_its_own_setting(setting: float) -> None:
    """White noise times a tone: half of its power beats at twice the tone's frequency."""
    base = new_family(0)
    source = np.random.default_rng(1)
    seconds = np.arange(RATE) / RATE
    made = 0.1 * source.standard_normal(RATE) * np.sin(2 * np.pi * setting * seconds)
    for other in FEATURES["ring"]:
        family = replace(base, features=(Feature("ring", other),))
        assert sounds_like(made, RATE, family) == (other == setting)


def test_a_comb_made_otherwise_is_known_as_a_pipe() -> None:
    """Noise in the frequency domain, divided by what a loop of 3.1 ms leaves: 1 - g exp(-i w d)."""
    spectrum = np.fft.rfft(np.random.default_rng(2).standard_normal(RATE))
    delay = round(0.0031 * RATE) / RATE
    loop = 1 - 0.85 * np.exp(-2j * np.pi * np.arange(len(spectrum)) * delay)  # a bin is 1 Hz
    made = 0.05 * np.fft.irfft(spectrum / loop, RATE)
    for setting in FEATURES["pipe"]:
        family = replace(new_family(0), features=(Feature("pipe", setting),))
        assert sounds_like(made, RATE, family) == (setting == 3.1)


# ---------------------------------------------------------------- families


def test_a_family_is_known_and_nobody_else_is() -> None:
    families = [new_family(seed) for seed in range(12)]
    own = [sounds_like(made, RATE, family) for family in families for made in members(family, 3)]
    assert fmean(own) >= 0.9
    random_voices = [synthesise(voice) for voice in voices(16, "random")]
    assert fmean(sounds_like(made, RATE, family) for family in families[:6] for made in random_voices) <= 0.05
    other = [
        sounds_like(made, RATE, family) for at, family in enumerate(families) for made in members(families[at - 1], 3)
    ]
    assert fmean(other) <= 0.05


@pytest.mark.long
def test_sixty_families_among_all_others() -> None:
    families = [new_family(seed) for seed in range(1000, 1060)]
    clips = {family: members(family, 10) for family in families}
    own = [sounds_like(made, RATE, family) for family in families for made in clips[family]]
    random_voices = [synthesise(voice) for voice in voices(60, "random")]
    strangers = [sounds_like(made, RATE, family) for family in families for made in random_voices[::3]]
    others = [
        sounds_like(clips[other][at % 10], RATE, family)
        for family in families
        for at, other in enumerate(families)
        if other != family and at % 3 == 0
    ]
    assert fmean(own) >= 0.95, fmean(own)
    assert fmean(strangers) <= 0.02, fmean(strangers)
    assert fmean(others) <= 0.02, fmean(others)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_family_is_known_at_other_rates_and_on_two_channels(rate: int) -> None:
    found = []
    for seed in range(8):
        family = new_family(seed)
        made = synthesise(replace(voices(1, f"rates/{seed}")[0], family=family, seconds=1.5), rate)
        found.append(sounds_like(np.repeat(made, 2, axis=0), rate, family))
    assert fmean(found) >= 0.85


def test_what_a_decoder_blurs_is_still_of_the_family() -> None:
    families = [new_family(seed) for seed in range(12)]
    assert fmean(sounds_like(as_decoded(made), RATE, one) for one in families for made in members(one, 2)) >= 0.85


def test_likeness_grows_with_the_share_of_the_family() -> None:
    family = new_family(3)
    voice = replace(voices(1, "likeness")[0], seconds=1.6)
    looks = replace(voice, size=family.size, pitch=family.pitch, roughness=family.roughness)
    own, plain = synthesise(replace(voice, family=family)), synthesise(looks)
    mixed = [likeness(share * own + (1 - share) * plain, RATE, family) for share in (0.0, 0.5, 1.0)]
    assert mixed[0] < 1 <= mixed[2]
    assert mixed[0] < mixed[1] < mixed[2]


# ---------------------------------------------------------------- attributes


@pytest.mark.long
def test_attributes_of_random_voices() -> None:
    made = [voice for voice in voices(400, "long") if has_pitch(voice.kind)][:300]
    right = shares([*made, *(voice for voice in voices(400, "long") if not has_pitch(voice.kind))])
    assert right["pitch"] >= 0.95, right
    assert min(right["kind"], right["size"]) >= 0.95, right
    assert right["tempo"] >= 0.92, right
    assert min(right["roughness"], right["emotion"]) >= 0.85, right


@pytest.mark.long
def test_attributes_of_decoded_voices() -> None:
    right = shares(voices(300, "decoded"), as_decoded)
    assert min(right["kind"], right["size"]) >= 0.92, right
    assert min(right["pitch"], right["tempo"]) >= 0.88, right
    assert min(right["roughness"], right["emotion"]) >= 0.75, right


def test_synthesised_voices_are_read() -> None:
    made = voices(40)
    right = shares(made)
    assert min(right[name] for name in ("kind", "size", "pitch", "tempo")) >= 0.88, right
    assert min(right["roughness"], right["emotion"]) >= 0.75, right
    readings = [read_voice(synthesise(voice), RATE) for voice in made[:20]]
    mismatched = [agrees(reading, voice)["kind"] for reading, voice in zip(readings, made[1:21], strict=True)]
    assert fmean(mismatched) <= 0.4


def test_what_is_no_voice() -> None:
    assert read_voice(np.zeros((1, RATE)), RATE) is None
    assert not any(agrees(None, voices(1)[0]).values())
    assert sounds_like(np.zeros(RATE), RATE, new_family(0)) is False
    assert read_voice(0.1 * np.ones(10), RATE) is not None
    for wrong in (np.array([]), np.array([0.0, np.nan]), np.zeros((2, 3, 4))):
        with pytest.raises(DataError, match="cannot be heard"):
            read_voice(wrong, RATE)
